"""Where everything comes from: scenes, catalogues, machines, packages, checksums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cityheads.core.artifacts.scenes import ChosenItem
from cityheads.core.artifacts.store import STORE_INDEX
from cityheads.core.files import sha256_file
from cityheads.core.modalities import RADAR
from cityheads.core.redaction import shown
from cityheads.core.text import counted
from cityheads.product.report.dataset import parents
from cityheads.product.results import Results, require

__all__ = ["environments", "hashes", "origin", "scenes"]


@dataclass(frozen=True)
class Scene:
    """One item as the page tells of it; what an item does not say is None."""

    id: str
    date: str
    cloud_percent: float | None
    baseline: str | None
    offset_dn: int | None
    orbit: str | None

    @classmethod
    def of(cls, item: ChosenItem) -> Scene:
        """Take from an item what the page tells."""
        properties = item["properties"]
        return cls(
            item["id"],
            (item["datetime"] or "")[:10],
            properties.get("eo:cloud_cover"),
            properties.get("s2:processing_baseline"),
            item.get("offset_dn"),
            properties.get("sat:orbit_state"),
        )


@dataclass(frozen=True)
class Layer:
    """Why one layer of a parent is made of its items."""

    name: str
    why: str
    considered: int
    rejected: int
    ids: Sequence[str]


@dataclass(frozen=True)
class ParentScenes:
    """The scenes of one parent; ``synthesized`` are the modalities that were generated."""

    parent: str
    split: str
    optical: Sequence[Scene]
    radar: Sequence[Scene]
    synthesized: Sequence[str]
    clear_fraction: float | None
    layers: Sequence[Layer]


def scenes(results: Results) -> list[ParentScenes]:
    """Give the scenes of every parent."""
    rows = []
    for parent in parents(results):
        layers = results.scenes(parent)["layers"]
        rows.append(
            ParentScenes(
                parent=parent,
                split=results.splits["parents"][parent],
                optical=[Scene.of(item) for item in layers["S2L2A"]["items"]],
                radar=[Scene.of(item) for name in RADAR if name in layers for item in layers[name]["items"]],
                synthesized=[name for name, layer in layers.items() if layer.get("synthesized")],
                clear_fraction=results.reading(parent)["layers"]["S2L2A"]["clear_fraction"],
                layers=[
                    Layer(
                        name,
                        layer["why"],
                        layer["considered"],
                        len(layer["rejected"]),
                        [item["id"] for item in layer["items"]],
                    )
                    for name, layer in layers.items()
                ],
            )
        )
    return rows


@dataclass(frozen=True)
class Collection:
    """Where the pixels of one layer come from: a collection, and how many of its items."""

    layer: str
    collection: str | None
    count: int


@dataclass(frozen=True)
class Origin:
    """Where all pixels come from."""

    catalogs: Sequence[str]
    collections: Sequence[Collection]


def origin(results: Results) -> Origin:
    """Say which catalogues and collections the pixels come from."""
    choices = [results.scenes(parent) for parent in parents(results)]
    collections: dict[str, str | None] = {}
    items: dict[str, set[str]] = {}
    for choice in choices:
        for name, layer in choice["layers"].items():
            collections.setdefault(name, layer["collection"])
            items.setdefault(name, set()).update(item["id"] for item in layer["items"])
    return Origin(
        list(dict.fromkeys(shown(choice["catalog"]) for choice in choices)),
        [Collection(name, collections[name], len(found)) for name, found in items.items() if found],
    )


@dataclass(frozen=True)
class Shared:
    """What some trainings have in common, and which trainings these are."""

    content: Mapping[str, str]
    trainings: Sequence[str]


@dataclass(frozen=True)
class Environments:
    """Where the trainings ran.

    Attributes:
        common: What all have in common.
        apart: What groups of them do not share with the others; empty where all ran in one place.
        packages: Versions of the packages, by group.
    """

    common: Mapping[str, str]
    apart: Sequence[Shared]
    packages: Sequence[Shared]


def environments(results: Results) -> Environments:
    """Group the trainings by where they ran and, apart from that, by the packages that they ran with."""
    places: dict[str, dict[str, str]] = {}
    packages: dict[str, dict[str, str]] = {}
    for run in results.runs:
        for seed in results.seeds:
            found = results.environment(run, seed)
            places[f"{run}/{seed}"] = {
                "Git revision": found["revision"] or "not run from a git checkout",
                "Python": found["python"],
                "Platform": found["platform"],
                "Device": f"{found['device']}, {counted(found['threads'], 'thread')}",
                "First weights": ", ".join(found["weights"].values()) if found["weights"] else "random",
            }
            packages[f"{run}/{seed}"] = {name: version for name, version in found["packages"].items() if version}
    groups = _grouped(places)
    first = groups[0].content
    common = {key: value for key, value in first.items() if all(group.content[key] == value for group in groups)}
    apart = [
        Shared({key: value for key, value in group.content.items() if key not in common}, group.trainings)
        for group in groups
        if len(groups) > 1
    ]
    return Environments(common, apart, _grouped(packages))


def _grouped(contents: Mapping[str, dict[str, str]]) -> list[Shared]:
    """Put trainings with equal content together, in the order in which each content first appears."""
    groups: dict[str, tuple[dict[str, str], list[str]]] = {}
    for training, content in contents.items():
        groups.setdefault(repr(content), (content, []))[1].append(training)
    return [Shared(content, trainings) for content, trainings in groups.values()]


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of a file of the dataset; shape and type of an array."""

    file: str
    sha256: str
    shape: str = ""


def hashes(results: Results) -> list[Fingerprint]:
    """Give the checksums that identify the dataset."""
    folder, root = results.dataset, results.layout.root
    rows = [
        Fingerprint(path.relative_to(root).as_posix(), sha256_file(require(path)))
        for path in (folder.chips, folder.splits, folder.classes)
    ]
    for layer, array in STORE_INDEX.read(folder.store.index)["arrays"].items():
        rows.append(
            Fingerprint(
                folder.store.array(layer).relative_to(root).as_posix(),
                array["sha256"],
                " x ".join(map(str, array["shape"])) + f" {array['dtype']}",
            )
        )
    return rows
