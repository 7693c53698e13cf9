"""Where everything comes from: scenes, catalogues, machines, packages, checksums."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cityheads.core.artifacts.agreement import AGREEMENT
from cityheads.core.artifacts.scenes import ChoiceCost, ChosenItem
from cityheads.core.artifacts.store import STORE_INDEX
from cityheads.core.files import sha256_file
from cityheads.core.modalities import RADAR
from cityheads.core.redaction import shown
from cityheads.core.text import counted, duration, number, percent
from cityheads.product.report.dataset import parents
from cityheads.product.report.seen import Seen, seen
from cityheads.product.report.tables import UNDEFINED, Cell, Column, Table, count, score, words
from cityheads.product.results import Results, require

__all__ = ["environments", "hashes", "layer_table", "origin", "scene_table", "scenes", "seen_when", "timing_table"]


@dataclass(frozen=True)
class Scene:
    """One item as the page tells of it; what an item does not say is None."""

    id: str
    date: str
    cloud_percent: float | None
    baseline: str | None
    offset_dn: int | None
    orbit: str | None
    relative_orbit: int | None

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
            properties.get("sat:relative_orbit"),
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
    cost: ChoiceCost | None
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
                cost=layers["S2L2A"].get("cost"),
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


def _told(scene: Scene) -> str:
    """Tell of an optical scene."""
    cloud = "n/a" if scene.cloud_percent is None else percent(scene.cloud_percent / 100)
    offset = "n/a" if scene.offset_dn is None else f"{scene.offset_dn:,}"
    return f"{scene.id}: {scene.date}, cloud {cloud}, baseline {scene.baseline or 'n/a'}, offset {offset}"


def _told_radar(scene: Scene) -> str:
    """Tell of a radar scene."""
    orbit = scene.orbit or "orbit n/a"
    return f"{scene.id}: {scene.date}, {orbit}" + ("" if scene.relative_orbit is None else f" {scene.relative_orbit}")


def _cost_cells(cost: ChoiceCost | None) -> list[Cell]:
    """Give days, cloud and points of a choice; a choice that was made without a cost has none."""
    values = [cost["days"], cost["cloud_percent"], cost["points"]] if cost is not None else [None] * 3
    return [
        Cell(UNDEFINED, defined=False) if value is None else Cell(number(value, 1), value=value) for value in values
    ]


def seen_when(results: Results, together: bool) -> Seen:
    """Draw when each parent was seen; ``together`` says whether the choices keep to an agreement."""
    path = results.layout.agreement
    agreement = AGREEMENT.read(path) if together and path.is_file() else None
    return seen({parent: results.scenes(parent) for parent in parents(results)}, agreement)


def scene_table(found: Sequence[ParentScenes]) -> Table:
    """Give the scenes of every parent as a table."""
    rows = []
    for one in found:
        optical = [_told(scene) for scene in one.optical]
        radar = [_told_radar(scene) for scene in one.radar]
        if not radar:
            radar = [f"none found; {', '.join(one.synthesized)} was generated" if one.synthesized else "not used"]
        rows.append(
            [words(one.parent), words(one.split), words("\n".join(optical)), score(one.clear_fraction),
             *_cost_cells(one.cost), words("\n".join(radar))]
        )  # fmt: skip
    columns = [
        Column("parent", number=False), Column("split", number=False), Column("Sentinel-2", number=False),
        Column("clear, %"), Column("days off"), Column("cloud, %"), Column("cost, points"),
        Column("Sentinel-1", number=False),
    ]  # fmt: skip
    caption = (
        "Scenes per parent. Clear is the share of clear pixels over the parent as it was read; days from the target "
        "date, cloud over the parent and cost are what it was chosen by; cloud beside a scene is that of the whole; "
        "offset is what was subtracted from the digital numbers. Of several scenes, the first valid pixel wins."
    )
    return Table("scenes", caption, columns, rows)


def layer_table(found: Sequence[ParentScenes]) -> Table:
    """Give why each layer of each parent is made of its items."""
    rows = [
        [words(one.parent), words(layer.name), count(layer.considered), count(layer.rejected), words(layer.why),
         words("\n".join(layer.ids))]
        for one in found
        for layer in one.layers
    ]  # fmt: skip
    columns = [
        Column("parent", number=False), Column("layer", number=False), Column("looked at"), Column("rejected"),
        Column("why", number=False), Column("items", number=False),
    ]  # fmt: skip
    caption = "Every layer of every parent: how many items were looked at, and why the ones above were taken."
    return Table("layers", caption, columns, rows)


def timing_table(results: Results) -> Table | None:
    """Give wall time and memory per rule; None where nothing was recorded."""
    rows = [
        [
            words(one.rule), count(one.jobs), Cell(duration(one.seconds), one.seconds),
            Cell(duration(one.longest), one.longest),
            Cell("n/a", defined=False) if one.peak_mb is None else Cell(f"{one.peak_mb:,.0f}", one.peak_mb),
        ]
        for one in results.timings()
    ]  # fmt: skip
    columns = [
        Column("rule", number=False), Column("jobs"), Column("all jobs"), Column("longest job"),
        Column("peak memory, MB"),
    ]  # fmt: skip
    caption = "Wall time and peak memory per rule, as Snakemake measured them."
    return Table("timings", caption, columns, rows) if rows else None


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
    for run, fold, seed in itertools.product(results.runs, results.folds, results.seeds):
        found = results.environment(run, seed, fold)
        name = f"{run}/{fold}/{seed}"
        places[name] = {
            "Git revision": found["revision"] or "not run from a git checkout",
            "Python": found["python"],
            "Platform": found["platform"],
            "Device": f"{found['device']}, {counted(found['threads'], 'thread')}",
            "First weights": ", ".join(found["weights"].values()) if found["weights"] else "random",
        }
        packages[name] = {package: version for package, version in found["packages"].items() if version}
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


def hashes(results: Results) -> Table:
    """Give the checksums that identify the dataset."""
    folder, root = results.dataset, results.layout.root
    rows = [
        [words(path.relative_to(root).as_posix()), words(sha256_file(require(path))), words("")]
        for path in (folder.chips, folder.splits, folder.classes)
    ]
    for layer, array in STORE_INDEX.read(folder.store.index)["arrays"].items():
        shape = " x ".join(map(str, array["shape"])) + f" {array['dtype']}"
        name = folder.store.array(layer).relative_to(root).as_posix()
        rows.append([words(name), words(array["sha256"]), words(shape)])
    columns = [Column("file", number=False), Column("SHA-256", number=False), Column("shape and type", number=False)]
    return Table("hashes", "SHA-256 of the dataset.", columns, rows)
