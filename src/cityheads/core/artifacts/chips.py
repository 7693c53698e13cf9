"""The tables of sub-chips, with a row for each sub-chip of each parent, kept or dropped with the reason.

``dataset/store/subchips.parquet`` is the base table: all that holds whatever the split.
``dataset/{fold}/chips.parquet``, the chip table, adds the split, and drops also what comes too near to a parent held
out.

GeoParquet: column ``geometry`` is the sub-chip's square in longitude and latitude. Columns that exist once per modality
or label are named by the functions below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cityheads.core.artifacts.base import Table
from cityheads.core.modalities import RADAR

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "CHIPS",
    "SUBCHIPS",
    "chip_schema",
    "class_fraction",
    "ignored_fraction",
    "in_range_fraction",
    "pixels",
    "scene_ids",
    "sha256",
    "subchip_schema",
    "synthesized",
    "valid_fraction",
]

SUBCHIPS = Table("table of sub-chips", "pack_store", 2)
CHIPS = Table("chip table", "assemble_dataset", 2)


def valid_fraction(modality: str) -> str:
    """Name the column with the share of pixels that have data in every band of a modality."""
    return f"valid_fraction_{modality}"


def in_range_fraction(modality: str) -> str:
    """Name the column with the share of a modality's values within physical limits; null where there is no data."""
    return f"in_range_fraction_{modality}"


def scene_ids(modality: str) -> str:
    """Name the column with the ids of the scenes that a modality was read from, joined by ``;``."""
    return f"scenes_{modality}"


def synthesized(modality: str) -> str:
    """Name the column that says whether a radar modality was generated; other modalities have none."""
    return f"synthesized_{modality}"


def ignored_fraction(label: str) -> str:
    """Name the column with the share of a label's pixels that are ignored."""
    return f"ignored_fraction_{label}"


def class_fraction(label: str, class_id: int) -> str:
    """Name the column with the share of a class among a label's pixels that count; null where none does."""
    return f"fraction_{label}_{class_id}"


def pixels(label: str) -> str:
    """Name the base table's column of a label's pixels per class and, last, of the ignored ones: a list of numbers."""
    return f"pixels_{label}"


def sha256(layer: str) -> str:
    """Name the column with the SHA-256 of the sub-chip's file of a layer: a modality, a mask, the cloud mask."""
    return f"sha256_{layer}"


def chip_schema(modalities: Sequence[str], classes: Mapping[str, int]) -> pa.Schema:
    """Give the columns of the chip table, ``geometry`` left out, in their order.

    Args:
        modalities: Modalities of the dataset.
        classes: Number of classes per label that trains.
    """
    import pyarrow as pa

    from cityheads.core.classes import CLOUD_MASK, mask_layer

    text, whole, number, yes_no = pa.string(), pa.int64(), pa.float64(), pa.bool_()
    columns = [
        ("chip_id", text),
        ("parent_id", text),
        ("row", whole),
        ("col", whole),
        ("split", text),
        ("kept", yes_no),
        ("reason", text),  # empty for a sub-chip that is kept
        ("epsg", whole),
        ("left", number),  # corner of the sub-chip in metres of its CRS
        ("top", number),
        ("chip_px", whole),
        ("resolution_m", number),
        ("clear_fraction", number),
        ("hidden_fraction", number),  # share of the pixels whose labels are ignored: cloud, shadow, no data
        ("store_index", whole),  # position in the store, -1 for a sub-chip that is dropped
        ("simulated", yes_no),
    ]
    columns += [(sha256(CLOUD_MASK), text)]
    for name in modalities:
        columns += [(valid_fraction(name), number), (in_range_fraction(name), number), (scene_ids(name), text)]
        columns += [(sha256(name), text)]
        if name in RADAR:
            columns += [(synthesized(name), yes_no)]
    for label, count in classes.items():
        columns += [(ignored_fraction(label), number)]
        columns += [(class_fraction(label, index), number) for index in range(count)]
        columns += [(sha256(mask_layer(label)), text)]
    return pa.schema(columns)


def subchip_schema(modalities: Sequence[str], classes: Mapping[str, int]) -> pa.Schema:
    """Give the columns of the base table, ``geometry`` left out: those of the chip table but the split, and counts.

    Args:
        modalities: Modalities of the dataset.
        classes: Number of classes per label that trains.
    """
    import pyarrow as pa

    schema = chip_schema(modalities, classes)
    schema = schema.remove(schema.get_field_index("split"))
    for label, count in classes.items():
        schema = schema.append(pa.field(pixels(label), pa.list_(pa.int64(), count + 1)))
    return schema
