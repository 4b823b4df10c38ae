"""CONCH through its own package, for which one of the same shape stands in."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from conch_stub import SMALL, CoCa, create_model_from_pretrained, get_tokenizer
from torch import Tensor, nn

from clipit_lib import lora, runs
from clipit_lib.encoders import clips, registry, weights
from clipit_lib.encoders.encoder import ClipEncoder
from clipit_lib.encoders.vision import checkpoint_gradients
from clipit_lib.encoders.weights import Sources
from clipit_lib.errors import ClipItError
from clipit_lib.predict import load_classifier
from clipit_lib.settings import Lora
from companion import specs
from companion.conch import Conch, untrained_backbone
from companion.profile import Profile, Workbench, load_profile

SETTINGS = Lora(rank=4, alpha=6)
DATA = "phantom-pcam"


@pytest.fixture(scope="module", autouse=True)
def package() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        outer, inner = ModuleType("conch"), ModuleType("conch.open_clip_custom")
        inner.create_model_from_pretrained = create_model_from_pretrained
        inner.get_tokenizer = get_tokenizer
        patch.setitem(sys.modules, "conch", outer)
        patch.setitem(sys.modules, "conch.open_clip_custom", inner)
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as it is published: without the decoder."""
    torch.manual_seed(0)
    state = {k: v for k, v in CoCa().state_dict().items() if "decoder" not in k}
    path = tmp_path_factory.mktemp("conch") / "pytorch_model.bin"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def profile(file: Path) -> Profile:
    update = {"retriever": "conch", "clips": (), "weights": {"conch": str(file)}, "seeds": (0,)}
    return load_profile("smoke").model_copy(update=update)


@pytest.fixture(scope="module")
def desk(bench: Workbench, profile: Profile) -> Workbench:
    """The smoke profile with CONCH as its retriever."""
    return Workbench(profile)


def sources(file: Path) -> Sources:
    return Sources(copies={"conch": str(file)})


def clip(file: Path) -> ClipEncoder:
    return registry.load_clip("conch", sources(file))


def load_conch(file: Path) -> nn.Module:
    """As the package makes it."""
    return create_model_from_pretrained(clips.ARCHITECTURE, str(file), False).eval()


def ids(texts: list[str]) -> Tensor:
    return clips.conch_tokenizer().windows(texts, "truncate").ids


def test_towers_are_the_packages_own_embeddings(file: Path) -> None:
    encoder, expected = clip(file), load_conch(file)
    images, texts = torch.randn(2, 3, 448, 448), ids(["a gland", "x" * 300])
    # The window: 127 tokens, cut from the right, start and end kept; then the slot for CLS.
    assert texts.shape == (2, 127) and texts[0, 0] == 1 and texts[1, -1] == 2
    assert texts[0, 8:].tolist() == [2] + [0] * 118
    with torch.inference_mode():
        torch.testing.assert_close(
            encoder.image_tower(images), expected.encode_image(images, normalize=False)
        )
        torch.testing.assert_close(
            encoder.text_tower(texts),
            expected.encode_text(F.pad(texts, (0, 1)), normalize=False),
        )
    # A text tower holds no image half, and an image tower neither text nor pooler for captions.
    assert not any(n.startswith("model.visual") for n, _ in encoder.text_tower.named_parameters())
    names = {name for name, _ in encoder.image_tower.named_parameters()}
    assert not [name for name in names if "caption" in name or "text" in name]
    assert encoder.transform.size == 448


def test_our_shape_of_it_is_its_layout(file: Path) -> None:
    """What is counted and timed without the package has its parts, names and answers."""
    theirs, ours = load_conch(file), Conch(**SMALL).eval()
    used = {k: v for k, v in theirs.state_dict().items() if k.startswith(("visual", "text."))}
    mine = {k: v for k, v in ours.state_dict().items() if k.startswith(("visual", "text."))}
    assert {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in used.items()}
    ours.load_state_dict(used, strict=False)
    images, texts = torch.randn(2, 3, 448, 448), F.pad(ids(["a gland", "x" * 300]), (0, 1))
    with torch.inference_mode():
        for got, expected in zip(ours.visual(images), theirs.visual(images), strict=True):
            torch.testing.assert_close(got, expected)
        torch.testing.assert_close(ours.encode_text(texts), theirs.encode_text(texts))


