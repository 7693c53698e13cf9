"""What the materials of the simulated city look like to Sentinel-2 and Sentinel-1.

The reflectances are class means set by hand to about 0.01 or a tenth of the value, whichever is larger. They follow
the shape and level of the laboratory and field spectra of water, vegetation, soil, asphalt, concrete and roofing in

* Kokaly et al. 2017, "USGS Spectral Library Version 7", USGS Data Series 1035,
* Meerdink et al. 2019, "The ECOSTRESS spectral library version 1.0", Remote Sensing of Environment 230, 111196,
* Herold et al. 2004, "Spectrometry for urban area remote sensing", Remote Sensing of Environment 91, 304-319,

lowered for vegetation and water to what Level-2A pixels show (canopies have gaps and shade, leaves in a laboratory
do not). They are not copies of single records of these libraries.

The backscatter means are gamma naught at C band and 35 to 40 degrees of incidence, set by hand to about 1.5 dB, within
the ranges that Ulaby and Dobson 1989, "Handbook of Radar Scattering Statistics for Terrain", gives for these covers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BACKSCATTER_DB",
    "CLOUD_REFLECTANCE",
    "DRY_VEGETATION",
    "GROUND",
    "GROUND_REFLECTANCE",
    "HAZE",
    "ROOFS",
    "ROOF_BACKSCATTER_DB",
    "ROOF_REFLECTANCE",
    "VEGETATION",
    "WORLDCOVER_CODE",
    "WORLDCOVER_LEGEND",
    "drawn_together",
]

#: Kinds of ground, in the order of their codes on the 5 m map.
GROUND = (
    "water", "street", "paved", "tree", "shrub", "grass", "crop", "bare", "sand", "wetland",
    "lush", "stubble", "fallow", "young", "felled",
)  # fmt: skip
VEGETATION = ("tree", "shrub", "grass", "crop", "wetland", "lush", "young")
ROOFS = ("bitumen", "gravel", "membrane", "metal", "tile")

#: Surface reflectance, one row per kind of ground, bands B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12.
GROUND_REFLECTANCE = np.array(
    [
        (0.042, 0.044, 0.050, 0.034, 0.029, 0.019, 0.018, 0.016, 0.014, 0.013, 0.007, 0.005),  # water
        (0.070, 0.080, 0.096, 0.106, 0.111, 0.116, 0.121, 0.126, 0.131, 0.136, 0.148, 0.138),  # street (asphalt)
        (0.140, 0.164, 0.190, 0.208, 0.222, 0.234, 0.246, 0.254, 0.260, 0.262, 0.288, 0.268),  # paved (concrete)
        (0.021, 0.024, 0.045, 0.029, 0.075, 0.220, 0.278, 0.297, 0.312, 0.316, 0.148, 0.066),  # tree
        (0.030, 0.036, 0.062, 0.050, 0.102, 0.200, 0.236, 0.252, 0.266, 0.270, 0.196, 0.110),  # shrub
        (0.030, 0.038, 0.078, 0.056, 0.122, 0.262, 0.312, 0.330, 0.346, 0.350, 0.228, 0.122),  # grass
        (0.038, 0.046, 0.082, 0.072, 0.128, 0.238, 0.276, 0.296, 0.312, 0.316, 0.256, 0.152),  # crop
        (0.080, 0.100, 0.140, 0.178, 0.204, 0.222, 0.236, 0.250, 0.264, 0.268, 0.328, 0.288),  # bare soil
        (0.140, 0.178, 0.236, 0.284, 0.308, 0.322, 0.334, 0.346, 0.354, 0.350, 0.392, 0.352),  # sand
        (0.030, 0.035, 0.055, 0.042, 0.080, 0.140, 0.164, 0.174, 0.180, 0.180, 0.098, 0.050),  # wetland
        (0.026, 0.030, 0.056, 0.040, 0.092, 0.240, 0.300, 0.322, 0.338, 0.340, 0.180, 0.085),  # lush: tall crop
        (0.075, 0.095, 0.130, 0.165, 0.190, 0.210, 0.225, 0.240, 0.255, 0.258, 0.310, 0.250),  # stubble
        (0.070, 0.088, 0.122, 0.155, 0.180, 0.198, 0.212, 0.226, 0.240, 0.244, 0.300, 0.262),  # fallow: tilled soil
        (0.030, 0.036, 0.066, 0.050, 0.105, 0.225, 0.275, 0.295, 0.310, 0.315, 0.200, 0.105),  # young stand of trees
        (0.062, 0.077, 0.105, 0.132, 0.155, 0.180, 0.195, 0.208, 0.220, 0.224, 0.285, 0.230),  # felled stand
    ],
    dtype=np.float32,
)

#: What vegetation turns to out of season: standing litter and dry grass.
DRY_VEGETATION = np.array(
    (0.055, 0.068, 0.098, 0.128, 0.158, 0.186, 0.204, 0.220, 0.234, 0.238, 0.262, 0.200), dtype=np.float32
)

#: Surface reflectance, one row per kind of roof, same bands.
ROOF_REFLECTANCE = np.array(
    [
        (0.050, 0.055, 0.062, 0.069, 0.073, 0.077, 0.081, 0.085, 0.088, 0.092, 0.106, 0.102),  # bitumen
        (0.116, 0.136, 0.160, 0.178, 0.188, 0.195, 0.200, 0.207, 0.212, 0.214, 0.234, 0.220),  # gravel ballast
        (0.330, 0.390, 0.435, 0.455, 0.462, 0.466, 0.468, 0.466, 0.466, 0.445, 0.400, 0.350),  # white membrane
        (0.200, 0.228, 0.248, 0.262, 0.272, 0.278, 0.284, 0.292, 0.298, 0.298, 0.318, 0.300),  # metal
        (0.058, 0.070, 0.102, 0.164, 0.194, 0.212, 0.226, 0.240, 0.250, 0.256, 0.300, 0.282),  # clay tile, brick
    ],
    dtype=np.float32,
)

#: Materials that look alike from above and are different things: kind of ground -> the kind that it resembles.
_GROUND_TWINS = {
    "crop": "grass", "lush": "tree", "stubble": "bare", "fallow": "bare", "young": "grass", "felled": "bare",
    "bare": "paved",
}  # fmt: skip
#: Kind of roof -> the kind of ground that it resembles.
_ROOF_TWINS = {"bitumen": "street", "gravel": "paved", "metal": "paved", "tile": "bare"}


def drawn_together(
    overlap: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give the reflectances of ground and roofs with look-alikes drawn together.

    Args:
        overlap: 0 leaves the spectra as they are, 1 makes look-alikes equal.

    Returns:
        Reflectances of `GROUND` and of `ROOFS`, one row per kind, 12 bands.
    """
    ground, roofs = GROUND_REFLECTANCE.copy(), ROOF_REFLECTANCE.copy()
    # bare soil resembles pavement by half only: it stays redder, and what resembles it goes along
    order = sorted(_GROUND_TWINS, key=lambda name: name != "bare")
    for name in order:
        share = np.float32(overlap * (0.5 if name == "bare" else 1.0))
        code, twin = GROUND.index(name), GROUND.index(_GROUND_TWINS[name])
        ground[code] += share * (ground[twin] - ground[code])
    for name, other in _ROOF_TWINS.items():
        roofs[ROOFS.index(name)] += np.float32(overlap) * (ground[GROUND.index(other)] - roofs[ROOFS.index(name)])
    return ground, roofs


