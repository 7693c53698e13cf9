"""The figures of the report: matplotlib without pyplot, fixed fonts, equal bytes for equal results.

Colours. Classes keep the colours of ``classes.json`` everywhere. The run under test is blue and solid, its baselines
are orange and dashed; splits run from light to dark. Blue, orange and vermilion are taken from the palette that Okabe
and Ito chose to be told apart under every common colour vision deficiency ("Color Universal Design", 2008), darkened
where they carry text.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Polygon, Rectangle
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

from cityheads.core.classes import IGNORE
from cityheads.core.confusion import class_iou, mean_defined, or_none
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import atomic_path, write_json
from cityheads.core.grid import SPLITS, Grid, Parent, parent_polygon, read_parents
from cityheads.core.modalities import MODALITIES, RADAR
from cityheads.evaluation.ablation import averaged
from cityheads.product.results import Results

if TYPE_CHECKING:
    import shapely
    from matplotlib.axes import Axes

__all__ = ["draw_figures", "metric_name", "number", "rank_chips", "score", "signed"]

log = logging.getLogger(__name__)

INK, MUTED, LINE, GRID = "#1f2933", "#5f6b77", "#c9d0d7", "#e6eaee"
SPLIT_COLOR = {"train": "#b7c4d2", "val": "#e0a030", "test": "#1f4e79"}
SHARED, SINGLE = "#1f5f99", "#c8641b"
SINGLE_INK = "#a84f10"
OTHER_RUNS = ("#00795c", "#a85584", "#7a6a00", "#4b4b4b")
DROPPED = ("#c8641b", "#7b5ea7", "#00795c", "#a8324a", "#7a6a00", "#4b4b4b")
KEPT = "#dfe6ed"
ERRORS = {
    "both right": "#eef1f4",
    "only the shared model wrong": "#c8641b",
    "only the single-task model wrong": "#3f8fc5",
    "both wrong": "#3b3b46",
}
SEQUENTIAL = LinearSegmentedColormap.from_list(
    "cityheads", ["#ffffff", "#c5d8ea", "#6d9dc9", "#1f5f99", "#123c66"]
).with_extremes(bad="#eef0f2")

#: Grey scale of the radar panels in dB: from calm water to double bounce.
VV_RANGE_DB = (-24.0, 2.0)

_DPI = 180
_WIDTH = 10.0
_HEADER = 0.42
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8,
    "axes.linewidth": 0.7,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


class _Sheet:
    """A figure whose parts are placed in inches from its upper left corner."""

    def __init__(self, height: float, title: str, simulated: bool, width: float = _WIDTH) -> None:
        self.width, self.height = width, height + _HEADER
        self.figure = Figure(figsize=(self.width, self.height), dpi=_DPI)
        FigureCanvasAgg(self.figure)
        self.text(0.06, 0.17 - _HEADER, title, weight="bold", size=10.5, va="center_baseline")
        if simulated:
            # beside the title, where it stays in sight on a screen that shows the left part of the figure only
            self.text(
                0.06 + _text_width(title, 10.5, "bold") + 0.25, 0.17 - _HEADER, "SIMULATED DATA",
                va="center_baseline", size=7.5, weight="bold", color="#8a3b00",
                bbox={"boxstyle": "square,pad=0.45", "facecolor": "#fff3e0", "edgecolor": "#d98a3d", "linewidth": 0.8},
            )  # fmt: skip

    def text(self, x: float, y: float, text: str, **style: Any) -> Any:
        """Write at (x, y) inches below the header."""
        return self.figure.text(x / self.width, 1 - (y + _HEADER) / self.height, text, **style)

    def axes(self, x: float, y: float, width: float, height: float, **style: Any) -> Axes:
        """Add axes whose upper left corner is at (x, y) inches below the header."""
        return self.figure.add_axes(
            (x / self.width, 1 - (y + _HEADER + height) / self.height, width / self.width, height / self.height),
            **style,
        )

    def swatch(self, x: float, y: float, color: str, *, hatch: str | None = None, size: float = 0.13) -> None:
        """Draw a small square whose middle is ``y`` inches below the header."""
        self.figure.add_artist(
            Rectangle(
                (x / self.width, 1 - (y + _HEADER + size / 2) / self.height), size / self.width, size / self.height,
                facecolor=color, edgecolor="#9aa5b1", linewidth=0.5, hatch=hatch, transform=self.figure.transFigure,
            )
        )  # fmt: skip

    def legend(self, x: float, y: float, entries: Sequence[_Entry]) -> float:
        """Lay entries out from left to right in as many lines as needed; give the height used, in inches."""
        places, lines = _flow(entries, x, self.width - 0.1)
        for (text, color, hatch), (at, line) in zip(entries, places, strict=True):
            self.swatch(at, y + 0.1 + line * 0.22, color, hatch=hatch)
            self.text(at + 0.19, y + 0.1 + line * 0.22, text, va="center_baseline", size=8)
        return lines * 0.22


#: Text, colour and hatch of one entry of a legend.
_Entry = tuple[str, str, str | None]
_IGNORED: _Entry = ("ignored", "#e4e7ea", "//////")


def _flow(entries: Sequence[_Entry], x: float, right: float) -> tuple[list[tuple[float, int]], int]:
    """Give the place (inches from the left, line) of each entry of a legend, and the number of lines."""
    at, line, places = x, 0, []
    for text, _, _ in entries:
        length = 0.19 + _text_width(text, 8) + 0.28
        if at > x and at + length > right:
            at, line = x, line + 1
        places.append((at, line))
        at += length
    return places, line + 1


def _legend_height(entries: Sequence[_Entry], x: float) -> float:
    return _flow(entries, x, _WIDTH - 0.1)[1] * 0.22


def _text_width(text: str, size: float, weight: str = "normal") -> float:
    """Measure a line of text in inches."""
    font = FontProperties(family=_STYLE["font.family"], size=size, weight=weight)
    return float(TextPath((0, 0), text, prop=font).get_extents().x1) / 72 if text.strip() else 0.0


@contextmanager
def _style() -> Iterator[None]:
    """Draw with our style alone, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)  # type: ignore[arg-type]
        yield


def number(value: float, digits: int = 1) -> str:
    """Write a number with a true minus and without a negative zero."""
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def signed(value: float, digits: int = 1) -> str:
    """Write a number with its sign, a true minus, and zero without one."""
    text = number(value, digits)
    return text if text.startswith("\N{MINUS SIGN}") or not text.strip("0.,") else f"+{text}"


def percent(value: float | None) -> str:
    """Write a share as percent; n/a where it is undefined."""
    return "n/a" if value is None else f"{number(100 * value)}\N{NO-BREAK SPACE}%"


def metric_name(metric: str, classes: Sequence[str]) -> str:
    """Say what a head is judged by: ``mIoU``, or the IoU of its last class."""
    return "mIoU" if metric == "miou" else f"IoU of {classes[-1]}"


def score(confusion: np.ndarray, metric: str) -> float | None:
    """Give a head's metric from a (C, C) confusion matrix; None where it is undefined."""
    ious = class_iou(confusion)
    found: float | None = or_none(mean_defined(ious) if metric == "miou" else ious[-1])
    return found


