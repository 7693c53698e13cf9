"""The map of the city: every parent in its place, in layers of image, label, prediction, error and density."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from markupsafe import Markup

from cityheads.config import Config
from cityheads.core.classes import IGNORE, mask_layer
from cityheads.core.text import percent
from cityheads.product.figures.pictures import stretch, true_colour
from cityheads.product.report import images
from cityheads.product.results import Results

__all__ = ["CityView", "Layer", "Place", "Triptych", "city_view", "triptych"]

#: Pixels along a parent's side that the page holds at most; larger parents are thinned out.
_MOST_PX = 448
#: About the side of a cell of the density layers.
_CELL_M = 100.0
_KINDS: tuple[Literal["truth", "predicted"], ...] = ("truth", "predicted")
#: Gap between coordinate systems drawn beside each other, and the widest gap to the nearest parent, in parents' sides.
_GAP, _NEAR = 0.5, 0.15


@dataclass(frozen=True)
class Place:
    """A parent on the map: upper left corner and side in km, from the upper left of the map."""

    id: str
    x: float
    y: float
    side: float
    split: str
    tested: bool
    about: str


@dataclass(frozen=True)
class Layer:
    """One layer: a picture for each parent that has it, and what its colours mean."""

    id: str
    title: str
    legend: Sequence[tuple[str, str]]
    note: str
    tiles: Mapping[str, Markup] = field(repr=False)
    smooth: bool = False


@dataclass(frozen=True)
class CityView:
    """The map.

    Attributes:
        width: In km; ``height`` likewise.
        places: All parents.
        layers: The first is shown without scripts.
        thinned: One pixel in how many along a side is shown.
        zones: Codes of the coordinate systems, from left to right.
        shortened: How many times shorter than they are distances are drawn, so that squares far apart can be seen.
    """

    width: float
    height: float
    places: Sequence[Place]
    layers: Sequence[Layer]
    thinned: int
    zones: Sequence[int]
    shortened: float

    @property
    def data(self) -> dict[str, Any]:
        """What the map's script is given, as JSON values; the tiles of the first layer stand in the map itself."""
        return {
            "size": [self.width, self.height],
            "places": [[one.id, one.x, one.y, one.side] for one in self.places],
            "layers": {
                one.id: {
                    "tiles": {parent: str(url) for parent, url in one.tiles.items()} if number else None,
                    "smooth": one.smooth,
                }
                for number, one in enumerate(self.layers)
            },
        }


