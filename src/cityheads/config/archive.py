"""Sections ``archive`` and ``simulate``: where imagery comes from, and how it is generated where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime as Datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from cityheads.config.base import (
    Flag,
    Integer,
    Number,
    Period,
    Section,
    Text,
    Time,
    doc_of,
    field,
    freeze,
    only_once,
    refuse,
    section,
)
from cityheads.core.times import Interval, parse_interval, parse_time

__all__ = [
    "ArchiveConfig",
    "CostConfig",
    "DemConfig",
    "GrdConfig",
    "ImageryConfig",
    "NetworkConfig",
    "OpticalConfig",
    "RadarConfig",
    "Resampling",
    "RtcConfig",
    "SimulateConfig",
    "SynthesisConfig",
    "TogetherConfig",
]

Resampling = Literal["nearest", "bilinear", "cubic"]
_S2Band = Literal["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]


class NetworkConfig(Section):
    """How patient reading over the network is. Never changes a result."""

    attempts: Integer = field(6, "Requests for one thing before it has failed.", affects="nothing", ge=1, le=20)
    backoff_s: Number = field(
        0.5,
        "First wait in seconds; each further one is twice as long, less a random half.",
        affects="nothing",
        ge=0,
    )
    timeout_s: Number = field(30.0, "Longest silence of a server in seconds.", affects="nothing", gt=0)
    connections: Integer = field(8, "Connections to one host at once.", affects="nothing", ge=1, le=64)


class CostConfig(Section):
    """What a Sentinel-2 overflight costs over a parent, in points; the one with the fewest is taken."""

    points_per_cloud_percent: Number = field(
        1.0,
        "Points for each percent of the parent that is not clear: cloud, shadow, snow or saturated by the scene "
        "classification, or, without one, the tile-wide eo:cloud_cover of what has data.",
        affects="choice",
        ge=0,
    )
    points_per_missing_percent: Number = field(
        2.0, "Points for each percent of the parent without data.", affects="choice", ge=0
    )
    points_per_day: Number = field(
        0.2,
        "Points for each day between the acquisition and the target date: by default five days weigh as much as one "
        "percent of cloud.",
        affects="choice",
        ge=0,
    )


class OpticalConfig(Section):
    """Sentinel-2 Level-2A surface reflectance."""

    collection: Text = field("sentinel-2-l2a", "STAC collection id.")
    datetime: Annotated[Text, Period] = field(
        "2024-05-01/2024-09-30", "Period of acquisition, as a STAC interval: FROM/TO, either of which may be '..'."
    )
    target_date: Annotated[Text, Time] | None = field(
        None,
        "Date that scenes should be near to (YYYY-MM-DD); what a day's distance costs says 'cost'. Null takes the "
        "middle of the period.",
    )
    max_cloud_percent: Number = field(
        40.0, "Items whose tile-wide eo:cloud_cover, in percent, is above this are not looked at.", ge=0, le=100
    )
    cost: CostConfig = section(CostConfig, affects="choice")
    offset: Literal["baseline", "asset", "none", "item"] = field(
        "baseline",
        "How the +1000 of processing baseline 04.00 and later is known: by the item's s2:processing_baseline, by the "
        "scale and offset that each asset declares (raster:bands, or bands of STAC 1.1), not at all (never "
        "subtracted), or by the item's earthsearch:boa_offset_applied flag, which is known to be wrong for many items.",
    )
    offset_of: Annotated[Mapping[Text, Integer], freeze] = field(
        {},
        "What is subtracted from the digital numbers of single items, by their id, whatever their tags say, such as "
        "{S2B_18TWL_20250808_0_L2A: 0}; 1000 for an item that carries the offset.",
        affects="reading",
    )
    offset_check: Literal["error", "warn"] = field(
        "error",
        "What to do where an item's pixels contradict its tags about the +1000: stop, or say so and follow the tags.",
        affects="reading",
    )
    assets: Annotated[Mapping[Text, Text], freeze] = field(
        {}, "Asset key per band where it differs from the band's name, such as {B02: blue}."
    )
    scl_asset: Text | None = field(
        "SCL",
        "Asset of the scene classification, from which clear and cloudy pixels are counted; null where the catalogue "
        "has none.",
    )
    cloud_asset: Text | None = field(
        None,
        "Asset of the cloud probability in percent (MSK_CLDPRB), such as cloud in sentinel-2-c1-l2a, for "
        "quality.cloud_mask; null where the catalogue has none.",
    )
    resampling: Resampling = field(
        "nearest",
        "How 20 and 60 m bands come onto the grid; nearest is how TerraMind's pretraining data was made.",
        affects="reading",
    )
    resampling_of: Annotated[Mapping[_S2Band, Resampling], freeze] = field(
        {}, "The same for single bands that differ, such as {B01: cubic}.", affects="reading"
    )

    @model_validator(mode="after")
    def _target(self) -> OpticalConfig:
        if self.target_date is None and None in self.period:
            refuse("target_date", "the period of 'datetime' is open, so name the date")
        if self.target_date is not None:
            start, end = self.period
            day = parse_time(self.target_date)
            if (start is not None and day < start) or (end is not None and day > end):
                refuse(
                    "target_date", f"{self.target_date} is outside of 'datetime' ({self.datetime}); move one of them"
                )
        return self

    @property
    def period(self) -> Interval:
        """Start and end of the period of acquisition; None where it is open."""
        return parse_interval(self.datetime)

    @property
    def target_time(self) -> Datetime:
        """The time to be near to: the target date, or else the middle of the period."""
        if self.target_date is not None:
            return parse_time(self.target_date)
        start, end = self.period
        assert start is not None, "an open period has a target date"
        assert end is not None, "an open period has a target date"
        return start + (end - start) / 2


class RadarConfig(Section):
    """Sentinel-1 backscatter of one processing level; both levels have the same keys."""

    collection: Text | None = field(
        ..., "STAC collection id; null where the catalogue has none, for which missing must be synthesize."
    )
    max_days: Number = field(12.0, "Largest distance in days from the chosen Sentinel-2 acquisition.", ge=0)
    orbit: Literal["ascending", "descending", "any"] = field(
        "any", "Preferred orbit direction; any takes the nearest in time."
    )
    units: Literal["linear_power", "amplitude", "db"] = field(
        "linear_power", "Unit in the archive; linear power, and amplitude, its root, are converted to dB."
    )
    units_check: Literal["error", "warn"] = field(
        "error",
        "What to do where values that are said to be linear power look like amplitude: stop, or say so and go on.",
        affects="reading",
    )
    assets: Annotated[Mapping[Text, Text], freeze] = field({"VV": "vv", "VH": "vh"}, "Asset key per polarisation.")
    missing: Literal["error", "synthesize"] = field(
        "error",
        "What to do where no scene is found over a parent: stop, or let TerraMind generate the backscatter from the "
        "other modalities (archive.synthesis), marked as such everywhere.",
    )
    resampling: Resampling = field("bilinear", "How backscatter comes onto the grid.", affects="reading")

    @model_validator(mode="after")
    def _none_is_synthesized(self) -> RadarConfig:
        if self.collection is None and self.missing != "synthesize":
            refuse(
                "collection",
                "null means that the catalogue has none, so that missing must be synthesize",
            )
        return self


class RtcConfig(RadarConfig):
    """Sentinel-1 radiometrically terrain corrected backscatter."""

    collection: Text | None = field(
        "sentinel-1-rtc",
        "STAC collection id; null where the catalogue has none, for which missing must be synthesize.",
    )


class GrdConfig(RadarConfig):
    """Sentinel-1 ground range detected backscatter, calibrated and projected to a map.

    The tiles of public archives, which are neither, cannot be read.
    """

    collection: Text | None = field(
        "sentinel-1-grd",
        "STAC collection id; null where the catalogue has none, for which missing must be synthesize.",
    )


class DemConfig(Section):
    """Elevation."""

    collection: Text = field("cop-dem-glo-30", "STAC collection id.")
    assets: Annotated[Mapping[Text, Text], freeze] = field({"DEM": "data"}, "Asset key of the elevation.")
    resampling: Resampling = field("bilinear", "How elevation comes onto the grid.", affects="reading")


def _not_null(value: Any) -> Any:
    if value is None:
        refuse("", "null; write {} for a modality with its defaults, and leave the key out for none")
    return value


_Chosen = BeforeValidator(_not_null)


class ImageryConfig(Section):
    """The input modalities and the collections that they come from; one that is not listed is not read."""

    null_is_absent: ClassVar[bool] = True

    S2L2A: Annotated[OpticalConfig | None, _Chosen] = field(None, doc_of(OpticalConfig))
    S1RTC: Annotated[RtcConfig | None, _Chosen] = field(None, doc_of(RtcConfig))
    S1GRD: Annotated[GrdConfig | None, _Chosen] = field(None, doc_of(GrdConfig))
    DEM: Annotated[DemConfig | None, _Chosen] = field(None, doc_of(DemConfig))

    @model_validator(mode="after")
    def _sentinel_2(self) -> ImageryConfig:
        if self.S2L2A is None:
            refuse("", "S2L2A is needed; the other modalities are chosen around it")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        made = handler.resolve_ref_schema(handler(schema))
        for rule in made["properties"].values():
            # what is not listed is None here; in a file it is left out
            rule |= rule.pop("anyOf")[0]
            del rule["default"]
        return {**made, "required": ["S2L2A"]}

    @model_serializer(mode="wrap")
    def _present_only(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}

    @property
    def s2(self) -> OpticalConfig:
        """Sentinel-2, which every config has."""
        assert self.S2L2A is not None
        return self.S2L2A

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities that are read, in one fixed order: S2L2A, S1RTC, S1GRD, DEM."""
        return tuple(self.present)

    @property
    def present(self) -> dict[str, OpticalConfig | RadarConfig | DemConfig]:
        """The modalities that are read, with their settings, in the order of `names`."""
        return {name: value for name, value in self.__dict__.items() if value is not None}

    @property
    def radar(self) -> dict[str, RadarConfig]:
        """Those of Sentinel-1."""
        return {name: value for name, value in self.present.items() if isinstance(value, RadarConfig)}

    @property
    def synthesized(self) -> tuple[str, ...]:
        """Those that are generated where no scene is found."""
        return tuple(name for name, rule in self.radar.items() if rule.missing == "synthesize")


