"""The published model: one folder with weights, recipe, classes, scores and a card that tells the verdict honestly.

Nothing in the folder is executable when loaded: weights are safetensors, the rest is text. ``SHA256SUMS`` is written
last and lists every other file, so that a bundle is either whole or not a bundle.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import yaml

from cityheads.config.base import plain
from cityheads.core.artifacts.classes import CLASSES
from cityheads.core.artifacts.splits import SPLIT_ASSIGNMENT
from cityheads.core.artifacts.statistics import STATISTICS
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json, sha256_file, write_bytes, write_json
from cityheads.core.layout import Layout
from cityheads.core.modalities import COORDS, DERIVED, DERIVED_FROM_S2, MODALITIES, RADAR, bands_used, stored
from cityheads.evaluation.ablation import how_to_read
from cityheads.product.notes import synthesized_notes

__all__ = ["FILES", "choose_seed", "publish", "verify_bundle"]

log = logging.getLogger(__name__)

#: What a bundle holds, besides SHA256SUMS.
FILES = (
    "model.safetensors",
    "model.json",
    "classes.json",
    "recipe.yaml",
    "parents.tsv",
    "splits.json",
    "metrics.json",
    "gate.json",
    "card.md",
)
_SUMS = "SHA256SUMS"

#: Keys of the config's section ``model`` that name files of this machine.
_LOCAL = ("weights", "coords_vocabulary")

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


def choose_seed(training: Mapping[int, Mapping[str, Any]]) -> tuple[int, str]:
    """Pick the seed to publish by its validation score, never by the test split, and say why.

    Args:
        training: ``training.json`` by seed, in the order of the config; the first of equals wins.
    """
    scores = {seed: one["best_score"] for seed, one in training.items()}
    defined = {seed: score for seed, score in scores.items() if score is not None and not math.isnan(score)}
    first = next(iter(scores))
    if len(scores) == 1:
        return first, f"Seed {first}, the only one."
    if not defined:
        return first, f"Seed {first}, the first in the config: no seed has a defined validation score."
    best = max(defined, key=lambda seed: defined[seed])
    return best, (
        f"Seed {best}, whose validation score ({defined[best]:.4f}) is the best of {len(scores)} seeds; "
        "the test split had no say in it."
    )


def verify_bundle(bundle: Path) -> None:
    """Compare every file of a bundle with its checksum.

    Raises:
        CityHeadsError: It is no bundle, or a file is missing or has other bytes than when it was published.
    """
    sums = Path(bundle) / _SUMS
    if not sums.is_file():
        raise CityHeadsError(f"{bundle}: is no bundle ({_SUMS} is missing); make one with 'cityheads publish'")
    pairs = [line.partition("  ") for line in sums.read_text().splitlines()]
    listed = {name: digest for digest, _, name in pairs}
    absent = [name for name in FILES if name not in listed]
    if absent:
        raise CityHeadsError(f"{sums}: does not list {absent[0]}; publish again")
    for name, digest in listed.items():
        path = Path(bundle) / name
        if Path(name).name != name or not path.is_file():
            raise CityHeadsError(f"{path}: no such file, though {_SUMS} lists it; publish or download again")
        if sha256_file(path) != digest:
            raise CityHeadsError(f"{path}: its bytes are not those that were published; publish or download again")


def publish(settings: dict[str, Any], *, parents: Path, results: Path, out: Path) -> None:
    """Write the bundle of the run under test.

    Args:
        settings: All sections of the config but ``parents`` and ``results``.
        parents: Parent sheet, which becomes part of the recipe.
        results: Results folder with ``runs``, ``evaluation``, ``dataset``, ``scenes`` and ``gate.json``.
        out: Folder of the bundle; ``SHA256SUMS`` is written last.

    Raises:
        CityHeadsError: An artifact is missing, the artifacts do not belong together, or the folder holds other files.
    """
    results, out = Path(results), Path(out)
    run = settings["gate"]["run"]
    foreign = sorted(path.name for path in out.iterdir() if path.name not in (*FILES, _SUMS)) if out.exists() else []
    if foreign:
        raise CityHeadsError(f"{out}: holds {foreign[0]}, which is no part of a bundle; name an empty folder")
    (out / _SUMS).unlink(missing_ok=True)
    seed, why = choose_seed(
        {seed: read_json(results / "runs" / run / str(seed) / "training.json") for seed in settings["seeds"]}
    )
    run_dir = results / "runs" / run / str(seed)
    spec = read_json(run_dir / "model.json")
    metrics = read_json(results / "evaluation" / run / str(seed) / "metrics.json")
    gate = read_json(results / "gate.json")
    tables = CLASSES.read(Layout(results).dataset.classes)["labels"]
    _check(run_dir / "model.json", spec, metrics, gate, tables)
    spec["model"] |= {key: portable(spec["model"].get(key)) for key in _LOCAL}
    content = {
        "spec": spec,
        "metrics": metrics,
        "gate": gate,
        "seed_reason": why,
        "training": read_json(run_dir / "training.json"),
        "environment": read_json(run_dir / "environment.json"),
        "statistics": STATISTICS.read(Layout(results).dataset.statistics),
        "splits": SPLIT_ASSIGNMENT.read(Layout(results).dataset.splits),
    }
    content["sources"] = _sources(results / "scenes", list(content["splits"]["parents"]))
    weights = run_dir / "model.safetensors"
    if not weights.is_file():
        raise CityHeadsError(f"{weights}: no such file; train the run first")
    if not Path(parents).is_file():
        raise CityHeadsError(f"{parents}: no such parent sheet")
    write_bytes(out / "model.safetensors", weights.read_bytes())
    write_json(out / "model.json", spec)
    used = dict.fromkeys(head["label"] for head in spec["heads"].values())
    colors = {label: [item["color"] for item in settings["labels"][label]["classes"]] for label in used}
    write_json(
        out / "classes.json",
        {label: [{**item, "color": colors[label][item["id"]]} for item in tables[label]] for label in used},
    )
    write_bytes(out / "recipe.yaml", _recipe(settings).encode())
    write_bytes(out / "parents.tsv", Path(parents).read_bytes())
    write_json(out / "splits.json", content["splits"])
    write_json(out / "metrics.json", metrics)
    write_json(out / "gate.json", gate)
    write_bytes(out / "card.md", _card(settings, content).encode())
    lines = [f"{sha256_file(out / name)}  {name}\n" for name in sorted(FILES)]
    write_bytes(out / _SUMS, "".join(lines).encode())
    logging.getLogger("cityheads.progress").info("%s: %s %s", out, gate["verdict"], why)


def portable(place: str | None) -> str | None:
    """Strip from a path or URL what others must not or cannot use: folders of this machine, passwords, signatures."""
    if place is None:
        return None
    if "://" in place:
        parts = urlsplit(place)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return Path(place).name if Path(place).is_absolute() else place


def _check(
    path: Path, spec: dict[str, Any], metrics: dict[str, Any], gate: dict[str, Any], tables: dict[str, Any]
) -> None:
    if list(gate["heads"]) != list(spec["heads"]) or gate["run"] != spec["run"]:
        raise CityHeadsError(f"{path}: gate.json compares other heads or another run; run the workflow again")
    for head, rule in spec["heads"].items():
        names = [item["name"] for item in rule["classes"]]
        for what, others in (
            ("the dataset", [item["name"] for item in tables.get(rule["label"], [])]),
            ("the evaluation", metrics["heads"].get(head, {}).get("classes", [])),
        ):
            if names != others:
                raise CityHeadsError(
                    f"{path}: head {head} was trained on the classes {', '.join(names)}, but {what} has "
                    f"{', '.join(others) or 'none'}; run the workflow again"
                )


def _recipe(settings: Mapping[str, Any]) -> str:
    """Give the resolved config as YAML, with the sheet of the bundle and without places of this machine."""
    config: dict[str, Any] = {"parents": "parents.tsv", **plain(settings)}
    archive = dict(config["archive"])
    config["archive"] = archive | {key: portable(archive[key]) for key in ("catalog", "asset_base")}
    made = config["archive"]["synthesis"]
    config["archive"]["synthesis"] = made | {key: portable(made[key]) for key in ("weights", "tokenizer_weights")}
    config["model"] = config["model"] | {key: portable(config["model"][key]) for key in _LOCAL}
    config["labels"] = {
        name: label | {key: portable(label[key]) for key in ("source", "boundary") if key in label}
        for name, label in config["labels"].items()
    }
    head = (
        "# The resolved config of the published model: every key, defaults filled in.\n"
        "# Run it in the folder that holds parents.tsv; files named without a folder are to be put beside it.\n"
    )
    text: str = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)
    return head + text


def _sources(folder: Path, parents: list[str]) -> dict[str, dict[str, Any]]:
    """Sum up the scenes per layer: collection, number of items, first and last day."""
    found: dict[str, dict[str, Any]] = {}
    for parent in parents:
        for layer, choice in read_json(folder / f"{parent}.json")["layers"].items():
            entry = found.setdefault(layer, {"collection": choice["collection"], "items": set(), "days": set()})
            entry["items"] |= {item["id"] for item in choice["items"]}
            entry["days"] |= {item["datetime"][:10] for item in choice["items"] if item["datetime"]}
    return found


# --- the card ------------------------------------------------------------------------------------------------------


def _card(settings: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    spec = content["spec"]
    sections = [
        f"---\n{yaml.safe_dump(_front(settings, content), sort_keys=False, allow_unicode=True, width=120)}---",
        f"# {settings['project']['title']}",
    ]
    if spec["simulated"]:
        sections.append(
            "> **Simulated data.** This model was trained and tested on pixels and labels that were made up. It shows "
            "that the method runs from end to end. It knows nothing about the real city and must not be used on it."
        )
    names = " and ".join(f"`{head}`" for head in spec["heads"])
    sections.append(
        f"One encoder (`{spec['backbone']}`) with {_count(len(spec['heads']), 'head')} "
        f"({names}), fine-tuned together: one forward pass gives every map. {content['seed_reason']}"
    )
    if settings["project"]["notes"]:
        sections.append(settings["project"]["notes"])
    sections += [
        _verdict_section(content["gate"]),
        _use_section(spec),
        _interface_section(spec),
        _data_section(content),
        _training_section(settings, content),
        _scores_section(content),
        _without_section(content),
        _limits_section(settings, content),
        _provenance_section(content),
        _licence_section(settings, content),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front(settings: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Give the metadata block that model hubs read."""
    spec, metrics = content["spec"], content["metrics"]
    results = []
    for head, part in metrics["heads"].items():
        scores = [(part["metric"]["name"], part["metric"]["value"]), ("accuracy", part["accuracy"])]
        results.append(
            {
                "task": {"type": "image-segmentation", "name": head},
                "dataset": {
                    "type": "simulated" if spec["simulated"] else "satellite imagery",
                    "name": f"{settings['project']['name']}, {_count(len(metrics['parents']), 'held-out parent')}",
                    "split": "test",
                },
                "metrics": [
                    {"type": name, "name": f"test/{head}/{name}", "value": round(value, 4)}
                    for name, value in scores
                    if value is not None
                ],
            }
        )
    front: dict[str, Any] = {
        "license": "apache-2.0",
        "library_name": "cityheads",
        "pipeline_tag": "image-segmentation",
        "tags": ["remote-sensing", "sentinel-2", "multi-task", "terratorch", spec["backbone"]],
    }
    if set(RADAR) & set(stored(spec["modalities"])):
        front["tags"].insert(2, "sentinel-1")
    size = spec["backbone"].removesuffix("_tim").removeprefix("terramind_v1_")
    if spec["model"]["pretrained"] and size in _TERRAMIND:
        front["base_model"] = f"ibm-esa-geospatial/TerraMind-1.0-{size}"
    if spec["simulated"]:
        front["tags"].append("simulated-data")
    front["model-index"] = [{"name": settings["project"]["name"], "results": results}]
    return front