def rank_chips(confusions: dict[str, np.ndarray], metric: str, count: int) -> list[tuple[str, str]]:
    """Pick the best, median and worst sub-chips of a head.

    Where the metric is the IoU of one class, sub-chips of which it covers less than 1 % do not take part: with a
    handful of pixels any score can come out. Sub-chips without a score do not take part either.

    Args:
        confusions: Matrix per sub-chip, (n, n), rows true.
        metric: ``miou`` or ``iou``.
        count: How many of each.

    Returns:
        (``best``, ``median`` or ``worst``; sub-chip id), best first; fewer where there are not enough.
    """
    scores = {chip: value for chip, matrix in confusions.items() if (value := score(matrix, metric)) is not None}
    if metric == "iou":
        whole = max((matrix.sum() for matrix in confusions.values()), default=0)
        ample = {c: v for c, v in scores.items() if confusions[c][-1].sum() >= 0.01 * whole}
        scores = ample or scores
    order = sorted(scores, key=lambda chip: (-scores[chip], chip))
    if len(order) <= 3 * count:
        third = math.ceil(len(order) / 3)
        kinds = ["best"] * third + ["median"] * (len(order) - 2 * third) + ["worst"] * third
        return list(zip(kinds, order, strict=False))
    start = (len(order) - count) // 2
    return (
        [("best", chip) for chip in order[:count]]
        + [("median", chip) for chip in order[start : start + count]]
        + [("worst", chip) for chip in order[-count:]]
    )


