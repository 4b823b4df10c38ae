"""Losses and models against plain transcriptions of the paper's equations."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clipit_lib import losses
from clipit_lib.model import ClipIt, EarlyFusion, VisionClassifier, train_mode
from companion.train_encoders import normalised_temperature, supervised_contrastive


def test_equation_4_and_its_gradient() -> None:
    torch.manual_seed(0)
    model = ClipIt(nn.Flatten(), 12, 3, 5, fusion_start="random").double()
    images, labels = torch.randn(4, 3, 2, 2).double(), torch.tensor([0, 2, 1, 1])
    target, weight = torch.randn(4, 5).double(), 0.7
    output = model(images)
    ours = (
        torch.nn.functional.cross_entropy(output.logits, labels)
        + weight * (1 - torch.nn.functional.cosine_similarity(output.distilled, target)).mean()
    )
    ours.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    plain = torch.zeros((), dtype=torch.double)
    for image, label, text in zip(images, labels, target, strict=True):
        v = image.reshape(-1)
        predicted = model.distillation.weight @ v + model.distillation.bias  # h_d(v)
        unit = predicted / predicted.norm()
        first, _, last = model.text_head
        hidden = first.weight @ unit + first.bias
        hidden = torch.where(hidden > 0, hidden, 0.1 * hidden)
        text_logits = last.weight @ hidden + last.bias  # h_t
        vision_logits = model.vision_head.weight @ v + model.vision_head.bias  # h_v
        z = model.fusion.weight @ torch.cat([vision_logits, text_logits]) + model.fusion.bias
        cosine = predicted @ text / (predicted.norm() * text.norm())
        plain = plain + (-z[label] + torch.logsumexp(z, 0) + weight * (1 - cosine)) / 4
    assert ours.item() == pytest.approx(plain.item(), rel=1e-12)
    plain.backward()
    for mine, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad)


def test_named_losses_are_the_equations() -> None:
    logits, labels = torch.randn(6, 4), torch.randint(0, 4, (6,))
    probability = logits.double().exp() / logits.double().exp().sum(1, keepdim=True)
    by_hand = -np.mean([math.log(probability[i, y]) for i, y in enumerate(labels)])
    assert losses.cross_entropy(logits, labels).item() == pytest.approx(by_hand, rel=1e-5)
    again = probability.exp() / probability.exp().sum(1, keepdim=True)
    by_hand = -np.mean([math.log(again[i, y]) for i, y in enumerate(labels)])
    assert losses.double_softmax(logits, labels).item() == pytest.approx(by_hand, rel=1e-5)
    a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[2.0, 2.0]])
    assert losses.cosine_distance(a, b).item() == pytest.approx(1 - math.sqrt(0.5))
    two = losses.cosine_distance(torch.cat([a, a]), torch.cat([b, -a]))  # a mean: 1 - cos is 2
    assert two.item() == pytest.approx((3 - math.sqrt(0.5)) / 2)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_a_smoothed_label_has_a_share_on_every_class(share: float) -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    total = math.exp(2) + 1 + math.exp(-1)
    nats = [math.log(total) - 2, math.log(total), math.log(total) + 1]  # of each class
    expected = (1 - share) * nats[1] + share * sum(nats) / 3
    found = losses.cross_entropy(logits, torch.tensor([1]), share).item()
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("classes", "lowest"), [(2, 0.313), (4, 0.744), (9, 1.372)])
def test_double_softmax_cannot_fall_below_its_floor(classes: int, lowest: float) -> None:
    certain = 1000 * torch.eye(classes)
    labels = torch.arange(classes)
    assert losses.double_softmax(certain, labels).item() == pytest.approx(lowest, abs=1e-3)
    assert losses.cross_entropy(certain, labels).item() == pytest.approx(0, abs=1e-6)


def test_same_class_pairs_are_no_negatives() -> None:
    same = torch.nn.functional.normalize(torch.ones(2, 3), dim=-1)
    scale = torch.tensor(50.0)
    alone = supervised_contrastive(same, same, scale)
    grouped = supervised_contrastive(same, same, scale, torch.tensor([1, 1]))
    assert alone.item() == pytest.approx(math.log(2))
    # Both positives have probability one half: the loss is the entropy of the target.
    assert grouped.item() == pytest.approx(math.log(2))
    apart = torch.eye(2, 3)
    assert supervised_contrastive(apart, apart, scale).item() < 1e-6
    mixed = supervised_contrastive(apart, apart, scale, torch.tensor([1, 1]))
    assert mixed.item() == pytest.approx(25, abs=1e-3)  # the other positive is pulled in


@pytest.mark.parametrize("classes", [(0, 1, 2, 3, 4), (0, 1, 0, 2, 1)])
def test_contrastive_losses_are_plain_sums_over_pairs(classes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    images, texts = F.normalize(torch.randn(2, 5, 3).double(), dim=-1)
    groups = torch.tensor(classes) if len(set(classes)) < 5 else None
    left_out, shared = 0.0, 0.0
    for table in (3 * images @ texts.T, 3 * texts @ images.T):
        for i, own in enumerate(classes):
            same = [j for j in range(5) if classes[j] == own]
            rivals = [j for j in range(5) if j == i or j not in same]
            left_out += float(torch.logsumexp(table[i, rivals], 0) - table[i, i]) / 10
            shared += float(torch.logsumexp(table[i], 0) - table[i, same].mean()) / 10
    assert losses.contrastive(images, texts, 3.0, groups).item() == pytest.approx(
        left_out, rel=1e-5
    )
    found = supervised_contrastive(images, texts, 3.0, groups).item()
    assert found == pytest.approx(shared, rel=1e-5)


def test_two_views_of_a_patch_attract_and_all_others_repel() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 4, 3).double()
    both, plain = torch.cat([first, second]), 0.0
    for i, own in enumerate(both):
        near = [math.exp(F.cosine_similarity(own, other, dim=0) / 0.2) for other in both]
        plain -= math.log(near[(i + 4) % 8] / (sum(near) - near[i])) / 8
    assert normalised_temperature(first, second).item() == pytest.approx(plain, rel=1e-5)


def test_fusion_starts_as_the_mean_of_both_branches() -> None:
    model = ClipIt(nn.Flatten(), 12, 3, 5)
    both = torch.randn(2, 6)
    torch.testing.assert_close(model.fusion(both), (both[:, :3] + both[:, 3:]) / 2)


def test_early_fusion_starts_as_the_vision_head() -> None:
    model, images = EarlyFusion(nn.Flatten(), 12, 3, 5), torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(model(images).logits, model.vision_head(images.flatten(1)))


def test_batch_statistics_do_not_drift() -> None:
    model = VisionClassifier(nn.Sequential(nn.BatchNorm2d(3), nn.Flatten()), 12, 2)
    before = model.backbone[0].running_mean.clone()
    train_mode(model)
    model(torch.randn(5, 3, 2, 2) + 10)
    assert model.training and torch.equal(model.backbone[0].running_mean, before)
