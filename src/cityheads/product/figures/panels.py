"""Worst, median and best test sub-chips of a head: images, label, predictions and errors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from cityheads.core.classes import IGNORE, mask_layer
from cityheads.core.confusion import or_none
from cityheads.core.modalities import RADAR
from cityheads.core.text import number, percent, signed
from cityheads.product.figures import style
from cityheads.product.figures.evidence import Evidence
from cityheads.product.figures.pictures import VV_RANGE_DB, grey, paint, stretch, true_colour
from cityheads.product.figures.sheet import Drawing, Sheet, key, patch

__all__ = ["draw_panels", "rank_chips", "wrong_share"]


#: A sub-chip of which less is labelled than this share of the best labelled one takes no part in the ranking.
_LEAST_LABELLED = 0.25


def wrong_share(matrix: np.ndarray) -> float | None:
    """Give the share of the labelled pixels that are wrong, from a confusion matrix; None without a labelled pixel."""
    return or_none(1 - np.trace(matrix) / matrix.sum()) if matrix.sum() else None


def rank_chips(confusions: Mapping[str, np.ndarray], count: int) -> list[tuple[str, str]]:
    """Pick the worst, median and best sub-chips of a head by the share of their labelled pixels that are wrong.

    A mean over classes would call a sub-chip bad for five pixels of a rare class, and good ones worst. Sub-chips with
    few labelled pixels do not take part: with a handful any share can come out.

    Args:
        confusions: Matrix per sub-chip, (n, n), rows true.
        count: How many of each.

    Returns:
        (``worst``, ``median`` or ``best``; sub-chip id), worst first; fewer where there are not enough.
    """
    most = max((matrix.sum() for matrix in confusions.values()), default=0)
    shares = {
        chip: share
        for chip, matrix in confusions.items()
        if matrix.sum() >= _LEAST_LABELLED * most and (share := wrong_share(matrix)) is not None
    }
    order = sorted(shares, key=lambda chip: (-shares[chip], chip))
    if len(order) <= 3 * count:
        third = math.ceil(len(order) / 3)
        kinds = ["worst"] * third + ["median"] * (len(order) - 2 * third) + ["best"] * third
        return list(zip(kinds, order, strict=False))
    start = (len(order) - count) // 2
    return (
        [("worst", chip) for chip in order[:count]]
        + [("median", chip) for chip in order[start : start + count]]
        + [("best", chip) for chip in order[-count:]]
    )


def draw_panels(evidence: Evidence, head: str) -> Drawing:
    """Draw worst, median and best test sub-chips of a head."""
    results = evidence.results
    classes = evidence.classes(evidence.config.heads[head].label)
    seed, baseline = results.seeds[0], evidence.baselines[head]
    shared = results.chip_confusion(evidence.shared_run, seed, head, len(classes))
    single = results.chip_confusion(baseline, seed, head, len(classes))
    picked = rank_chips(shared, evidence.config.report.panels_per_head)
    title = f"Worst, median and best test sub-chips: {head}"
    sheet = Sheet(title, simulated=evidence.simulated, height=2 * max(len(picked), 1))
    radar = next((layer for layer in RADAR if results.has_array(layer)), None)
    headings = ["true colour", *(["radar (VV)"] if radar else []), "label", "shared model", "single-task", "errors"]
    told = []
    if picked:
        rows = sheet.body.subplots(len(picked), len(headings), squeeze=False)
        for axes, text in zip(rows[0], headings, strict=True):
            axes.annotate(
                text, (0, 1), (0, 20), xycoords="axes fraction", textcoords="offset points", fontsize=8,
                color=style.MUTED,
            )  # fmt: skip
        pictures = _pictures(evidence, head, [chip for _, chip in picked], radar)
        for row, (kind, chip), shown in zip(rows, picked, pictures, strict=True):
            both = [percent(wrong_share(matrices[chip])) for matrices in (shared, single)]
            row[0].set_title(rf"$\bf{{{kind}}}$   {chip}", fontweight="normal")
            row[-1].set_title(
                f"wrong pixels: shared {both[0]}, single-task {both[1]}", loc="right", fontweight="normal", fontsize=8.5
            )
            told.append(f"{kind} {chip} {both[0]} against {both[1]}")
            for axes, picture in zip(row, shown, strict=True):
                axes.imshow(picture, interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set(visible=True, color=style.EDGE, linewidth=0.5)
        first = list(rows[:, 0])
    else:
        first = [sheet.body.add_subplot()]
        first[0].set_axis_off()
        first[0].text(0, 0.5, "No test sub-chip has labels for this head.", color=style.MUTED)
    entries = [patch(*item) for item in classes] + [patch("ignored", style.IGNORED, "//////")]
    faults = [patch(text, color, hatch) for text, (color, hatch) in style.ERRORS.items()]
    for figure, name_of, listed in ((sheet.body, "classes", entries), (sheet.figure, "errors", faults)):
        key(
            figure, listed, width=style.WIDTH_IN, loc="outside lower left", title=name_of, alignment="left",
            title_fontproperties={"size": 8},
        )  # fmt: skip
    sheet.fit(first, len(picked) * sheet.width(first[0]) if picked else 0.3)
    seeds = f", seed {seed}" if len(results.seeds) > 1 else ""
    ends = f"black at {number(VV_RANGE_DB[0], 0)} and white at {signed(VV_RANGE_DB[1], 0)}"
    scale = f"; radar is VV in dB, {ends}" if radar else ""
    return Drawing(
        id=f"panels_{head}",
        section="panels",
        title=f"Worst, median and best: {head}",
        caption=f"Test sub-chips ranked by the share of labelled pixels that the shared model has wrong{seeds}. "
        f"The last picture says which of the two models is wrong where{scale}.",
        alt=f"Pictures of test sub-chips for head {head}: true colour, {'radar, ' if radar else ''}label, both "
        f"predictions and errors. Wrong pixels, shared against single-task: {'; '.join(told) or 'none'}.",
        figure=sheet.figure,
    )


def _pictures(evidence: Evidence, head: str, chips: list[str], radar: str | None) -> Iterator[list[np.ndarray]]:
    """Give the pictures of each sub-chip, (h, w, 3) RGB, in the order of the columns."""
    results, seed = evidence.results, evidence.results.seeds[0]
    rows = {row["chip_id"]: row["store_index"] for row in results.chips}
    truth = results.array(mask_layer(evidence.config.heads[head].label))
    optical = results.array("S2L2A")
    backscatter = results.array(radar) if radar else None
    predictions = [results.predictions(run, seed, head) for run in (evidence.shared_run, evidence.baselines[head])]
    points = stretch(optical, [rows[chip] for chip in chips])
    palette = [color for _, color in evidence.classes(evidence.config.heads[head].label)]
    for chip in chips:
        shown = [true_colour(np.asarray(optical[rows[chip]]), points)]
        if backscatter is not None:
            shown.append(grey(np.asarray(backscatter[rows[chip]][0])))
        mask = np.asarray(truth[rows[chip]])
        shared, single = (np.asarray(array[tested.index(chip)]) for tested, array in predictions)
        wrong = (shared != mask).astype(np.uint8) + 2 * (single != mask).astype(np.uint8)
        wrong[mask == IGNORE] = IGNORE
        yield [
            *shown,
            *(paint(layer, palette) for layer in (mask, shared, single)),
            paint(wrong, *zip(*style.ERRORS.values(), strict=True)),
        ]
