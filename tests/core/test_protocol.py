"""Each switch of the protocol does what is said of the released code, and nothing else."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from toys import CELL as TOY
from toys import toy_bench

from clipit_lib import lora, losses, run, runs, text
from clipit_lib.data.reports import lose_letters
from clipit_lib.inputs import choose_labels, paired_texts
from clipit_lib.predict import load_classifier
from clipit_lib.prompts import PromptClassifier
from clipit_lib.settings import (
    Contrastive,
    Lora,
    Protocol,
    RunSpec,
)
from clipit_lib.training import spread
from companion import specs
from companion.measures import spread_table, spread_words
from companion.paper import PROTOCOLS, SWITCHES, protocol_named, switched
from companion.profile import Workbench

CELL = ("phantom-pcam", "phantom_vit_s16")


def spec(bench: Workbench, setting: str, seed: int = 0) -> RunSpec:
    return specs.resolve(bench, *CELL, setting, seed)


@pytest.mark.parametrize("name", sorted(SWITCHES))
def test_a_switch_changes_its_fields_alone(bench: Workbench, name: str) -> None:
    changed = {
        field
        for field, value in switched(name).model_dump().items()
        if value != PROTOCOLS["paper"].model_dump()[field]
    }
    assert changed == set(SWITCHES[name])
    one = spec(bench, f"clip_it/switch_{name}")
    assert one.protocol == switched(name)
    assert one.normalisation == one.protocol.normalisation
    assert one.key != spec(bench, "clip_it").key


def test_the_released_protocol_has_what_meets_on_a_data_set(bench: Workbench) -> None:
    assert protocol_named("paper", "CRC") == Protocol()
    everywhere = protocol_named("released")
    for dataset, field in (
        ("PCAM", "letters_lost"), ("BACH", "validation_per_class"), ("CRC", "class_text_share"),
    ):  # fmt: skip
        here = protocol_named("released", dataset)
        assert getattr(everywhere, field) is None and getattr(here, field) is not None
        assert everywhere == here.model_copy(update={field: None})
    assert spec(bench, "clip_it/protocol_released").protocol == protocol_named("released", "PCAM")


def test_double_softmax_cannot_fall_below_its_floor() -> None:
    """The lowest cross-entropy of softmax(z) taken as logits: 0.313 for two classes, by hand."""
    for classes, floor in ((2, 0.313), (4, 0.744), (9, 1.372)):
        logits = 1e4 * torch.eye(classes)
        value = float(losses.double_softmax(logits, torch.arange(classes)))
        assert value == pytest.approx(floor, abs=1e-3)
        assert value == pytest.approx(np.log(1 + (classes - 1) * np.exp(-1)), abs=1e-4)


def test_lost_letters() -> None:
    assert lose_letters("Invasive carcinoma | 11 mm") == "nvasve carcnoma   mm"


def test_class_texts_replace_the_least_similar_training_reports(bench: Workbench) -> None:
    asked, own = (spec(bench, s).text for s in ("clip_it/switch_class_text", "clip_it"))
    assert asked is not None and own is not None
    plain = paired_texts(asked, bench, ["train", "validation"])
    changed = text.as_released(asked, bench, plain)
    data = bench.dataset(CELL[0])
    close = bench.pairs(CELL[0], "train", 1).similarities[:, 0]
    replaced = changed.chosen["train"] >= len(plain.texts)
    assert 0.4 < replaced.mean() <= 0.5
    assert close[replaced].max() <= close[~replaced].min()
    for row in np.flatnonzero(replaced):
        name = data.class_texts[data.labels[data.indices("train")][row]]
        assert changed.texts[changed.chosen["train"][row]] == f"an H&E image of {name}"
    assert (changed.chosen["train"] == plain.chosen["train"])[~replaced].all()
    assert (changed.chosen["validation"] == plain.chosen["validation"]).all()
    assert text.as_released(own, bench, plain) == plain


def test_tiny_validation_keeps_four_of_each_class(bench: Workbench) -> None:
    data = bench.dataset(CELL[0])
    few = choose_labels(spec(bench, "clip_it/switch_tiny_validation"), data)
    assert np.bincount(data.labels[few["validation"].rows]).tolist() == [4, 4]
    whole = choose_labels(spec(bench, "clip_it"), data)
    assert set(few["validation"].rows) < set(whole["validation"].rows)
    assert (few["train"].rows == whole["train"].rows).all()


class Headed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vision_head = nn.Linear(6, 3)
        self.other = nn.Linear(6, 6)


def test_an_adapted_head_moves_through_its_adapter_alone_and_folds_away() -> None:
    torch.manual_seed(0)
    model = Headed()
    before = {name: value.clone() for name, value in model.vision_head.state_dict().items()}
    lora.adapt_head(model, Lora(rank=2, alpha=2))
    learned = [name for name, p in model.named_parameters() if p.requires_grad]
    assert {"other.weight", "other.bias"} < set(learned)  # nothing else was frozen
    assert all("lora_" in name for name in learned if name.startswith("vision_head"))
    x = torch.randn(8, 6)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        optimiser.zero_grad()
        F.cross_entropy(model.vision_head(x), torch.arange(8) % 3).backward()
        optimiser.step()
    answer = model.vision_head(x)
    lora.fold_head(model)
    assert type(model.vision_head) is nn.Linear
    torch.testing.assert_close(model.vision_head(x), answer)
    assert torch.equal(model.vision_head.bias, before["bias"])
    update = model.vision_head.weight - before["weight"]
    assert torch.linalg.matrix_rank(update) <= 2 and update.abs().max() > 0


@pytest.mark.parametrize(
    ("setting", "layers", "of_text"),
    [("clip_it", {"1"}, {"layer"}),
     ("clip_it/switch_lora_everywhere", {"1", "3"}, {"layer", "embedding"})],
)  # fmt: skip
def test_lora_is_where_the_switch_puts_it_in_both_towers(
    setting: str, layers: set[str], of_text: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = toy_bench(monkeypatch)
    own = specs.resolve(desk, *TOY, setting, 0)
    state = load_file(runs.get_or_run(own, desk).folder / runs.MODEL)
    assert own.text is not None
    _, stage = text.stage_one(own.text, desk, choose_labels(own, desk.dataset(TOY[0])))
    assert {name.split(".")[1] for name in state if name.startswith("backbone.")} == layers
    assert {name.split(".")[0] for name in stage.adapters} == of_text


def test_a_random_head_does_not_start_from_the_probe(bench: Workbench) -> None:
    settings = "unimodal", "clip_it/switch_lora_everywhere", "clip_it/switch_random_vision_head"
    stored = [runs.get_or_run(spec(bench, setting), bench) for setting in settings]
    probe, near, far = (load_classifier(run.folder).model.vision_head for run in stored)
    assert torch.equal(near.bias, probe.bias)  # a bias has no adapter: it never moves
    assert not torch.equal(far.bias, probe.bias)


def test_names_off_by_one_give_every_class_another_ones_prompts(bench: Workbench) -> None:
    texts = ("benign", "in situ", "invasive", "normal")
    right = PromptClassifier(bench.clip, Contrastive(class_texts=texts))
    wrong = PromptClassifier(bench.clip, Contrastive(class_texts=texts, misaligned_names=True))
    moved = ("normal", "benign", "in situ", "invasive")
    listed = PromptClassifier(bench.clip, Contrastive(class_texts=moved))
    assert torch.equal(wrong.windows.ids, listed.windows.ids)
    assert not torch.equal(wrong.windows.ids, right.windows.ids)


def test_a_moving_target_reads_whole_texts_and_learns_with_the_image(monkeypatch) -> None:
    settings = {"long_text": "chunk", "learning_rate": 0.1}
    desk = toy_bench(monkeypatch, text_stage=settings, training={"learning_rate": 0.1})
    own = specs.resolve(desk, *TOY, "clip_it/switch_moving_target", 0)
    labels, encoder = choose_labels(own, desk.dataset(TOY[0])), desk.backbone(TOY[1])
    stage, moving = text.for_stage_two(own, desk, labels, labels["train"].at)
    plain = specs.resolve(desk, *TOY, "clip_it", 0)
    fixed = text.for_stage_two(plain, desk, labels, labels["train"].at)[1]
    rows = torch.arange(len(labels["train"].at))
    before = moving(rows, 0).detach()
    torch.testing.assert_close(before, fixed(rows, 0))
    model = run.assembled(own, encoder, 3, nn.Linear(encoder.width, 3), stage)
    run.stage_two(own, desk.dataset(TOY[0]), encoder, labels, model, moving, 9.0)
    assert (moving(rows, 0) - before).abs().max() > 1e-3


def test_spread_is_total_variance_at_unit_length() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 6))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert spread(torch.tensor(features)) == pytest.approx(unit.var(axis=0).sum(), abs=1e-6)
    assert spread(torch.ones(4, 3)) == pytest.approx(0, abs=1e-6)


def test_the_audit_reads_the_spread_of_fixed_and_moving_targets(bench: Workbench) -> None:
    stored = [
        runs.get_or_run(spec(bench, setting), bench)
        for setting in ("clip_it", "clip_it/switch_moving_target", "lora_only")
    ]
    table = spread_table(stored)
    assert set(table["setting"]) == {"clip_it", "clip_it/switch_moving_target"}
    assert table["target_spread"].between(0, 1).all()
    assert "moving target" in spread_words(table) and "fixed target" in spread_words(table)
