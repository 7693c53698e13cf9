"""The product: what the published model says about a point, and maps of whole parents.

A point's answer comes from one forward pass over one window. Class fractions are means of the softmax scores over the
pixels within a radius. The alternative, counting the pixels of each class on the map (argmax), is given beside it as
``map_fractions``: it is what the scores of the card measure, but a class that is often second best vanishes from it,
and at 10 m most built-up pixels are part building, part not. Where the two differ much, the model is unsure.
"""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.core.classes import IGNORE
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json
from cityheads.core.grid import Grid, Parent, parent_geobox
from cityheads.core.modalities import COORDS, MODALITIES, bands_used, stored
from cityheads.core.raster import write_raster
from cityheads.product.publish import verify_bundle

__all__ = ["CityMap", "Place", "fetch", "predict_parent", "print_fetch", "tile_starts", "tile_weights"]

log = logging.getLogger(__name__)

#: Tiles of a parent's map in one forward pass.
_BATCH = 16

#: Below this share of usable pixels within the radius, an answer carries a caveat.
_ENOUGH_VALID = 0.95

_DIGITS = 4


@dataclass(frozen=True)
class Place:
    """A parent of the dataset and what the manifest says about it.

    Attributes:
        parent: The parent, with the split that it was dealt to.
        px: Its side in pixels.
        resolution_m: Pixel size in metres.
        chip_px: Side of a sub-chip in pixels.
        dropped: Reason by (row, col) of the sub-chips that were left out of the dataset.
        simulated: Whether its pixels were made up.
    """

    parent: Parent
    px: int
    resolution_m: float
    chip_px: int
    dropped: dict[tuple[int, int], str]
    simulated: bool

    @property
    def side_m(self) -> float:
        """Side in metres."""
        return self.px * self.resolution_m

    def distance_m(self, x: float, y: float) -> float:
        """Give how far outside the square (x, y) lies, in metres; 0 inside. Left and top edges belong to it."""
        right, bottom = self.parent.left + self.side_m, self.parent.top - self.side_m
        if self.parent.left <= x < right and bottom < y <= self.parent.top:
            return 0.0
        dx = max(self.parent.left - x, 0.0, x - right)
        dy = max(bottom - y, 0.0, y - self.parent.top)
        return max(math.hypot(dx, dy), 1e-9)


