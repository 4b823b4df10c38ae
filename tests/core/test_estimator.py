"""The scikit-learn estimator: it is the library's run, and it is an estimator."""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import validate_data
from toys import SIDE, clip, transform, vision

from clipit_lib import runs
from clipit_lib.encoders import registry
from clipit_lib.encoders.clips import LIBRARIES
from clipit_lib.encoders.encoder import ClipEncoder
from clipit_lib.encoders.vision import VIT_TARGETS, VisionEncoder
from clipit_lib.errors import ClipItError
from clipit_lib.estimator import ClipItClassifier
from companion import paths, specs
from companion.profile import Workbench

COLOURS = {"red": 0, "green": 1, "blue": 2}
DOUBTS = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def patches(count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patches of three colours, their names, and patients of four patches each."""
    rng = np.random.default_rng(0)
    names = np.array([*COLOURS])[np.arange(count) % 3]
    images = rng.integers(0, 60, (count, SIDE, SIDE, 3), dtype=np.uint8)
    for row, name in enumerate(names):
        images[row, ..., COLOURS[name]] += 120
    return images, names, np.arange(count) // 6


TEXTS = ("mostly red", "rather green", "blue all over", "no colour", "long " * 9)


def classifier(**changes: Any) -> ClipItClassifier:
    few = {"epochs": 2, "text_epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "lora_rank": 2}
    return ClipItClassifier(**{"backbone": vision(), "retriever": clip()} | few | changes)


# -- The same as a stored run.


class WithSplit(ClipItClassifier):
    """The validation split of a data set, in place of one that is drawn."""

    def _split(self, labels: np.ndarray, groups: Any) -> list[np.ndarray]:
        return [np.flatnonzero(groups == name) for name in ("train", "validation")]


@DOUBTS
@pytest.mark.parametrize("setting", ["clip_it", "lora_only"])
@pytest.mark.slow
def test_it_is_the_run_of_the_library(bench: Workbench, setting: str) -> None:
    profile, name = bench.profile, "phantom-crc"
    spec = specs.resolve(bench, name, "phantom_vit_s16", setting, 1)
    stored, data = runs.get_or_run(spec, bench), bench.dataset(name)
    assert spec.training and spec.lora
    ours = WithSplit(
        spec.backbone, profile.retriever if spec.text else None, epochs=spec.training.epochs,
        text_epochs=profile.text_stage.epochs, probe_epochs=spec.probe.epochs,
        lora_rank=spec.lora.rank, lora_alpha=spec.lora.alpha, seed=1, sources=bench.sources,
    )  # fmt: skip
    split = data.samples["split"].to_numpy()
    learned = split != "test"
    texts = bench.corpus(name).texts if spec.text else None
    ours.fit(data.pixels[learned], data.labels[learned], reports=texts, groups=split[learned])
    # Every loss and every look at validation, to the last bit.
    assert ours.history_ == stored.history().to_dict("records")
    assert (ours.pairs_ is not None) == (setting == "clip_it")
    logits = torch.tensor(stored.predictions().filter(like="logit").to_numpy())
    found = torch.from_numpy(ours.predict_proba(data.pixels[split == "test"]))
    torch.testing.assert_close(found, logits.softmax(dim=1), atol=1e-5, rtol=0)  # now merged
    if texts is not None:
        pairs = bench.pairs(name, "train", 1).reports[:, 0]
        assert (ours.pairs_[split[learned] == "train"] == pairs).all()


# -- An estimator of arrays.


@DOUBTS
def test_it_learns_names_and_answers_without_text() -> None:
    images, names, groups = patches()
    ours = classifier().fit(images, names, reports=TEXTS, groups=groups)
    assert ours.classes_.tolist() == ["blue", "green", "red"]
    probabilities = ours.predict_proba(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert ours.score(images, names) > 0.9
    assert ours.pairs_.shape == (60,) and set(ours.pairs_) <= set(range(len(TEXTS)))
    again = pickle.loads(pickle.dumps(ours))
    assert (again.predict_proba(images) == probabilities).all()
    # Adapters are merged, and nothing of the text tower is kept with the model.
    assert not any("lora" in name for name in ours.model_.state_dict())
    ours.retriever = None
    assert (ours.predict_proba(images) == probabilities).all()


@DOUBTS
def test_a_seed_decides_and_a_given_encoder_stays_as_it_is() -> None:
    images, names, _ = patches()
    given, reads = vision(), clip()
    for tower in (given.model, reads.text_tower):  # dropout takes PyTorch's own generator
        tower.register_forward_hook(lambda own, _, out: F.dropout(out, 0.5, own.training))
    before = {name: value.clone() for name, value in given.model.state_dict().items()}
    first, second, other = (
        classifier(backbone=given, retriever=reads, seed=seed)
        .fit(images, names, TEXTS)
        .predict_proba(images)
        for seed in (0, 0, 1)
    )
    assert (first == second).all() and (first != other).any()
    after = given.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@DOUBTS
def test_patients_do_not_cross_the_inner_split() -> None:
    images, names, groups = patches()
    ours = classifier(validation_fraction=0.3)
    ours.classes_, numbers = np.unique(names, return_inverse=True)
    train, held = ours._split(numbers, groups)
    assert len(train) and len(held) and not set(groups[train]) & set(groups[held])
    assert sorted([*train, *held]) == list(range(len(names)))
    with pytest.raises(ClipItError, match="all train patches are of one group"):
        ours.fit(images, names, TEXTS, np.zeros(len(names)))


@DOUBTS
def test_cross_validation_clone_and_search() -> None:
    images, names, groups = patches()
    given = {"reports": TEXTS, "groups": groups}
    scores = cross_val_score(
        classifier(), images, names, cv=GroupKFold(3), groups=groups, params=given,
        error_score="raise",
    )  # fmt: skip
    assert scores.shape == (3,) and scores.mean() > 0.8
    copy = clone(classifier(epochs=3, seed=7))
    assert copy.epochs == 3 and copy.get_params()["seed"] == 7
    search = GridSearchCV(classifier(), {"distillation_weight": [0.0, 1.0]}, cv=GroupKFold(2))
    search.fit(images, names, **given)
    assert search.best_params_["distillation_weight"] in (0.0, 1.0)


@DOUBTS
def test_models_of_timm_and_open_clip_that_are_no_names_of_the_registry() -> None:
    images, names, _ = patches(24)
    torch.manual_seed(0)
    size = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **size)
    backbone = VisionEncoder("mine", model, transform(16), 16, VIT_TARGETS, "")
    row, library = registry.entry("phantom_clip"), LIBRARIES["open_clip"]
    image, text = library.split(library.build(row, 16, None))
    retriever = ClipEncoder(
        "mine", image, text, library.tokenizer(), transform(16), image.num_features,
        row.image_targets, row.text_targets, "", False,
    )  # fmt: skip
    ours = classifier(backbone=backbone, retriever=retriever).fit(images, names, TEXTS)
    assert ours.pairs_ is not None
    again = pickle.loads(pickle.dumps(clone(ours).fit(images, names, TEXTS)))
    assert (again.predict_proba(images) == ours.predict_proba(images)).all()


@DOUBTS
def test_the_usage_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its names of published encoders are known; here they give small ones."""
    for load, small in (("load_backbone", vision), ("load_clip", clip)):

        def loaded(name: str, _: object, small: Any = small) -> Any:
            registry.entry(name)
            return small()

        monkeypatch.setattr(registry, load, loaded)
    text = (paths.repository() / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    images, labels, patients = patches()
    here = {"images": images, "labels": labels, "patients": patients, "texts": TEXTS}
    here["other_images"] = images[:5]
    for block in blocks:
        exec(compile(block, "README.md", "exec"), here)
    assert len(blocks) == 1 and here["probabilities"].shape == (5, 3)


@DOUBTS
def test_without_reports_it_is_lora_only_and_says_so() -> None:
    images, names, _ = patches()
    with pytest.warns(UserWarning, match="no reports, so LoRA only"):
        ours = classifier().fit(images, names)
    assert ours.pairs_ is None
    quiet = classifier(retriever=None).fit(images, names)  # asked for: nothing to say
    assert (quiet.predict_proba(images) == ours.predict_proba(images)).all()


def test_a_doubtful_course_is_said() -> None:
    images, names, _ = patches()
    with pytest.warns(ConvergenceWarning, match="of this classifier") as said:
        classifier(retriever=None, learning_rate=1e-9).fit(images, names)
    notes = [str(each.message) for each in said]
    assert any("stage two" in note and "no better than the probe" in note for note in notes)


@pytest.mark.parametrize(
    ("changes", "given", "said"),
    [
        ({}, {"images": patches()[0] / 255}, r"images are float64 \[60, 8, 8, 3\]"),
        ({}, {"images": patches()[0][:, :4]}, r"images are uint8 \[60, 4, 8, 3\]"),
        ({}, {"images": patches()[0][:0], "y": []}, r"images are uint8 \[0, 8, 8, 3\]"),
        ({}, {"reports": "a report"}, "reports are no list of texts"),
        ({}, {"reports": ["a", float("nan")]}, "reports are no list of texts"),
        ({}, {"reports": []}, "no reports"),
        ({}, {"reports": ["a", " "]}, "report 1 is empty"),
        ({"retriever": None}, {}, "no retriever"),
        ({"retriever": "nope"}, {}, "unknown retriever 'nope'"),
        ({"backbone": "nope"}, {}, "unknown backbone 'nope'"),
        ({"epochs": 0}, {}, "epochs is 0"),
        ({"long_text": "skip"}, {}, "long_text is 'skip'"),
        ({"validation_fraction": 1.5}, {}, "fraction is 1.5"),
        ({"learning_rate": 1e30}, {}, r"diverged.*Lower ClipItClassifier.learning_rate"),
        ({}, {"y": ["one", *["two"] * 59]}, "class one has a single train patch"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said_in_one_line(
    changes: dict[str, Any], given: dict[str, Any], said: str
) -> None:
    images, names, _ = patches()
    values = {"images": images, "y": names, "reports": TEXTS} | given
    with pytest.raises(ClipItError, match=said) as caught:
        classifier().set_params(**changes).fit(**values)
    assert "\n" not in str(caught.value)


def test_labels_of_another_number_and_an_unfitted_one_are_refused() -> None:
    images, names, groups = patches()
    with pytest.raises(ValueError, match="inconsistent numbers"):
        classifier().fit(images, names[1:], TEXTS)
    with pytest.raises(ValueError, match="inconsistent numbers"):
        classifier().fit(images, names, TEXTS, groups[1:])
    with pytest.raises(NotFittedError):
        classifier().predict(images)


# -- scikit-learn's own checks, on rows of numbers that are turned into grey patches.


class OfRows(ClipItClassifier):
    """What the checks give, [n, f] floats, as [n, 8, 8, 3]: pixel j of a patch is feature j % f."""

    def fit(self, X: Any, y: Any) -> OfRows:
        X, y = validate_data(self, X, y)
        super().fit(self._drawn(X), y)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        return super().predict_proba(self._drawn(validate_data(self, X, reset=False)))

    def _drawn(self, rows: np.ndarray) -> np.ndarray:
        pixel = np.arange(SIDE * SIDE) % rows.shape[1]
        grey = (128 + 50 * rows[:, pixel]).clip(0, 255).astype(np.uint8)
        return np.repeat(grey.reshape(-1, SIDE, SIDE, 1), 3, axis=3)

    def _encoder(self) -> VisionEncoder:
        return vision()  # under the default name, so that parameters can be hashed and printed


NO_VALUE_ERROR = "refused, by a ClipItError, as everywhere here, and not by a ValueError"
NOT_FOR_US = {
    "check_do_not_raise_errors_in_init_or_set_params": "the tests' own hook checks types",
    "check_classifiers_regression_target": NO_VALUE_ERROR,
    "check_fit2d_1sample": NO_VALUE_ERROR,
    "check_methods_sample_order_invariance": "float32: sums of another order differ by 1e-7",
}
ROWS = OfRows(retriever=None, batch_size=16, learning_rate=3e-2, epochs=3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([ROWS], expected_failed_checks=lambda _: NOT_FOR_US)
def test_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)
