"""The parents in their place, coloured by split, or by the fold that tests them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnchoredOffsetbox, AuxTransformBox, TextArea, VPacker
from matplotlib.patches import Patch, Polygon, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from cityheads.core.grid import Parent, parent_polygon
from cityheads.core.text import counted
from cityheads.product.figures import style
from cityheads.product.figures.evidence import Evidence
from cityheads.product.figures.sheet import Drawing, Sheet, patch

if TYPE_CHECKING:
    import geopandas as gpd
    import shapely

__all__ = ["draw_map"]

_TITLE = "Parents and splits"
_AREA = "#f6f4ef"
_OVERVIEW_IN, _LARGEST_IN = 2.6, 4.0

#: West, south, east and north in km.
Extent = tuple[float, float, float, float]


def draw_map(evidence: Evidence) -> Drawing:
    """Draw the parents in their place, in one map for each coordinate system."""
    zones = list(dict.fromkeys(parent.epsg for parent in evidence.parents))
    boundary = _boundary(evidence)
    sheet = _one_map(evidence, zones[0], boundary) if len(zones) == 1 else _many_maps(evidence, zones, boundary)
    listed = "; ".join(
        f"{group}: {', '.join(p.parent_id for p in evidence.parents if evidence.group[p.parent_id] == group)}"
        for group in evidence.group_colors
    )
    folds = evidence.results.splits["folds"]
    side = f"{evidence.grid.side_m / 1000:g} km"
    return Drawing(
        id="map",
        section="map",
        title=_TITLE,
        caption=f"{len(evidence.parents)} parents (tiles) of {side} x {side}, "
        + (
            "assigned whole to train, val and test, so that no test pixel has a training neighbour within its own "
            "square."
            if folds == 1
            else f"each tested in one of {folds} folds, by models that have seen none of its pixels."
        )
        + " North is up."
        + (" The line is the boundary of the surveyed area." if boundary is not None else ""),
        alt=f"Map of {len(evidence.parents)} square parents in {counted(len(zones), 'coordinate system')}, coloured by "
        f"{'split' if folds == 1 else 'the fold that tests them'}. {listed}.",
        figure=sheet.figure,
    )


def _boundary(evidence: Evidence) -> gpd.GeoDataFrame | None:
    """Read the surveyed area of the first label that has one."""
    for label in evidence.results.classes:
        path = evidence.results.layout.label(label).boundary
        if path.exists():
            import geopandas as gpd

            return gpd.read_parquet(path)
    return None


def _one_map(evidence: Evidence, epsg: int, boundary: gpd.GeoDataFrame | None) -> Sheet:
    outline = None if boundary is None else boundary.to_crs(epsg).geometry.union_all()
    west, south, east, north = _extent(evidence, evidence.parents, outline, least=0.5, most=1.02)
    sheet = Sheet(_TITLE, simulated=evidence.simulated, height=8)
    axes = sheet.body.add_subplot()
    _frame(axes, (west, south, east, north), ticks=6)
    axes.set_xlabel(f"easting, km (EPSG:{epsg})")
    axes.set_ylabel("northing, km")
    _outline(axes, outline)
    _squares(evidence, axes, evidence.parents)
    _key(evidence, axes, outline is not None)
    _orient(axes, (east - west) / 5, loc="lower left", bbox_to_anchor=(1.02, 0))
    sheet.fit([axes], sheet.width(axes) * (north - south) / (east - west))
    _names(evidence, axes, evidence.parents)
    return sheet


def _many_maps(evidence: Evidence, zones: list[int], boundary: gpd.GeoDataFrame | None) -> Sheet:
    """Draw an overview of the Earth above a map for each coordinate system."""
    columns = min(3, len(zones))
    rows = math.ceil(len(zones) / columns)
    sheet = Sheet(_TITLE, simulated=evidence.simulated, height=3 + 3 * rows)
    grid = sheet.body.add_gridspec(1 + rows, columns)
    overview = sheet.body.add_subplot(grid[0, :])
    _overview(evidence, overview)
    _key(evidence, overview, boundary is not None)
    maps = []
    for index, epsg in enumerate(zones):
        parents = [parent for parent in evidence.parents if parent.epsg == epsg]
        outline = None if boundary is None else _near(evidence, boundary, parents, epsg)
        extent = _extent(evidence, parents, outline, least=1, most=1)
        axes = sheet.body.add_subplot(grid[1 + index // columns, index % columns])
        _frame(axes, extent, ticks=3)
        axes.set_title(f"EPSG:{epsg}")
        axes.set_xlabel("easting, km")
        if index % columns == 0:
            axes.set_ylabel("northing, km")
        _outline(axes, outline)
        _squares(evidence, axes, parents)
        _orient(axes, (extent[2] - extent[0]) / 3, loc="lower right", bbox_to_anchor=(1, 1), arrow=False)
        maps.append((axes, parents))
    first = [axes for axes, _ in maps[::columns]]
    side = min(sheet.width(first[0]), _LARGEST_IN)
    grid.set_height_ratios([_OVERVIEW_IN, *[side] * rows])
    sheet.fit([overview, *first], _OVERVIEW_IN + rows * side)
    for axes, parents in maps:
        _names(evidence, axes, parents)
    return sheet


def _near(
    evidence: Evidence, boundary: gpd.GeoDataFrame, parents: Sequence[Parent], epsg: int
) -> shapely.Geometry | None:
    """Give the part of the boundary that lies around some parents, in their CRS.

    It is cut in longitude and latitude first: a place on another continent has no coordinates in this zone.
    """
    bounds = np.array([parent_polygon(parent, evidence.grid, 4326).bounds for parent in parents])
    (west, south), (east, north) = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
    pad = 0.1 * max(east - west, north - south)
    near = boundary.to_crs(4326).clip((west - pad, south - pad, east + pad, north + pad))
    return None if near.empty else near.to_crs(epsg).geometry.union_all()


def _overview(evidence: Evidence, axes: Axes) -> None:
    points = []
    for parent in evidence.parents:
        west, south, east, north = parent_polygon(parent, evidence.grid, 4326).bounds
        points.append(((west + east) / 2, (south + north) / 2))
    lon, lat = np.array(points).T
    pad_lon, pad_lat = max(8.0, 0.2 * np.ptp(lon)), max(6.0, 0.25 * np.ptp(lat))
    axes.set_xlim(max(-180, lon.min() - pad_lon), min(180, lon.max() + pad_lon))
    axes.set_ylim(max(-90, lat.min() - pad_lat), min(90, lat.max() + pad_lat))
    axes.grid(True)
    axes.axhline(0, color=style.LINE, linewidth=1)
    for parent, x, y in zip(evidence.parents, lon, lat, strict=True):
        color = evidence.group_colors[evidence.group[parent.parent_id]]
        axes.plot(x, y, "o", color=color, markeredgecolor=style.INK, markeredgewidth=0.6, markersize=7)
        axes.annotate(
            parent.parent_id, (x, y), (0, 8), textcoords="offset points", ha="center", fontsize=7.5
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("longitude, degrees")
    axes.set_ylabel("latitude, degrees")


def _extent(
    evidence: Evidence, parents: Sequence[Parent], outline: shapely.Geometry | None, *, least: float, most: float
) -> Extent:
    """Give the extent of parents and outline with a margin, widened until height over width is in a range."""
    side = evidence.grid.side_m
    west, east = min(p.left for p in parents), max(p.left for p in parents) + side
    south, north = min(p.top for p in parents) - side, max(p.top for p in parents)
    if outline is not None:
        bounds = outline.bounds
        west, south = min(west, bounds[0]), min(south, bounds[1])
        east, north = max(east, bounds[2]), max(north, bounds[3])
    pad = 0.08 * max(east - west, north - south)
    width, height = east - west + pad, north - south + pad
    width, height = max(width, height / most), max(height, width * least)
    x, y = (west + east) / 2, (south + north) / 2
    return (x - width / 2) / 1000, (y - height / 2) / 1000, (x + width / 2) / 1000, (y + height / 2) / 1000


def _frame(axes: Axes, extent: Extent, *, ticks: int) -> None:
    """Show an extent at equal scale."""
    west, south, east, north = extent
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    axes.set_aspect("equal", anchor="NW")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 5, 10]))
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.grid(True)


def _outline(axes: Axes, outline: shapely.Geometry | None) -> None:
    if outline is None:
        return
    for part in getattr(outline, "geoms", [outline]):
        if part.geom_type == "Polygon":
            ring = np.asarray(part.exterior.coords)[:, :2] / 1000
            axes.add_patch(
                Polygon(ring, closed=True, facecolor=_AREA, edgecolor="#8f8672", linewidth=0.9, zorder=1)
            )  # fmt: skip


def _squares(evidence: Evidence, axes: Axes, parents: Sequence[Parent]) -> None:
    """Draw squares with their sub-chips; a dropped sub-chip is left white."""
    side = evidence.grid.side_m / 1000
    small = side / evidence.grid.chips_per_side
    dropped: dict[str, list[tuple[int, int]]] = {}
    for row in evidence.results.chips:
        if not row["kept"]:
            dropped.setdefault(row["parent_id"], []).append((row["row"], row["col"]))
    for parent in parents:
        x, y = parent.left / 1000, parent.top / 1000
        color = evidence.group_colors[evidence.group[parent.parent_id]]
        axes.add_patch(Rectangle((x, y - side), side, side, facecolor=color, linewidth=0, zorder=2))
        for down, across in dropped.get(parent.parent_id, []):
            corner = (x + across * small, y - (down + 1) * small)
            axes.add_patch(Rectangle(corner, small, small, facecolor="white", linewidth=0, zorder=2.1))
        axes.add_patch(
            Rectangle((x, y - side), side, side, facecolor="none", edgecolor=style.INK, linewidth=0.7, zorder=2.2)
        )


def _names(evidence: Evidence, axes: Axes, parents: Sequence[Parent]) -> None:
    """Write the parents' ids, at the scale that the layout came to.

    An id stands above its square unless the square is large enough, or a neighbour is in the way.
    """
    side = evidence.grid.side_m / 1000
    (left, _), (right, _) = axes.transData.transform([(0, 0), (1, 0)])
    points_per_km = (right - left) / style.DPI * 72
    points = side * points_per_km
    for parent in parents:
        x, y = parent.left / 1000, parent.top / 1000
        crowded = any(
            other is not parent
            and abs(other.left / 1000 - x) < side * 1.01
            and 0 < other.top / 1000 - y < side + 11 / points_per_km
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
                fontsize=7, zorder=3, path_effects=[withStroke(linewidth=2, foreground="white")],
            )  # fmt: skip


def _key(evidence: Evidence, axes: Axes, outlined: bool) -> None:
    """Put the key to the right of axes."""
    kept = Counter(evidence.group[row["parent_id"]] for row in evidence.results.chips if row["kept"])
    entries: list[Patch] = []
    for group, color in evidence.group_colors.items():
        parents = sum(evidence.group[parent.parent_id] == group for parent in evidence.parents)
        held = f"{counted(parents, 'parent')}, {counted(kept[group], 'sub-chip')}"
        name = group.replace(" ", r"\ ")
        entries.append(patch(rf"$\bf{{{name}}}$" + f"\n{held}", color))
    if any(not row["kept"] for row in evidence.results.chips):
        entries.append(patch("dropped sub-chip", "white"))
    if outlined:
        entries.append(patch("surveyed area", _AREA))
    axes.legend(
        handles=entries, loc="upper left", bbox_to_anchor=(1.02, 1), handlelength=1.3, handleheight=1.3,
        labelspacing=0.9, borderaxespad=0,
    )  # fmt: skip


def _orient(axes: Axes, about_km: float, *, arrow: bool = True, **where: Any) -> None:
    """Add a scale bar of about some length, and say where north is."""
    length = _round_length(about_km)
    south, north = axes.get_ylim()
    bar = AuxTransformBox(axes.transData)
    for index in range(2):
        bar.add_artist(
            Rectangle(
                (index * length / 2, 0), length / 2, 0.008 * (north - south), edgecolor=style.INK, linewidth=0.7,
                facecolor="white" if index else style.INK,
            )
        )  # fmt: skip
    parts: list[Artist] = [
        bar, TextArea(f"{length:g} km", textprops={"fontsize": 7.5, "color": style.MUTED}),
    ]  # fmt: skip
    if arrow:
        parts.insert(0, TextArea("N\n\N{BLACK UP-POINTING TRIANGLE}", textprops={"fontweight": "bold"}))
    box = AnchoredOffsetbox(
        child=VPacker(children=parts, align="center", pad=0, sep=4), frameon=False, pad=0, borderpad=0.3,
        bbox_transform=axes.transAxes, **where,
    )  # fmt: skip
    box.set_clip_on(False)
    axes.add_artist(box)


def _round_length(most: float) -> float:
    """Give the longest of 1, 2 and 5 times a power of ten that is at most ``most``."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (5, 2, 1) if step * power <= most)
