"""What each input modality is: bands, dtype, unit, nodata and pretraining statistics, in one place.

Sources of the constants:

* Band order and pretraining statistics: TerraMind v1 (Jakubik et al. 2025, "TerraMind: Large-Scale Generative
  Multimodality for Earth Observation"), as TerraTorch 1.2.11 ships them in
  ``terratorch.models.backbones.terramind.model.terramind_register.v1_pretraining_mean`` and ``_std``
  (a test holds the two equal).
* Native ground sampling distance: Sentinel-2 Level-2A product specification (ESA, S2-PDGS-TAS-DI-PSD-V14.9).
* Nodata of the source products: Sentinel-2 L2A 0; Sentinel-1 RTC on Planetary Computer -32768; Copernicus DEM
  GLO-30 none declared (its COGs carry no nodata value).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "COMMON_NAMES",
    "COORDS",
    "DERIVED",
    "DERIVED_FROM_S2",
    "MODALITIES",
    "RADAR",
    "SCL_CLASSES",
    "SCL_CLEAR",
    "SCL_NODATA",
    "TRUE_COLOUR_MAX_DN",
    "Modality",
    "bands_used",
    "removable",
    "stored",
]


@dataclass(frozen=True)
class Modality:
    """One input modality as it lies on disk in ``parents/`` and ``chips/``.

    Attributes:
        name: TerraMind's name of the modality; also the file and folder name.
        bands: Band names in file order.
        dtype: numpy dtype name on disk.
        unit: Unit of the stored values.
        nodata: Value that marks a missing pixel on disk (NaN for float layers).
        mean: Pretraining mean per band, in stored units.
        std: Pretraining standard deviation per band, in stored units.
        native_gsd_m: Native ground sampling distance per band, in metres.
        valid_min: Smallest physically possible stored value.
        valid_max: Largest physically possible stored value.
    """

    name: str
    bands: tuple[str, ...]
    dtype: str
    unit: str
    nodata: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    native_gsd_m: tuple[int, ...]
    valid_min: float
    valid_max: float

    def __post_init__(self) -> None:
        lengths = {len(self.bands), len(self.mean), len(self.std), len(self.native_gsd_m)}
        if len(lengths) != 1:
            raise ValueError(f"modality {self.name}: bands, mean, std and native_gsd_m differ in length")


MODALITIES: dict[str, Modality] = {
    "S2L2A": Modality(
        name="S2L2A",
        bands=("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"),
        dtype="uint16",
        unit="surface reflectance x 10000",
        nodata=0,
        mean=(
            1390.458, 1503.317, 1718.197, 1853.910, 2199.100, 2779.975,
            2987.011, 3083.234, 3132.220, 3162.988, 2424.884, 1857.648,
        ),
        std=(
            2106.761, 2141.107, 2038.973, 2134.138, 2085.321, 1889.926,
            1820.257, 1871.918, 1753.829, 1797.379, 1434.261, 1334.311,
        ),
        native_gsd_m=(60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 20, 20),
        valid_min=1,
        valid_max=20000,
    ),
    "S1RTC": Modality(
        name="S1RTC",
        bands=("VV", "VH"),
        dtype="float32",
        unit="gamma naught, dB",
        nodata=math.nan,
        mean=(-10.93, -17.329),
        std=(4.391, 4.459),
        native_gsd_m=(10, 10),
        valid_min=-60,
        valid_max=40,
    ),
    "S1GRD": Modality(
        name="S1GRD",
        bands=("VV", "VH"),
        dtype="float32",
        unit="sigma naught, dB",
        nodata=math.nan,
        mean=(-12.599, -20.293),
        std=(5.195, 5.890),
        native_gsd_m=(10, 10),
        valid_min=-60,
        valid_max=40,
    ),
    "DEM": Modality(
        name="DEM",
        bands=("DEM",),
        dtype="float32",
        unit="metres above the EGM2008 geoid",
        nodata=math.nan,
        mean=(670.665,),
        std=(951.272,),
        native_gsd_m=(30,),
        valid_min=-500,
        valid_max=9000,
    ),
}  # fmt: skip

#: Common names of Sentinel-2's bands: STAC electro-optical extension v1.1.0, table "Common Band Names".
COMMON_NAMES: dict[str, str] = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge", "B06": "rededge", "B07": "rededge",
    "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir16", "B12": "swir22",
}  # fmt: skip

#: Modalities from Sentinel-1: both are backscatter in dB, and are chosen and read alike.
RADAR = ("S1RTC", "S1GRD")

#: Digital number that a true-colour image shows as 255. Sentinel-2's own Level-2A image saturates at reflectance 0.2
#: (Sentinel-2 MSI User Guide, "True colour image"). TerraMind was trained on images stretched by their quantiles
#: (Blumenstiel et al. 2025, "TerraMesh", arXiv:2504.11172); a stretch that depends on the window would give a place two
#: looks in two windows, so a fixed one is used here.
TRUE_COLOUR_MAX_DN = 2000

#: Inputs that the model computes from S2L2A. Their statistics are those of the pretraining too.
DERIVED: dict[str, Modality] = {
    "RGB": Modality(
        name="RGB",
        bands=("B04", "B03", "B02"),
        dtype="float32",
        unit="true colour, 0 to 255",
        nodata=math.nan,
        mean=(87.271, 80.931, 66.667),
        std=(58.767, 47.663, 42.631),
        native_gsd_m=(10, 10, 10),
        valid_min=0,
        valid_max=255,
    ),
    "NDVI": Modality(
        name="NDVI",
        bands=("NDVI",),
        dtype="float32",
        unit="index, -1 to 1",
        nodata=math.nan,
        mean=(0.327,),
        std=(0.322,),
        native_gsd_m=(10,),
        valid_min=-1,
        valid_max=1,
    ),
}

#: Bands of S2L2A behind the derived inputs.
DERIVED_FROM_S2: dict[str, tuple[str, ...]] = {"RGB": ("B04", "B03", "B02"), "NDVI": ("B04", "B08")}

#: Name of the input that is no image: longitude and latitude of a window's centre, in degrees.
COORDS = "coords"


def stored(names: Iterable[str]) -> list[str]:
    """Give the modalities that must be read from disk for a model's inputs, in their order.

    Args:
        names: Inputs of a model: stored modalities, derived ones (which need S2L2A), ``coords`` (which need none).

    Raises:
        KeyError: A name is none of these.
    """
    wanted = ["S2L2A" if name in DERIVED else MODALITIES[name].name for name in names if name != COORDS]
    return list(dict.fromkeys(wanted))


def bands_used(modalities: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Give the bands that a model looks at, in file order, for each modality that must be read from disk.

    Args:
        modalities: Inputs of a model with the bands that it takes of each, as ``model.json`` lists them.
    """
    used: dict[str, list[str]] = {}
    for name in stored(modalities):
        wanted = set(modalities.get(name, ()))
        if name == "S2L2A":
            wanted |= {
                band for derived in DERIVED_FROM_S2 if derived in modalities for band in DERIVED_FROM_S2[derived]
            }
        used[name] = [band for band in MODALITIES[name].bands if band in wanted]
    return used


def removable(names: Iterable[str]) -> list[str]:
    """Give those of a model's inputs that can be missing while an image is left, each by itself.

    Args:
        names: Inputs of a model, as for `stored`. What is computed from S2L2A goes with it.
    """
    names = list(names)
    images = stored(names)
    return [name for name in (*images, COORDS) if (len(images) > 1 if name in images else name in names)]


#: Codes of the scene classification (SCL).
#: Sentinel-2 L2A Algorithm Theoretical Basis Document, ESA S2-PDGS-MPC-ATBD-L2A, table of SCL labels.
SCL_CLASSES: dict[str, int] = {
    "no_data": 0,
    "saturated_or_defective": 1,
    "dark_area": 2,
    "cloud_shadow": 3,
    "vegetation": 4,
    "not_vegetated": 5,
    "water": 6,
    "unclassified": 7,
    "cloud_medium_probability": 8,
    "cloud_high_probability": 9,
    "thin_cirrus": 10,
    "snow_or_ice": 11,
}

#: Codes that count as clear ground: dark area, vegetation, bare soil, water, unclassified, snow.
SCL_CLEAR: frozenset[int] = frozenset({2, 4, 5, 6, 7, 11})
SCL_NODATA = 0