class SynthesisConfig(Section):
    """How a modality is generated where no image of it exists (archive.imagery.*.missing synthesize)."""

    backbone: Literal[
        "terramind_v1_tiny_generate",
        "terramind_v1_small_generate",
        "terramind_v1_base_generate",
        "terramind_v1_large_generate",
    ] = field("terramind_v1_base_generate", "The generator.")
    pretrained: Flag = field(
        True,
        "Take the published weights (Hugging Face) where no file is named; missing weights are an error. False without "
        "files takes random weights, and what they make is called untrained.",
    )
    weights: Text | None = field(None, "Local checkpoint of the generator, used in place of the published one.")
    tokenizer_weights: Text | None = field(
        None, "Local checkpoint of the tokenizer that decodes the modality, used in place of the published one."
    )
    steps: Integer = field(10, "Diffusion steps of the tokenizer.", ge=1, le=1000)
    temperature: Number = field(0.0, "Spread of the choice of a token; 0 takes the most probable one.", ge=0)
    seed: Integer = field(0, "Seed of the tokens and of the diffusion's first noise, window by window.", ge=0)
    threads: Integer = field(2, "CPU threads of making one parent; part of the recipe since sums depend on it.", ge=1)

    @model_validator(mode="after")
    def _both_files(self) -> SynthesisConfig:
        if not self.pretrained and bool(self.weights) != bool(self.tokenizer_weights):
            lacking = "tokenizer_weights" if self.weights else "weights"
            refuse(lacking, "name a file here too, or set pretrained")
        return self