class Mosaic:
    """Sub-chips of the dataset put together to parents again.

    Args:
        config: Sections ``grid``, ``heads``, ``labels`` and ``noninferiority``.
        results: The results folder.
    """

    def __init__(self, config: Config, results: Results) -> None:
        self.config, self.results = config, results
        self.grid = config.grid.grid
        self.rows: dict[str, list[dict[str, Any]]] = {}
        for row in results.chips:
            self.rows.setdefault(row["parent_id"], []).append(row)
        self.kept = {parent: [row for row in rows if row["kept"]] for parent, rows in self.rows.items()}
        self.run = config.noninferiority.run

    def step(self, most: int) -> int:
        """Give the smallest divisor of a sub-chip's side that brings a parent to at most ``most`` pixels a side."""
        chip = self.grid.chip_px
        return next(n for n in range(1, chip + 1) if chip % n == 0 and (self.grid.parent_px // n <= most or n == chip))

    @functools.cached_property
    def points(self) -> tuple[float, float]:
        """Black and white point of all images; of large datasets from some of the sub-chips."""
        rows = [row["store_index"] for rows in self.kept.values() for row in rows]
        return stretch(self.results.array("S2L2A"), rows[:: max(1, len(rows) // 100)])

    def put(self, parent: str, pieces: Mapping[str, np.ndarray], step: int, fill: Any) -> np.ndarray:
        """Put pieces of a parent, each (h, w, ...) and thinned by ``step``, in their place."""
        side = self.grid.chip_px // step
        first = next(iter(pieces.values()))
        whole = np.full((self.grid.parent_px // step,) * 2 + first.shape[2:], fill, first.dtype)
        for row in self.kept[parent]:
            if row["chip_id"] in pieces:
                top, left = row["row"] * side, row["col"] * side
                whole[top : top + side, left : left + side] = pieces[row["chip_id"]]
        return whole

    def image(self, parent: str, step: int) -> np.ndarray:
        """True colour of a parent, (h, w, 3) in 0 to 1; white where a sub-chip was dropped."""
        optical = self.results.array("S2L2A")
        pieces = {
            row["chip_id"]: true_colour(_thin(np.asarray(optical[row["store_index"]]), step), self.points)
            for row in self.kept[parent]
        }
        return self.put(parent, pieces, step, 1.0)

    @functools.cache  # noqa: B019 (as long as the report is written)
    def truth(self, head: str) -> dict[str, np.ndarray]:
        """Labels of every kept sub-chip, (h, w) uint8."""
        layer = self.results.array(mask_layer(self.config.heads[head].label))
        return {row["chip_id"]: layer[row["store_index"]] for rows in self.kept.values() for row in rows}

    @functools.cache  # noqa: B019 (as long as the report is written)
    def predicted(self, head: str, run: str | None = None) -> dict[str, np.ndarray]:
        """Classes predicted for every tested sub-chip, (h, w) uint8: each fold's model, first seed."""
        found: dict[str, np.ndarray] = {}
        for fold in self.results.folds:
            chips, array = self.results.predictions(run or self.run, self.results.seeds[0], head, fold)
            found |= dict(zip(chips, array, strict=True))
        return found

    @functools.cached_property
    def tested(self) -> set[str]:
        """Parents with predictions."""
        head = self.results.runs[self.run][0]
        known = self.predicted(head)
        return {parent for parent, rows in self.kept.items() if any(row["chip_id"] in known for row in rows)}

    def classes(self, head: str, parent: str, step: int, of: Literal["truth", "predicted"]) -> np.ndarray:
        """Classes of one parent, (h, w) uint8; 255 where there is none."""
        found = self.truth(head) if of == "truth" else self.predicted(head)
        names = [row["chip_id"] for row in self.kept[parent] if row["chip_id"] in found]
        return self.put(parent, {name: _thin(np.asarray(found[name]), step) for name in names}, step, IGNORE)

    def palette(self, head: str) -> list[str]:
        """Colours of a head's classes, in the order of their ids."""
        return list(self.config.labels[self.config.heads[head].label].colors.values())

    def wrong(self, head: str, parent: str) -> float | None:
        """Share of the labelled pixels of a parent that the shared model has wrong."""
        wrong = labelled = 0
        for row in self.kept[parent]:
            guess = self.predicted(head).get(row["chip_id"])
            if guess is not None:
                mask = np.asarray(self.truth(head)[row["chip_id"]])
                labelled += int((mask != IGNORE).sum())
                wrong += int(((mask != IGNORE) & (mask != guess)).sum())
        return wrong / labelled if labelled else None


def _thin(layer: np.ndarray, step: int) -> np.ndarray:
    """Take one pixel of each block of ``step`` along the last two axes: a mean of classes is no class."""
    return layer[..., step // 2 :: step, step // 2 :: step]


def _blocks(values: np.ndarray, valid: np.ndarray, px: int) -> np.ndarray:
    """Average ``values`` (h, w) over the valid pixels of blocks of ``px``; NaN where there is none."""
    height, width = values.shape
    shape = (height // px, px, width // px, px)
    held = np.where(valid, values, 0).reshape(shape).sum(axis=(1, 3), dtype=float)
    number = valid.reshape(shape).sum(axis=(1, 3))
    return np.divide(held, number, out=np.full(held.shape, np.nan), where=number > 0)


def city_view(config: Config, mosaic: Mosaic) -> CityView:
    """Make the map of all parents."""
    step = mosaic.step(_MOST_PX)
    places, size, zones, shortened = _places(config, mosaic)
    layers = [*_head_layers(config, mosaic, step)]
    pictures = {parent: images.photo(mosaic.image(parent, step)) for parent, rows in mosaic.kept.items() if rows}
    layers.append(Layer("image", "Satellite image", (), "Sentinel-2 in true colour.", pictures, smooth=True))
    return CityView(*size, places, layers, step, zones, shortened)


def _places(config: Config, mosaic: Mosaic) -> tuple[list[Place], tuple[float, float], list[int], float]:
    """Place the parents; coordinate systems side by side, since each has a north of its own."""
    side = config.grid.grid.side_m / 1000
    corners: dict[str, tuple[int, float, float]] = {}
    for parent, rows in mosaic.rows.items():
        corners[parent] = (
            rows[0]["epsg"],
            min(row["left"] for row in rows) / 1000,
            max(row["top"] for row in rows) / 1000,
        )
    zones = list(dict.fromkeys(zone for zone, _, _ in corners.values()))
    shortened = _shortened(list(corners.values()), side)
    corners = {parent: (zone, x / shortened, y / shortened) for parent, (zone, x, y) in corners.items()}
    heads = mosaic.results.runs[mosaic.run]
    splits, folds = mosaic.results.splits["parents"], len(mosaic.results.folds)
    tested_in = mosaic.results.splits["tested_in"]
    found, offset, height = [], 0.0, 0.0
    for zone in zones:
        of = {parent: (x, y) for parent, (code, x, y) in corners.items() if code == zone}
        west, north = min(x for x, _ in of.values()), max(y for _, y in of.values())
        for parent, (x, y) in of.items():
            tested = parent in mosaic.tested
            where = f"tested in fold {tested_in[parent]}" if folds > 1 else "tested"
            told = [f"{head} {percent(mosaic.wrong(head, parent))} wrong" for head in heads] if tested else []
            found.append(
                Place(
                    parent,
                    round(offset + x - west, 4),
                    round(north - y, 4),
                    side,
                    splits[parent],
                    tested,
                    ", ".join([parent, where if tested else f"not tested, {splits[parent]}", *told]),
                )
            )
        offset += max(x for x, _ in of.values()) - west + side * (1 + _GAP)
        height = max(height, north - min(y for _, y in of.values()) + side)
    return found, (round(offset - _GAP * side, 4), round(height, 4)), zones, shortened


def _shortened(corners: Sequence[tuple[int, float, float]], side: float) -> float:
    """Say how many times distances are to be shortened so that the nearest parents stand close, without overlap."""
    apart = [
        max(abs(one[1] - two[1]), abs(one[2] - two[2]))
        for one, two in itertools.combinations(corners, 2)
        if one[0] == two[0]
    ]
    return max(1.0, min(apart, default=side) / (side * (1 + _NEAR)))


def _head_layers(config: Config, mosaic: Mosaic, step: int) -> list[Layer]:
    grid = config.grid.grid
    layers = []
    for head in mosaic.results.runs[mosaic.run]:
        label = config.labels[config.heads[head].label]
        legend = [(item.name, item.color) for item in label.classes]
        truth, guess, palette = mosaic.truth(head), mosaic.predicted(head), mosaic.palette(head)
        known = {chip: np.where(truth[chip] == IGNORE, IGNORE, guess[chip]) for chip in guess if chip in truth}
        wrong = {chip: _blocks(truth[chip] != guess[chip], truth[chip] != IGNORE, step) for chip in known}
        layers += [
            Layer(
                f"{head}-map", f"{head}: the model's map", legend, "Only parents that were tested have one.",
                _tiles(mosaic, {c: _thin(v, step) for c, v in guess.items()}, step, palette),
            ),
            Layer(
                f"{head}-label", f"{head}: reference", legend, "The labels that the maps are held against.",
                _tiles(mosaic, {c: _thin(np.asarray(v), step) for c, v in truth.items()}, step, palette),
            ),
            Layer(
                f"{head}-error", f"{head}: errors",
                [("right", images.SHARES[0]), ("wrong", images.SHARES[-1])],
                "Dark where map and reference differ" + (f" (share of {step} x {step} pixels)." if step > 1 else "."),
                _tiles(mosaic, wrong, step, None),
            ),
        ]  # fmt: skip
        positive = config.heads[head].positive_class
        if len(label.classes) == 2 and positive is not None:
            number = label.class_names.index(positive)
            cell = _cell_px(grid.chip_px, _CELL_M / grid.resolution_m)
            scale = [
                (f"{100 * i // len(images.SHARES)} to {100 * (i + 1) // len(images.SHARES)} %", color)
                for i, color in enumerate(images.SHARES)
            ]
            for name, title, of in (("density", "density on the map", known), ("density-label", "density", truth)):
                cells = {c: _blocks(v == number, np.asarray(v) != IGNORE, cell) for c, v in of.items()}
                layers.append(
                    Layer(
                        f"{head}-{name}",
                        f"{head}: {title}" + (" in the reference" if name != "density" else ""),
                        scale,
                        f"Share of {positive} pixels in cells of {cell * grid.resolution_m:g} m.",
                        _tiles(mosaic, cells, cell, None),
                    )
                )
    return layers


def _cell_px(chip_px: int, wanted: float) -> int:
    """Give the divisor of a sub-chip's side that is nearest to a wanted side of a cell."""
    return min((n for n in range(1, chip_px + 1) if chip_px % n == 0), key=lambda n: (abs(n - wanted), n))


def _tiles(
    mosaic: Mosaic, pieces: Mapping[str, np.ndarray], step: int, palette: Sequence[str] | None
) -> dict[str, Markup]:
    """Encode a layer, parent by parent; without a palette it holds shares."""
    tiles = {}
    for parent, rows in mosaic.kept.items():
        of = {row["chip_id"]: pieces[row["chip_id"]] for row in rows if row["chip_id"] in pieces}
        if of:
            whole = mosaic.put(parent, of, step, np.nan if palette is None else IGNORE)
            tiles[parent] = images.shares(whole) if palette is None else images.classes(whole, palette)
    return tiles


@dataclass(frozen=True)
class Triptych:
    """The picture of the first screen: one tested parent as image, as reference and as the model's map."""

    parent: str
    side_km: float
    pictures: Sequence[tuple[str, Markup]]
    legend: Sequence[tuple[str, str]]
    alt: str


def triptych(config: Config, mosaic: Mosaic) -> Triptych | None:
    """Show the tested parent with the median share of wrong pixels: neither the best nor the worst."""
    heads = mosaic.results.runs[mosaic.run]
    wrong = {}
    for parent in sorted(mosaic.tested):
        found = [share for head in heads if (share := mosaic.wrong(head, parent)) is not None]
        if found:
            wrong[parent] = float(np.mean(found))
    if not wrong:
        return None
    parent = sorted(wrong, key=lambda name: (wrong[name], name))[(len(wrong) - 1) // 2]
    step = mosaic.step(_MOST_PX)
    # what covers the ground goes below, the positive class of a head of two classes on top of it
    order = sorted(heads, key=lambda head: -len(mosaic.palette(head)))
    base, over = order[0], [h for h in order[1:] if config.heads[h].positive_class is not None]
    palette = mosaic.palette(base)
    legend = [(item.name, item.color) for item in config.labels[config.heads[base].label].classes]
    titles = ("reference", "the model's map")
    shown = {title: mosaic.classes(base, parent, step, of) for title, of in zip(titles, _KINDS, strict=True)}
    for head in over:
        label, positive = config.labels[config.heads[head].label], config.heads[head].positive_class
        if positive is None or positive in dict(legend):
            continue
        number = label.class_names.index(positive)
        for title, of in zip(titles, _KINDS, strict=True):
            shown[title][mosaic.classes(head, parent, step, of) == number] = len(palette)
        palette.append(label.colors[number])
        legend.append((positive, label.colors[number]))
    pictures = [("satellite image", images.photo(mosaic.image(parent, step)))]
    pictures += [(title, images.classes(layer, palette)) for title, layer in shown.items()]
    side = config.grid.grid.side_m / 1000
    told = ", ".join(f"{head} {percent(mosaic.wrong(head, parent))}" for head in heads)
    return Triptych(
        parent, side, pictures, legend,
        f"Tested square {parent} of {side:g} km as satellite image, as reference labels and as the model's map. "
        f"Wrong pixels: {told}.",
    )  # fmt: skip
