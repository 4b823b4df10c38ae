"""The training loop against the loop written out, on tasks of a millisecond."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from toys import transform
from whole_method import descend

from clipit_lib.errors import Diverged
from clipit_lib.model import ClipIt
from clipit_lib.settings import Descent
from clipit_lib.training import FeatureTask, ImageTask, Patches, Stage, Targets, Task, fit

Rows = tuple[Tensor, Tensor]


def split(seed: int, rows: int) -> Rows:
    draws = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, 4, generator=draws)
    return features, (features[:, 0] + torch.randn(rows, generator=draws) > 0).long()


class Dropping(nn.Linear):
    """A head that does in training what it does not at a look."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(F.dropout(features, 0.4, self.training))


def start() -> Dropping:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return Dropping(4, 2)


@settings(max_examples=40, deadline=None)
@given(
    st.builds(
        Descent,
        epochs=st.integers(1, 4),
        batch_size=st.integers(1, 9),
        learning_rate=st.sampled_from([0.01, 0.1, 0.5]),
        weight_decay=st.sampled_from([0.0, 0.1]),
        gradient_clip=st.sampled_from([0.05, 0.5, 1e9]),
        checks_per_epoch=st.integers(1, 3),
    ),
    st.integers(1, 20),
    st.integers(0, 99),
    st.sampled_from(["best", "last"]),
)
def test_the_loop_is_the_loop_written_out(asked: Descent, rows: int, seed: int, keep: str) -> None:
    (x, y), (held_x, held_y) = split(seed, rows), split(seed + 1, 8)
    ours, plain, looks = start(), start(), []

    def loss(batch: Tensor, *_: Any) -> Tensor:
        return F.cross_entropy(plain(x[batch]), y[batch])

    def validate() -> float:
        looks.append(float(F.cross_entropy(plain(held_x), held_y)))
        return looks[-1]

    with torch.random.fork_rng():
        torch.manual_seed(1)  # of the dropout
        task = FeatureTask(ours, (x, y), (held_x, held_y))
        history = fit(task, asked, seed, keep, start=1.0)
        torch.manual_seed(1)
        descend(plain, rows, loss, validate, asked, seed, keep)
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert [row["validation"] for row in history] == looks
    assert history[-1]["epoch"] == asked.epochs and not ours.training