class _Gallery:
    """Draws the figures one by one and keeps their entries for figures.json."""

    def __init__(self, settings: dict[str, Any], parents: Path, results: Path, out: Path) -> None:
        self.settings = settings
        self.grid = Grid.from_settings(settings["grid"])
        self.parents = read_parents(parents, self.grid)
        self.results = Results(results, settings["runs"], settings["seeds"])
        self.simulated = self.results.simulated
        self.out = out
        self.gate_run: str = settings["gate"]["run"]
        self.baselines: dict[str, str] = settings["gate"]["baselines"]
        self.heads = self.results.runs[self.gate_run]
        self.entries: list[dict[str, str]] = []
        self._require()
        for parent in self.parents:
            if parent.parent_id not in self.results.splits["parents"]:
                raise CityHeadsError(
                    f"{self.results.root / 'dataset' / 'splits.json'}: has no parent {parent.parent_id} of {parents}; "
                    "run the workflow again"
                )

    def _require(self) -> None:
        """Look for every artifact before the first figure is drawn.

        Raises:
            CityHeadsError: One is missing.
        """
        found = self.results
        for name in ("chips.parquet", "classes.json"):
            found.path("dataset", name)
        for name in ("S2L2A", *(f"MASK_{self.settings['heads'][head]['label']}" for head in self.heads)):
            found.path("dataset", "store", f"{name}.npy")
        compared = {self.gate_run, *(self.baselines[head] for head in self.heads)}
        for run, heads in found.runs.items():
            for seed in found.seeds:
                found.path("runs", run, seed, "history.csv")
                found.path("runs", run, seed, "training.json")
                if run in compared:
                    found.path("evaluation", run, seed, "metrics.json")
            if run in compared:
                # the pictures show the first seed
                where = ("evaluation", run, found.seeds[0])
                found.path(*where, "confusion.parquet")
                found.path(*where, "predictions", "index.json")
                for head in heads:
                    found.path(*where, "predictions", f"{head}.npy")

    def sheet(self, height: float, title: str, width: float = _WIDTH) -> _Sheet:
        """Start a figure."""
        return _Sheet(height, title, self.simulated, width)

    def save(self, sheet: _Sheet, name: str, section: str, title: str, caption: str, alt: str) -> None:
        """Write the figure and note its entry."""
        if self.simulated:
            alt = f"Simulated data. {alt}"
        with atomic_path(self.out / f"{name}.png") as part:
            # without Software, the bytes do not depend on matplotlib's version string
            sheet.figure.savefig(part, dpi=_DPI, metadata={"Software": None})
        self.entries.append(
            {"id": name, "file": f"{name}.png", "title": title, "caption": caption, "section": section, "alt": alt}
        )

    def classes(self, head: str) -> list[dict[str, Any]]:
        """Give the class table of a head."""
        return self.results.classes[self.settings["heads"][head]["label"]]

    def names(self, head: str) -> list[str]:
        """Give the class names of a head."""
        return [item["name"] for item in self.classes(head)]

    def metric(self, head: str) -> str:
        """Give the name of a head's metric for people."""
        return metric_name(self.settings["heads"][head]["metric"], self.names(head))

    def run_style(self, run: str) -> tuple[str, str]:
        """Give a run's colour and line style."""
        if run == self.gate_run:
            return SHARED, "-"
        if run in self.baselines.values():
            return SINGLE, (0, (5, 2))  # type: ignore[return-value]
        others = [name for name in self.results.runs if name != self.gate_run and name not in self.baselines.values()]
        return OTHER_RUNS[others.index(run) % len(OTHER_RUNS)], (0, (1.5, 1.5))  # type: ignore[return-value]

    # ------------------------------------------------------------------ map

    def draw_map(self) -> None:
        """Draw the parents in their place, coloured by split."""
        zones = list(dict.fromkeys(parent.epsg for parent in self.parents))
        boundary = self._boundary()
        chips = self.results.statistics["chips"]
        count = {s: sum(self.results.splits["parents"][p.parent_id] == s for p in self.parents) for s in SPLITS}
        if len(zones) == 1:
            sheet = self._one_map(zones[0], boundary, count, chips)
        else:
            sheet = self._many_maps(zones, boundary, count, chips)
        places = "; ".join(
            f"{s}: {', '.join(p.parent_id for p in self.parents if self.results.splits['parents'][p.parent_id] == s)}"
            for s in SPLITS
        )
        side = f"{self.grid.side_m / 1000:g} km"
        self.save(
            sheet,
            "map",
            "map",
            "Parents and splits",
            f"{len(self.parents)} parents of {side} x {side}, dealt whole to train, val and test, so that no test "
            "pixel has a training neighbour within its own square."
            + (" The line is the boundary of the surveyed area." if boundary is not None else ""),
            f"Map of {len(self.parents)} square parents in {len(zones)} coordinate system"
            f"{'s' if len(zones) > 1 else ''}, coloured by split. {places}.",
        )

    def _boundary(self) -> Any:
        for label in self.results.classes:
            path = self.results.root / "labels" / label / "boundary.parquet"
            if path.exists():
                import geopandas as gpd

                return gpd.read_parquet(path)
        return None

    def _one_map(self, epsg: int, boundary: Any, count: dict[str, int], chips: dict[str, int]) -> _Sheet:
        outline = None if boundary is None else boundary.to_crs(epsg).geometry.union_all()
        west, south, east, north = self._extent(self.parents, outline)
        left, side = 0.72, 2.75
        width = _WIDTH - left - side
        height = min(max(width * (north - south) / (east - west), 3.4), 7.4)
        sheet = self.sheet(height + 0.62, "Parents and splits")
        axes = sheet.axes(left, 0.06, width, height)
        inches_per_km = self._frame(axes, (west, south, east, north), width, height)
        axes.set_xlabel(f"easting, km (EPSG:{epsg})")
        axes.set_ylabel("northing, km")
        self._outline(axes, outline)
        self._squares(axes, self.parents, inches_per_km)
        at = left + width + 0.35
        self._map_key(sheet, at, 0.2, count, chips, outline is not None)
        self._north_and_scale(sheet, at, height - 1.05, inches_per_km)
        return sheet

    def _many_maps(self, zones: list[int], boundary: Any, count: dict[str, int], chips: dict[str, int]) -> _Sheet:
        columns = min(3, len(zones))
        rows = math.ceil(len(zones) / columns)
        overview, cell, gap = 2.9, (_WIDTH - 0.1) / columns, 0.86
        side = min(cell - 1.05, 4.0)
        sheet = self.sheet(overview + 0.8 + rows * (side + 0.95), "Parents and splits")
        self._overview(sheet.axes(0.72, 0.06, _WIDTH - 0.72 - 2.75, overview))
        self._map_key(sheet, _WIDTH - 2.4, 0.2, count, chips, boundary is not None)
        for index, epsg in enumerate(zones):
            parents = [parent for parent in self.parents if parent.epsg == epsg]
            outline = None if boundary is None else self._near(boundary, parents, epsg)
            extent = self._extent(parents, outline)
            x, y = gap + (index % columns) * cell, overview + 1.05 + (index // columns) * (side + 0.95)
            axes = sheet.axes(x, y, side, side)
            per_km = self._frame(axes, extent, side, side)
            axes.set_title(f"EPSG:{epsg}", pad=5)
            axes.set_xlabel("easting, km")
            if index % columns == 0:
                axes.set_ylabel("northing, km")
            self._outline(axes, outline)
            self._squares(axes, parents, per_km)
            self._scale_inside(axes, extent)
        return sheet

    def _near(self, boundary: Any, parents: Sequence[Parent], epsg: int) -> shapely.Geometry | None:
        """Give the part of the boundary that lies around some parents, in their CRS.

        It is cut in longitude and latitude first: a place on another continent has no coordinates in this zone.
        """
        bounds = np.array([parent_polygon(parent, self.grid, 4326).bounds for parent in parents])
        (west, south), (east, north) = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
        pad = 0.1 * max(east - west, north - south)
        near = boundary.to_crs(4326).clip((west - pad, south - pad, east + pad, north + pad))
        return None if near.empty else near.to_crs(epsg).geometry.union_all()

    def _overview(self, axes: Axes) -> None:
        points = []
        for parent in self.parents:
            west, south, east, north = parent_polygon(parent, self.grid, 4326).bounds
            points.append(((west + east) / 2, (south + north) / 2))
        lon, lat = np.array(points).T
        pad_lon, pad_lat = max(8.0, 0.2 * np.ptp(lon)), max(6.0, 0.25 * np.ptp(lat))
        axes.set_xlim(max(-180, lon.min() - pad_lon), min(180, lon.max() + pad_lon))
        axes.set_ylim(max(-90, lat.min() - pad_lat), min(90, lat.max() + pad_lat))
        axes.grid(True)
        axes.axhline(0, color=LINE, linewidth=1)
        for parent, x, y in zip(self.parents, lon, lat, strict=True):
            split = self.results.splits["parents"][parent.parent_id]
            axes.plot(x, y, "o", color=SPLIT_COLOR[split], markeredgecolor=INK, markeredgewidth=0.6, markersize=7)
            axes.annotate(
                f"{parent.parent_id}", (x, y), (0, 8), textcoords="offset points", ha="center", fontsize=7.5
            )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("longitude, degrees")
        axes.set_ylabel("latitude, degrees")

    def _extent(self, parents: Sequence[Parent], outline: shapely.Geometry | None) -> tuple[float, float, float, float]:
        """Give west, south, east and north in metres, with a margin."""
        side = self.grid.side_m
        west, east = min(p.left for p in parents), max(p.left for p in parents) + side
        south, north = min(p.top for p in parents) - side, max(p.top for p in parents)
        if outline is not None:
            bounds = outline.bounds
            west, south = min(west, bounds[0]), min(south, bounds[1])
            east, north = max(east, bounds[2]), max(north, bounds[3])
        pad = 0.04 * max(east - west, north - south)
        return west - pad, south - pad, east + pad, north + pad

    @staticmethod
    def _frame(axes: Axes, extent: tuple[float, float, float, float], width: float, height: float) -> float:
        """Fit the extent into the axes at equal scale, in km; give inches per km."""
        west, south, east, north = (value / 1000 for value in extent)
        per_km = min(width / (east - west), height / (north - south))
        x, y = (west + east) / 2, (south + north) / 2
        axes.set_xlim(x - width / per_km / 2, x + width / per_km / 2)
        axes.set_ylim(y - height / per_km / 2, y + height / per_km / 2)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6 if width > 4 else 3, steps=[1, 2, 5, 10]))
        axes.ticklabel_format(useOffset=False, style="plain")
        axes.grid(True)
        return per_km

    @staticmethod
    def _outline(axes: Axes, outline: shapely.Geometry | None) -> None:
        if outline is None:
            return
        for part in getattr(outline, "geoms", [outline]):
            if part.geom_type != "Polygon":
                continue
            ring = np.asarray(part.exterior.coords)[:, :2] / 1000
            axes.add_patch(
                Polygon(ring, closed=True, facecolor="#f6f4ef", edgecolor="#8f8672", linewidth=0.9, zorder=1)
            )

    def _squares(self, axes: Axes, parents: Sequence[Parent], inches_per_km: float) -> None:
        """Draw squares with their sub-chips; a dropped sub-chip is left white."""
        side = self.grid.side_m / 1000
        small = side / self.grid.chips_per_side
        of_parent: dict[str, list[dict[str, Any]]] = {}
        for row in self.results.chips:
            of_parent.setdefault(row["parent_id"], []).append(row)
        points = side * inches_per_km * 72
        for parent in parents:
            split = self.results.splits["parents"][parent.parent_id]
            x, y = parent.left / 1000, parent.top / 1000
            axes.add_patch(Rectangle((x, y - side), side, side, facecolor=SPLIT_COLOR[split], linewidth=0, zorder=2))
            for row in of_parent.get(parent.parent_id, []):
                if not row["kept"]:
                    corner = (x + row["col"] * small, y - (row["row"] + 1) * small)
                    axes.add_patch(Rectangle(corner, small, small, facecolor="white", linewidth=0, zorder=2.1))
            edge = Rectangle((x, y - side), side, side, facecolor="none", edgecolor=INK, linewidth=0.7, zorder=2.2)
            axes.add_patch(edge)
            # an id stands above its square unless the square is large enough, or a neighbour is in the way
            crowded = any(
                other is not parent
                and abs(other.left / 1000 - x) < side * 1.01
                and 0 < other.top / 1000 - y < side + 11 / 72 / inches_per_km
                for other in parents
            )
            if points > 60 or crowded:
                size = min(8.5, max(4.5, (points - 4) / (0.62 * len(parent.parent_id))))
                axes.text(
                    x + side / 2, y - side / 2, parent.parent_id, ha="center", va="center", fontsize=size, zorder=3,
                    bbox={"boxstyle": "round,pad=0.18", "facecolor": "white", "edgecolor": "none", "alpha": 0.82},
                )  # fmt: skip
            else:
                axes.annotate(
                    parent.parent_id, (x + side / 2, y), (0, 2), textcoords="offset points", ha="center", va="bottom",
                    fontsize=7, zorder=3,
                )  # fmt: skip

    def _map_key(
        self, sheet: _Sheet, x: float, y: float, count: dict[str, int], chips: dict[str, int], outlined: bool
    ) -> None:
        dropped = any(self.results.statistics["dropped"].values())
        for index, split in enumerate(SPLITS):
            at = y + index * 0.42
            sheet.swatch(x, at, SPLIT_COLOR[split], size=0.17)
            sheet.text(x + 0.28, at, split, va="center_baseline", weight="bold", size=9)
            held = f"{_count(count[split], 'parent')}, {_count(chips[split], 'sub-chip')}"
            sheet.text(x + 0.28, at + 0.17, held, va="center_baseline", size=7.5, color=MUTED)
        rest = [("dropped sub-chip", "white")] if dropped else []
        rest += [("surveyed area", "#f6f4ef")] if outlined else []
        for index, (text, color) in enumerate(rest):
            at = y + 3 * 0.42 + index * 0.3
            sheet.swatch(x, at, color, size=0.17)
            sheet.text(x + 0.28, at, text, va="center_baseline")

    @staticmethod
    def _north_and_scale(sheet: _Sheet, x: float, y: float, inches_per_km: float) -> None:
        width, height = sheet.width, sheet.height

        def at(dx: float, dy: float) -> tuple[float, float]:
            return (x + dx) / width, 1 - (y + dy + _HEADER) / height

        arrow = np.array([at(0.1, 0.0), at(0.2, 0.42), at(0.1, 0.33), at(0.0, 0.42)])
        sheet.figure.add_artist(Polygon(arrow, closed=True, facecolor=INK, transform=sheet.figure.transFigure))
        sheet.text(x + 0.1, y - 0.1, "N", ha="center", va="center_baseline", weight="bold")
        length = _round_length(1.6 / inches_per_km)
        for index in range(2):
            sheet.figure.add_artist(
                Rectangle(
                    at(index * length / 2 * inches_per_km, 0.78), length / 2 * inches_per_km / width, 0.055 / height,
                    facecolor=INK if index == 0 else "white", edgecolor=INK, linewidth=0.7,
                    transform=sheet.figure.transFigure,
                )
            )  # fmt: skip
        for share in (0, 0.5, 1):
            sheet.text(
                x + share * length * inches_per_km, y + 0.92, f"{length * share:g}" + (" km" if share == 1 else ""),
                ha="center", va="center_baseline", size=7.5, color=MUTED,
            )  # fmt: skip

    def _scale_inside(self, axes: Axes, extent: tuple[float, float, float, float]) -> None:
        """Draw scale bar and north arrow below the axes' lower right corner, in a panel too small for a key."""
        low, high = axes.get_xlim()
        length = _round_length((high - low) / 3)
        transform = axes.get_xaxis_transform()
        high -= 0.08 * (high - low)
        axes.plot([high - length, high], [1.03, 1.03], color=INK, linewidth=2, clip_on=False, transform=transform)
        style: dict[str, Any] = {"textcoords": "offset points", "xycoords": transform, "fontsize": 7.5}
        axes.annotate(f"{length:g} km", (high - length / 2, 1.03), (0, 3), color=MUTED, ha="center", **style)
        axes.annotate("N", (high, 1.03), (10, 0), ha="center", va="center", fontweight="bold", **style)

    # --------------------------------------------------------------- panels

    def draw_panels(self, head: str) -> None:
        """Draw best, median and worst test sub-chips of a head."""
        seed = self.results.seeds[0]
        baseline = self.baselines[head]
        classes = self.classes(head)
        metric = self.settings["heads"][head]["metric"]
        matrices = self.results.chip_confusion(self.gate_run, seed, head, len(classes))
        single = self.results.chip_confusion(baseline, seed, head, len(classes))
        picked = rank_chips(matrices, metric, self.settings["report"]["panels_per_head"])
        chips, shared_guess = self.results.predictions(self.gate_run, seed, head)
        single_chips, single_guess = self.results.predictions(baseline, seed, head)
        rows = {row["chip_id"]: row["store_index"] for row in self.results.chips}
        label = self.settings["heads"][head]["label"]
        truth = self.results.array(f"MASK_{label}")
        optical = self.results.array("S2L2A")
        store = self.results.root / "dataset" / "store"
        radar = next((self.results.array(name) for name in RADAR if (store / f"{name}.npy").exists()), None)
        columns = [
            "true colour",
            *([] if radar is None else ["radar (VV)"]),
            "label",
            "shared model",
            "single-task",
            "errors",
        ]
        legend: list[_Entry] = [(item["name"], item["color"], None) for item in classes]
        legend.append(_IGNORED)
        faults: list[_Entry] = [(text, color, None) for text, color in ERRORS.items()]
        gap, left = 0.09, 0.06
        cell = (_WIDTH - 2 * left - gap * (len(columns) - 1)) / len(columns)
        row_height = cell + 0.42
        keys = _legend_height(legend, 0.62) + _legend_height(faults, 0.62) + 0.12
        title = f"Best, median and worst test sub-chips: {head}"
        sheet = self.sheet(0.18 + max(len(picked), 1) * row_height + keys + 0.1, title)
        for index, name in enumerate(columns):
            sheet.text(left + index * (cell + gap), 0.08, name, size=8, color=MUTED, va="center_baseline")
        stretch = _stretch(optical, [rows[chip] for _, chip in picked])
        described = []
        for line, (kind, chip) in enumerate(picked):
            top = 0.22 + line * row_height
            both = (score(matrices[chip], metric), score(single[chip], metric))
            sheet.text(left, top + 0.12, kind, weight="bold", size=9, va="center_baseline")
            sheet.text(left + 0.66, top + 0.12, chip, size=9, va="center_baseline")
            sheet.text(
                _WIDTH - left, top + 0.12,
                f"{self.metric(head)}: shared {percent(both[0])}, single-task {percent(both[1])}",
                size=8.5, ha="right", va="center_baseline",
            )  # fmt: skip
            described.append(f"{kind} {chip} {percent(both[0])} against {percent(both[1])}")
            mask = np.asarray(truth[rows[chip]])
            one = np.asarray(shared_guess[chips.index(chip)])
            two = np.asarray(single_guess[single_chips.index(chip)])
            pictures = [_true_colour(np.asarray(optical[rows[chip]]), stretch)]
            if radar is not None:
                pictures.append(_grey(np.asarray(radar[rows[chip]][0])))
            palette = [item["color"] for item in classes]
            faulty = (one != mask).astype(np.uint8) + 2 * (two != mask).astype(np.uint8)
            faulty[mask == IGNORE] = IGNORE
            pictures += [_paint(layer, palette) for layer in (mask, one, two)]
            pictures.append(_paint(faulty, list(ERRORS.values())))
            for index, picture in enumerate(pictures):
                axes = sheet.axes(left + index * (cell + gap), top + 0.26, cell, cell)
                axes.imshow(picture, interpolation="nearest", aspect="auto")
                axes.set_xticks([])
                axes.set_yticks([])
                for spine in axes.spines.values():
                    spine.set(visible=True, color="#9aa5b1", linewidth=0.5)
        below = 0.18 + max(len(picked), 1) * row_height + 0.1
        if not picked:
            sheet.text(left, 0.5, "No test sub-chip has a score for this head.", color=MUTED)
        sheet.text(left, below + 0.1, "classes", size=8, color=MUTED, va="center_baseline")
        below += sheet.legend(0.62, below, legend)
        sheet.text(left, below + 0.16, "errors", size=8, color=MUTED, va="center_baseline")
        sheet.legend(0.62, below + 0.06, faults)
        seeds = f", seed {seed}" if len(self.results.seeds) > 1 else ""
        rare = (
            f" Sub-chips with less than 1\N{NO-BREAK SPACE}% {classes[-1]['name']} are left out of the ranking."
            if metric == "iou"
            else ""
        )
        ends = f"black at {number(VV_RANGE_DB[0], 0)} and white at {signed(VV_RANGE_DB[1], 0)}"
        grey = "" if radar is None else f"; radar is VV in dB, {ends}"
        self.save(
            sheet,
            f"panels_{head}",
            "panels",
            f"Best, median and worst: {head}",
            f"Test sub-chips ranked by the shared model's {self.metric(head)} on the sub-chip{seeds}.{rare} The last "
            f"picture says which of the two models is wrong where{grey}.",
            f"Pictures of test sub-chips for head {head}: true colour, {'' if radar is None else 'radar, '}label, both "
            "predictions and errors. "
            f"{self.metric(head)}, shared against single-task: {'; '.join(described) or 'none'}.",
        )

    # --------------------------------------------------------------- curves

    def draw_curves(self) -> None:
        """Draw the validation metric per head and the loss per run."""
        best: dict[tuple[str, int], int] = {
            (run, seed): self.results.training(run, seed)["best_epoch"]
            for run in self.results.runs
            for seed in self.results.seeds
        }
        heads = list(dict.fromkeys(head for run in self.results.runs.values() for head in run))
        sheet, cells = self._curve_cells(len(heads), "Validation score by epoch")
        for (axes, bottom), head in zip(cells, heads, strict=True):
            metric = self.settings["heads"][head]["metric"]
            runs = [run for run, of in self.results.runs.items() if head in of]
            for run in runs:
                self._curves(axes, run, f"val/{head}/{metric}", best, 100.0)
            axes.set_title(f"{head}: {self.metric(head)}, %", pad=19)
            self._curve_frame(axes, bottom)
            self._direct_legend(axes, [(run, *self.run_style(run)) for run in runs])
        self.save(
            sheet,
            "curves_score",
            "curves",
            "Validation score by epoch",
            "Each line is one training; the dot marks the epoch whose weights were kept. The shared model is solid "
            "blue, single-task models are dashed orange.",
            f"Line charts of the validation metric by epoch for the heads {', '.join(heads)}. Best epochs: "
            + "; ".join(f"{run} seed {seed} epoch {epoch + 1}" for (run, seed), epoch in best.items())
            + ".",
        )
        runs = list(self.results.runs)
        sheet, cells = self._curve_cells(len(runs), "Loss by epoch")
        for (axes, bottom), run in zip(cells, runs, strict=True):
            color, _ = self.run_style(run)
            self._curves(axes, run, "train/loss", best, 1.0, style=("#8b95a1", "-"), mark=False)
            self._curves(axes, run, "val/loss", best, 1.0, style=(color, "-"))
            axes.set_title(f"{run}: loss", pad=19)
            self._curve_frame(axes, bottom)
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            self._direct_legend(axes, [("train", "#8b95a1", "-"), ("val", color, "-")])
        self.save(
            sheet,
            "curves_loss",
            "curves",
            "Loss by epoch",
            "Loss on train and val. A run with several heads sums their losses, so the heights of different runs do "
            "not compare; the gap between train and val does.",
            f"Line charts of training and validation loss by epoch for the runs {', '.join(runs)}.",
        )

    def _curve_cells(self, count: int, title: str) -> tuple[_Sheet, list[tuple[Axes, bool]]]:
        columns = 2 if count in (2, 4) else min(3, count)
        rows = math.ceil(count / columns)
        left, right, gap, high = 0.5, 0.12, 0.55, 2.35
        width = (_WIDTH - left - right - gap * (columns - 1)) / columns
        pitch = high + 0.9
        sheet = self.sheet(rows * pitch + 0.08, title)
        cells = []
        for index in range(count):
            row, column = divmod(index, columns)
            axes = sheet.axes(left + column * (width + gap), 0.5 + row * pitch, width, high)
            cells.append((axes, index + columns >= count))
        return sheet, cells

    def _curves(
        self,
        axes: Axes,
        run: str,
        column: str,
        best: dict[tuple[str, int], int],
        factor: float,
        *,
        style: tuple[str, Any] | None = None,
        mark: bool = True,
    ) -> None:
        color, line = style or self.run_style(run)
        for seed in self.results.seeds:
            history = self.results.history(run, seed)
            if column not in history:
                path = self.results.path("runs", run, seed, "history.csv")
                raise CityHeadsError(f"{path}: lacks column {column}; delete the run's folder and train again")
            there = np.isfinite(history[column])
            # people count epochs from 1, as the progress messages do
            epoch, values = history["epoch"][there] + 1, history[column][there] * factor
            several = len(self.results.seeds) > 1
            axes.plot(
                epoch, values, color=color, linestyle=line, linewidth=1.3 if several else 1.7,
                alpha=0.75 if several else 1,
            )  # fmt: skip
            at = np.flatnonzero(epoch == best[run, seed] + 1)
            if mark and len(at):
                axes.plot(
                    epoch[at[0]], values[at[0]], "o", color=color, markersize=5.5, markeredgecolor="white",
                    markeredgewidth=1, zorder=5,
                )  # fmt: skip

    @staticmethod
    def _curve_frame(axes: Axes, bottom: bool) -> None:
        axes.grid(True, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.margins(x=0.02, y=0.12)
        axes.set_xlabel("epoch" if bottom else "")

    @staticmethod
    def _direct_legend(axes: Axes, entries: Sequence[tuple[str, str, Any]]) -> None:
        from matplotlib.lines import Line2D

        lines = [Line2D([], [], color=color, linestyle=style, linewidth=1.7) for _, color, style in entries]
        axes.legend(
            lines, [name for name, _, _ in entries], loc="lower left", bbox_to_anchor=(0.0, 0.99), ncols=len(entries),
            handlelength=2.0, columnspacing=1.2, borderaxespad=0.2, borderpad=0.1, handletextpad=0.5, fontsize=7.5,
        )  # fmt: skip

    # ------------------------------------------------------------ confusion

    def draw_confusion(self, head: str) -> None:
        """Draw the row-normalised confusion matrices of a head, shared and single-task beside each other."""
        names = self.names(head)
        pairs = [(self.gate_run, "shared model"), (self.baselines[head], "single-task model")]
        matrices = []
        for run, _ in pairs:
            total = np.zeros((len(names), len(names)), np.int64)
            for seed in self.results.seeds:
                total += np.asarray(self.results.metrics(run, seed)["heads"][head]["confusion"], np.int64)
            matrices.append(total)
        left = 0.35 + 0.075 * max(len(name) for name in [*names, "12,345,678 px"])
        cell = min(0.92, (_WIDTH / 2 - left - 0.25) / len(names))
        # class names under the columns are turned where they would run into each other
        turned = 0.07 * max(len(name) for name in names) > cell
        foot = 0.35 + (0.055 * max(len(name) for name in names) if turned else 0.12)
        sheet = self.sheet(0.42 + cell * len(names) + foot, f"Confusion matrices: {head}")
        told = []
        for index, ((run, kind), matrix) in enumerate(zip(pairs, matrices, strict=True)):
            rows = matrix.sum(axis=1)
            pixels = rows // len(self.results.seeds)
            share = np.divide(matrix, rows[:, None], out=np.full(matrix.shape, np.nan), where=rows[:, None] > 0)
            x = index * _WIDTH / 2 + left
            axes = sheet.axes(x, 0.34, cell * len(names), cell * len(names))
            axes.imshow(share, cmap=SEQUENTIAL, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
            axes.set_title(f"{kind} ({run})", pad=6)
            for true in range(len(names)):
                for guess in range(len(names)):
                    value = share[true, guess]
                    known = not np.isnan(value)
                    axes.text(
                        guess, true, number(100 * value, 0 if cell < 0.45 else 1) if known else "n/a",
                        ha="center", va="center_baseline", fontsize=min(9, 15 * cell),
                        color="white" if value > 0.5 else INK if known else MUTED,
                        fontweight="bold" if known and true == guess else "normal",
                    )  # fmt: skip
            axes.set_xticks(range(len(names)), names, rotation=35 if turned else 0, ha="right" if turned else "center")
            axes.set_yticks(
                range(len(names)), [f"{name}\n{count:,} px" for name, count in zip(names, pixels, strict=True)]
            )
            axes.tick_params(length=0, labelcolor=INK, pad=11)
            axes.tick_params(axis="x", pad=4)
            for true, item in enumerate(self.classes(head)):
                axes.add_patch(
                    Rectangle(
                        (-0.5 - 0.11 / cell, true - 0.5 + 0.04), 0.06 / cell, 0.92, facecolor=item["color"],
                        edgecolor="#9aa5b1", linewidth=0.4, clip_on=False,
                    )
                )  # fmt: skip
            axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
            axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
            axes.grid(True, which="minor", color="white", linewidth=1.5)
            axes.tick_params(which="minor", length=0)
            for spine in axes.spines.values():
                spine.set_visible(False)
            axes.set_xlabel("predicted class, % of the true class")
            told.append(
                f"{kind}: " + ", ".join(f"{name} {percent(_maybe(share[i, i]))}" for i, name in enumerate(names))
            )
        seeds = f", summed over {len(self.results.seeds)} seeds" if len(self.results.seeds) > 1 else ""
        self.save(
            sheet,
            f"confusion_{head}",
            "confusion",
            f"Confusion matrices: {head}",
            f"Of the pixels that are truly of the row's class, the share predicted as the column's class, in percent; "
            f"all test parents{seeds}. The diagonal is the recall.",
            f"Two confusion matrices for head {head}. Recall per class, {'; '.join(told)}.",
        )

    # -------------------------------------------------------------- balance

    def draw_balance(self) -> None:
        """Draw the share of every class per split and label."""
        pixels = self.results.statistics["class_pixels"]
        labels = list(self.results.classes)
        keys: dict[str, list[_Entry]] = {
            label: [*((item["name"], item["color"], None) for item in self.results.classes[label]), _IGNORED]
            for label in labels
        }
        heights = [0.34 + _legend_height(keys[label], 0.75) + 3 * 0.36 + 0.26 for label in labels]
        sheet = self.sheet(sum(heights) - 0.1, "Class balance")
        top, told = 0.0, []
        for label, high in zip(labels, heights, strict=True):
            sheet.text(0.06, top + 0.1, label, weight="bold", size=9, va="center_baseline")
            used = sheet.legend(0.75, top + 0.24, keys[label])
            axes = sheet.axes(0.75, top + 0.3 + used, _WIDTH - 0.95, 3 * 0.36)
            for line, split in enumerate(SPLITS):
                counts = np.asarray(pixels[split][label], float)
                shares = counts / counts.sum() if counts.sum() else counts
                at = 0.0
                for (_, color, hatch), share in zip(keys[label], shares, strict=True):
                    axes.barh(
                        line, share, left=at, height=0.72, color=color, hatch=hatch, edgecolor="white",
                        linewidth=0.8,
                    )  # fmt: skip
                    if hatch:
                        axes.barh(line, share, left=at, height=0.72, facecolor="none", hatch=hatch,
                                  edgecolor="#9aa5b1", linewidth=0)  # fmt: skip
                    if share > 0.045:
                        axes.text(
                            at + share / 2, line, number(100 * share), ha="center", va="center_baseline", fontsize=8,
                            color="white" if _luminance(color) < 0.5 else INK,
                            bbox={"boxstyle": "square,pad=0.15", "facecolor": color, "edgecolor": "none"},
                        )  # fmt: skip
                    at += share
                told.append(
                    f"{label} {split}: "
                    + ", ".join(f"{k[0]} {percent(float(s))}" for k, s in zip(keys[label], shares, strict=True))
                )
            axes.set_yticks(range(len(SPLITS)), SPLITS)
            axes.tick_params(axis="y", length=0, labelcolor=INK)
            axes.set_ylim(2.5, -0.5)
            axes.set_xlim(0, 1)
            axes.set_xticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
            top += high
        self.save(
            sheet,
            "balance",
            "balance",
            "Class balance",
            "Share of all pixels of the kept sub-chips per split, in percent. Ignored pixels neither train nor count.",
            f"Stacked bars of class shares. {'; '.join(told)}.",
        )

    # ---------------------------------------------------------------- delta

    def draw_delta(self) -> None:
        """Draw each head's delta with its interval and the thresholds of the gate."""
        gate = self.results.gate
        heads = gate["heads"]
        strong, acceptable = gate["margins"]["strong_pp"], gate["margins"]["acceptable_pp"]
        values = [value for head in heads.values() for value in (head["interval_pp"] or []) if value is not None]
        values += [
            value for head in heads.values() for value in [head["delta_pp"], *_per_seed(head)] if value is not None
        ]
        low, high = min([*values, -acceptable]), max([*values, acceptable])
        pad = 0.08 * (high - low)
        low, high = low - pad, high + pad
        left, right, row = 1.75, 2.2, 0.62
        sheet = self.sheet(0.4 + row * len(heads) + 0.45, "What sharing costs or gains")
        axes = sheet.axes(left, 0.4, _WIDTH - left - right, row * len(heads))
        zones = [(low, -acceptable, "#d7dade"), (-acceptable, -strong, "#eceef1"), (-strong, high, "#e3eef7")]
        for begin, end, color in zones:
            axes.axvspan(begin, end, color=color, linewidth=0, zorder=0)
        axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
        for at in (-strong, -acceptable):
            axes.axvline(at, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
        told = []
        for line, (name, head) in enumerate(heads.items()):
            centre = 0.4 + row * (line + 0.5)
            sheet.text(0.06, centre - 0.09, name, weight="bold", size=9.5, va="center_baseline")
            sheet.text(0.06, centre + 0.1, self.metric(name), size=7.5, color=MUTED, va="center_baseline")
            if head["delta_pp"] is None:
                text = "n/a (undefined here)"
            else:
                text = f"{signed(head['delta_pp'], 2)} pp"
                interval = head["interval_pp"]
                if interval is not None:
                    axes.plot(interval, [line, line], color=SHARED, linewidth=3, solid_capstyle="butt", zorder=3)
                    text += f"  [{signed(interval[0], 2)}, {signed(interval[1], 2)}]"
                else:
                    text += ", no interval"
                axes.plot(
                    head["delta_pp"], line, "o", color=SHARED, markersize=9, markeredgecolor="white",
                    markeredgewidth=1.4, zorder=4,
                )  # fmt: skip
                each = [value for value in _per_seed(head) if value is not None]
                if len(each) > 1:
                    axes.plot(
                        each, [line + 0.27] * len(each), "|", color=INK, markersize=6, markeredgewidth=1, zorder=4
                    )
            told.append(f"{name} {text}")
            sheet.text(_WIDTH - right + 0.15, centre, text, size=9, va="center_baseline")
        axes.set_ylim(len(heads) - 0.5, -0.5)
        axes.set_xlim(low, high)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: signed(value, 0 if value == round(value) else 1))
        axes.set_xlabel("shared minus single-task, percentage points")
        key: list[_Entry] = [
            (f"loses at most {strong:g} pp", zones[2][2], None),
            (f"loses {strong:g} to {acceptable:g} pp", zones[1][2], None),
            (f"loses {acceptable:g} pp or more", zones[0][2], None),
        ]
        sheet.legend(left, 0.06, key)
        confidence = f"{100 * gate['confidence']:g}\N{NO-BREAK SPACE}%"
        interval = (
            f" with its {confidence} interval (bootstrap over parents, the same {gate['resamples']:,} resamples for "
            "both models)"
            if any(head["interval_pp"] for head in heads.values())
            else "; there is no interval"
        )
        ticks = " Small ticks are single seeds." if len(gate["seeds"]) > 1 else ""
        self.save(
            sheet,
            "delta",
            "delta",
            "What sharing costs or gains",
            f"Difference of the scores on the test parents{interval}. Dashed lines are the gate's thresholds.{ticks}",
            f"Deltas with {confidence} intervals: {'; '.join(told)}. Thresholds at {signed(-strong)} and "
            f"{signed(-acceptable)} percentage points.",
        )

    # -------------------------------------------------------------- without

    def draw_without(self) -> None:
        """Draw what each head loses when an input is removed; nothing where that was not measured."""
        shared = averaged([self.results.metrics(self.gate_run, seed) for seed in self.results.seeds])
        if not shared:
            (self.out / "without.png").unlink(missing_ok=True)
            return
        tables = {self.gate_run: shared}
        for run in dict.fromkeys(self.baselines[head] for head in self.heads):
            tables[run] = averaged([self.results.metrics(run, seed) for seed in self.results.seeds]) or {}
        confidence = self.results.metrics(self.gate_run, self.results.seeds[0])["confidence"]
        left, right, row, gap = 1.75, 2.3, 0.46, 0.3
        block = row * len(shared) + gap
        sheet = self.sheet(0.3 + block * len(self.heads) + 0.45, "A modality missing at test time")
        axes = sheet.axes(left, 0.3, _WIDTH - left - right, block * len(self.heads))
        axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
        told = []
        for index, head in enumerate(self.heads):
            top = 0.3 + block * index
            sheet.text(0.06, top + 0.15, head, weight="bold", size=9.5, va="center_baseline")
            sheet.text(
                0.06 + _text_width(head, 9.5, "bold") + 0.1, top + 0.15, self.metric(head), size=7.5, color=MUTED,
                va="center_baseline",
            )  # fmt: skip
            if index:
                axes.axhline(block * index, color=LINE, linewidth=0.7, zorder=0)
            for line, modality in enumerate(shared):
                middle = block * index + gap + row * (line + 0.5)
                sheet.text(0.2, 0.3 + middle, modality, size=8.5, va="center_baseline")
                for kind, run, color, ink, marker, offset in (
                    ("shared", self.gate_run, SHARED, SHARED, "o", -0.1),
                    ("single-task", self.baselines[head], SINGLE, SINGLE_INK, "D", 0.1),
                ):
                    found = tables[run].get(modality, {}).get(head, {"delta_pp": None, "interval_pp": None})
                    text = "n/a (undefined here)"
                    if found["delta_pp"] is not None:
                        text = f"{signed(found['delta_pp'], 2)} pp"
                        axes.plot(
                            found["delta_pp"], middle + offset, marker, color=color, markersize=6,
                            markeredgecolor="white", markeredgewidth=0.9, zorder=4,
                        )  # fmt: skip
                        ends = found["interval_pp"]
                        if ends is not None:
                            axes.plot(
                                ends, [middle + offset] * 2, color=color, linewidth=2, solid_capstyle="butt", zorder=3
                            )
                        text += ", no interval" if ends is None else f"  [{signed(ends[0], 2)}, {signed(ends[1], 2)}]"
                    told.append(f"{head} without {modality}, {kind}, {text}")
                    sheet.text(
                        _WIDTH - right + 0.15, 0.3 + middle + offset, text, size=7.5, color=ink, va="center_baseline"
                    )
        axes.set_ylim(block * len(self.heads), 0)
        axes.margins(x=0.06)
        axes.set_yticks([])
        axes.grid(True, axis="x")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: signed(value, 0 if value == round(value) else 1))
        axes.set_xlabel("score without the modality minus score with it, percentage points")
        sheet.legend(left, 0.0, [("shared model", SHARED, None), ("single-task model", SINGLE, None)])
        self.save(
            sheet,
            "without",
            "without",
            "A modality missing at test time",
            "What the models lose on the test parents when one input is removed, with "
            f"{100 * confidence:g}\N{NO-BREAK SPACE}% intervals over parents. Left of zero, it is missed.",
            f"Differences in percentage points: {'; '.join(told)}.",
        )

    # -------------------------------------------------------------- dropped

    def draw_dropped(self) -> None:
        """Draw which sub-chips of every parent were kept, and why the others were not."""
        dropped = self.results.statistics["dropped"]
        reasons = sorted(dropped, key=lambda reason: (-dropped[reason], reason))
        color = {reason: DROPPED[index % len(DROPPED)] for index, reason in enumerate(reasons)}
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in self.results.chips:
            rows.setdefault(row["parent_id"], []).append(row)
        columns = min(11, len(self.parents))
        lines = math.ceil(len(self.parents) / columns)
        cell = min(1.6, (_WIDTH - 0.12) / columns)
        kept = sum(row["kept"] for row in self.results.chips)
        key: list[_Entry] = [(f"kept ({kept:,})", KEPT, None)]
        key += [(f"{reason} ({dropped[reason]:,})", color[reason], None) for reason in reasons]
        foot = _legend_height(key, 0.06)
        sheet = self.sheet(lines * (cell + 0.22) + foot + 0.3, "Kept and dropped sub-chips")
        side = self.grid.chips_per_side
        for index, parent in enumerate(self.parents):
            line, column = divmod(index, columns)
            axes = sheet.axes(
                0.06 + column * cell + 0.05, 0.26 + line * (cell + 0.22), cell - 0.1, cell - 0.1
            )  # fmt: skip
            split = self.results.splits["parents"][parent.parent_id]
            for row in rows.get(parent.parent_id, []):
                axes.add_patch(
                    Rectangle(
                        (row["col"], row["row"]), 1, 1, facecolor=KEPT if row["kept"] else color[row["reason"]],
                        edgecolor="white", linewidth=0.8 if side <= 8 else 0.3,
                    )
                )  # fmt: skip
            axes.set_xlim(0, side)
            axes.set_ylim(side, 0)
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
            size = min(7.5, 72 * (cell - 0.1) / (0.62 * (len(parent.parent_id) + len(split) + 2)))
            axes.set_title(parent.parent_id, fontsize=size, pad=2.5)
            axes.text(
                1, 1.0, split, transform=axes.transAxes, ha="right", va="bottom", fontsize=size, color=MUTED
            )  # fmt: skip
        sheet.legend(0.06, lines * (cell + 0.22) + 0.22, key)
        total = len(self.results.chips)
        why = "; ".join(f"{reason}: {dropped[reason]}" for reason in reasons) or "none was dropped"
        self.save(
            sheet,
            "dropped",
            "dropped",
            "Kept and dropped sub-chips",
            f"Every parent with its {side} x {side} sub-chips, north up: {total:,} in all, {kept:,} kept and "
            f"{total - kept:,} dropped.",
            f"{len(self.parents)} small grids of sub-chips, {kept} of {total} kept. Dropped, {why}.",
        )

    # -------------------------------------------------------------- timings

    def draw_timings(self) -> None:
        """Draw the wall time of every rule; a line of text where none was recorded."""
        timings = self.results.timings()
        row = 0.27
        sheet = self.sheet(0.3 + max(1, len(timings)) * row + 0.45, "Time per rule")
        if timings:
            left, right = 1.75, 2.6
            axes = sheet.axes(left, 0.24, _WIDTH - left - right, row * len(timings))
            longest = max(item.seconds for item in timings)
            unit = 60.0 if longest > 300 else 1.0
            sheet.text(_WIDTH - right + 0.1, 0.1, "wall time", size=7.5, color=MUTED, va="center_baseline")
            for x, text in ((1.45, "jobs"), (2.45, "peak memory")):
                sheet.text(
                    _WIDTH - right + x, 0.1, text, size=7.5, color=MUTED, ha="right", va="center_baseline"
                )  # fmt: skip
            for line, item in enumerate(timings):
                heavy = item.seconds == longest
                axes.barh(line, item.seconds / unit, height=0.62, color=SHARED if heavy else "#9db9d3")
                y = 0.24 + row * (line + 0.5)
                peak = "n/a" if item.peak_mb is None else f"{item.peak_mb:,.0f} MB"
                sheet.text(_WIDTH - right + 0.1, y, duration(item.seconds), size=8, va="center_baseline")
                sheet.text(_WIDTH - right + 1.45, y, f"{item.jobs:,}", size=8, ha="right", va="center_baseline")
                sheet.text(_WIDTH - right + 2.45, y, peak, size=8, ha="right", va="center_baseline")
            axes.set_yticks(range(len(timings)), [item.rule for item in timings])
            axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=8)
            axes.set_ylim(len(timings) - 0.5, -0.5)
            axes.set_xlabel(f"{'minutes' if unit > 1 else 'seconds'}, all jobs of the rule together")
            axes.grid(True, axis="x")
            axes.spines["left"].set_visible(False)
        else:
            sheet.text(0.06, 0.25, "No benchmark files were written: the verbs ran without the workflow.", color=MUTED)
        told = "; ".join(f"{item.rule} {duration(item.seconds)}" for item in timings) or "none recorded"
        self.save(
            sheet,
            "timings",
            "timings",
            "Time per rule",
            "Wall time of all jobs of a rule added up, as Snakemake measured it; jobs that ran at once count each.",
            f"Bars of wall time per rule: {told}.",
        )


