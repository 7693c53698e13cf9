"""Do the labels fit each other and the imagery? Agreement, registration, balance, and sub-chips that teach little."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.config import Config, Label
from cityheads.core.artifacts.chips import CHIPS
from cityheads.core.artifacts.label_check import LABEL_CHECK, Agreement, EdgeShift, LabelCheck
from cityheads.core.artifacts.statistics import STATISTICS
from cityheads.core.classes import IGNORE, mask_layer
from cityheads.core.confusion import pair_counts
from cityheads.core.files import atomic_path
from cityheads.core.grid import SPLITS, Split, SubChip, read_parents, subchips
from cityheads.core.layout import DatasetFolder, Layout
from cityheads.core.raster import read_raster

__all__ = ["check_labels", "cross_table", "edge_correlation", "edge_shift"]

log = logging.getLogger(__name__)

#: Shifts are looked for up to this many pixels in each direction: Sentinel-2's absolute geolocation is better than one
#: 10 m pixel (ESA, Sentinel-2 L1C Data Quality Report: below 12 m at 95 %), so more is a fault of georeferencing.
_MAX_SHIFT_PX = 4

#: Below this correlation of edges nothing can be said: parents of open water or woods have no edges in common.
_LEAST_CORRELATION = 0.05


def cross_table(one: np.ndarray, two: np.ndarray, n_one: int, n_two: int) -> np.ndarray:
    """Count the pixels of each pair of classes where both labels are known.

    Args:
        one: Class ids, any shape, 255 = ignore.
        two: Class ids of the same shape.
        n_one: Number of classes of ``one``.
        n_two: Number of classes of ``two``.

    Returns:
        (n_one, n_two) int64.
    """
    known = (one != IGNORE) & (two != IGNORE)
    return pair_counts(one[known], two[known], n_one, n_two)


def _edges(picture: np.ndarray) -> np.ndarray:
    """Give the steepness of a picture, NaN next to unknown pixels."""
    down, right = np.gradient(picture.astype(np.float64))
    return np.hypot(down, right)


def edge_correlation(
    picture: np.ndarray, mask: np.ndarray, max_shift_px: int = _MAX_SHIFT_PX
) -> tuple[np.ndarray, np.ndarray]:
    """Correlate the edges of a picture with those of a mask, for every whole shift.

    Args:
        picture: (H, W) float, NaN where unknown.
        mask: (H, W) uint8 class ids, 255 = unknown.
        max_shift_px: Largest shift in each direction.

    Returns:
        Pearson correlations, (2 max + 1, 2 max + 1), by how far the picture lies below and to the right of the mask
        (NaN where one side has no edges), and the number of pixels compared, of the same shape.
    """
    known = np.where(mask == IGNORE, np.nan, mask.astype(np.float64))
    one, two = _edges(picture), _edges(known)
    size = 2 * max_shift_px + 1
    correlation, pixels = np.full((size, size), np.nan), np.zeros((size, size), np.int64)
    height, width = mask.shape
    for down in range(-max_shift_px, max_shift_px + 1):
        for right in range(-max_shift_px, max_shift_px + 1):
            a = one[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
            b = two[max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
            both = np.isfinite(a) & np.isfinite(b)
            x, y = a[both], b[both]
            place = down + max_shift_px, right + max_shift_px
            pixels[place] = x.size
            if x.size > 1 and x.std() > 0 and y.std() > 0:
                correlation[place] = np.corrcoef(x, y)[0, 1]
    return correlation, pixels


def edge_shift(correlation: np.ndarray) -> EdgeShift | None:
    """Find the best shift on a surface of correlations, to a fraction of a pixel; None where no edges are shared."""
    if not np.isfinite(correlation).all() or correlation.max() < _LEAST_CORRELATION:
        return None
    half = correlation.shape[0] // 2
    row, column = np.unravel_index(int(correlation.argmax()), correlation.shape)
    return {
        # adding 0 makes a negative zero positive
        "down_px": round(float(row - half + _vertex(correlation[:, column], int(row))), 2) + 0.0,
        "right_px": round(float(column - half + _vertex(correlation[row], int(column))), 2) + 0.0,
        "correlation": round(float(correlation.max()), 4),
    }


def _vertex(line: np.ndarray, at: int) -> float:
    """Place the top of the parabola through a maximum and its neighbours; 0 at the rim."""
    if at in (0, len(line) - 1):
        return 0.0
    left, middle, right = line[at - 1 : at + 2]
    bend = left - 2 * middle + right
    return 0.0 if bend == 0 else float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5))


def check_labels(config: Config, *, parents: Path, results: Path, picture: Path, out: Path) -> None:
    """Compare the label layers with each other and with the imagery, and draw what was found.

    Args:
        config: Config with sections ``grid``, ``labels`` and ``splits``; of several folds the first one's splits are
            shown.
        parents: Parent sheet.
        results: Results folder with the parents' rasters and the dataset.
        picture: The same as a picture (PNG).
        out: What was found (JSON), written last.

    Raises:
        CityHeadsError: A raster or the dataset is missing.
    """
    labels, grid = config.labels, config.grid.grid
    layout = Layout(results)
    dataset = layout.dataset(config.folds[0])
    sheet = read_parents(parents, grid)
    # polygons have edges at all; land cover on a 10 m grid has been registered to the imagery by its makers
    edged = [name for name, label in labels.items() if label.kind in ("footprints", "vector")]
    pairs = [(one, two) for one in edged for two in labels if two not in edged]
    tables = {pair: np.zeros([len(labels[name].classes) for name in pair], np.int64) for pair in pairs}
    ignored: dict[str, dict[str, float]] = {name: {} for name in labels}
    shifts: dict[str, dict[str, EdgeShift | None]] = {name: {} for name in edged}
    surfaces: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in edged}
    split_of = _kept(dataset)
    counts: dict[str, dict[str, np.ndarray]] = {name: {} for name in labels}
    for parent in sheet:
        folder = layout.parent(parent.parent_id)
        masks = {name: read_raster(folder.raster(mask_layer(name)))[0][0] for name in labels}
        kept = [piece for piece in subchips(parent, grid) if piece.chip_id in split_of]
        for name, mask in masks.items():
            ignored[name][parent.parent_id] = round(float((mask == IGNORE).mean()), 6)
            counts[name] |= _class_counts(mask, kept, len(labels[name].classes))
        for one, two in pairs:
            tables[one, two] += cross_table(masks[one], masks[two], *tables[one, two].shape)
        brightness = _brightness(folder.raster("S2L2A"))
        for name in edged:
            correlation, pixels = edge_correlation(brightness, masks[name])
            shifts[name][parent.parent_id] = edge_shift(correlation)
            if np.isfinite(correlation).all():
                surfaces[name].append((correlation, pixels))
    together = {name: _mean_surface(surfaces[name]) for name in edged}
    names = {name: label.class_names for name, label in labels.items()}
    found: LabelCheck = {
        "simulated": STATISTICS.read(dataset.statistics)["simulated"],
        "agreement": [_agreement(one, two, tables[one, two], labels) for one, two in pairs],
        "registration": {
            name: {"all": None if surface is None else edge_shift(surface), "parents": shifts[name]}
            for name, surface in together.items()
        },
        "ignored_fraction": {
            name: {"all": round(float(np.mean(list(shares.values()))), 6), "parents": shares}
            for name, shares in ignored.items()
        },
        "balance": {label: _balance(of, split_of, names[label]) for label, of in counts.items()},
        "one_class_chips": {label: _one_class_chips(of, names[label]) for label, of in counts.items()},
        "unlabelled_chips": {label: [chip for chip in of if not of[chip].any()] for label, of in counts.items()},
    }
    _draw(picture, found, together, labels)
    LABEL_CHECK.write(out, found)
    for line in _sentences(found):
        log.info("%s", line)


def _brightness(path: Path) -> np.ndarray:
    """Give the mean of the visible 10 m bands (B02, B03, B04), NaN where there is no data."""
    bands = read_raster(path)[0][1:4].astype(np.float64)
    return np.where((bands == 0).any(axis=0), np.nan, bands.mean(axis=0))


def _mean_surface(surfaces: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray | None:
    """Average the parents' surfaces, each weighted by the pixels that it compares."""
    if not surfaces:
        return None
    weights = sum(pixels for _, pixels in surfaces)
    return np.asarray(sum(correlation * pixels for correlation, pixels in surfaces) / weights)


