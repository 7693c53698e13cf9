"""Sections ``grid`` and ``quality``: the squares that everything lies on, and which of them are good enough."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import model_validator

from cityheads.config.base import Flag, Integer, Number, Section, field, only_once, refuse, section
from cityheads.core.grid import Grid

__all__ = ["CloudMaskConfig", "GridConfig", "QualityConfig"]

#: Sub-chips must be whole patches: TerraMind cuts its input into 16 x 16 px tokens.
_PATCH_PX = 16

_Fraction = Annotated[Number, Ge(0), Le(1)]


class GridConfig(Section):
    """Size of parents and sub-chips."""

    resolution_m: Number = field(10.0, "Pixel size in metres.", gt=0)
    parent_px: Integer = field(896, "Side of a parent in pixels; must be a multiple of chips_per_side x 16.", ge=16)
    chips_per_side: Integer = field(4, "Sub-chips along one side of a parent; 4 gives 16 sub-chips.", ge=1, le=64)
    aligned: Flag = field(
        True,
        "Refuse a parent whose corner is not a multiple of resolution_m, since then every pixel of the imagery is "
        "interpolated; false for imagery that lies on such a grid itself.",
        affects="nothing",
    )

    @model_validator(mode="after")
    def _whole_patches(self) -> GridConfig:
        step = self.chips_per_side * _PATCH_PX
        if self.parent_px % step:
            refuse(
                "parent_px",
                f"{self.parent_px} is not a multiple of {step} (chips_per_side x {_PATCH_PX} px patches); sub-chips "
                "would not fit the encoder",
            )
        return self

    @property
    def grid(self) -> Grid:
        """The grid that this section describes."""
        return Grid(self.resolution_m, self.parent_px, self.chips_per_side, self.aligned)


_SclClass = Literal[
    "no_data",
    "saturated_or_defective",
    "dark_area",
    "cloud_shadow",
    "vegetation",
    "not_vegetated",
    "water",
    "unclassified",
    "cloud_medium_probability",
    "cloud_high_probability",
    "thin_cirrus",
    "snow_or_ice",
]


class CloudMaskConfig(Section):
    """Pixels whose image does not show the ground: every label is ignored there (255), the images stay as read."""

    enabled: Flag = field(True, "Ignore the labels of such pixels; false trains and scores on them too.")
    scl_classes: Annotated[tuple[_SclClass, ...], only_once] = field(
        (
            "no_data",
            "saturated_or_defective",
            "cloud_shadow",
            "cloud_medium_probability",
            "cloud_high_probability",
            "thin_cirrus",
        ),
        "Classes of the scene classification whose pixels are ignored, where the archive has one (scl_asset).",
    )
    min_cloud_probability_percent: Number = field(
        50.0,
        "Pixels from this cloud probability on, in percent, are ignored too, where archive.imagery.S2L2A.cloud_asset "
        "names its asset.",
        gt=0,
        le=100,
    )
    smallest_m2: Number = field(
        0.0,
        "Connected cloud or shadow of less area than this, in square metres, is taken for a bright roof or a dark "
        "surface and not ignored.",
        ge=0,
    )
    dilation_m: Number = field(
        0.0, "Pixels nearer than this to what is left of cloud and shadow, in metres, are ignored too.", ge=0, le=5000
    )


class QualityConfig(Section):
    """Which sub-chips are good enough to keep; the others are dropped and counted, with the reason."""

    min_valid_fraction: _Fraction = field(0.95, "Least fraction of pixels with data in every modality.")
    min_in_range_fraction: _Fraction = field(
        0.95,
        "Least fraction of values within physical limits (reflectance up to 2, backscatter from -60 to 40 dB, "
        "elevation from -500 to 9000 m), in every modality.",
    )
    min_clear_fraction: _Fraction = field(
        0.8, "Least fraction of valid Sentinel-2 pixels that the scene classification calls clear."
    )
    cloud_mask: CloudMaskConfig = section(CloudMaskConfig)
    s1_median_db: tuple[Number, Number] = field(
        (-30.0, 5.0),
        "A parent whose median backscatter lies outside this range in dB has a unit error, and reading it fails.",
    )

    @model_validator(mode="after")
    def _range(self) -> QualityConfig:
        low, high = self.s1_median_db
        if low >= high:
            refuse("s1_median_db", f"{low:g} is not below {high:g}; the lesser of the two comes first")
        return self