class TogetherConfig(Section):
    """What the scenes of all parents shall have in common, where the archive has it.

    What is agreed on is kept: a parent that is added to the sheet keeps to it, and the others are not chosen again.
    """

    window_days: Number | None = field(
        None,
        "Days within which the Sentinel-2 scenes of all parents shall lie; null chooses each parent's alone.",
        affects="choice",
        ge=0,
    )
    tolerance_points: Number = field(
        30.0,
        "A parent whose best scene within the window costs this many points (archive.imagery.S2L2A.cost) more than its "
        "best one of the whole period takes that one.",
        affects="choice",
        ge=0,
    )
    relative_orbit: Flag = field(
        False,
        "Take Sentinel-1 scenes of one relative orbit for all parents, so that all are seen under the same angle.",
        affects="choice",
    )

    @property
    def asked_for(self) -> bool:
        """Whether there is anything to agree on."""
        return self.window_days is not None or self.relative_orbit


class ArchiveConfig(Section):
    """Where imagery comes from."""

    provider: Literal["simulated", "stac"] = field(
        "stac", "simulated makes a small archive first; stac reads an existing API or static catalogue."
    )
    catalog: Text | None = field(
        None, "URL of a STAC API or URL or path of a static catalog.json; not for the simulated provider."
    )
    asset_base: Text | None = field(
        None,
        "Folder or URL against which relative asset hrefs are resolved; null resolves them against their item, as STAC "
        "says.",
    )
    sign: Literal["none", "planetary-computer", "s3"] = field(
        "none",
        "How asset hrefs are signed, at the moment of reading: planetary-computer fetches tokens (with the account in "
        "PC_SDK_SUBSCRIPTION_KEY, if set), s3 uses AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    )
    trusted_hosts: Annotated[tuple[Text, ...], only_once] = field(
        (),
        "Hosts at private, link-local or loopback addresses that a catalogue elsewhere may name; requests to others "
        "there are refused.",
        affects="nothing",
    )
    exclude: Annotated[tuple[Text, ...], only_once] = field(
        (), "Ids of items that are never chosen, in whatever collection.", affects="choice"
    )
    verify: Literal["pixels", "headers", "none"] = field(
        "pixels",
        "How far the files of a chosen overflight are tried before the choice is frozen, so that one that is gone or "
        "damaged gives way to the next best: all that will be read, which fetches it twice; only that each file is "
        "there and can be opened; or not at all.",
        affects="choice",
    )
    workers: Integer = field(4, "Bands read at once within one parent.", affects="nothing", ge=1, le=64)
    offline: Flag = field(
        False,
        "Never use the network; what is not on this machine is an error that names it.",
        affects="nothing",
    )
    frozen_scenes: Text | None = field(
        None, "Folder of shipped scene choices (PARENT.json), taken as they are instead of searching; null searches."
    )
    network: NetworkConfig = section(NetworkConfig)
    imagery: ImageryConfig = field({"S2L2A": {}, "S1RTC": {}, "DEM": {}}, doc_of(ImageryConfig))
    together: TogetherConfig = section(TogetherConfig, affects="choice")
    synthesis: SynthesisConfig = section(SynthesisConfig, affects="reading")

    @model_validator(mode="after")
    def _provider(self) -> ArchiveConfig:
        if self.provider == "stac" and not self.catalog:
            refuse("catalog", "provider stac needs the URL or path of a catalogue")
        if self.provider == "simulated":
            if self.catalog:
                refuse("catalog", "the simulated provider makes its own; remove the key")
            if self.imagery.s2.cloud_asset is not None:
                refuse("imagery.S2L2A.cloud_asset", "the simulated archive has no cloud probability; remove the key")
            if self.imagery.S1GRD is not None:
                refuse("imagery", "the simulated archive has no S1GRD; remove it")
            for name, rule in self.imagery.radar.items():
                if rule.collection is None:
                    refuse(
                        f"imagery.{name}.collection",
                        "null means that the catalogue has none, but the simulated archive always has one",
                    )
        return self


class SimulateConfig(Section):
    """The simulated archive (provider simulated only)."""

    seed: Integer = field(20, "Seed of the simulated city; the same seed gives the same bytes.", ge=0)
    cloudy_fraction: Number = field(0.15, "Share of parents over which even the best scene holds a cloud.", ge=0, le=1)
    s2_noise_reflectance: Number = field(
        0.012, "Standard deviation of the noise within a material, in reflectance (0 to 1).", ge=0
    )
    material_overlap: Number = field(
        1.0,
        "How alike the spectra of different things are that look alike (roof and yard, tilled field and bare ground, "
        "young stand and meadow): 0 leaves them apart, 1 makes them equal.",
        ge=0,
        le=1,
    )
    texture_contrast: Number = field(
        0.12, "Standard deviation of the logarithm of brightness within a material, in patches of 100 m.", ge=0
    )
    illumination: Number = field(
        0.1, "Standard deviation of the logarithm of the light, over 900 m (slope and view).", ge=0
    )
    phenology: Number = field(
        0.25, "Standard deviation of how far vegetation has dried, from one part of the city to the next.", ge=0, le=1
    )
    haze_reflectance: Number = field(0.012, "Mean reflectance that haze adds in the blue.", ge=0)
    s1_moisture_db: Number = field(
        4.0, "Standard deviation of the radar's backscatter in patches of 150 m (moisture, roughness), in dB.", ge=0
    )
    s1_district_db: Number = field(
        5.5,
        "How far the radar's backscatter of a district as a whole lies from that of another land use, in dB; the ratio "
        "of its polarisations differs by 1.6 times that between districts with light and dark roofs. Smaller than what "
        "patches, speckle and materials add to a pixel, and seen where many pixels are averaged.",
        ge=0,
    )
    cover_error_fraction: Number = field(
        0.06, "Share of the land-cover map that has another class than the ground, in patches of 100 m.", ge=0, lt=0.5
    )
    footprint_shift_m: Number = field(
        3.0, "Mean misregistration of the footprints, the same within a neighbourhood, in metres.", ge=0
    )
    footprint_missing_fraction: Number = field(0.04, "Share of the buildings that the footprints lack.", ge=0, lt=1)
    footprint_demolished_fraction: Number = field(0.04, "Share of the footprints whose building is gone.", ge=0, lt=1)
    s1_looks: Number = field(
        4.4,
        "Equivalent number of looks of the simulated radar speckle (Sentinel-1 IW GRDH has about 4.4).",
        ge=1,
    )