#: Thick cloud, same bands; falls in the short-wave infrared where ice and droplets absorb.
CLOUD_REFLECTANCE = np.array((0.62, 0.63, 0.62, 0.63, 0.64, 0.65, 0.65, 0.66, 0.66, 0.52, 0.44, 0.36), dtype=np.float32)

#: Shape of what imperfect atmospheric correction leaves behind, same bands.
HAZE = np.array((1.0, 0.85, 0.62, 0.46, 0.40, 0.34, 0.30, 0.26, 0.24, 0.22, 0.10, 0.06), dtype=np.float32)

#: (VV, VH) in dB, one row per kind of ground; water is drawn anew for each date, since wind roughens it.
BACKSCATTER_DB = np.array(
    [
        (-19.5, -27.5),  # water
        (-14.5, -22.0),  # street
        (-12.8, -19.8),  # paved, with what stands about on it
        (-9.6, -15.2),  # tree
        (-11.6, -17.4),  # shrub
        (-13.6, -20.2),  # grass
        (-12.6, -19.0),  # crop
        (-13.8, -21.6),  # bare soil
        (-17.0, -25.0),  # sand
        (-12.4, -19.4),  # wetland
        (-10.4, -16.0),  # lush
        (-12.6, -19.6),  # stubble
        (-12.2, -19.8),  # fallow
        (-12.2, -18.6),  # young
        (-12.0, -18.8),  # felled
    ],
    dtype=np.float64,
)
#: (VV, VH) in dB of a flat roof without the double bounce at its walls.
ROOF_BACKSCATTER_DB = (-11.5, -18.5)

#: Code in ESA WorldCover 2021 v200 (Product User Manual V2.0, table 3), one per kind of ground; a building is 50.
WORLDCOVER_CODE = np.array((80, 50, 50, 10, 20, 30, 40, 60, 60, 90, 40, 40, 40, 10, 20), dtype=np.uint8)

#: The product's whole legend: code, name, colour.
WORLDCOVER_LEGEND = (
    (10, "Tree cover", "006400"),
    (20, "Shrubland", "FFBB22"),
    (30, "Grassland", "FFFF4C"),
    (40, "Cropland", "F096FF"),
    (50, "Built-up", "FA0000"),
    (60, "Bare / sparse vegetation", "B4B4B4"),
    (70, "Snow and ice", "F0F0F0"),
    (80, "Permanent water bodies", "0064C8"),
    (90, "Herbaceous wetland", "0096A0"),
    (95, "Mangroves", "00CF75"),
    (100, "Moss and lichen", "FAE6A0"),
)