class Told(Task):
    """Two losses and a look by what the test says; it writes down what the loop asks for."""

    def __init__(self, looks: Callable[[int], float] = lambda _: 1.0) -> None:
        self.model, self.rows, self.looks = nn.Linear(1, 1, bias=False), 4, looks
        nn.init.ones_(self.model.weight)
        self.begun: list[int] = []
        self.seen: list[list[int]] = []
        self.looked = 0

    def begin(self, epoch: int) -> None:
        self.begun.append(epoch)

    def loss(self, model: Any, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        self.seen.append(rows.tolist())
        return {"one": model.weight.sum(), "other": len(self.seen) - 2 * model.weight.sum()}

    def validate(self) -> float:
        self.looked += 1
        return self.looks(self.looked)


def test_epochs_are_said_and_every_row_comes_once_in_each_in_another_order() -> None:
    task = Told()
    history = fit(task, Descent(epochs=3, batch_size=2), 0, start=2.0)
    assert task.begun == [0, 1, 2]
    epochs = [[*task.seen[i], *task.seen[i + 1]] for i in (0, 2, 4)]
    assert all(sorted(rows) == [0, 1, 2, 3] for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) > 1
    assert [row["epoch"] for row in history] == [1, 2, 3]
    # The sum is minimised: 1 - 2 < 0, so the weight rises; the first part alone would let it fall.
    assert task.model.weight.item() > 1


def test_means_are_those_since_the_last_look() -> None:
    task = Told()
    history = fit(task, Descent(epochs=2, batch_size=1, learning_rate=1e-9), 0, start=2.0)
    assert [row["other"] for row in history] == pytest.approx([2.5 - 2, 6.5 - 2], abs=1e-6)


def test_of_equal_looks_the_first_is_kept_and_a_further_module_learns() -> None:
    task, further = Told(), nn.Linear(1, 1)

    class WithFurther(Told):
        def loss(self, model: Any, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            return {"all": model.weight.sum() + further.weight.sum()}

    task, before = WithFurther(), further.weight.item()
    fit(task, Descent(epochs=3, batch_size=4, learning_rate=0.1), 0, extra=further, start=2.0)
    assert task.model.weight.item() == pytest.approx(0.9, abs=1e-3)  # after one step of three
    assert further.weight.item() == pytest.approx(before - 0.3, abs=1e-2)


@pytest.mark.parametrize(("keep", "kept"), [("last", 0.8952), ("best", 0.944)])
def test_a_moving_average_is_what_looks_see_and_what_is_kept(keep: str, kept: float) -> None:
    """Adam goes down by the rate: 0.9, 0.8, 0.7. From 1 with a decay of 0.8, by hand: 0.8 + 0.18,
    0.784 + 0.16, 0.7552 + 0.14.
    """

    class Falling(Told):
        def loss(self, model: Any, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            return {"all": model.weight.sum()}

        def validate(self) -> float:
            seen.append(self.model.weight.item())
            return 1 + abs(seen[-1] - 0.944)  # the second is the best

    seen: list[float] = []
    task = Falling()
    course = Descent(epochs=3, batch_size=4, learning_rate=0.1, weight_decay=0.0)
    fit(task, course, 0, keep, start=2.0, averaged=0.8)
    assert seen == pytest.approx([0.98, 0.944, 0.8952], abs=1e-5)
    assert task.model.weight.item() == pytest.approx(kept, abs=1e-5)


def test_mixed_images_have_mixed_labels() -> None:
    rng, rows = np.random.default_rng(0), torch.tensor([3, 0, 2, 1])
    pixels = rng.integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    patches = Patches(pixels, np.arange(4), torch.tensor([0, 1, 2, 1]), transform(2))
    task = ImageTask(ClipIt(nn.Flatten(), 12, 3, 2), patches, patches, False, mixup=0.4)

    def loss(seed: int) -> float:
        draws = torch.Generator().manual_seed(seed)
        return task.loss(task.model, rows, draws)["classification"].item()

    drawn = torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(9))
    draws = np.random.default_rng(int(drawn))
    share, other = draws.beta(0.4, 0.4), draws.permutation(4)
    assert 0.1 < share < 0.9 and (other != np.arange(4)).any()
    images, labels = patches.batch(rows), F.one_hot(patches.labels[rows], 3).float()
    images, labels = (share * each + (1 - share) * each[other] for each in (images, labels))
    by_hand = -(labels * task.model(images).logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert loss(9) == pytest.approx(by_hand.item(), rel=1e-5)
    assert loss(9) == loss(9) != loss(10)


@pytest.mark.parametrize(
    ("first", "last", "looks", "doubts"),
    [
        (1.0, 1.05, [0.5], 0), (1.0, 1.051, [0.5], 1), (1.0, 0.5, [0.7, 0.6], 0),
        (1.0, 0.5, [0.7], 1), (1.0, 0.5, [0.9, 0.71], 1), (1.0, 2.0, [0.9], 2),
    ],
)  # fmt: skip
def test_what_is_doubtful(first: float, last: float, looks: list[float], doubts: int) -> None:
    """A look must be better than the start, here 0.7; a loss may rise by a twentieth."""
    assert len(Stage().doubts(first, last, looks, 0.7)) == doubts


def test_targets_of_an_epoch() -> None:
    features = torch.arange(12.0).reshape(2, 3, 2)  # of two epochs, three reports
    rows = torch.tensor([1, 0])
    by_epoch = Targets(features, torch.tensor([2, 0, 1]))
    assert by_epoch(rows, 0).tolist() == [[0, 1], [4, 5]]
    assert by_epoch(rows, 1).tolist() == [[6, 7], [10, 11]]
    repaired = Targets(features[0], torch.tensor([[2, 0, 1], [1, 2, 0]]))
    assert repaired(rows, 0).tolist() == [[0, 1], [4, 5]]
    assert repaired(rows, 1).tolist() == [[4, 5], [2, 3]]


def test_the_spread_of_targets_is_the_mean_over_batches_since_the_last_look() -> None:
    pixels = np.zeros((4, 2, 2, 3), np.uint8)
    patches = Patches(pixels, np.arange(4), torch.zeros(4, dtype=torch.long), transform(2))
    targets = Targets(3 * torch.eye(2), torch.tensor([0, 0, 1, 0]))
    task = ImageTask(ClipIt(nn.Flatten(), 12, 3, 2), patches, patches, False, targets=targets)
    for rows in ([1, 2], [0, 1]):  # at right angles: 1 - |(1, 1) / 2|^2; the same: 0
        task.loss(task.model, torch.tensor(rows), torch.Generator())
    assert task.notes() == {"target_spread": pytest.approx(0.25)} and task.notes() == {}


def test_losses_are_read_at_looks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step reads no number of a tensor, for which the host would wait for a GPU."""
    seen: list[int] = []

    class Counted(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(func is torch.ops.aten._local_scalar_dense.default)
            return func(*args, **(kwargs or {}))

    def tolist(tensor: Tensor) -> Any:
        seen.append(1)
        return tensor.detach().numpy().tolist()

    monkeypatch.setattr(Tensor, "tolist", tolist)
    counts = {}
    for steps in (2, 8):
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (2 * steps, 8, 8, 3), dtype=np.uint8)
        labels = torch.arange(2 * steps) % 2
        patches = Patches(pixels, np.arange(2 * steps), labels, transform(8))
        model = ClipIt(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), 4, 2, 3)
        targets = Targets(torch.randn(5, 3), torch.arange(2 * steps) % 5)
        task = ImageTask(model, patches, replace(patches, rows=np.arange(4), labels=labels[:4]),
                         True, targets=targets, distillation_weight=1.0)  # fmt: skip
        seen.clear()
        with Counted():
            fit(task, Descent(batch_size=2, checks_per_epoch=2), 0)
        counts[steps] = sum(seen)
    assert 0 < counts[8] == counts[2]


def test_the_step_that_diverged_is_named_though_losses_are_read_later() -> None:
    class Breaking(Told):
        def loss(self, model: Any, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            self.step = getattr(self, "step", 0) + 1
            return {"loss": model.weight.sum() * (math.inf if self.step == 3 else 1.0)}

    with pytest.raises(Diverged, match=r"the loss loss is -?inf at step 3 of 4 in epoch 1 of 1;"):
        fit(Breaking(), Descent(batch_size=1), 0)


def test_a_part_of_validation_has_of_each_label_its_share_and_is_always_the_same() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100)]
    all_of_it = Patches(np.zeros((200, 2, 2, 3), np.uint8), np.arange(100, 200), labels,
                        transform(2))  # fmt: skip
    part = all_of_it.some(20)
    assert part.labels.bincount().tolist() == [12, 6, 2]
    assert (np.diff(part.rows) > 0).all() and torch.equal(part.labels, labels[part.rows - 100])
    assert np.array_equal(part.rows, all_of_it.some(20).rows)
    assert part.rows[-1] > 150  # not the first of each
    assert all_of_it.some(None) is all_of_it and all_of_it.some(100) is all_of_it
