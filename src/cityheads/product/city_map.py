"""What the published model says about a point, and maps of whole parents.

A point's answer comes from one forward pass over one window. Class fractions are means over the pixels within a radius
of the calibrated probabilities, or of the softmax scores where the bundle has no calibration; the answer says which.
The alternative, counting the pixels of each class on the map (argmax), is given beside it as ``map_fractions``: it is
what the IoU of the card measures, but a class that is often second best vanishes from it, and at 10 m most built-up
pixels are part building, part not. Where the two differ much, the model is unsure. How far either is from the labels
is scored over windows (docs/scores.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NotRequired

import numpy as np
from typing_extensions import TypedDict

from cityheads.core.artifacts.bundle import BUNDLE_CLASSES
from cityheads.core.artifacts.calibration import CALIBRATION, HeadCalibration
from cityheads.core.artifacts.gate import GATE
from cityheads.core.artifacts.metrics import METRICS
from cityheads.core.artifacts.scenes import SCENES
from cityheads.core.classes import IGNORE
from cityheads.core.errors import CityHeadsError
from cityheads.core.layout import BundleFolder, Layout
from cityheads.core.modalities import COORDS, bands_used, stored
from cityheads.evaluation.scores.calibration import calibrate
from cityheads.product import places as earth
from cityheads.product.bundle import verify_bundle
from cityheads.product.places import Place, read_places
from cityheads.product.tiles import (
    pixels_within,
    read_window,
    tile_starts,
    tile_weights,
    valid_pixels,
    window_around,
)

__all__ = ["Answer", "CityMap", "HeadAnswer"]

#: Tiles of a parent's map in one forward pass.
_BATCH = 16

#: Below this share of usable pixels within the radius, an answer carries a caveat.
_ENOUGH_VALID = 0.95

_DIGITS = 4


class HeadAnswer(TypedDict):
    """What one head says.

    Attributes:
        label: Label layer that it has learned.
        classes: Names of its classes.
        calibrated: Whether ``fractions`` are of calibrated probabilities; else they are of softmax scores.
        fractions: Mean probability per class.
        map_fractions: Share of the pixels of each class on the map.
        certainty: Mean of the highest probability.
        test_iou: IoU per class on the test parents; None where it is undefined.
        test_mae: Mean absolute error of ``fractions`` per class over windows of the test parents; None where it is
            undefined.
        test_mae_window: Those windows, the circles nearest in size to the one asked for; None where none was scored.
        density: Of a head of two classes, the fraction of the second.
    """

    label: str
    classes: list[str]
    calibrated: bool
    fractions: dict[str, float]
    map_fractions: dict[str, float]
    certainty: float
    test_iou: dict[str, float | None]
    test_mae: dict[str, float | None]
    test_mae_window: str | None
    density: NotRequired[float]


class Window(TypedDict):
    """The window that the model looked at: its upper left corner in metres of its CRS, and its side in pixels."""

    epsg: int
    left: float
    top: float
    px: int
    resolution_m: float
    centred: bool


class Scene(TypedDict):
    """An item that the pixels come from."""

    id: str
    datetime: str | None


class PublishedModel(TypedDict):
    """The model that answers, and the verdict on it."""

    run: str
    seed: int
    backbone: str
    verdict: str


class Answer(TypedDict):
    """What lies around a point.

    Attributes:
        format: Version of the answer.
        lat: Latitude in degrees, as asked.
        lon: Longitude in degrees, as asked.
        radius_m: Radius in metres, as asked.
        parent: Parent that holds the point, and ``split``, the split that it was assigned to.
        pixels: Number of pixels that counted, and ``valid_fraction``, their share of all within the radius.
        window: What the model looked at.
        heads: What each head says.
        scenes: What the pixels of each modality come from.
        model: Which model answers.
        simulated: Whether place or model are.
        calibrated: Whether the fractions of all heads are of calibrated probabilities.
        caveats: What a reader must know beside the numbers.
    """

    format: int
    lat: float
    lon: float
    radius_m: float
    parent: str
    split: str | None
    pixels: int
    valid_fraction: float
    window: Window
    heads: dict[str, HeadAnswer]
    scenes: dict[str, list[Scene]]
    model: PublishedModel
    simulated: bool
    calibrated: bool
    caveats: list[str]


class CityMap:
    """A published model and the imagery that it can be asked about; opened once, asked often.

    Args:
        bundle: Folder of the published model.
        results: Results folder with the imagery: its dataset's chip table, parents' rasters and scene choices.
        device: torch's device.

    Raises:
        CityHeadsError: The bundle or the dataset is incomplete or damaged.
    """

    def __init__(self, bundle: Path, results: Path, device: str = "cpu") -> None:
        from cityheads.model.builder import load_model

        self.bundle, self.layout, self.device = BundleFolder(bundle), Layout(results), device
        verify_bundle(self.bundle.root)
        self.model, self.spec = load_model(self.bundle.root)
        self.model.to(device)
        #: The dataset as the fold of this model splits it.
        self.dataset = self.layout.dataset(self.spec["fold"])
        self.places = read_places(self.dataset.chips)
        #: Classes with their colours, by label.
        self.classes = BUNDLE_CLASSES.read(self.bundle.classes)["labels"]
        self.gate = GATE.read(self.bundle.gate)
        self.metrics = METRICS.read(self.bundle.metrics)
        #: Calibration by head, of those heads that have one.
        self.calibration = self._read_calibration()
        self.chip_px = int(self.spec["chip_px"])
        #: Modalities to read, each with the bands that the model looks at.
        self.bands = bands_used({name: entry["bands"] for name, entry in self.spec["modalities"].items()})
        small = next((place for place in self.places.values() if place.px < self.chip_px), None)
        if small is not None:
            raise CityHeadsError(
                f"{self.dataset.chips}: parent {small.parent.parent_id} is {small.px} px wide, but the model of "
                f"{self.bundle.root} takes {self.chip_px} px"
            )

    def _read_calibration(self) -> dict[str, HeadCalibration]:
        path = self.bundle.calibration
        if not path.is_file():
            return {}
        found = CALIBRATION.read(path)
        return {
            head: one
            for head, one in found["heads"].items()
            if head in self.spec["heads"] and one["method"] is not None
        }

    def find(self, lat: float, lon: float) -> tuple[Place, float, float]:
        """Find the parent that holds a point, and the point's coordinates in the parent's CRS.

        Raises:
            CityHeadsError: No such place on Earth, or no parent holds it; the message names the covered area.
        """
        return earth.find(self.places, lat, lon)

    def at(self, lat: float, lon: float, radius_m: float = 100.0) -> Answer:
        """Tell what lies around a point, from one forward pass.

        The window is centred at the point where the parent allows it, else moved inside the parent.

        Args:
            lat: Latitude in degrees (WGS 84).
            lon: Longitude in degrees.
            radius_m: Pixels whose centres lie within this distance count; at least half a pixel's diagonal, so that
                there is one, and at most half a window.

        Returns:
            JSON values.

        Raises:
            CityHeadsError: The point is outside the covered area, the radius does not fit, a raster is missing, or
                there is no imagery within the radius.
        """
        place, x, y = self.find(lat, lon)
        parent, step = place.parent, place.resolution_m
        least, most = step * math.sqrt(0.5), self.chip_px * step / 2
        if not least <= radius_m <= most:
            raise CityHeadsError(
                f"radius_m {radius_m:g}: must lie between {math.ceil(10 * least) / 10:g} and {most:g} m, "
                "the halves of a pixel's diagonal and of the model's window"
            )
        col, row = (x - parent.left) / step, (parent.top - y) / step
        rows, cols = (window_around(value, self.chip_px, place.px) for value in (row, col))
        images = self._read(place, rows, cols)
        scores = self._scores({name: image[None] for name, image in images.items()}, place, [(rows, cols)])
        centres = np.hypot(
            (np.arange(rows.start, rows.stop) + 0.5 - row)[:, None], np.arange(cols.start, cols.stop) + 0.5 - col
        )
        valid = valid_pixels(images, self.bands) & (centres * step <= radius_m)
        if not valid.any():
            raise CityHeadsError(
                f"latitude {lat:g}, longitude {lon:g}: {parent.parent_id} has no imagery within {radius_m:g} m"
            )
        # the circle has pixels that the window cannot hold where the parent ends
        share = float(valid.sum() / pixels_within(row, col, radius_m / step))
        where = (int(row) // place.chip_px, int(col) // place.chip_px)
        centred = all(
            abs(value - (window.start + window.stop) / 2) <= 1 for value, window in ((row, rows), (col, cols))
        )
        layers = SCENES.read(self.layout.scene_choice(parent.parent_id))["layers"]
        generated = [name for name in stored(self.spec["modalities"]) if layers[name].get("synthesized")]
        return {
            "format": 2,
            "lat": lat,
            "lon": lon,
            "radius_m": radius_m,
            "parent": parent.parent_id,
            "split": parent.split,
            "pixels": int(valid.sum()),
            "valid_fraction": round(share, _DIGITS),
            "window": {
                "epsg": parent.epsg,
                "left": parent.left + cols.start * step,
                "top": parent.top - rows.start * step,
                "px": self.chip_px,
                "resolution_m": step,
                "centred": centred,
            },
            "heads": {head: self._head(head, score[0][:, valid], radius_m) for head, score in scores.items()},
            "scenes": {
                name: [{"id": item["id"], "datetime": item["datetime"]} for item in layers[name]["items"]]
                for name in stored(self.spec["modalities"])
            },
            "model": {
                "run": self.spec["run"],
                "seed": self.spec["seed"],
                "backbone": self.spec["backbone"],
                "verdict": self.gate["verdict"],
            },
            "simulated": self.simulated(place),
            "calibrated": all(head in self.calibration for head in scores),
            "caveats": self._caveats(place, generated, share, centred, place.dropped.get(where)),
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
            raise CityHeadsError(f"{self.dataset.root}: no parent '{parent_id}'; there are {', '.join(self.places)}")
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
        valid = valid_pixels(images, self.bands)
        return {head: np.where(valid, total.argmax(0), IGNORE).astype(np.uint8) for head, total in sums.items()}

    def simulated(self, place: Place) -> bool:
        """Say whether what the model says about a place is of simulated data."""
        return place.simulated or bool(self.spec["simulated"])

    def _read(self, place: Place, rows: slice, cols: slice) -> dict[str, np.ndarray]:
        """Read a window of every modality that the model needs, (C, h, w) float32 in stored units, with all bands."""
        return read_window(self.layout.parent(place.parent.parent_id), place, rows, cols, list(self.bands))

    def _scores(
        self, images: Mapping[str, np.ndarray], place: Place, windows: Sequence[tuple[slice, slice]]
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
            inputs[COORDS] = np.array([place.centre(rows, cols) for rows, cols in windows], np.float32)
        with torch.inference_mode():
            logits = self.model({name: torch.from_numpy(image).to(self.device) for name, image in inputs.items()})
            return {head: value.float().softmax(1).cpu().numpy() for head, value in logits.items()}

    def _head(self, head: str, scores: np.ndarray, radius_m: float) -> HeadAnswer:
        """Sum up one head from the softmax scores of the counted pixels, (classes, N), within a radius."""
        rule = self.spec["heads"][head]
        names = [item["name"] for item in rule["classes"]]
        calibration = self.calibration.get(head)
        probabilities = scores if calibration is None else calibrate(scores, calibration)
        means = probabilities.mean(1, dtype=np.float64)
        counts = np.bincount(scores.argmax(0), minlength=len(names)) / scores.shape[1]
        tested = self.metrics["heads"][head]["iou"]
        window, errors = self._errors(head, "softmax" if calibration is None else "calibrated", radius_m)
        found: HeadAnswer = {
            "label": rule["label"],
            "classes": names,
            "calibrated": calibration is not None,
            "fractions": {name: round(float(mean), _DIGITS) for name, mean in zip(names, means, strict=True)},
            "map_fractions": {name: round(float(part), _DIGITS) for name, part in zip(names, counts, strict=True)},
            "certainty": round(float(probabilities.max(0).mean(dtype=np.float64)), _DIGITS),
            "test_iou": {
                name: None if value is None else round(value, _DIGITS)
                for name, value in zip(names, tested, strict=True)
            },
            "test_mae": {name: errors.get(name) for name in names},
            "test_mae_window": window,
        }
        if len(names) == 2:
            found["density"] = found["fractions"][names[1]]
        return found

    def _errors(self, head: str, estimate: str, radius_m: float) -> tuple[str | None, dict[str, float | None]]:
        """Give the circles of the test parents that are nearest in size to a radius, and each class's MAE over them."""
        circles = {
            name: window
            for name, window in self.metrics["heads"][head]["application"].items()
            if window["shape"] == "circle" and window["windows"]
        }
        if not circles:
            return None, {}
        nearest = min(circles, key=lambda name: abs(math.log(circles[name]["size_m"] / (2 * radius_m))))
        errors: dict[str, float | None] = {}
        for name, one in circles[nearest]["classes"].items():
            value = one["estimates"][estimate]["mae"]["value"] if estimate in one["estimates"] else None
            errors[name] = None if value is None else round(value, _DIGITS)
        return nearest, errors

    def _caveats(
        self, place: Place, generated: Sequence[str], share: float, centred: bool, dropped: str | None
    ) -> list[str]:
        """Say what a reader must know beside the numbers.

        Args:
            place: The parent.
            generated: Modalities that were generated there.
            share: Share of the pixels within the radius that counted.
            centred: Whether the window is centred at the point.
            dropped: Why the sub-chip around the point was left out of the dataset; None where it was not.
        """
        caveats = []
        if self.simulated(place):
            caveats.append("The data are simulated; this says nothing about the real place.")
        caveats += [f"{name} was not acquired here: a generator made it of the other modalities." for name in generated]
        seen = {"train": "the model was trained on it", "val": "choices about the model were made on it"}
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
        if self.gate["verdict"] in ("negative", "inconclusive", "no evidence"):
            caveats.append(f"The model's verdict against single-task models is {self.gate['verdict']}.")
        raw = [head for head in self.spec["heads"] if head not in self.calibration]
        if raw:
            caveats.append(f"Fractions of {', '.join(raw)} are means of softmax scores, which no calibration backs.")
        return caveats
