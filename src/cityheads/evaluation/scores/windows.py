"""Class fractions over squares and circles: what the city's app shows, against what the labels say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cityheads.core.artifacts.metrics import FractionErrors
from cityheads.core.classes import IGNORE
from cityheads.evaluation.scores.over_parents import divide, estimate

__all__ = [
    "ERROR_SUMS",
    "Fractions",
    "Window",
    "bias",
    "error_sums",
    "errors",
    "fractions",
    "mae",
    "r2",
    "relative_bias",
    "rmse",
    "windows",
]

#: What `error_sums` adds up, in the order of its last axis: number of windows, error, absolute error, squared error,
#: labelled fraction and its square.
ERROR_SUMS = ("n", "error", "absolute", "squared", "labelled", "labelled_squared")


@dataclass(frozen=True)
class Window:
    """A shape that class fractions are taken over.

    Attributes:
        shape: ``square`` or ``circle``.
        size_m: Side or diameter as asked for, in metres.
        px: The same in whole pixels.
    """

    shape: str
    size_m: float
    px: int

    @property
    def name(self) -> str:
        """Such as ``circle_160m``."""
        return f"{self.shape}_{self.size_m:g}m"

    @property
    def footprint(self) -> np.ndarray:
        """The pixels that count, (px, px) bool: of a circle those whose centres lie within it."""
        if self.shape == "square":
            return np.ones((self.px, self.px), bool)
        centres = np.arange(self.px) + 0.5 - self.px / 2
        return np.asarray(np.hypot(centres[:, None], centres) <= self.px / 2)


def windows(sizes_m: Sequence[float], resolution_m: float, chip_px: int) -> list[Window]:
    """Give squares and circles of these sizes that are a pixel or more and fit inside a sub-chip."""
    found = []
    for size in sizes_m:
        px = round(size / resolution_m)
        if 1 <= px <= chip_px:
            found += [Window("square", size, px), Window("circle", size, px)]
    return found


@dataclass(frozen=True)
class Fractions:
    """Class fractions of the windows of a set of sub-chips.

    Attributes:
        labelled: (M, C) share of each class among the labelled pixels of a window.
        estimated: The same over the same pixels, by name of the estimate.
        chip: (M,) position of the sub-chip that each window lies in.
    """

    labelled: np.ndarray
    estimated: dict[str, np.ndarray]
    chip: np.ndarray


def fractions(
    masks: np.ndarray, estimates: dict[str, np.ndarray], classes: int, window: Window, min_labelled: float
) -> Fractions:
    """Take class fractions over windows side by side, the block of them centred in the sub-chip.

    Estimates count on the same pixels as the labels, so that a window without all its labels is no error.

    Args:
        masks: (N, h, w) uint8 labels, 255 = ignore.
        estimates: By name, (N, h, w) uint8 classes, or (N, C, h, w) probabilities.
        classes: Number of classes, C.
        window: Shape and size.
        min_labelled: Smallest share of labelled pixels of a window that counts, above 0 to 1.
    """
    footprint = window.footprint
    labelled = masks != IGNORE
    count = _sums(labelled, footprint)
    counted = count >= max(min_labelled * footprint.sum(), 1)
    chip = np.nonzero(counted)[0]
    total = count[counted][:, None]

    def shares(values: np.ndarray) -> np.ndarray:
        if values.ndim == 3:
            layers = (_sums(values == index, footprint, labelled) for index in range(classes))
        else:
            layers = (_sums(values[:, index], footprint, labelled) for index in range(classes))
        return np.stack([layer[counted] for layer in layers], axis=1) / total

    return Fractions(shares(masks), {name: shares(values) for name, values in estimates.items()}, chip)


def _sums(values: np.ndarray, footprint: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Add (N, h, w) values over the footprint at every place side by side, (N, rows, cols) float64."""
    px = len(footprint)
    count, height, width = values.shape
    rows, cols = height // px, width // px
    top, left = (height - rows * px) // 2, (width - cols * px) // 2
    sums = np.empty((count, rows, cols))
    # sub-chip by sub-chip, so that no float64 copy of a whole split is made
    for index in range(count):
        one = values[index].astype(np.float64)
        if where is not None:
            one *= where[index]
        blocks = one[top : top + rows * px, left : left + cols * px].reshape(rows, px, cols, px)
        sums[index] = np.einsum("ipjq,pq->ij", blocks, footprint.astype(np.float64))
    return sums


def error_sums(found: Fractions, name: str, chips: int) -> np.ndarray:
    """Add up the errors of one estimate for each sub-chip, (chips, C, 6) float64; see `ERROR_SUMS`."""
    true, error = found.labelled, found.estimated[name] - found.labelled
    parts = np.stack([np.ones_like(error), error, np.abs(error), error**2, true, true**2], axis=-1)
    sums = np.zeros((chips, true.shape[1], len(ERROR_SUMS)))
    np.add.at(sums, found.chip, parts)
    return sums


def bias(sums: np.ndarray) -> np.ndarray:
    """Give the mean of estimated minus labelled, from (..., 6) sums; NaN without windows."""
    return divide(sums[..., 1], sums[..., 0])


def relative_bias(sums: np.ndarray) -> np.ndarray:
    """Give the bias as a share of the labelled mean; NaN for a class without a labelled pixel."""
    return divide(sums[..., 1], sums[..., 4])


def mae(sums: np.ndarray) -> np.ndarray:
    """Give the mean absolute error; NaN without windows."""
    return divide(sums[..., 2], sums[..., 0])


def rmse(sums: np.ndarray) -> np.ndarray:
    """Give the root mean square error; NaN without windows."""
    return np.sqrt(divide(sums[..., 3], sums[..., 0]))


def r2(sums: np.ndarray) -> np.ndarray:
    """Give the coefficient of determination; NaN where the labelled fraction is the same in all windows."""
    spread = sums[..., 5] - divide(sums[..., 4] ** 2, sums[..., 0])
    # the difference of two sums is not exactly 0 for a constant
    spread = np.where(spread > 1e-9 * sums[..., 5], spread, 0.0)
    return 1 - divide(sums[..., 3], spread)


def errors(sums: np.ndarray) -> FractionErrors:
    """Give all errors of one estimate of one class with their intervals, from (parents, 6) sums."""
    return {
        "bias": estimate(bias, sums, (-1.0, 1.0)),
        "relative_bias": estimate(relative_bias, sums, (-1.0, np.inf)),
        "mae": estimate(mae, sums),
        "rmse": estimate(rmse, sums),
        "r2": estimate(r2, sums, (-np.inf, 1.0)),
    }