def _verdict_section(gate: Mapping[str, Any]) -> str:
    text = {
        "strong": "Sharing one encoder cost no head more than the strictest threshold.",
        "acceptable": "Sharing one encoder cost one head a little, and another head gained as much.",
        "mixed": "Sharing one encoder helped some heads and hurt others, or hurt them without being clearly bad.",
        "negative": "Sharing one encoder made every head clearly worse. The single-task models are better at every "
        "task; this model is published so that the negative result can be checked.",
        "inconclusive": "The test data do not settle what sharing one encoder costs.",
    }[gate["verdict"]]
    lines = [f"## Verdict: {gate['verdict']}", "", f"{text} {gate['reason']}"]
    if gate["advice"]:
        lines += ["", gate["advice"]]
    return "\n".join(lines)


def _use_section(spec: Mapping[str, Any]) -> str:
    return f"""## Intended use

Maps and area fractions ({", ".join(head["label"] for head in spec["heads"].values())}) for the places and the season \
that the model was trained on, as one input among others: planning studies, flood-risk screening, research on multi-task
fine-tuning.

**Not** for single buildings (a pixel is about as wide as one), for property, legal or insurance decisions about a
place, for emergency response, or for other cities and sensors without testing there first.

```python
from cityheads.product.predict import fetch

fetch(40.7128, -74.0060, bundle="this/folder", dataset="results/dataset", radius_m=100)
```

`sha256sum -c {_SUMS}` checks the files. No file executes code when it is loaded."""


