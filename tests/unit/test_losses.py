from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cityheads.core.classes import IGNORE
from cityheads.model.losses import LOSSES, HeadLoss, dice_loss, focal_loss, fraction_loss


def sample(seed: int = 0, classes: int = 4, ignored: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, classes, 6, 5, generator=generator) * 2
    target = torch.randint(0, classes, (3, 6, 5), generator=generator)
    target[torch.rand(3, 6, 5, generator=generator) < ignored] = IGNORE
    return logits, target


def numpy_dice(logits: np.ndarray, target: np.ndarray, weight: list[float] | None = None) -> float:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability = exp / exp.sum(axis=1, keepdims=True)
    valid = target != IGNORE
    total = share = 0.0
    for index in range(logits.shape[1]):
        truth = target[valid] == index
        if not truth.any():
            continue
        p = probability[:, index][valid]
        w = 1.0 if weight is None else weight[index]
        total += w * (1 - 2 * (p * truth).sum() / (p.sum() + truth.sum()))
        share += w
    return total / share


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 6), ignored=st.floats(0, 0.9))
def test_dice_equals_numpy(seed: int, classes: int, ignored: float) -> None:
    logits, target = sample(seed, classes, ignored)
    target[0, 0, 0] = 0
    weight = [1.0 + index for index in range(classes)]
    logits64 = logits.double().numpy()
    assert float(dice_loss(logits, target)) == pytest.approx(numpy_dice(logits64, target.numpy()), abs=1e-5)
    weighted = dice_loss(logits, target, weight=torch.tensor(weight))
    assert float(weighted) == pytest.approx(numpy_dice(logits64, target.numpy(), weight), abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), ignored=st.floats(0, 0.9))
def test_the_loss_of_fractions_equals_numpy(seed: int, ignored: float) -> None:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, (2, 8, 12))
    target[rng.random(target.shape) < ignored] = IGNORE
    target[0, 0, 0] = 1
    logits = rng.normal(size=(2, 3, 2, 3))
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    # every labelled pixel counts once, in the cell that it lies in
    expected = [
        -log_p[b, target[b, y, x], y // 4, x // 4] for b, y, x in zip(*np.nonzero(target != IGNORE), strict=True)
    ]
    found = fraction_loss(torch.from_numpy(logits), torch.from_numpy(target))
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)


def test_the_loss_of_fractions_is_zero_without_labels() -> None:
    logits = torch.zeros(1, 3, 2, 2, requires_grad=True)
    assert float(fraction_loss(logits, torch.full((1, 8, 8), IGNORE))) == 0


def test_a_class_without_labels_does_not_dilute_dice() -> None:
    target = torch.zeros(1, 4, 4, dtype=torch.int64)
    target[0, :2] = 1
    logits = F.one_hot(1 - target, 5).permute(0, 3, 1, 2).float() * 50  # wrong everywhere
    assert float(dice_loss(logits, target)) == pytest.approx(1, abs=1e-5)
    right = F.one_hot(target, 5).permute(0, 3, 1, 2).float() * 50
    assert float(dice_loss(right, target)) == pytest.approx(0, abs=1e-5)


def test_cross_entropy_and_focal_equal_the_formula() -> None:
    logits, target = sample()
    valid = target != IGNORE
    log_p = logits.log_softmax(1).permute(0, 2, 3, 1)[valid]
    true = log_p[torch.arange(len(log_p)), target[valid]]
    assert float(HeadLoss("ce")(logits, target)) == pytest.approx(float(-true.mean()), rel=1e-5)
    expected = (-((1 - true.exp()) ** 2) * true).mean()
    assert float(HeadLoss("focal")(logits, target)) == pytest.approx(float(expected), rel=1e-5)
    total = float(HeadLoss("ce")(logits, target)) + float(HeadLoss("dice")(logits, target))
    assert float(HeadLoss("dice_ce")(logits, target)) == pytest.approx(total, rel=1e-6)


def test_focal_without_focusing_is_weighted_cross_entropy() -> None:
    logits, target = sample()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = F.cross_entropy(logits, target, weight=weight, ignore_index=IGNORE)
    assert float(focal_loss(logits, target, weight=weight, gamma=0.0)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("size", [8, 256])
def test_focal_does_not_shrink_with_the_image(size: int) -> None:
    target = torch.zeros(1, size, size, dtype=torch.int64)
    assert float(focal_loss(torch.zeros(1, 2, size, size), target)) == pytest.approx(0.25 * math.log(2), rel=1e-4)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_batch_without_labels_is_zero_and_leaves_no_gradient(kind: str) -> None:
    logits, target = sample()
    logits.requires_grad_()
    loss = HeadLoss(kind)(logits, torch.full_like(target, IGNORE))
    assert float(loss.detach()) == 0
    assert not loss.requires_grad


@pytest.mark.parametrize("kind", LOSSES)
def test_ignored_pixels_change_nothing(kind: str) -> None:
    logits, target = sample()
    changed = logits.clone()
    changed.permute(0, 2, 3, 1)[target == IGNORE] = 99.0
    loss = HeadLoss(kind)
    assert float(loss(changed, target)) == pytest.approx(float(loss(logits, target)), rel=1e-5)
    logits.requires_grad_()
    loss(logits, target).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad.permute(0, 2, 3, 1)[target == IGNORE], torch.zeros(int((target == IGNORE).sum()), 4))
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", LOSSES)
def test_half_precision_logits_give_a_finite_full_precision_loss(kind: str) -> None:
    logits, target = sample()
    loss = HeadLoss(kind)(logits.half() * 100, target)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


@pytest.mark.parametrize("kind", [kind for kind in LOSSES if kind != "lovasz"])
def test_class_weights_act(kind: str) -> None:
    logits, target = sample()
    plain, weighted = HeadLoss(kind)(logits, target), HeadLoss(kind, [1.0, 1.0, 1.0, 20.0])(logits, target)
    assert float(plain) != pytest.approx(float(weighted), rel=1e-3)
    assert float(HeadLoss(kind, [3.0] * 4)(logits, target)) == pytest.approx(float(plain), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "weights", "message"),
    [("dyce", None, "none of"), ("ce", [1.0, 0.0], "positive"), ("lovasz", [1.0, 2.0], "no class weights")],
)
def test_wrong_arguments_are_refused(kind: str, weights: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeadLoss(kind, weights)
