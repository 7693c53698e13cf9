"""Worst, median and best test sub-chips of a head, as pictures that flow into as many columns as there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from cityheads.config import Config
from cityheads.core.classes import IGNORE
from cityheads.core.modalities import RADAR
from cityheads.core.text import percent
from cityheads.product.figures import style
from cityheads.product.figures.panels import rank_chips, wrong_share
from cityheads.product.figures.pictures import grey, paint, true_colour
from cityheads.product.report import images
from cityheads.product.report.city import Mosaic

__all__ = ["ChipPictures", "HeadPictures", "head_pictures"]


@dataclass(frozen=True)
class ChipPictures:
    """One sub-chip: why it is shown, its share of wrong pixels for both models, and its pictures with their titles."""

    kind: str
    chip: str
    shared: str
    single: str
    expected: str
    pictures: Sequence[tuple[str, Markup]]


@dataclass(frozen=True)
class HeadPictures:
    """The sub-chips of one head, worst first, and what the colours mean."""

    head: str
    chips: Sequence[ChipPictures]
    legend: Sequence[tuple[str, str]]
    errors: Sequence[tuple[str, str, str | None]]


def head_pictures(config: Config, mosaic: Mosaic, head: str) -> HeadPictures:
    """Pick and draw the sub-chips of a head: of all folds, first seed."""
    results, baseline = mosaic.results, config.noninferiority.baselines[head]
    label = config.labels[config.heads[head].label]
    counts = [
        {
            chip: matrix
            for fold in results.folds
            for chip, matrix in results.chip_confusion(run, results.seeds[0], head, len(label.classes), fold).items()
        }
        for run in (mosaic.run, baseline)
    ]
    picked = rank_chips(counts[0], config.report.panels_per_head)
    pooled = np.sum(list(counts[0].values()), axis=0)
    radar = next((layer for layer in RADAR if results.has_array(layer)), None)
    rows = {row["chip_id"]: row["store_index"] for of in mosaic.kept.values() for row in of}
    truth, shared, single = mosaic.truth(head), mosaic.predicted(head), mosaic.predicted(head, baseline)
    palette = mosaic.palette(head)
    colors, hatches = zip(*style.ERRORS.values(), strict=True)
    found = []
    for kind, chip in picked:
        pictures = [("true colour", true_colour(np.asarray(results.array("S2L2A")[rows[chip]]), mosaic.points))]
        if radar is not None:
            pictures.append(("radar", grey(np.asarray(results.array(radar)[rows[chip]][0]))))
        urls = [(title, images.photo(picture)) for title, picture in pictures]
        mask = np.asarray(truth[chip])
        urls += [
            (title, images.full_color(paint(np.asarray(layer), palette)))
            for title, layer in (("reference", mask), ("shared model", shared[chip]), ("single-task", single[chip]))
        ]
        wrong = (shared[chip] != mask).astype(np.uint8) + 2 * (single[chip] != mask).astype(np.uint8)
        wrong[mask == IGNORE] = IGNORE
        urls.append(("errors", images.full_color(paint(wrong, colors, hatches))))
        found.append(
            ChipPictures(
                kind,
                chip,
                percent(wrong_share(counts[0][chip])),
                percent(wrong_share(counts[1][chip])),
                percent(_expected(counts[0][chip], pooled)),
                urls,
            )
        )
    legend = [(item.name, item.color) for item in label.classes]
    return HeadPictures(head, found, legend, [(name, *look) for name, look in style.ERRORS.items()])


def _expected(matrix: np.ndarray, pooled: np.ndarray) -> float | None:
    """Give the share of wrong pixels that the class mix alone predicts, from the recall of each class in all tests."""
    pixels, true = matrix.sum(axis=1), pooled.sum(axis=1)
    if not pixels.sum():
        return None
    missed = np.divide(true - np.diag(pooled), true, out=np.zeros(len(true)), where=true > 0)
    return float((pixels * missed).sum() / pixels.sum())
