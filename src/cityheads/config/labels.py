"""Section ``labels``: the label layers, each of one of four kinds with the keys of that kind only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le
from pydantic import Discriminator, model_validator

from cityheads.config.base import Flag, Integer, Number, Period, Section, Text, field, freeze, named, refuse
from cityheads.core.times import Interval, parse_interval

__all__ = [
    "FootprintsLabel",
    "Label",
    "LabelClass",
    "LandcoverClass",
    "LandcoverLabel",
    "PixelRule",
    "RasterClass",
    "RasterLabel",
    "VectorClass",
    "VectorLabel",
]

PixelRule = Literal["centre", "all_touched", "area"]
#: Any code that a raster of whole numbers can hold.
_Code = Annotated[Integer, Ge(-(2**63)), Le(2**64 - 1)]

_CLASSES = "The classes in the order of their ids, from 0."
_IGNORE_CODES = "Source codes that become 255, ignore. A code that is neither here nor in a class is an error."
_RULE = (
    "When a pixel belongs to a polygon: its centre is covered, it is touched, or at least area_threshold of it is "
    "covered."
)
_AREA = "Least covered fraction of a pixel under rule area."
_LOST = (
    "Greatest share of the rows of a vector file, in percent, that may be unreadable, without a geometry or without an "
    "area, or not be there at all, as in a shapefile that was cut; each would be missing from the mask."
)
_LAYER = (
    "Layer of a file that holds several, or name without suffix of the wanted file in a zip file; null takes the only "
    "one."
)
_WHERE = "Rows to take, as values by column (compared as text); all others are left out. Empty takes all rows."


class LabelClass(Section):
    """One class of a label layer."""

    name: Text = field(..., "Name of the class.", min_length=1)
    color: Text = field(..., "Colour on maps, #rrggbb.", affects="figures", pattern="^#[0-9a-fA-F]{6}$")


class LandcoverClass(LabelClass):
    """One class of a land-cover product."""

    codes: tuple[_Code, ...] = field((), "Source codes that become this class; at least one.")


class RasterClass(LabelClass):
    """One class of a folder of rasters."""

    codes: tuple[_Code, ...] = field((), "Source codes that become this class; without any, its own id.")


class VectorClass(LabelClass):
    """One class of a vector layer."""

    values: tuple[Text, ...] = field(
        (), "Values of the attribute that become this class; a class without values is the background."
    )


class _Label(Section):
    """What label layers of every kind have in common."""

    if TYPE_CHECKING:  # each kind has classes of its own
        classes: tuple[LabelClass, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their ids."""
        return tuple(item.name for item in self.classes)

    @property
    def colors(self) -> dict[int, str]:
        """Colour (``#rrggbb``) per class id."""
        return {number: item.color for number, item in enumerate(self.classes)}

    @model_validator(mode="after")
    def _different_names(self) -> _Label:
        if len(set(self.class_names)) != len(self.class_names):
            refuse("classes", "two classes share a name")
        return self


def _repeated(values: Sequence[int] | Sequence[str]) -> list[int] | list[str]:
    return sorted({value for value in values if values.count(value) > 1})  # type: ignore[return-value]


class LandcoverLabel(_Label):
    """Maps the codes of a raster collection in the archive to classes."""

    kind: Literal["landcover"] = field(..., "Codes of a raster collection are mapped to classes.")
    classes: tuple[LandcoverClass, ...] = field(..., _CLASSES, min_length=2, max_length=254)
    ignore_codes: tuple[_Code, ...] = field((0,), _IGNORE_CODES)
    collection: Text = field("esa-worldcover", "STAC collection id.")
    asset: Text = field("map", "Asset key.")
    datetime: Annotated[Text, Period] | None = field(
        None, "Period, as a STAC interval: FROM/TO, either of which may be '..'; null takes the newest item."
    )

    @model_validator(mode="after")
    def _one_class_a_code(self) -> LandcoverLabel:
        twice = _repeated([code for item in self.classes for code in item.codes] + list(self.ignore_codes))
        if twice:
            refuse("", f"code {twice[0]} is mapped twice; see classes and ignore_codes (default [0])")
        for item in self.classes:
            if not item.codes:
                refuse("classes", f"class '{item.name}' has no codes")
        return self

    @property
    def period(self) -> Interval | None:
        """Start and end of the period; None where any time will do."""
        return None if self.datetime is None else parse_interval(self.datetime)


