"""Settings that save memory or time: bfloat16 and checkpointed gradients."""

from __future__ import annotations

import copy
import re

import pandas as pd
import pytest
import timm
import torch
from torch import nn

from clipit_lib import run
from clipit_lib.encoders.vision import checkpoint_gradients
from clipit_lib.files import canonical_json
from clipit_lib.settings import Descent, Lora, RunSpec, Training
from clipit_lib.training import FeatureTask, fit
from companion import specs
from companion.profile import Workbench

CELL = ("phantom-crc", "phantom_vit_s16", "clip_it", 0)


def changed(bench: Workbench, **training: object) -> RunSpec:
    spec = specs.resolve(bench, *CELL)
    assert spec.training is not None
    return spec.model_copy(update={"training": spec.training.model_copy(update=training)})


def logits(frame: pd.DataFrame) -> torch.Tensor:
    return torch.from_numpy(frame.filter(like="logit_").to_numpy("float32", copy=True))


def test_bf16_learns_what_float32_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(96, 16, generator=generator)
    labels = (features[:, 0] > 0).long()
    with torch.random.fork_rng():  # as if no test had run before
        torch.manual_seed(0)
        start = nn.Linear(16, 2)
    curves, models = {}, {}
    for precision in ("no", "bf16"):
        model = models[precision] = copy.deepcopy(start)
        settings = Descent(epochs=8, batch_size=16, learning_rate=0.05, precision=precision)
        task = FeatureTask(model, (features[:64], labels[:64]), (features[64:], labels[64:]))
        curves[precision] = pd.DataFrame(fit(task, settings, seed=1))
    pd.testing.assert_frame_equal(curves["bf16"], curves["no"], rtol=0.05, atol=0.01)
    assert not curves["bf16"]["classification"].equals(curves["no"]["classification"])
    assert curves["bf16"]["validation"].iloc[-1] < 0.7 * curves["bf16"]["validation"].iloc[0]
    assert {p.dtype for p in models["bf16"].parameters()} == {torch.float32}


def test_a_bf16_run_predicts_in_float32_and_close_to_a_float32_run(bench: Workbench) -> None:
    outcomes = [run.perform(changed(bench, precision=p), bench) for p in ("no", "bf16")]
    full, half = (logits(outcome.predictions) for outcome in outcomes)
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)
    assert not torch.equal(half, full)
    assert (half != half.bfloat16().float()).float().mean() > 0.9
    assert all(value.dtype == torch.float32 for value in outcomes[1].state.values())


@pytest.mark.parametrize("adapted", [True, False])
def test_checkpointing_changes_neither_loss_nor_gradients(adapted: bool) -> None:
    torch.manual_seed(0)
    plain = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=3, embed_dim=24, num_heads=2, num_classes=0
    )
    if adapted:  # as stage two does: a frozen backbone, of which only adapters learn
        from clipit_lib import lora

        lora.inject(plain, r"blocks\.\d+\.(attn\.qkv|mlp\.fc1)", Lora(rank=2, alpha=2))
        for name, parameter in plain.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
    saving = copy.deepcopy(plain)
    checkpoint_gradients(saving)
    images = torch.randn(5, 3, 32, 32)
    kept, losses = [], []
    for model in (plain, saving):
        held = []

        def keep(value: torch.Tensor, held: list[int] = held) -> torch.Tensor:
            held.append(value.numel())
            return value

        model.train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            loss = model(images).square().sum()
        loss.backward()
        losses.append(loss)
        kept.append(sum(held))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
    learned = 0
    for (name, one), two in zip(plain.named_parameters(), saving.parameters(), strict=True):
        if one.grad is not None:
            learned += 1
            torch.testing.assert_close(two.grad, one.grad, rtol=1e-5, atol=1e-5, msg=name)
    assert learned > 5 and kept[1] < 0.5 * kept[0]


def test_a_checkpointed_run_is_the_run_without(bench: Workbench, monkeypatch) -> None:
    seen: list[nn.Module] = []

    def watched(model: nn.Module) -> None:
        seen.append(model)
        checkpoint_gradients(model)

    plain = run.perform(changed(bench), bench)
    monkeypatch.setattr(run, "checkpoint_gradients", watched)
    saving = run.perform(changed(bench, gradient_checkpointing=True), bench)
    assert len(seen) == 1
    torch.testing.assert_close(
        logits(saving.predictions), logits(plain.predictions), rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # of what the tests' type checker does
def test_a_compiled_run_is_the_run_without(bench: Workbench, monkeypatch) -> None:
    whole, compiled = nn.Module.compile, list[nn.Module]()

    def watched(module: nn.Module, **how: bool) -> None:  # no compiler of C is needed so
        compiled.append(module)
        whole(module, backend="aot_eager", **how)

    monkeypatch.setattr(nn.Module, "compile", watched)
    plain = run.perform(changed(bench), bench)
    assert not compiled
    faster = run.perform(changed(bench, compiled=True), bench)
    assert len(compiled) == 1
    torch.testing.assert_close(
        logits(faster.predictions), logits(plain.predictions), rtol=1e-4, atol=1e-4
    )
    assert plain.state.keys() == faster.state.keys()
    prompted = specs.resolve(bench, "phantom-crc", "phantom_clip", "contrastive", 0)
    assert prompted.training is not None
    training = prompted.training.model_copy(update={"compiled": True})
    run.perform(prompted.model_copy(update={"training": training}), bench)
    assert len(compiled) == 2


def test_a_setting_that_is_not_used_is_not_in_a_runs_key(bench: Workbench) -> None:
    spec = specs.resolve(bench, *CELL)
    asked = canonical_json(spec.model_dump(mode="json", exclude_none=True))
    assert not {"gradient_checkpointing", "looks_at", "compiled"} & set(re.findall(r"\w+", asked))
    assert '"precision":"no"' in asked.replace(" ", "")
    assert len({spec.key, *(changed(bench, precision=p).key for p in ("no", "bf16"))}) == 2
    assert Training().gradient_checkpointing is None