def _interface_section(spec: Mapping[str, Any]) -> str:
    lines = [
        "## Inputs and outputs",
        "",
        f"Squares of {spec['chip_px']} px in stored units; the model normalises, and takes missing pixels as the mean.",
        "",
        "| give it | channels, in this order | looked at | unit | missing |",
        "|---|---|---|---|---|",
    ]
    for name, used in bands_used({name: entry["bands"] for name, entry in spec["modalities"].items()}).items():
        modality = MODALITIES[name]
        missing = "NaN" if math.isnan(modality.nodata) else f"{modality.nodata:g}"
        looked_at = "all" if len(used) == len(modality.bands) else " ".join(used)
        lines.append(f"| {name} | {' '.join(modality.bands)} | {looked_at} | {modality.unit} | {missing} |")
    if COORDS in spec["modalities"]:
        lines.append(f"| {COORDS} | longitude latitude | all | degrees (WGS 84), centre of the square | not allowed |")
    derived = [name for name in spec["modalities"] if name in DERIVED]
    if derived:
        told = " and ".join(f"{name} (from {' '.join(DERIVED_FROM_S2[name])})" for name in derived)
        lines += ["", f"The model computes {told} itself; they are not to be given."]
    lines += ["", "| head | label | classes, in the order of their ids from 0 |", "|---|---|---|"]
    for head, rule in spec["heads"].items():
        lines.append(f"| {head} | {rule['label']} | {', '.join(item['name'] for item in rule['classes'])} |")
    return "\n".join(lines)