def _agreement(one: str, two: str, table: np.ndarray, labels: Mapping[str, Label]) -> Agreement:
    """Say on which classes the polygons lie, and which share of each class they cover."""
    names = labels[two].class_names
    on, total = table[-1], table.sum(axis=0)
    best = int(on.argmax())
    return {
        "polygons": one,
        "class": labels[one].class_names[-1],
        "other": two,
        "pixels": table.tolist(),
        "lies_on": {name: _ratio(on[i], on.sum()) for i, name in enumerate(names)},
        "covers": {name: _ratio(on[i], total[i]) for i, name in enumerate(names)},
        "mostly_on": names[best] if on.sum() else None,
    }


def _ratio(part: float, whole: float) -> float | None:
    return round(float(part / whole), 6) if whole else None


def _kept(dataset: DatasetFolder) -> dict[str, Split]:
    """Give the split of each kept sub-chip."""
    rows = CHIPS.read(dataset.chips, ("chip_id", "split", "kept"))
    return {row["chip_id"]: row["split"] for row in rows if row["kept"]}


def _class_counts(mask: np.ndarray, pieces: list[SubChip], classes: int) -> dict[str, np.ndarray]:
    """Count the labelled pixels of each class, (classes,) per sub-chip; of any label, whether it trains or not."""
    return {
        piece.chip_id: np.bincount(mask[piece.row_slice, piece.col_slice].ravel(), minlength=IGNORE + 1)[:classes]
        for piece in pieces
    }