def duration(seconds: float) -> str:
    """Write a duration for people: ``8.4 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _count(number_of: int, what: str) -> str:
    return f"{number_of:,} {what}" + ("" if number_of == 1 else "s")


def _per_seed(head: dict[str, Any]) -> list[float | None]:
    """Give the delta of every seed in percentage points."""
    return [item["delta_pp"] if isinstance(item, dict) else item for item in head["per_seed"]]


def _maybe(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _round_length(most: float) -> float:
    """Give the longest of 1, 2 and 5 times a power of ten that is at most ``most``."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (5, 2, 1) if step * power <= most)


def _luminance(color: str) -> float:
    """Give the relative luminance of a colour (WCAG 2.2), on a perceptual scale from 0 to 1."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color))
    return float((0.2126 * red + 0.7152 * green + 0.0722 * blue) ** 0.5)


def _stretch(optical: np.ndarray, rows: Sequence[int]) -> tuple[float, float]:
    """Give one black and one white point for all shown sub-chips, so that their brightness compares.

    Args:
        optical: (N, 12, h, w) reflectance x 10000, 0 = nodata.
        rows: Indices of the sub-chips shown.
    """
    bands = [MODALITIES["S2L2A"].bands.index(name) for name in ("B04", "B03", "B02")]
    values = np.concatenate([np.asarray(optical[row][bands]).ravel() for row in rows]) if rows else np.array([0])
    values = values[values != MODALITIES["S2L2A"].nodata]
    if not values.size:
        return 0.0, 1.0
    # the brightest 2 % are roofs and clouds; with them as white, the rest of a city is black
    low, high = np.percentile(values, (0.5, 98))
    return float(low), float(max(high, low + 1))


def _true_colour(array: np.ndarray, stretch: tuple[float, float]) -> np.ndarray:
    """Make an RGB picture (h, w, 3) of bands B04, B03 and B02; missing pixels are white."""
    bands = [MODALITIES["S2L2A"].bands.index(name) for name in ("B04", "B03", "B02")]
    light = (array[bands].astype(float) - stretch[0]) / (stretch[1] - stretch[0])
    picture = np.clip(light, 0, 1).transpose(1, 2, 0) ** (1 / 1.4)
    picture[(array[bands] == MODALITIES["S2L2A"].nodata).any(axis=0)] = 1
    return picture


def _grey(vv_db: np.ndarray) -> np.ndarray:
    """Make an RGB picture (h, w, 3) of backscatter in dB (h, w); missing pixels are white."""
    low, high = VV_RANGE_DB
    light = np.clip((np.nan_to_num(vv_db, nan=high) - low) / (high - low), 0, 1)
    return np.repeat(light[..., None], 3, axis=2)


def _paint(layer: np.ndarray, palette: Sequence[str]) -> np.ndarray:
    """Make an RGB picture of classes, enlarged to whole screen pixels; ignored pixels are hatched grey.

    Args:
        layer: (h, w) uint8 class ids, 255 = ignore.
        palette: Colour per class id.

    Returns:
        (H, W, 3) floats in 0 to 1.
    """
    table = np.ones((IGNORE + 1, 3))
    table[: len(palette)] = [to_rgb(color) for color in palette]
    factor = math.ceil(280 / layer.shape[0])
    large = np.repeat(np.repeat(layer, factor, axis=0), factor, axis=1)
    picture = table[large]
    stripe = np.add.outer(np.arange(large.shape[0]), np.arange(large.shape[1])) // 4 % 3 == 0
    ignored = large == IGNORE
    picture[ignored] = to_rgb("#e4e7ea")
    picture[ignored & stripe] = to_rgb("#b4bcc5")
    return picture


def draw_figures(settings: dict[str, Any], *, parents: Path, results: Path, out: Path) -> None:
    """Draw all figures of the report.

    Writes ``map``, ``panels_{head}`` and ``confusion_{head}`` for each head of the gate's run, ``curves_score``,
    ``curves_loss``, ``balance``, ``delta``, ``dropped`` and ``timings``, all PNG, and ``figures.json`` last; also
    ``without`` where the evaluations removed modalities.

    Args:
        settings: Sections ``project``, ``grid``, ``labels``, ``heads``, ``runs``, ``seeds``, ``gate`` and ``report``.
        parents: Parent sheet.
        results: Results folder.
        out: Folder of the figures.

    Raises:
        CityHeadsError: An artifact is missing or unreadable.
    """
    gallery = _Gallery(settings, Path(parents), Path(results), Path(out))
    with _style():
        gallery.draw_delta()
        gallery.draw_map()
        for head in gallery.heads:
            gallery.draw_panels(head)
        gallery.draw_curves()
        for head in gallery.heads:
            gallery.draw_confusion(head)
        gallery.draw_without()
        gallery.draw_balance()
        gallery.draw_dropped()
        gallery.draw_timings()
    write_json(gallery.out / "figures.json", gallery.entries)
    log.info("%d figures in %s", len(gallery.entries), out)