def _data_section(content: Mapping[str, Any]) -> str:
    statistics, splits = content["statistics"], content["splits"]
    lines = ["## Data", "", "| split | parents | sub-chips |", "|---|---:|---:|"]
    for split, chips in statistics["chips"].items():
        of_split = [parent for parent, where in splits["parents"].items() if where == split]
        lines.append(f"| {split} | {len(of_split)} | {chips} |")
    dropped = ", ".join(f"{number} for {reason}" for reason, number in statistics["dropped"].items())
    lines += [
        "",
        "Whole parents were dealt to the splits, and parents do not overlap. "
        + (f"Sub-chips left out: {dropped}." if dropped else "No sub-chip was left out."),
        "",
        "| layer | collection | scenes | from | to |",
        "|---|---|---:|---|---|",
    ]
    for layer, source in content["sources"].items():
        days = sorted(source["days"]) or ["-"]
        lines.append(f"| {layer} | {source['collection']} | {len(source['items'])} | {days[0]} | {days[-1]} |")
    return "\n".join(lines)


def _training_section(settings: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    training, model, options = content["training"], content["spec"]["model"], settings["train"]
    start = "published weights" if model["pretrained"] else "local weights" if model["weights"] else "random weights"
    losses = ", ".join(
        f"{rule['weight']:g} x {rule['loss']} ({name})" for name, rule in content["spec"]["heads"].items()
    )
    decoders = ", ".join(
        f"{rule.get('decoder') or 'UNetDecoder'} ({name})" for name, rule in content["spec"]["heads"].items()
    )
    total, trained = (f"{training['parameters'][key] / 1e6:.2f} M" for key in ("total", "trainable"))
    return f"""## Training

Encoder from {start}{", frozen" if model["freeze_encoder"] else ""}; decoders: {decoders}; \
{total} parameters, {trained} of them trained.
Loss: {losses}. AdamW, peak learning rate {options["lr"]:g}, batches of {options["batch_size"]}, \
augmentation {options["augment"]}. Best of {training["epochs_run"]} epochs by validation: \
epoch {training["best_epoch"] + 1}. The whole recipe is in `recipe.yaml`."""


def _scores_section(content: Mapping[str, Any]) -> str:
    gate, metrics = content["gate"], content["metrics"]
    confidence = f"{100 * gate['confidence']:g} %"
    parents, seeds = _count(len(gate["test_parents"]), "test parent"), _count(len(gate["seeds"]), "seed")
    lines = [
        "## Scores on held-out parents",
        "",
        f"{parents}, {seeds}. Scores come from one "
        f"confusion matrix over the split; intervals ({confidence}) from resampling parents.",
        "",
        f"| head | metric | this run | single-task | delta (pp) | {confidence} interval (pp) |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for head, part in gate["heads"].items():
        ends = part["interval_pp"]
        between = "undefined" if ends is None else f"{ends[0]:+.2f} to {ends[1]:+.2f}"
        delta = "undefined" if part["delta_pp"] is None else f"{part['delta_pp']:+.2f}"
        lines.append(
            f"| {head} | {part['metric']} | {_score(part['multihead'])} | {_score(part['single_task'])} "
            f"| {delta} | {between} |"
        )
    lines += ["", f"The published seed ({metrics['seed']}), class by class:", ""]
    lines += ["| head | class | IoU | F1 | precision | recall |", "|---|---|---:|---:|---:|---:|"]
    for head, part in metrics["heads"].items():
        for index, name in enumerate(part["classes"]):
            scores = " | ".join(_score(part[key][index]) for key in ("iou", "f1", "precision", "recall"))
            lines.append(f"| {head} | {name} | {scores} |")
    for head, part in metrics["heads"].items():
        ends = part["interval"]
        lines += [
            "",
            f"`{head}`: {part['metric']['name']} {_score(part['metric']['value'])}"
            + (f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else " (no interval)")
            + f", accuracy {_score(part['accuracy'])} on {part['pixels']:,} labelled pixels.",
        ]
    return "\n".join(lines)


def _without_section(content: Mapping[str, Any]) -> str:
    """Say what the published seed loses when an input is removed; nothing where that was not measured."""
    spec, metrics = content["spec"], content["metrics"]
    table = metrics["modality_ablation"]
    if table is None:
        return ""
    lines = ["## A modality missing", ""]
    if not table:
        return "\n".join([*lines, *(f"{name} was not removed: {why}." for name, why in metrics["not_ablated"].items())])
    lines += [
        f"The published seed on the same test parents with one input not given (`drop=[...]`); in brackets the "
        f"{100 * metrics['confidence']:g} % interval of the difference, in percentage points. "
        + how_to_read(spec["model"]["modality_dropout"]),
        "",
        "| without | " + " | ".join(f"{head} | delta (pp)" for head in metrics["heads"]) + " |",
        "|---" + "|---:|---:" * len(metrics["heads"]) + "|",
        "| nothing | " + " ".join(f"{_score(part['metric']['value'])} | |" for part in metrics["heads"].values()),
    ]
    for name, heads in table.items():
        cells = [f"{_score(heads[head]['value'])} | {_between(heads[head])}" for head in metrics["heads"]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [f"\n{name} was not removed: {why}." for name, why in metrics["not_ablated"].items()]
    return "\n".join(lines)


def _between(part: Mapping[str, Any]) -> str:
    if part["delta_pp"] is None:
        return "undefined"
    ends = part["interval_pp"]
    return f"{part['delta_pp']:+.2f}" + (" (no interval)" if ends is None else f" [{ends[0]:+.2f}, {ends[1]:+.2f}]")


def _limits_section(settings: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    limits = [*content["gate"]["caveats"], *synthesized_notes(content["statistics"], settings["archive"]["synthesis"])]
    for gap in content["splits"]["missing"]:
        limits.append(f"The {gap['split']} split has no pixel of {gap['class']} ({gap['label']}).")
    limits += [
        f"{_count(len(content['metrics']['parents']), 'held-out parent')} of one region can say little about others.",
        "Labels are products with errors of their own; the scores measure agreement with them, not with the ground.",
        "The images are from one season; snow, leaf-off forest and floods were not seen unless the dates say so.",
        "Fractions from `fetch` are means of softmax scores, which no calibration backs.",
    ]
    return "\n".join(["## Limitations", "", *[f"- {limit}" for limit in limits]])


def _provenance_section(content: Mapping[str, Any]) -> str:
    environment = content["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items() if version)
    return f"""## Provenance

Revision `{environment["revision"] or "unknown"}`, Python {environment["python"]}, {environment["platform"]}, \
{environment["device"]}, {environment["threads"]} threads. {packages}.
Scenes by id: the manifest of the dataset. Parents: `parents.tsv`; who was tested: `splits.json`."""


def _licence_section(settings: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    start = ", as the encoder's published weights" if content["spec"]["model"]["pretrained"] else ""
    lines = ["## Licence and attribution", "", f"Weights and recipe: Apache-2.0{start}."]
    if content["spec"]["simulated"]:
        return "\n".join([*lines, "", "The data were simulated; nobody else's data are in this model."])
    lines.append("")
    for layer, source in content["sources"].items():
        if not source["items"]:
            # all of it was synthesized, which the limitations tell
            continue
        years = sorted({day[:4] for day in source["days"]})
        text = _ATTRIBUTION.get(source["collection"], f"{source['collection']}: see its provider's terms.")
        lines.append(
            f"- {layer}: " + text.format(years="-".join(dict.fromkeys([years[0], years[-1]])) if years else "")
        )
    for name, label in settings["labels"].items():
        if label["kind"] == "footprints":
            source = portable(label["source"]) or "footprints"
            lines.append(f"- {name}: {Path(source).name}; see its provider's terms.")
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _score(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