def _balance(
    counts: Mapping[str, np.ndarray], split_of: Mapping[str, Split], names: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Give the share of each class among the labelled pixels of each split."""
    found: dict[str, dict[str, float | None]] = {}
    for split in SPLITS:
        total = np.zeros(len(names), np.int64)
        for chip, count in counts.items():
            if split_of[chip] == split:
                total += count
        found[split] = {name: _ratio(total[number], total.sum()) for number, name in enumerate(names)}
    return found


def _one_class_chips(counts: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, list[str]]:
    """List the sub-chips that hold a single class, by that class."""
    found: dict[str, list[str]] = {name: [] for name in names}
    for chip, count in counts.items():
        if (count > 0).sum() == 1:
            found[names[int(count.argmax())]].append(chip)
    return found


def _sentences(found: LabelCheck) -> list[str]:
    """Say what was found in one line each."""
    lines = []
    for item in found["agreement"]:
        if item["mostly_on"] is not None:
            share, covered = item["lies_on"][item["mostly_on"]] or 0, item["covers"][item["mostly_on"]] or 0
            lines.append(
                f"{100 * share:.1f} % of the pixels of {item['polygons']} '{item['class']}' lie on {item['other']} "
                f"'{item['mostly_on']}', of which they cover {100 * covered:.1f} %"
            )
    for name, shift in found["registration"].items():
        best = shift["all"]
        if best is None:
            lines.append(f"{name}: the imagery shows no edges to compare with")
        else:
            lines.append(
                f"{name}: the imagery's edges fit best {best['right_px']:+.2f} px to the right and "
                f"{best['down_px']:+.2f} px down (correlation {best['correlation']:.2f})"
            )
    for label, classes in found["one_class_chips"].items():
        number = sum(map(len, classes.values()))
        lines.append(
            f"{label}: {number} kept sub-chips hold a single class, {len(found['unlabelled_chips'][label])} none"
        )
    return lines


def _draw(
    path: Path, found: LabelCheck, together: Mapping[str, np.ndarray | None], labels: Mapping[str, Label]
) -> None:
    """Draw a panel per agreement, registration and balance."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels: list[tuple[Any, Any]] = [(_draw_agreement, item) for item in found["agreement"]]
    panels += [(_draw_registration, item) for item in found["registration"].items() if together[item[0]] is not None]
    panels += [(_draw_balance, item) for item in found["balance"].items()]
    lines = -(-len(panels) // 2)
    figure, axes = plt.subplots(lines, 2, figsize=(12, 4.6 * lines), squeeze=False, layout="constrained")
    for axis, (draw, item) in zip(axes.flat, panels, strict=False):
        draw(axis, item, together, labels)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    if found["simulated"]:
        figure.suptitle("SIMULATED archive", color="#d35233", weight="bold")
    with atomic_path(path) as part:
        figure.savefig(part, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)


def _draw_agreement(axis: Any, item: Any, _: Any, labels: Mapping[str, Label]) -> None:
    classes = labels[item["other"]].classes
    places = np.arange(len(classes))
    on = [item["lies_on"][entry.name] or 0 for entry in classes]
    covered = [item["covers"][entry.name] or 0 for entry in classes]
    axis.barh(places - 0.2, on, 0.38, color=[entry.color for entry in classes])
    axis.barh(places + 0.2, covered, 0.38, color="#9a9a9a")
    axis.set_yticks(places, [entry.name for entry in classes])
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel(f"colour: share of '{item['class']}' on the class; grey: share of the class covered")
    axis.set_title(f"Where {item['polygons']} lies on {item['other']}")


def _draw_registration(axis: Any, item: Any, together: Mapping[str, Any], _: Any) -> None:
    name, shift = item
    surface = together[name]
    reach = surface.shape[0] // 2 + 0.5
    shown = axis.imshow(surface, cmap="viridis", extent=(-reach, reach, reach, -reach))
    axis.figure.colorbar(shown, ax=axis, shrink=0.8, label="correlation of edges")
    axis.axhline(0, color="white", linewidth=0.6)
    axis.axvline(0, color="white", linewidth=0.6)
    for one in shift["parents"].values():
        if one is not None:
            axis.plot(one["right_px"], one["down_px"], "o", color="white", markeredgecolor="#333333", markersize=4)
    if shift["all"] is not None:
        place = shift["all"]["right_px"], shift["all"]["down_px"]
        axis.plot(*place, "x", color="#d35233", markersize=11, markeredgewidth=2.5)
    axis.set_xlabel("imagery lies to the right of the label, px")
    axis.set_ylabel("imagery lies below, px")
    axis.set_title(f"Registration of {name}: cross all, dots parents")


def _draw_balance(axis: Any, item: Any, _: Any, labels: Mapping[str, Label]) -> None:
    name, splits = item
    start = np.zeros(len(SPLITS))
    for entry in labels[name].classes:
        shares = [splits[split][entry.name] or 0 for split in SPLITS]
        axis.barh(SPLITS, shares, left=start, color=entry.color, label=entry.name, edgecolor="#555", linewidth=0.3)
        start += shares
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.legend(fontsize="small", ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False)
    axis.set_title(f"Classes of {name} per split")