class FootprintsLabel(_Label):
    """Rasterizes building footprints."""

    kind: Literal["footprints"] = field(..., "Building polygons are rasterized.")
    classes: tuple[LabelClass, ...] = field(..., "The two classes, background first.", min_length=2, max_length=2)
    source: Text | None = field(None, "Vector file of the footprints; null takes the simulated archive's.")
    boundary: Text | None = field(
        None,
        "Vector file of the surveyed area, outside which a pixel without a polygon is unknown; null takes the "
        "simulated archive's.",
    )
    layer: Text | None = field(None, _LAYER)
    boundary_layer: Text | None = field(None, _LAYER)
    where: Annotated[Mapping[Text, tuple[Text, ...]], freeze] = field({}, _WHERE)
    feature_codes: tuple[Integer, ...] = field(
        (2100,),
        "Feature codes that count as buildings (2100 building, 5110 garage); empty takes all rows for buildings.",
    )
    ground_feature_codes: tuple[Integer, ...] = field(
        (), "Feature codes that count as ground. What is neither building nor ground (a canopy, a tank) is 255, ignore."
    )
    ignore_statuses: tuple[Text, ...] = field(
        ("Demolition", "Marked for Demolition", "Marked for Construction"),
        "Values of the table's column of status, in any case of letters, of what may or may not stand: 255, ignore.",
    )
    max_lost_percent: Number = field(1.0, _LOST, ge=0, le=100)
    rule: PixelRule = field("centre", _RULE)
    area_threshold: Number = field(0.5, _AREA, gt=0, le=1)
    fraction_layer: Flag = field(
        False, "Also write the covered fraction of every pixel as FRACTION_NAME, beside the mask."
    )
    standing_only: Flag = field(
        False,
        "Leave out buildings that were built after the year of the chosen Sentinel-2 scene or torn down before it; "
        "those of that very year are 255, ignore, and those of unknown year stay and are counted.",
    )

    @model_validator(mode="after")
    def _one_use_a_code(self) -> FootprintsLabel:
        twice = sorted(set(self.feature_codes) & set(self.ground_feature_codes))
        if twice:
            refuse("ground_feature_codes", f"{twice[0]} also stands in feature_codes")
        if self.ground_feature_codes and not self.feature_codes:
            refuse("ground_feature_codes", "with feature_codes [] all rows are buildings; list the codes of buildings")
        return self


class RasterLabel(_Label):
    """Reads a folder of rasters, which may be absent for some parents."""

    kind: Literal["raster"] = field(..., "A folder of rasters is read, which may lack some parents.")
    classes: tuple[RasterClass, ...] = field(..., _CLASSES, min_length=2, max_length=254)
    ignore_codes: tuple[_Code, ...] = field((0,), _IGNORE_CODES)
    source: Text = field(..., "Folder of rasters.", min_length=1)
    band: Annotated[Integer, Ge(1)] | None = field(
        None, "Band that holds the codes, counted from 1; null takes the only one, and refuses a raster with several."
    )

    @model_validator(mode="after")
    def _one_class_a_code(self) -> RasterLabel:
        mapped = [code for number, item in enumerate(self.classes) for code in item.codes or (number,)]
        twice = _repeated(mapped + list(self.ignore_codes))
        if twice:
            refuse("", f"code {twice[0]} is mapped twice; see classes and ignore_codes (default [0])")
        return self


class VectorLabel(_Label):
    """Reads a vector layer, which may be absent for some parents."""

    kind: Literal["vector"] = field(..., "A vector layer is rasterized, which may lack some parents.")
    classes: tuple[VectorClass, ...] = field(..., _CLASSES, min_length=2, max_length=254)
    ignore_values: tuple[Text, ...] = field(
        (),
        "Values of the attribute that become 255, ignore. A value that is neither here nor in a class is an error.",
    )
    attribute: Text | None = field(None, "Column that holds the class; null makes every polygon the second class.")
    source: Text = field(..., "Vector file.", min_length=1)
    layer: Text | None = field(None, _LAYER)
    boundary_layer: Text | None = field(None, _LAYER)
    where: Annotated[Mapping[Text, tuple[Text, ...]], freeze] = field({}, _WHERE)
    buffer_m: Number = field(
        0.0,
        "Distance in metres to each side by which lines and points are widened (4 for a road of 8 m); polygons stay as "
        "they are. With 0, lines and points are no polygons and count as lost.",
        ge=0,
    )
    max_lost_percent: Number = field(1.0, _LOST, ge=0, le=100)
    boundary: Text | None = field(
        None, "Vector file of the surveyed area, outside which a pixel without a polygon is unknown."
    )
    rule: PixelRule = field("centre", _RULE)
    area_threshold: Number = field(0.5, _AREA, gt=0, le=1)

    @model_validator(mode="after")
    def _one_class_a_value(self) -> VectorLabel:
        values = [value for item in self.classes for value in item.values] + list(self.ignore_values)
        twice = _repeated(values)
        if twice:
            refuse("", f"value '{twice[0]}' is mapped twice")
        if self.attribute is None and (values or len(self.classes) != 2):
            refuse(
                "attribute",
                "name the column of the class, or list two classes without values, background first",
            )
        background = [item.name for item in self.classes if not item.values]
        if self.attribute is not None and len(background) > 1:
            refuse("classes", "only one class, the background, can be without values")
        if (self.attribute is None or background) and not self.boundary:
            first = self.classes[0].name if self.attribute is None else background[0]
            refuse("boundary", f"'{first}' is known inside a surveyed area only; name its vector file")
        return self


Label = Annotated[LandcoverLabel | FootprintsLabel | RasterLabel | VectorLabel, Discriminator("kind")]

#: The section: label layers by name, in the order written.
Labels = Annotated[
    Mapping[Annotated[Text, named("^[A-Z][A-Z0-9]*$", "upper-case letters and digits, a letter first")], Label],
    freeze,
]
