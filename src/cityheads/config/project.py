"""Sections ``project``, ``grid``, ``quality`` and ``simulate``: what a run is called, its squares and their quality."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from pydantic import model_validator

from cityheads.config.base import Integer, Number, Section, Text, field, refuse
from cityheads.core.grid import Grid

__all__ = ["GridConfig", "ProjectConfig", "QualityConfig", "SimulateConfig"]

#: Sub-chips must be whole patches: TerraMind cuts its input into 16 x 16 px tokens.
_PATCH_PX = 16

_Fraction = Annotated[Number, Ge(0), Le(1)]


class ProjectConfig(Section):
    """What the report and the card call this experiment."""

    name: Text = field("cityheads", "Short name, used in file names.", pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: Text = field("One model, many maps of a city", "Headline of the report.")
    notes: Text = field("", "A remark that the report prints under its headline, such as what the numbers cannot show.")


class GridConfig(Section):
    """Size of parents and sub-chips."""

    resolution_m: Number = field(10.0, "Pixel size in metres.", gt=0)
    parent_px: Integer = field(896, "Side of a parent in pixels; must be a multiple of chips_per_side x 16.", ge=16)
    chips_per_side: Integer = field(4, "Sub-chips along one side of a parent; 4 gives 16 sub-chips.", ge=1, le=64)

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
        return Grid(self.resolution_m, self.parent_px, self.chips_per_side)


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


class SimulateConfig(Section):
    """The simulated archive (provider simulated only)."""

    seed: Integer = field(20, "Seed of the simulated city; the same seed gives the same bytes.", ge=0)
    cloudy_fraction: _Fraction = field(0.15, "Share of parents over which even the best scene holds a cloud.")
    s2_noise_reflectance: Number = field(
        0.012, "Standard deviation of the noise within a material, in reflectance (0 to 1).", ge=0
    )
    s1_looks: Number = field(
        4.4,
        "Equivalent number of looks of the simulated radar speckle (Sentinel-1 IW GRDH has about 4.4).",
        ge=1,
    )
