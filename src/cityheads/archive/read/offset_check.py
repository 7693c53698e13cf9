"""Whether the pixels of a Sentinel-2 item agree with what its catalogue says about the +1000.

Catalogues have tagged items wrongly, in both directions. The pixels tell in most scenes, because some things are nearly
black in some band everywhere on Earth: vegetation in the blue, water in the short-wave infrared. Where nothing in the
scene is dark (snow, cloud, desert), the pixels cannot tell, and nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cityheads.core.artifacts.reading import OffsetCheck

__all__ = ["judge_offset"]

#: The floor of a band is this percentile: less is glint, defects and seams.
_FLOOR_PERCENTILE = 2

#: Atmospheric correction makes dark pixels slightly negative; a floor below reflectance -0.03 it does not make.
_NEGATIVE_DN = 300

#: So many bands must be impossibly dark; one alone may be defective.
_LEAST_BANDS = 2

#: Share of the blue band at or below zero reflectance from which it is impossible: blue is above zero over land and
#: water after atmospheric correction.
_FLOORED = 0.5

#: Without the offset no scene with a dark target has a floor of reflectance 0.09 in all bands.
_BRIGHT_FLOOR_DN = 900

#: Medians of dark targets that carry the offset: reflectance from -0.005 to 0.06.
_DARK_WITH_OFFSET_DN = (950, 1600)

#: Fewer pixels than this are no target.
_LEAST_PIXELS = 100

#: Near infrared less red, and red less blue, both free of any offset: vegetation is far brighter in the near infrared,
#: and unlike sand as dark in the red as in the blue.
_VEGETATION_DN, _SAND_DN = 1500, 500

#: Green less short-wave infrared, likewise: positive over water and snow, and only over snow as large as this.
_SNOW_DN = 1500


def judge_offset(numbers: Mapping[str, np.ndarray], subtracted: float) -> OffsetCheck:
    """Judge by an item's pixels whether what is subtracted from them is right.

    Args:
        numbers: (H, W) per band, reflectance x 10000 before anything is subtracted; 0 for no data.
        subtracted: What the catalogue says is to be subtracted.

    Returns:
        The verdict and what it rests on.
    """
    valid = np.logical_and.reduce([pixels > 0 for pixels in numbers.values()])
    if np.count_nonzero(valid) < _LEAST_PIXELS:
        return {"verdict": "undecided", "because": "too few pixels", "floor_dn": None}
    floors = {band: float(np.percentile(pixels[valid], _FLOOR_PERCENTILE)) for band, pixels in numbers.items()}
    lowest = min(floors, key=lambda band: floors[band])
    floor = round(floors[lowest], 1)
    told = f"{_FLOOR_PERCENTILE} % of {lowest} lie below {floor:g}"
    if subtracted > 0:
        impossible = [band for band, low in floors.items() if low < subtracted - _NEGATIVE_DN]
        floored = float((numbers["B02"][valid] <= subtracted).mean())
        if len(impossible) >= _LEAST_BANDS:
            return {"verdict": "disagrees", "because": told, "floor_dn": floor}
        if floored > _FLOORED:
            because = f"{floored:.0%} of the blue band lie at or below {subtracted:g}"
            return {"verdict": "disagrees", "because": because, "floor_dn": floor}
    elif floor < _BRIGHT_FLOOR_DN:
        return {"verdict": "agrees", "because": told, "floor_dn": floor}
    for target, band, where in _dark_targets(numbers, valid):
        median = float(np.median(numbers[band][where]))
        if _DARK_WITH_OFFSET_DN[0] <= median <= _DARK_WITH_OFFSET_DN[1]:
            because = f"{target} has a median of {median:g} in {band}, and no band goes below {floor:g}"
            return {"verdict": "agrees" if subtracted else "disagrees", "because": because, "floor_dn": floor}
    return {"verdict": "undecided", "because": "nothing in it is dark", "floor_dn": floor}


def _dark_targets(numbers: Mapping[str, np.ndarray], valid: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    """Find what is nearly black in some band, by differences of bands, which know no offset.

    Returns:
        Name of the target, its black band, and its pixels, for each target that is there.
    """
    wide = {band: numbers[band].astype(np.float32) for band in ("B02", "B03", "B04", "B08", "B11")}
    vegetation = valid & (wide["B08"] - wide["B04"] > _VEGETATION_DN) & (wide["B04"] - wide["B02"] < _SAND_DN)
    wet = wide["B03"] - wide["B11"]
    water = valid & (wet > 0) & (wet < _SNOW_DN) & (wide["B03"] > wide["B08"])
    found = [("vegetation", "B02", vegetation), ("water", "B12", water)]
    return [target for target in found if np.count_nonzero(target[2]) >= _LEAST_PIXELS]