class CityMap:
    """A published model and the imagery that it can be asked about; opened once, asked often.

    Args:
        bundle: Folder of the published model.
        dataset: Folder of the assembled dataset; the parents' rasters and the scene choices lie beside it, in
            ``parents/`` and ``scenes/``.
        device: torch's device.

    Raises:
        CityHeadsError: The bundle or the dataset is incomplete or damaged.
    """

    def __init__(self, bundle: Path, dataset: Path, device: str = "cpu") -> None:
        from cityheads.model.builder import load_model

        self.bundle, self.dataset, self.device = Path(bundle), Path(dataset), device
        self.places = _places(self.dataset / "chips.parquet")
        verify_bundle(self.bundle)
        self.model, self.spec = load_model(self.bundle)
        self.model.to(device)
        self.gate: dict[str, Any] = read_json(self.bundle / "gate.json")
        self.metrics: dict[str, Any] = read_json(self.bundle / "metrics.json")
        #: Classes per label: id, name, colour.
        self.classes: dict[str, list[dict[str, Any]]] = read_json(self.bundle / "classes.json")
        self.chip_px = int(self.spec["chip_px"])
        #: Modalities to read, each with the bands that the model looks at.
        self.bands = bands_used({name: entry["bands"] for name, entry in self.spec["modalities"].items()})
        small = next((place for place in self.places.values() if place.px < self.chip_px), None)
        if small is not None:
            raise CityHeadsError(
                f"{self.dataset / 'chips.parquet'}: parent {small.parent.parent_id} is {small.px} px wide, but the "
                f"model of {self.bundle} takes {self.chip_px} px"
            )

    def find(self, lat: float, lon: float) -> tuple[Place, float, float]:
        """Find the parent that holds a point, and the point's coordinates in the parent's CRS.

        Raises:
            CityHeadsError: No such place on Earth, or no parent holds it; the message names the covered area.
        """
        if not (math.isfinite(lat) and math.isfinite(lon) and abs(lat) <= 90 and abs(lon) <= 180):
            raise CityHeadsError(
                f"latitude {lat:g}, longitude {lon:g}: no such place; latitude comes first, in degrees"
            )
        nearest: tuple[float, str] | None = None
        at: dict[int, tuple[float, float]] = {}
        for place in self.places.values():
            epsg = place.parent.epsg
            if epsg not in at:
                at[epsg] = _transformer(4326, epsg).transform(lon, lat)
            x, y = at[epsg]
            if not (math.isfinite(x) and math.isfinite(y)):
                continue
            distance = place.distance_m(x, y)
            if distance == 0:
                return place, x, y
            if nearest is None or distance < nearest[0]:
                nearest = (distance, place.parent.parent_id)
        south, west, north, east = self.bounds()
        hint = f"; the nearest, {nearest[1]}, is {nearest[0] / 1000:.1f} km away" if nearest else ""
        raise CityHeadsError(
            f"latitude {lat:g}, longitude {lon:g}: outside the covered area, {len(self.places)} parents between "
            f"latitudes {south:.3f} and {north:.3f}, longitudes {west:.3f} and {east:.3f}{hint}"
        )

    def bounds(self) -> tuple[float, float, float, float]:
        """Give the covered area's south, west, north and east in degrees."""
        lats, lons = [], []
        for place in self.places.values():
            left, top, side = place.parent.left, place.parent.top, place.side_m
            back = _transformer(place.parent.epsg, 4326)
            for x, y in ((left, top), (left + side, top), (left, top - side), (left + side, top - side)):
                lon, lat = back.transform(x, y)
                lats.append(lat)
                lons.append(lon)
        return min(lats), min(lons), max(lats), max(lons)

    def at(self, lat: float, lon: float, radius_m: float = 100.0) -> dict[str, Any]:
        """Tell what lies around a point, from one forward pass.

        The window is centred at the point where the parent allows it, else moved inside the parent.

        Args:
            lat: Latitude in degrees (WGS 84).
            lon: Longitude in degrees.
            radius_m: Pixels whose centres lie within this distance count; at least half a pixel's diagonal, so that
                there is one, and at most half a window.

        Returns:
            JSON values: ``heads`` with ``fractions``, ``map_fractions``, ``certainty`` (mean of the highest softmax
            score) and, for heads of two classes, ``density`` (the fraction of the second); ``scenes``, ``window``,
            ``split``, ``simulated``, ``model`` and ``caveats``.

        Raises:
            CityHeadsError: The point is outside the covered area, the radius does not fit, a raster is missing, or
                there is no imagery within the radius.
        """
        place, x, y = self.find(lat, lon)
        step = place.resolution_m
        least, most = step * math.sqrt(0.5), self.chip_px * step / 2
        if not least <= radius_m <= most:
            raise CityHeadsError(
                f"radius_m {radius_m:g}: must lie between {math.ceil(10 * least) / 10:g} and {most:g} m, "
                "the halves of a pixel's diagonal and of the model's window"
            )
        col, row = (x - place.parent.left) / step, (place.parent.top - y) / step
        rows, cols = (self._window(value, place.px) for value in (row, col))
        images = self._read(place, rows, cols)
        scores = self._scores({name: image[None] for name, image in images.items()}, place, [(rows, cols)])
        centres = np.hypot(
            (np.arange(rows.start, rows.stop) + 0.5 - row)[:, None], np.arange(cols.start, cols.stop) + 0.5 - col
        )
        near = centres * step <= radius_m
        # pixels of the circle that the window cannot hold, since the parent ends
        wanted = _pixels_within(row, col, radius_m / step)
        valid = self._valid(images) & near
        if not valid.any():
            raise CityHeadsError(
                f"latitude {lat:g}, longitude {lon:g}: {place.parent.parent_id} has no imagery within {radius_m:g} m"
            )
        where = (int(row) // place.chip_px, int(col) // place.chip_px)
        centred = all(
            abs(value - (window.start + window.stop) / 2) <= 1 for value, window in ((row, rows), (col, cols))
        )
        share = float(valid.sum() / wanted)
        return {
            "format": 1,
            "lat": lat,
            "lon": lon,
            "radius_m": radius_m,
            "parent": place.parent.parent_id,
            "split": place.parent.split,
            "pixels": int(valid.sum()),
            "valid_fraction": round(share, _DIGITS),
            "window": {
                "epsg": place.parent.epsg,
                "left": place.parent.left + cols.start * step,
                "top": place.parent.top - rows.start * step,
                "px": self.chip_px,
                "resolution_m": step,
                "centred": centred,
            },
            "heads": {head: self._head(head, score[0][:, valid]) for head, score in scores.items()},
            "scenes": self._scenes(place),
            "model": {key: self.spec[key] for key in ("run", "seed", "backbone")} | {"verdict": self.gate["verdict"]},
            "simulated": place.simulated or bool(self.spec["simulated"]),
            "caveats": self._caveats(place, share, centred, place.dropped.get(where)),
        }

    def map_parent(self, parent_id: str, overlap_px: int | None = None) -> dict[str, np.ndarray]:
        """Map a whole parent, tile by tile, blending the scores where tiles overlap.

        Args:
            parent_id: One of the dataset's parents.
            overlap_px: How far neighbouring tiles overlap at least; None takes a quarter of a tile.

        Returns:
            Classes per head, (px, px) uint8; 255 where a modality has no data.

        Raises:
            CityHeadsError: There is no such parent, a raster is missing, or the overlap leaves no step.
        """
        if parent_id not in self.places:
            raise CityHeadsError(f"{self.dataset}: no parent '{parent_id}'; there are {', '.join(self.places)}")
        place = self.places[parent_id]
        overlap = self.chip_px // 4 if overlap_px is None else overlap_px
        if not 0 <= overlap < self.chip_px:
            raise CityHeadsError(f"overlap_px {overlap}: must lie between 0 and {self.chip_px - 1}")
        whole = slice(0, place.px)
        images = self._read(place, whole, whole)
        starts = tile_starts(place.px, self.chip_px, overlap)
        corners = [(top, left) for top in starts for left in starts]
        weights = tile_weights(self.chip_px, overlap)
        sums = {
            head: np.zeros((len(rule["classes"]), place.px, place.px), np.float32)
            for head, rule in self.spec["heads"].items()
        }
        for first in range(0, len(corners), _BATCH):
            cuts = [
                (slice(top, top + self.chip_px), slice(left, left + self.chip_px))
                for top, left in corners[first : first + _BATCH]
            ]
            batch = {name: np.stack([image[:, rows, cols] for rows, cols in cuts]) for name, image in images.items()}
            for head, scores in self._scores(batch, place, cuts).items():
                for (rows, cols), score in zip(cuts, scores, strict=True):
                    sums[head][:, rows, cols] += score * weights
        valid = self._valid(images)
        return {head: np.where(valid, total.argmax(0), IGNORE).astype(np.uint8) for head, total in sums.items()}

    def _window(self, centre: float, size: int) -> slice:
        start = min(max(round(centre - self.chip_px / 2), 0), size - self.chip_px)
        return slice(start, start + self.chip_px)

    def _read(self, place: Place, rows: slice, cols: slice) -> dict[str, np.ndarray]:
        """Read a window of every modality that the model needs, (C, h, w) float32 in stored units, with all bands."""
        import rasterio
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        images = {}
        window = Window.from_slices(rows, cols)
        transform = parent_geobox(place.parent, Grid(place.resolution_m, place.px, 1)).transform
        for name in self.bands:
            path = self.dataset.parent / "parents" / place.parent.parent_id / f"{name}.tif"
            if not path.is_file():
                raise CityHeadsError(f"{path}: no such file; run the workflow again to make it")
            try:
                with rasterio.open(path) as source:
                    there = (source.count, source.height, source.width)
                    fits = source.transform.almost_equals(transform, precision=1e-6 * place.resolution_m)
                    if there != (len(MODALITIES[name].bands), place.px, place.px) or not fits:
                        raise CityHeadsError(f"{path}: is not on the grid of the dataset; run the workflow again")
                    images[name] = source.read(window=window).astype(np.float32)
            except RasterioError as error:
                raise CityHeadsError(f"{path}: cannot be read as a raster ({error}); delete it and run again") from None
        return images

    def _valid(self, images: dict[str, np.ndarray]) -> np.ndarray:
        """Give the pixels, (h, w), at which every band that the model looks at has data."""
        valid = np.ones(next(iter(images.values())).shape[1:], bool)
        for name, image in images.items():
            nodata, bands = MODALITIES[name].nodata, MODALITIES[name].bands
            looked_at = image[[bands.index(band) for band in self.bands[name]]]
            missing = np.isnan(looked_at) if math.isnan(nodata) else looked_at == nodata
            valid &= ~missing.any(0)
        return valid

    def _scores(
        self, images: dict[str, np.ndarray], place: Place, windows: Sequence[tuple[slice, slice]]
    ) -> dict[str, np.ndarray]:
        """Give the softmax scores of every head, (B, classes, h, w) float32, from one forward pass.

        Args:
            images: (B, C, h, w) per modality.
            place: The parent that they are from.
            windows: Rows and columns of each of the B in the parent.
        """
        import torch

        inputs = dict(images)
        if COORDS in self.spec["modalities"]:
            inputs[COORDS] = np.array([_centre(place, rows, cols) for rows, cols in windows], np.float32)
        with torch.inference_mode():
            logits = self.model({name: torch.from_numpy(image).to(self.device) for name, image in inputs.items()})
            return {head: value.float().softmax(1).cpu().numpy() for head, value in logits.items()}

    def _head(self, head: str, scores: np.ndarray) -> dict[str, Any]:
        """Sum up one head from the scores of the counted pixels, (classes, N)."""
        rule = self.spec["heads"][head]
        names = [item["name"] for item in rule["classes"]]
        means = scores.mean(1, dtype=np.float64)
        counts = np.bincount(scores.argmax(0), minlength=len(names)) / scores.shape[1]
        tested = self.metrics["heads"][head]["iou"]
        found: dict[str, Any] = {
            "label": rule["label"],
            "classes": names,
            "fractions": {name: round(float(mean), _DIGITS) for name, mean in zip(names, means, strict=True)},
            "map_fractions": {name: round(float(part), _DIGITS) for name, part in zip(names, counts, strict=True)},
            "certainty": round(float(scores.max(0).mean(dtype=np.float64)), _DIGITS),
            "test_iou": {
                name: None if value is None else round(value, _DIGITS)
                for name, value in zip(names, tested, strict=True)
            },
        }
        if len(names) == 2:
            found["density"] = found["fractions"][names[1]]
        return found

    def _scenes(self, place: Place) -> dict[str, list[dict[str, Any]]]:
        chosen = read_json(self.dataset.parent / "scenes" / f"{place.parent.parent_id}.json")["layers"]
        return {
            name: [{"id": item["id"], "datetime": item["datetime"]} for item in chosen[name]["items"]]
            for name in stored(self.spec["modalities"])
        }

    def _caveats(self, place: Place, share: float, centred: bool, dropped: str | None) -> list[str]:
        caveats = []
        if place.simulated or self.spec["simulated"]:
            caveats.append("The data are simulated; this says nothing about the real place.")
        chosen = read_json(self.dataset.parent / "scenes" / f"{place.parent.parent_id}.json")["layers"]
        for name in stored(self.spec["modalities"]):
            if chosen[name].get("synthesized"):
                caveats.append(f"{name} was not acquired here: a generator made it of the other modalities.")
        seen = {"train": "the model was trained on it", "val": "the model's best epoch was chosen on it"}
        if place.parent.split in seen:
            caveats.append(
                f"The place is in the {place.parent.split} split: {seen[place.parent.split]}, and is likely to do "
                "better here than its test scores say."
            )
        if share < _ENOUGH_VALID:
            caveats.append(f"Only {100 * share:.0f} % of the pixels within the radius could be used.")
        if not centred:
            caveats.append("The place is near the edge of its parent, so that the window is not centred at it.")
        if dropped:
            caveats.append(f"The sub-chip around the place was left out of the dataset: {dropped}.")
        if self.gate["verdict"] in ("negative", "inconclusive"):
            caveats.append(f"The model's verdict against single-task models is {self.gate['verdict']}.")
        caveats.append("Fractions are means of softmax scores, which no calibration backs.")
        return caveats


def fetch(lat: float, lon: float, *, bundle: Path, dataset: Path, radius_m: float = 100.0) -> dict[str, Any]:
    """Tell what lies around a point: building density and class fractions from one forward pass.

    Opens the model for this one answer; for many points open a `CityMap` and call `CityMap.at`, which describes the
    arguments, the answer and the errors.
    """
    return CityMap(bundle, dataset).at(lat, lon, radius_m)


def print_fetch(*, lat: float, lon: float, bundle: Path, dataset: Path, radius_m: float) -> None:
    """Print the answer of `fetch` as JSON."""
    print(json.dumps(fetch(lat, lon, bundle=bundle, dataset=dataset, radius_m=radius_m), indent=1, ensure_ascii=False))


def predict_parent(*, parent: str, bundle: Path, dataset: Path, out: Path, overlap_px: int | None = None) -> None:
    """Write a map of a whole parent, one GeoTIFF per head with the colours and names of its classes.

    Args:
        parent: Id of the parent.
        bundle: Folder of the published model.
        dataset: Folder of the assembled dataset.
        out: Folder for ``{head}.tif``: uint8, class ids, 255 where a modality has no data.
        overlap_px: See `CityMap.map_parent`.
    """
    city = CityMap(bundle, dataset)
    maps = city.map_parent(parent, overlap_px)
    place = city.places[parent]
    simulated = place.simulated or bool(city.spec["simulated"])
    box = parent_geobox(place.parent, Grid(place.resolution_m, place.px, 1))
    for head, classes in maps.items():
        table = city.spec["heads"][head]["classes"]
        tags = {f"class_{item['id']}": item["name"] for item in table}
        tags |= {"head": head, "run": city.spec["run"], "seed": str(city.spec["seed"]), "simulated": str(simulated)}
        colors = {item["id"]: item["color"] for item in city.classes[city.spec["heads"][head]["label"]]}
        write_raster(Path(out) / f"{head}.tif", classes, box, nodata=IGNORE, bands=[head], tags=tags, colors=colors)
        log.info("%s: %s", Path(out) / f"{head}.tif", ", ".join(item["name"] for item in table))


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Give the first pixels of tiles that cover ``size`` and overlap by at least ``overlap``; the last ends flush."""
    return [*range(0, size - tile, tile - overlap), size - tile]


def tile_weights(tile: int, overlap: int) -> np.ndarray:
    """Give the weight of each pixel of a tile, (tile, tile) float32, rising linearly over the overlap from its edges.

    Never 0, so that a pixel that one tile alone covers keeps its scores.
    """
    from_edge = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1))
    ramp = np.minimum(from_edge, overlap + 1).astype(np.float32) / (overlap + 1)
    return np.outer(ramp, ramp)


def _centre(place: Place, rows: slice, cols: slice) -> tuple[float, float]:
    """Give longitude and latitude of a window's centre in degrees (WGS 84), which the input ``coords`` holds."""
    x = place.parent.left + place.resolution_m * (cols.start + cols.stop) / 2
    y = place.parent.top - place.resolution_m * (rows.start + rows.stop) / 2
    lon, lat = _transformer(place.parent.epsg, 4326).transform(x, y)
    return lon, lat


def _pixels_within(row: float, col: float, radius_px: float) -> int:
    """Count the pixels whose centres lie within a circle, on a grid without edges."""
    reach = math.ceil(radius_px) + 1

    def centres(value: float) -> np.ndarray:
        return np.arange(math.floor(value) - reach, math.floor(value) + reach + 1) + 0.5 - value

    return int((np.hypot(centres(row)[:, None], centres(col)) <= radius_px).sum())


@functools.cache
def _transformer(source: int, target: int) -> Any:
    from pyproj import Transformer

    return Transformer.from_crs(source, target, always_xy=True)


def _places(path: Path) -> dict[str, Place]:
    """Read the parents from the manifest, in its order."""
    from pyarrow import parquet

    if not path.is_file():
        raise CityHeadsError(f"{path}: no such file; assemble the dataset first")
    columns = [
        "parent_id", "row", "col", "split", "kept", "reason", "epsg", "left", "top", "chip_px", "resolution_m",
        "simulated",
    ]  # fmt: skip
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in parquet.read_table(path, columns=columns).to_pylist():
        rows.setdefault(row["parent_id"], []).append(row)
    return {name: _place(name, of_parent) for name, of_parent in rows.items()}


def _place(name: str, rows: Sequence[dict[str, Any]]) -> Place:
    first = rows[0]
    return Place(
        parent=Parent(
            name, first["epsg"], min(row["left"] for row in rows), max(row["top"] for row in rows), first["split"]
        ),
        px=(max(row["row"] for row in rows) + 1) * first["chip_px"],
        resolution_m=first["resolution_m"],
        chip_px=first["chip_px"],
        dropped={(row["row"], row["col"]): row["reason"] for row in rows if not row["kept"]},
        simulated=any(row["simulated"] for row in rows),
    )
