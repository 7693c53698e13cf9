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
from dataclasses import dataclass

__all__ = ["MODALITIES", "SCL_CLEAR", "SCL_NODATA", "Modality"]


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

#: Scene classification (SCL) codes that count as clear ground: 2 dark area, 4 vegetation, 5 bare soil, 6 water,
#: 7 unclassified, 11 snow. Not clear: 1 saturated, 3 cloud shadow, 8 and 9 cloud, 10 thin cirrus.
#: Sentinel-2 L2A Algorithm Theoretical Basis Document, ESA S2-PDGS-MPC-ATBD-L2A, table of SCL labels.
SCL_CLEAR: frozenset[int] = frozenset({2, 4, 5, 6, 7, 11})
SCL_NODATA = 0
