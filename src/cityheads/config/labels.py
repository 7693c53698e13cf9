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
_Code = Annotated[Integer, Ge(0), Le(255)]

_CLASSES = "The classes in the order of their ids, from 0."
_IGNORE_CODES = "Source codes that become 255, ignore. A code that is neither here nor in a class is an error."
_RULE = (
    "When a pixel belongs to a polygon: its centre is covered, it is touched, or at least area_threshold of it is "
    "covered."
)
_AREA = "Least covered fraction of a pixel under rule area."


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
    feature_codes: tuple[Integer, ...] = field(
        (2100,), "Feature codes that count as buildings (2100 building, 5110 garage); empty keeps all."
    )
    rule: PixelRule = field("centre", _RULE)
    area_threshold: Number = field(0.5, _AREA, gt=0, le=1)
    fraction_layer: Flag = field(
        False, "Also write the covered fraction of every pixel as FRACTION_NAME, beside the mask."
    )
    standing_only: Flag = field(
        False,
        "Leave out buildings whose construction year is after the year of the chosen Sentinel-2 scene; unknown years "
        "stay and are counted.",
    )


class RasterLabel(_Label):
    """Reads a folder of rasters, which may be absent for some parents."""

    kind: Literal["raster"] = field(..., "A folder of rasters is read, which may lack some parents.")
    classes: tuple[RasterClass, ...] = field(..., _CLASSES, min_length=2, max_length=254)
    ignore_codes: tuple[_Code, ...] = field((0,), _IGNORE_CODES)
    source: Text = field(..., "Folder of rasters.", min_length=1)

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
