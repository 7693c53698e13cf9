"""Outlines: boundary F1 (Csurka et al. 2013) and boundary IoU (Cheng et al. 2021).

A class's outline is its pixels that have a labelled pixel of another class above, below, left or right of them; the
edge of a sub-chip and pixels without a label make no outline. Distances are Euclidean, in pixels, between pixel
centres. Counts are added up over sub-chips before they are divided, where Csurka et al. average over images: a sub-chip
without the class has no score of its own.

Csurka, Larlus, Perronnin (2013), What is a good evaluation measure for semantic segmentation?, BMVC.
Cheng, Girshick, Dollar, Berg, Kirillov (2021), Boundary IoU: improving object-centric image segmentation evaluation,
CVPR. Their reference code counts the image's edge as outline and takes chessboard distances.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cityheads.core.classes import IGNORE
from cityheads.evaluation.scores.over_parents import divide

__all__ = ["COUNTS", "boundary_counts", "boundary_f1", "boundary_iou", "boundary_precision", "boundary_recall"]

#: What `boundary_counts` counts, in the order of its last axis: predicted outline pixels near the labelled outline and
#: all of them, labelled outline pixels near the predicted one and all of them, pixels that lie in both bands along the
#: outlines, and in either.
COUNTS = ("predicted_near", "predicted", "labelled_near", "labelled", "both", "either")


def boundary_counts(masks: np.ndarray, predictions: np.ndarray, classes: int, distances: Sequence[int]) -> np.ndarray:
    """Count outline pixels that fit, for each sub-chip, class and distance.

    Args:
        masks: (N, h, w) uint8 labels, 255 = ignore.
        predictions: (N, h, w) uint8.
        classes: Number of classes, C.
        distances: D distances in pixels, each at least 1.

    Returns:
        (N, C, D, 6) int64; see `COUNTS`.
    """
    counts = np.zeros((len(masks), classes, len(distances), len(COUNTS)), np.int64)
    for index, (mask, predicted) in enumerate(zip(masks, predictions, strict=True)):
        labelled = mask != IGNORE
        for class_id in range(classes):
            true, pred = labelled & (mask == class_id), labelled & (predicted == class_id)
            if true.any() or pred.any():
                counts[index, class_id] = _counts(true, pred, labelled, distances)
    return counts


def _counts(true: np.ndarray, pred: np.ndarray, labelled: np.ndarray, distances: Sequence[int]) -> np.ndarray:
    # how far inside a mask: the distance to the nearest labelled pixel that is not in it
    true_depth, pred_depth = _distance_to(labelled & ~true), _distance_to(labelled & ~pred)
    true_outline, pred_outline = true & (true_depth <= 1), pred & (pred_depth <= 1)
    to_true, to_pred = _distance_to(true_outline), _distance_to(pred_outline)
    rows = []
    for distance in distances:
        true_band, pred_band = true & (true_depth <= distance), pred & (pred_depth <= distance)
        rows.append(
            [
                (pred_outline & (to_true <= distance)).sum(),
                pred_outline.sum(),
                (true_outline & (to_pred <= distance)).sum(),
                true_outline.sum(),
                (true_band & pred_band).sum(),
                (true_band | pred_band).sum(),
            ]
        )
    return np.array(rows, np.int64)


def _distance_to(target: np.ndarray) -> np.ndarray:
    """Give the distance of every pixel to the nearest pixel of a target; infinite where there is none."""
    from scipy.ndimage import distance_transform_edt

    if not target.any():
        return np.full(target.shape, np.inf)
    return np.asarray(distance_transform_edt(~target))


def boundary_precision(counts: np.ndarray) -> np.ndarray:
    """Give the share of the predicted outline near the labelled one, from (..., 6); NaN without a labelled one."""
    return np.where(counts[..., 3] > 0, divide(counts[..., 0], counts[..., 1]), np.nan)


def boundary_recall(counts: np.ndarray) -> np.ndarray:
    """Give the share of the labelled outline near the predicted one, from (..., 6); NaN without a labelled one."""
    return divide(counts[..., 2], counts[..., 3])


def boundary_f1(counts: np.ndarray) -> np.ndarray:
    """Give the harmonic mean of precision and recall, from (..., 6); NaN where there is no labelled outline.

    It is 0 where no outline was predicted or none fits.
    """
    precision, recall = np.nan_to_num(boundary_precision(counts)), np.nan_to_num(boundary_recall(counts))
    found = np.nan_to_num(divide(2 * precision * recall, precision + recall))
    return np.where(counts[..., 3] > 0, found, np.nan)


def boundary_iou(counts: np.ndarray) -> np.ndarray:
    """Give the IoU of the bands along both outlines, from (..., 6); NaN where there is no labelled outline."""
    return np.where(counts[..., 3] > 0, divide(counts[..., 4], counts[..., 5]), np.nan)
