"""Equations 1 to 4: the library against plain PyTorch, and against what the notebooks define."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toys import Bag, letters, transform

from clipit_lib.encoders.encoder import Tokenizer
from clipit_lib.model import ClipIt
from clipit_lib.pairing import top_k
from clipit_lib.text import ReportTask, TextClassifier, pair_counts
from clipit_lib.training import ImageTask, Patches, Targets
from companion import paths
from companion.profile import Workbench

# -- Equation 1, by hand.


@pytest.mark.parametrize("block", [1, 2, 4096])
def test_equation_1_on_three_images_and_two_reports(block: int) -> None:
    images = np.array([[1, 0], [0, 2], [3, 4]], np.float32)
    reports = np.array([[2, 0], [1, 1]], np.float32)
    # cos: [1, 1 / root 2], [0, 1 / root 2], [3 / 5, 7 / (5 root 2)]
    found = top_k(images, reports, 2, block)
    assert found.reports.tolist() == [[0, 1], [1, 0], [1, 0]]
    root = math.sqrt(0.5)
    expected = [[1, root], [root, 0], [1.4 * root, 0.6]]
    np.testing.assert_allclose(found.similarities, expected, atol=1e-6)


# -- Equations 2 to 4, written out.


def by_hand(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of one answer."""
    return logits.exp().sum().log() - logits[label]


def test_equation_2_is_the_mean_over_patches_and_so_is_its_gradient() -> None:
    torch.manual_seed(0)
    tokens = Tokenizer(letters, 1, 2, 0, 8)
    windows = tokens.windows(("ab", "cde", "f", "unused"), "truncate")
    model = TextClassifier(Bag(), 6, 3).double()
    psi, y = torch.tensor([0, 2, 0, 1, 0, 2]), torch.tensor([1, 0, 1, 2, 0, 2])
    counts = pair_counts(psi, y, 4, 3).double()
    task = ReportTask(model, windows, counts, counts)
    library = sum(task.loss(model, torch.arange(task.rows), torch.Generator()).values())
    library.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    plain = torch.zeros((), dtype=torch.double)
    first, _, last = model.head
    for report, label in zip(psi, y, strict=True):  # a patch asks its own report for its class
        feature = model.tower.layer(model.tower.embedding(windows.ids[report]).mean(dim=0))
        hidden = first.weight @ (feature / feature.norm()) + first.bias
        hidden = torch.where(hidden > 0, hidden, 0.1 * hidden)
        plain = plain + by_hand(last.weight @ hidden + last.bias, label) / len(y)
    assert library.item() == pytest.approx(plain.item(), rel=1e-6)  # logits are made float32
    plain.backward()
    for mine, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-5, atol=1e-7)


def test_equations_3_and_4_are_what_the_training_task_minimises() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 2, 2, 3), dtype=np.uint8)
    model = ClipIt(nn.Flatten(), 12, 3, 6, fusion_start="random")
    rows, y = np.array([4, 0, 2]), torch.tensor([2, 0, 1])
    t, psi, weight = torch.randn(2, 6), torch.tensor([1, 1, 0]), 0.7
    patches = Patches(pixels, rows, y, transform(2))
    targets = Targets(t, psi)
    task = ImageTask(model, patches, patches, False, targets=targets, distillation_weight=weight)
    chosen = torch.tensor([2, 0])  # of the rows
    parts = task.loss(model, chosen, torch.Generator())
    answer, distance = torch.zeros(()), torch.zeros(())
    for i in chosen:
        image = (torch.from_numpy(pixels[rows[i]]).float() / 255 - 0.5) / 0.5
        output = model(image.permute(2, 0, 1)[None])
        predicted, target = output.distilled[0], t[psi[i]]
        answer = answer + by_hand(output.logits[0], y[i]) / 2
        distance = distance + (1 - predicted @ target / predicted.norm() / target.norm()) / 2
    assert parts["distillation"].item() == pytest.approx(weight * distance.item(), rel=1e-5)
    whole = answer + weight * distance
    assert sum(parts.values()).item() == pytest.approx(whole.item(), rel=1e-5)


# -- What the notebooks define.

ALONE = {"01_pairing": "pairs.reports[", "02_training": "torch.equal(sum("}
# What is held in each, and what would be wrong.
WRONG = [
    ("01_pairing", "similarity.argmax", "similarity.argmin"),
    ("01_pairing", "F.normalize(reports, dim=-1).T", "reports.flip(0).T"),
    ("02_training", "F.cross_entropy(answers[psi], y)", "F.cross_entropy(answers[0 * psi], y)"),
    ("02_training", "F.normalize(predicted, dim=-1)", "predicted"),
    ("02_training", "nn.LeakyReLU(0.1), nn.Linear(e, classes)", "nn.ReLU(), nn.Linear(e, classes)"),
    ("02_training", "(1 - F.cosine", "(1 + F.cosine"),
    ("02_training", "+ weight * distance", "+ 2 * weight * distance"),
    ("02_training", "F.cross_entropy(z, labels)", "F.cross_entropy(predicted, labels)"),
]


def run_cells(name: str, **changes: str) -> dict[str, Any]:
    """A notebook's code at the smallest scale, up to the cell in which the library is held to it.

    Args:
        changes: `old` and `new` text of its cells.
    """
    path = paths.notebooks() / f"{name}.ipynb"
    told = json.loads(path.read_text(encoding="utf-8"))["cells"]
    cells = ["".join(cell["source"]) for cell in told if cell["cell_type"] == "code"]
    if changes:
        assert sum(changes["old"] in cell for cell in cells) == 1
        cells = [cell.replace(changes["old"], changes["new"]) for cell in cells]
    known: dict[str, Any] = {"In": [], "display": lambda *_: None, "__name__": name}
    for cell in cells:
        known["In"].append(cell)
        exec(compile(cell, name, "exec"), known)
        if cell.startswith("profile: str"):
            known["profile"] = "smoke"
        if ALONE[name] in cell:
            return known
    raise AssertionError(f"{name} holds the library to nothing")


@pytest.mark.parametrize("name", sorted(ALONE))
def test_the_library_does_what_a_notebook_defines(name: str, bench: Workbench) -> None:
    run_cells(name)


@pytest.mark.parametrize(("name", "old", "new"), WRONG)
def test_a_wrong_equation_in_a_notebook_is_noticed(
    name: str, old: str, new: str, bench: Workbench
) -> None:
    with pytest.raises(AssertionError):
        run_cells(name, old=old, new=new)
