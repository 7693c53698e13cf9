"""The model card: what the published model is, what it may be used for, and the verdict; ``templates/card.md.j2``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cityheads.config import Config, FootprintsLabel
from cityheads.core.artifacts.environment import Environment
from cityheads.core.artifacts.gate import Gate
from cityheads.core.artifacts.metrics import AblatedHead, Metrics
from cityheads.core.artifacts.model import SavedModel
from cityheads.core.artifacts.scenes import SceneChoice
from cityheads.core.artifacts.splits import SplitAssignment
from cityheads.core.artifacts.statistics import DatasetStatistics
from cityheads.core.artifacts.training import Training
from cityheads.core.confusion import metric_title
from cityheads.core.layout import BundleFolder
from cityheads.core.modalities import COORDS, DERIVED, DERIVED_FROM_S2, MODALITIES, RADAR, bands_used, stored
from cityheads.core.redaction import portable
from cityheads.core.text import counted, points, score, share
from cityheads.evaluation.ablation import how_to_read
from cityheads.evaluation.verdict import MEANING
from cityheads.product.notes import control_name, floor_of, synthesized_notes
from cityheads.product.render import render

__all__ = ["Published", "Source", "sources", "write_card"]

#: Sizes under which TerraMind v1 is published, as TerraTorch 1.2.11 names them in ``terramind_register``.
_TERRAMIND = ("tiny", "small", "base", "large")

#: What the providers ask to be said, by collection; {years} are those of the scenes.
_ATTRIBUTION = {
    "sentinel-2-l2a": "Contains modified Copernicus Sentinel-2 data {years}.",
    "sentinel-2-c1-l2a": "Contains modified Copernicus Sentinel-2 data {years}.",
    "sentinel-1-rtc": "Contains modified Copernicus Sentinel-1 data {years}.",
    "cop-dem-glo-30": "Copernicus DEM GLO-30: © DLR e.V. 2010-2014 and © Airbus Defence and Space GmbH 2014-2018, "
    "provided under COPERNICUS by the European Union and ESA; all rights reserved.",
    "esa-worldcover": "© ESA WorldCover project, contains modified Copernicus Sentinel data processed by the ESA "
    "WorldCover consortium; CC BY 4.0.",
    "io-lulc-annual-v02": "Land cover by Impact Observatory and Esri; CC BY 4.0.",
}


@dataclass(frozen=True)
class Source:
    """What one layer of the dataset was read from.

    Attributes:
        layer: Modality or land-cover label.
        collection: STAC collection; None where the catalogue has none and the layer was generated.
        items: Ids of the items.
        days: Days of the items that have one, as YYYY-MM-DD.
    """

    layer: str
    collection: str | None
    items: frozenset[str]
    days: frozenset[str]

    @property
    def first_day(self) -> str | None:
        """The earliest day."""
        return min(self.days, default=None)

    @property
    def last_day(self) -> str | None:
        """The latest day."""
        return max(self.days, default=None)


@dataclass(frozen=True)
class Published:
    """Everything that the card tells of.

    Attributes:
        model: The published model.
        training: Its training, and ``environment`` where that ran.
        seed_reason: Why this seed was published.
        metrics: Its scores.
        gate: The verdict on its run.
        statistics: Counts of the dataset.
        splits: Split of each parent.
        sources: Where the layers come from.
        year_notes: Which labels are of other years than the images.
    """

    model: SavedModel
    training: Training
    environment: Environment
    seed_reason: str
    metrics: Metrics
    gate: Gate
    statistics: DatasetStatistics
    splits: SplitAssignment
    sources: Sequence[Source]
    year_notes: Sequence[str]


def sources(choices: Iterable[SceneChoice]) -> list[Source]:
    """Sum up the scenes of all parents, layer by layer."""
    found: dict[str, Source] = {}
    for choice in choices:
        for layer, chosen in choice["layers"].items():
            before = found.get(layer, Source(layer, chosen["collection"], frozenset(), frozenset()))
            days = {item["datetime"][:10] for item in chosen["items"] if item["datetime"]}
            items = {item["id"] for item in chosen["items"]}
            found[layer] = Source(layer, before.collection, before.items | items, before.days | days)
    return list(found.values())


def write_card(config: Config, published: Published) -> str:
    """Write the card.

    Args:
        config: Sections ``project``, ``archive``, ``labels`` and ``train``.
        published: What is published.
    """
    model, metrics, gate, statistics = published.model, published.metrics, published.gate, published.statistics
    options = model["model"]
    place = BundleFolder(Path())
    parents = Counter[str](published.splits["parents"].values())
    return render(
        "card.md.j2",
        {
            "front": yaml.safe_dump(_front(config, published), sort_keys=False, allow_unicode=True, width=120),
            "project": config.project,
            "train": config.train,
            "model": model,
            "training": published.training,
            "environment": published.environment,
            "packages": {name: version for name, version in published.environment["packages"].items() if version},
            "metrics": metrics,
            "gate": gate,
            "meaning": MEANING[gate["verdict"]],
            "seed_reason": published.seed_reason,
            "labels": [head["label"] for head in model["heads"].values()],
            "inputs": _inputs(model),
            "derived": {name: DERIVED_FROM_S2[name] for name in model["modalities"] if name in DERIVED},
            "splits": [
                {"split": split, "parents": parents[split], "chips": chips}
                for split, chips in statistics["chips"].items()
            ],
            "dropped": statistics["dropped"],
            "sources": published.sources,
            "start": "published weights"
            if options["pretrained"]
            else "local weights"
            if options["weights"]
            else "random weights",
            "titles": {
                head: metric_title(part["metric"], part["positive_class"]) for head, part in gate["heads"].items()
            },
            "references": _references(gate),
            "confidence": share(gate["confidence"]),
            "metrics_confidence": share(metrics["confidence"]),
            "how_to_read": how_to_read(options["modality_dropout"]),
            "ablation": _ablation(metrics),
            "limits": _limits(config, published),
            "attributions": _attributions(config, published),
            "checksums": place.checksums.name,
            "recipe": place.recipe.name,
            "sheet": place.parents.name,
            "split_file": place.splits.name,
            "fold": published.splits["fold"],
            "folds": published.splits["folds"],
        },
    )


def _front(config: Config, published: Published) -> dict[str, Any]:
    """Give the metadata block that model hubs read."""
    model, metrics = published.model, published.metrics
    results = []
    for head, part in metrics["heads"].items():
        scores = [(part["metric"]["name"], part["metric"]["value"]), ("accuracy", part["accuracy"])]
        results.append(
            {
                "task": {"type": "image-segmentation", "name": head},
                "dataset": {
                    "type": "simulated" if model["simulated"] else "satellite imagery",
                    "name": f"{config.project.name}, {counted(len(metrics['parents']), 'held-out parent')}",
                    "split": "test",
                },
                "metrics": [
                    {"type": name, "name": f"test/{head}/{name}", "value": round(value, 4)}
                    for name, value in scores
                    if value is not None
                ],
            }
        )
    radar = ["sentinel-1"] if set(RADAR) & set(stored(model["modalities"])) else []
    simulated = ["simulated-data"] if model["simulated"] else []
    front: dict[str, Any] = {
        "license": "apache-2.0",
        "library_name": "cityheads",
        "pipeline_tag": "image-segmentation",
        "tags": [
            "remote-sensing", "sentinel-2", *radar, "multi-task", "terratorch", model["backbone"], *simulated,
        ],
    }  # fmt: skip
    size = model["backbone"].removesuffix("_tim").removeprefix("terramind_v1_")
    if model["model"]["pretrained"] and size in _TERRAMIND:
        front["base_model"] = f"ibm-esa-geospatial/TerraMind-1.0-{size}"
    front["model-index"] = [{"name": config.project.name, "results": results}]
    return front


def _references(gate: Gate) -> list[list[str]]:
    """Give floor and ceiling of every head, a row each, and whether the published run beats it."""
    rows = []
    for head, part in gate["heads"].items():
        known = [(name, f"floor: {control_name(name)}", one) for name, one in [floor_of(part) or ("", None)] if one]
        if part["ceiling"] is not None:
            known.append(("ceiling", f"ceiling: {control_name('ceiling')}", part["ceiling"]))
        for name, told, one in known:
            lead = one["models"].get(gate["run"])
            beaten = "-" if lead is None or name == "ceiling" else "yes" if lead["beaten"] else "no"
            rows.append([head, told, score(one["score"]), beaten])
    return rows


def _inputs(model: SavedModel) -> list[dict[str, str]]:
    """Describe the tensors that the model is given, a row each."""
    rows = []
    for name, used in bands_used({name: entry["bands"] for name, entry in model["modalities"].items()}).items():
        modality = MODALITIES[name]
        rows.append(
            {
                "name": name,
                "channels": " ".join(modality.bands),
                "used": "all" if len(used) == len(modality.bands) else " ".join(used),
                "unit": modality.unit,
                "missing": "NaN" if math.isnan(modality.nodata) else f"{modality.nodata:g}",
            }
        )
    if COORDS in model["modalities"]:
        rows.append(
            {
                "name": COORDS,
                "channels": "longitude latitude",
                "used": "all",
                "unit": "degrees (WGS 84), centre of the square",
                "missing": "not allowed",
            }
        )
    return rows


def _ablation(metrics: Metrics) -> list[list[str]]:
    """Give the table of the modality ablation, header first; two columns a head."""
    heads = metrics["heads"]
    rows = [
        ["without", *(cell for head in heads for cell in (head, "delta (pp)"))],
        ["nothing", *(cell for part in heads.values() for cell in (score(part["metric"]["value"]), ""))],
    ]
    for name, parts in (metrics["modality_ablation"] or {}).items():
        rows.append([name, *(cell for head in heads for cell in (score(parts[head]["value"]), _loss(parts[head])))])
    return rows


def _loss(part: AblatedHead) -> str:
    if part["delta_pp"] is None:
        return "undefined"
    ends = part["interval_pp"]
    return points(part["delta_pp"]) + (" (no interval)" if ends is None else f" [{points(ends[0])}, {points(ends[1])}]")


def _limits(config: Config, published: Published) -> list[str]:
    missing = [
        f"The {gap['split']} split has no pixel of {gap['class']} ({gap['label']})."
        for gap in published.splits["missing"]
    ]
    return [
        *published.gate["caveats"],
        *synthesized_notes(published.statistics, config.archive.synthesis),
        *published.year_notes,
        *missing,
        f"{counted(len(published.metrics['parents']), 'held-out parent')} of one region can say little about others.",
        "Labels are products with errors of their own; the scores measure agreement with them, not with the ground.",
        "The images are from one season; snow, leaf-off forest and floods were not seen unless the dates say so.",
        *_calibration_notes(published),
    ]


def _calibration_notes(published: Published) -> list[str]:
    """Say what the fractions from `fetch` rest on."""
    raw = [
        head
        for head, part in published.metrics["heads"].items()
        if part["calibration"] is None or part["calibration"]["method"] is None
    ]
    if raw:
        return [f"Fractions of {', '.join(raw)} from `fetch` are means of softmax scores, which no calibration backs."]
    return ["Fractions from `fetch` are means of probabilities that were calibrated on the validation parents."]


def _attributions(config: Config, published: Published) -> list[str]:
    """Say what the providers of real data ask to be said."""
    lines = []
    for source in published.sources:
        if not source.items:
            # all of it was generated, which the limitations tell
            continue
        years = sorted({day[:4] for day in source.days})
        text = _ATTRIBUTION.get(source.collection or "", f"{source.collection}: see its provider's terms.")
        span = "-".join(dict.fromkeys([years[0], years[-1]])) if years else ""
        lines.append(f"{source.layer}: {text.format(years=span)}")
    for name, label in config.labels.items():
        if isinstance(label, FootprintsLabel):
            file = portable(label.source) or "footprints"
            lines.append(f"{name}: {Path(file).name}; see its provider's terms.")
    return lines