@pytest.mark.parametrize("which", ["attention_mlp", "all"])
@pytest.mark.parametrize("half", ["image", "text"])
def test_every_adapter_learns_and_merges(file: Path, half: str, which: str) -> None:
    torch.manual_seed(0)
    encoder = clip(file)
    tower, targets = (
        (encoder.image_tower, encoder.image_targets) if half == "image"
        else (encoder.text_tower, encoder.text_targets)
    )  # fmt: skip
    x = torch.randn(2, 3, 448, 448) if half == "image" else ids(["a gland", "x" * 300])
    plain, adapted = tower.eval(), copy.deepcopy(tower).eval()
    if half == "image":  # the copy runs itself, not what it was copied from
        assert adapted.visual.trunk.forward.__self__ is adapted.visual.trunk
    with torch.no_grad():
        before = plain(x)
    lora.inject(adapted, targets, SETTINGS, which)
    torch.testing.assert_close(adapted(x), before, atol=1e-4, rtol=1e-4)
    learned = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
    # The output projection of the text tower is where peft's adapters used to stay inert.
    part = "attn.qkv" if half == "image" else "attn.out_proj"
    assert sum(part in name and "lora_B" in name for name in learned) >= 2
    if which == "all" and half == "image":
        assert any("attn_pool_contrast.attn.k_proj" in name for name in learned)
    adapted(x).square().sum().backward()
    # What starts at zero learns first: B, but A of an embedding.
    first = {n: p for n, p in learned.items() if "lora_B" in n or "embedding_A" in n}
    assert 2 * len(first) == len(learned)
    assert not [name for name, p in first.items() if not p.grad.abs().sum() > 0]
    with torch.no_grad():
        for parameter in learned.values():
            parameter.normal_(std=0.05)
        changed = adapted(x)
        assert (changed - before).abs().max() > 1e-2
        lora.merge(plain, lora.adapters(adapted), SETTINGS)
        torch.testing.assert_close(plain(x), changed, atol=1e-4, rtol=1e-3)


def test_checkpointing_reaches_its_vit(file: Path) -> None:
    tower = registry.load_backbone("conch", sources(file)).model
    checkpoint_gradients(tower)
    assert tower.visual.trunk.grad_checkpointing


@pytest.mark.parametrize("setting", ["vision", "lora_only", "contrastive", "zero_shot", "clip_it"])
@pytest.mark.slow
def test_it_classifies_in_every_setting(desk: Workbench, setting: str) -> None:
    spec = specs.resolve(desk, DATA, "conch", setting, 0)
    assert spec.backbone_hash == weights.published_hash(registry.published()["conch"], desk.sources)
    run = runs.get_or_run(spec, desk)
    assert len(run.predictions()) == len(desk.dataset(DATA).indices("test"))
    if setting in ("lora_only", "clip_it"):  # deployed from the run alone, which names no path
        classifier = load_classifier(run.folder)
        data = desk.dataset(DATA)
        logits = run.predictions().filter(like="logit_").to_numpy()
        found = classifier.probabilities(data.pixels[data.indices("test")])
        torch.testing.assert_close(
            found, torch.tensor(logits).softmax(dim=-1), atol=1e-4, rtol=1e-3
        )


def test_it_retrieves_and_teaches_another_backbone(desk: Workbench) -> None:
    pairs = desk.pairs(DATA, "train", 2)
    assert pairs.reports.shape == (60, 2) and abs(pairs.similarities).max() <= 1 + 1e-5
    spec = specs.resolve(desk, DATA, "phantom_vit_s16", "clip_it", 0)
    assert spec.text is not None and spec.text.retriever == "conch"
    assert spec.text.retriever_hash == registry.weights_hash("conch", desk.sources, text=True)
    assert runs.get_or_run(spec, desk).predictions().notna().all(axis=None)


def test_a_missing_package_is_said_in_one_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "conch.open_clip_custom")
    monkeypatch.delitem(sys.modules, "conch")
    for attempt in (registry.load_clip, registry.load_backbone):
        with pytest.raises(ClipItError, match=r"not installed.*pip install git\+https") as caught:
            attempt("conch", sources(file))
        assert "\n" not in str(caught.value)
    with pytest.raises(ClipItError, match="no weights"):
        registry.build_backbone("conch", None, None)
    with torch.device("meta"):
        assert untrained_backbone("conch", None, None).width == 512  # counted without it


def test_what_the_package_overlooks_is_refused(file: Path, tmp_path: Path) -> None:
    state = torch.load(file, weights_only=True)
    less = {k: v for k, v in state.items() if "text.transformer" not in k}
    torch.save(less, tmp_path / "less.bin")
    with pytest.raises(ClipItError, match=r"does not fit: 24 weights missing, 0 unexpected"):
        clip(tmp_path / "less.bin")
    torch.save({"other": torch.ones(2)}, tmp_path / "other.bin")
    with pytest.raises(ClipItError, match=r"does not fit CONCH \('visual.trunk.pos_embed'\)"):
        clip(tmp_path / "other.bin")
