"""Publishing: the run under test becomes a bundle of weights, recipe, classes, scores and a card."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cityheads.config import Config
from cityheads.core.artifacts.bundle import BUNDLE_CLASSES, BundleClasses
from cityheads.core.artifacts.calibration import CALIBRATION
from cityheads.core.artifacts.classes import CLASSES
from cityheads.core.artifacts.environment import ENVIRONMENT
from cityheads.core.artifacts.gate import GATE
from cityheads.core.artifacts.metrics import METRICS
from cityheads.core.artifacts.model import MODEL, SavedModel
from cityheads.core.artifacts.scenes import SCENES
from cityheads.core.artifacts.splits import SPLIT_ASSIGNMENT
from cityheads.core.artifacts.statistics import STATISTICS
from cityheads.core.artifacts.training import TRAINING, Training
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_bytes
from cityheads.core.layout import BundleFolder, Layout
from cityheads.core.redaction import portable
from cityheads.product.bundle import seal, unseal
from cityheads.product.card import Published, sources, write_card
from cityheads.product.notes import year_notes

__all__ = ["choose_seed", "publish"]

log = logging.getLogger(__name__)


def choose_seed(training: Mapping[int, Training]) -> tuple[int, str]:
    """Pick the seed to publish by its validation score, never by the test split, and say why.

    Args:
        training: ``training.json`` by seed, in the order of the config; the first of equals wins.
    """
    scores = {seed: one["score"] for seed, one in training.items()}
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


def publish(config: Config, *, parents: Path, results: Path, out: Path) -> None:
    """Write the bundle of the run under test.

    Args:
        config: All sections but ``parents`` and ``results``.
        parents: Parent sheet, which becomes part of the recipe.
        results: Results folder with ``runs``, ``evaluation``, ``dataset``, ``scenes`` and ``gate.json``.
        out: Folder of the bundle; ``SHA256SUMS`` is written last.

    Raises:
        CityHeadsError: An artifact is missing, the artifacts do not belong together, or the folder holds other files.
    """
    layout, bundle, run = Layout(results), BundleFolder(out), config.noninferiority.run
    fold = config.folds[0]
    unseal(bundle)
    trainings = {seed: TRAINING.read(layout.run(run, fold, seed).training) for seed in config.seeds}
    seed, why = choose_seed(trainings)
    trained = layout.run(run, fold, seed)
    model = MODEL.read(trained.model)
    splits = SPLIT_ASSIGNMENT.read(layout.dataset(fold).splits)
    choices = [SCENES.read(layout.scene_choice(parent)) for parent in splits["parents"]]
    published = Published(
        model=model | {"model": portable(model["model"])},
        training=trainings[seed],
        environment=ENVIRONMENT.read(trained.environment),
        seed_reason=why,
        metrics=METRICS.read(layout.evaluation(run, fold, seed).metrics),
        gate=GATE.read(layout.gate),
        statistics=STATISTICS.read(layout.dataset(fold).statistics),
        splits=splits,
        sources=sources(choices),
        year_notes=year_notes(choices, config.labels),
    )
    _check(layout, fold, published, trained.model)
    if not trained.weights.is_file():
        raise CityHeadsError(f"{trained.weights}: no such file; train the run first")
    if not Path(parents).is_file():
        raise CityHeadsError(f"{parents}: no such parent sheet")
    write_bytes(bundle.weights, trained.weights.read_bytes())
    MODEL.write(bundle.model, published.model)
    BUNDLE_CLASSES.write(bundle.classes, _classes(config, published.model))
    write_bytes(bundle.recipe, _recipe(config, bundle.parents.name).encode())
    write_bytes(bundle.parents, Path(parents).read_bytes())
    SPLIT_ASSIGNMENT.write(bundle.splits, published.splits)
    METRICS.write(bundle.metrics, published.metrics)
    GATE.write(bundle.gate, published.gate)
    calibration = layout.evaluation(run, fold, seed).calibration
    if calibration.is_file():
        CALIBRATION.write(bundle.calibration, CALIBRATION.read(calibration))
    else:
        log.warning("%s: no such file; the published model's scores are not calibrated", calibration)
    write_bytes(bundle.card, write_card(config, published).encode())
    seal(bundle)
    logging.getLogger("cityheads.progress").info("%s: %s %s", out, published.gate["verdict"], why)


def _check(layout: Layout, fold: int, published: Published, path: Path) -> None:
    """Compare what model, verdict, dataset and evaluation say of the heads and their classes.

    Raises:
        CityHeadsError: They do not belong together.
    """
    model, gate = published.model, published.gate
    if list(gate["heads"]) != list(model["heads"]) or gate["run"] != model["run"]:
        raise CityHeadsError(f"{path}: {layout.gate.name} compares other heads or another run; run the workflow again")
    tables = CLASSES.read(layout.dataset(fold).classes)["labels"]
    for head, rule in model["heads"].items():
        names = [item["name"] for item in rule["classes"]]
        scored = published.metrics["heads"].get(head)
        for what, others in (
            ("the dataset", [item["name"] for item in tables.get(rule["label"], [])]),
            ("the evaluation", scored["classes"] if scored else []),
        ):
            if names != others:
                raise CityHeadsError(
                    f"{path}: head {head} was trained on the classes {', '.join(names)}, but {what} has "
                    f"{', '.join(others) or 'none'}; run the workflow again"
                )


def _classes(config: Config, model: SavedModel) -> BundleClasses:
    """Give the classes that the model learned with the colours of the config."""
    learned = {rule["label"]: rule["classes"] for rule in model["heads"].values()}
    return {
        "labels": {
            label: [
                {"id": item["id"], "name": item["name"], "color": config.labels[label].colors[item["id"]]}
                for item in classes
            ]
            for label, classes in learned.items()
        }
    }


def _recipe(config: Config, sheet: str) -> str:
    """Give the config as YAML, with the sheet of the bundle and without places of this machine."""
    sections = {name: value for name, value in config.to_dict().items() if name not in ("parents", "results")}
    # the variants of an experiment sheet are no part of how this model was made
    recipe: dict[str, Any] = {"parents": sheet, **portable(sections), "experiments": None}
    head = (
        "# The resolved config of the published model: every key, defaults filled in.\n"
        f"# Run it in the folder that holds {sheet}. Of a file that lay elsewhere on the machine only the name stands\n"
        "# here: it is the user's own, to be put beside the sheet. URLs stand without user name and query.\n"
    )
    text: str = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=120)
    return head + text
