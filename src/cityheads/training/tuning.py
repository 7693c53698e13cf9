"""The verbs ``tune`` and ``choose_settings``: the same search for every compared run, on the validation split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from cityheads.config import Config
from cityheads.core.artifacts.settings import SETTINGS, Candidate
from cityheads.core.artifacts.training import TRAINING
from cityheads.core.errors import CityHeadsError
from cityheads.core.layout import RunFolder

__all__ = ["choose_settings", "tune"]


def tune(config: Config, *, run: str, fold: int, candidate: int, dataset: Path, out: Path) -> None:
    """Train one candidate of a run, for its validation score; its weights are not kept.

    Args:
        config: With the sections ``labels``, ``heads``, ``runs``, ``model``, ``train`` and ``tuning``.
        run: Name of the run.
        fold: Fold that the dataset is of.
        candidate: Position of the candidate in the grid, from 0.
        dataset: Folder of the assembled dataset.
        out: Folder of the candidate.

    Raises:
        CityHeadsError: As for a training.
    """
    from cityheads.training.run import fit

    settings = config.tuning.candidates[candidate]
    folder = RunFolder(out)
    fit(
        config.with_settings(run, settings),
        run=run,
        seed=config.tuning.seed,
        dataset=dataset,
        out=out,
        fold=fold,
        settings=settings,
        candidates=1,
    )
    folder.weights.unlink()


def choose_settings(config: Config, *, run: str, fold: int, trainings: Sequence[Path], out: Path) -> None:
    """Choose the candidate with the best validation score, of equals the first.

    Args:
        config: With the section ``tuning``.
        run: Name of the run.
        fold: Fold on which the candidates were trained.
        trainings: ``training.json`` of each candidate, in the order of the grid.
        out: ``settings.json`` to write.

    Raises:
        CityHeadsError: A training is missing or of another candidate, or no candidate has a defined score.
    """
    tuning = config.tuning
    found: list[Candidate] = []
    for path, settings in zip(trainings, tuning.candidates, strict=True):
        training = TRAINING.read(path)
        if (training["run"], training["fold"], training["seed"]) != (run, fold, tuning.seed) or training[
            "settings"
        ] != settings:
            raise CityHeadsError(f"{path}: is the training of another candidate; run: snakemake --forcerun tune")
        found.append({"settings": settings, "score": training["score"]})
    scores = [one["score"] for one in found if one["score"] is not None]
    if not scores:
        raise CityHeadsError(
            f"{trainings[0]}: no candidate of run {run} has a defined validation score; its heads' classes are not in "
            "the validation split"
        )
    best = next(one for one in found if one["score"] == max(scores))
    SETTINGS.write(
        out, {"run": run, "fold": fold, "seed": tuning.seed, "chosen": best["settings"], "candidates": found}
    )
    words = ", ".join(f"{key} {value}" for key, value in best["settings"].items())
    logging.getLogger("cityheads.progress").info("%s: %s of %d candidates: %s", out, run, len(found), words)
