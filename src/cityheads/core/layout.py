"""Where everything lies: the one place that knows the name of every file and folder of a results folder.

The workflow's rules and the code both take names from here. A part of a path may be a Snakemake wildcard: nothing here
looks at the disk. What is *in* the files is known in `cityheads.core.artifacts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "STAGES",
    "ArchiveFolder",
    "BundleFolder",
    "DatasetFolder",
    "EvaluationFolder",
    "LabelFolder",
    "Layout",
    "LeaderboardFolder",
    "ParentFolder",
    "RunFolder",
    "StoreFolder",
    "chip_file",
    "parent_file",
]

#: The rules in the order in which the data pass through them.
STAGES = (
    "simulate_archive",
    "agree_scenes",
    "select_scenes",
    "read_parent",
    "slice_parent",
    "fetch_footprints",
    "prepare_footprints",
    "rasterize_landcover",
    "rasterize_buildings",
    "rasterize_layer",
    "pack_store",
    "assign_splits",
    "assemble_dataset",
    "check_labels",
    "publish_catalog",
    "tune",
    "choose_settings",
    "train",
    "evaluate",
    "evaluate_control",
    "leaderboard",
    "compare",
    "draw_figures",
    "report",
    "publish",
)


def chip_file(chips: Path, layer: str, chip_id: str) -> Path:
    """Give the GeoTIFF of one sub-chip: ``chips/{layer}/{chip_id}.tif``."""
    return Path(chips) / layer / f"{chip_id}.tif"


def parent_file(folder: Path, parent: str) -> Path:
    """Give a parent's file in a folder that holds one for each parent: ``scenes/{parent}.json`` and the like."""
    return Path(folder) / f"{parent}.json"


@dataclass(frozen=True)
class _Folder:
    """A folder that holds an artifact of several files."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))


class ArchiveFolder(_Folder):
    """The simulated archive: a static STAC catalogue and the vector files that go with it."""

    @property
    def catalog(self) -> Path:
        """Root of the catalogue, written last."""
        return self.root / "catalog.json"

    @property
    def footprints(self) -> Path:
        """Building footprints, EPSG:4326."""
        return self.root / "footprints.geojson"

    @property
    def boundary(self) -> Path:
        """The surveyed area, EPSG:4326."""
        return self.root / "boundary.geojson"

    @property
    def truth(self) -> TruthFolder:
        """The noise-free truth, which no label is made from."""
        return TruthFolder(self.root / "truth")


class TruthFolder(_Folder):
    """What the simulated archive's labels would be without errors."""

    def cover(self, parent: str) -> Path:
        """Land cover of one parent, with the codes and on the lattice of the land-cover product."""
        return self.root / f"{parent}.tif"

    @property
    def footprints(self) -> Path:
        """Footprints of the buildings that stand, EPSG:4326."""
        return self.root / "footprints.geojson"


class ParentFolder(_Folder):
    """Everything of one parent at its full size."""

    def raster(self, layer: str) -> Path:
        """One layer as GeoTIFF: a modality, ``SCL``, ``CLD``, ``MASK_{label}`` or ``FRACTION_{label}``."""
        return self.root / f"{layer}.tif"

    @property
    def reading(self) -> Path:
        """What was read, converted and measured; written last."""
        return self.root / "reading.json"


class LabelFolder(_Folder):
    """What is prepared once for a label layer, for all parents."""

    @property
    def footprints(self) -> Path:
        """Cleaned footprints (GeoParquet)."""
        return self.root / "footprints.parquet"

    @property
    def boundary(self) -> Path:
        """The surveyed area (GeoParquet)."""
        return self.root / "boundary.parquet"

    @property
    def summary(self) -> Path:
        """What was kept, repaired and dropped."""
        return self.root / "summary.json"


class StoreFolder(_Folder):
    """All sub-chips that are good enough, one memory-mapped array a layer: what does not depend on a split."""

    def array(self, layer: str) -> Path:
        """One layer of all packed sub-chips, (N, ...)."""
        return self.root / f"{layer}.npy"

    @property
    def subchips(self) -> Path:
        """The base table (GeoParquet), a row for each sub-chip, packed or dropped for its quality."""
        return self.root / "subchips.parquet"

    @property
    def index(self) -> Path:
        """Which sub-chips, which arrays, their hashes; written last."""
        return self.root / "index.json"


class DatasetFolder(_Folder):
    """The dataset as one fold splits it; its pixels lie in the store beside it, which all folds share."""

    @property
    def chips(self) -> Path:
        """The chip table (GeoParquet), a row for each sub-chip with its split, kept or dropped; written last."""
        return self.root / "chips.parquet"

    @property
    def splits(self) -> Path:
        """Split of each parent."""
        return self.root / "splits.json"

    @property
    def classes(self) -> Path:
        """Names of the class ids of each label."""
        return self.root / "classes.json"

    @property
    def statistics(self) -> Path:
        """Mean and standard deviation of the training pixels, counts of everything."""
        return self.root / "statistics.json"

    @property
    def store(self) -> StoreFolder:
        """The packed sub-chips of all folds."""
        return StoreFolder(self.root.parent / "store")


class RunFolder(_Folder):
    """One training."""

    @property
    def weights(self) -> Path:
        """Weights of the epoch that was kept."""
        return self.root / "model.safetensors"

    @property
    def model(self) -> Path:
        """Everything that rebuilds the model around its weights."""
        return self.root / "model.json"

    @property
    def training(self) -> Path:
        """What the training did; written last."""
        return self.root / "training.json"

    @property
    def history(self) -> Path:
        """A row an epoch."""
        return self.root / "history.csv"

    @property
    def environment(self) -> Path:
        """Versions, machine and revision of the code."""
        return self.root / "environment.json"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.root / "tensorboard"

    @property
    def work(self) -> Path:
        """State to resume from; gone when the training is done."""
        return self.root / ".work"


class EvaluationFolder(_Folder):
    """The scores of one training on a split that it was not trained on."""

    @property
    def metrics(self) -> Path:
        """Scores with intervals; written last."""
        return self.root / "metrics.json"

    @property
    def confusion(self) -> Path:
        """Confusion counts for each sub-chip and head."""
        return self.root / "confusion.parquet"

    @property
    def scores(self) -> Path:
        """Every score of each sub-chip in one table."""
        return self.root / "scores.parquet"

    @property
    def calibration(self) -> Path:
        """What made probabilities of the scores; fitted on the validation split."""
        return self.root / "calibration.json"

    @property
    def predictions(self) -> Path:
        """Which sub-chips the predictions are of."""
        return self.root / "predictions" / "index.json"

    def prediction(self, head: str) -> Path:
        """Predicted classes of one head, (N, h, w) uint8."""
        return self.root / "predictions" / f"{head}.npy"


class BundleFolder(_Folder):
    """What is handed on."""

    @property
    def weights(self) -> Path:
        """Weights of all heads."""
        return self.root / "model.safetensors"

    @property
    def model(self) -> Path:
        """Everything that rebuilds the model around its weights."""
        return self.root / "model.json"

    @property
    def classes(self) -> Path:
        """Names and colours of the class ids of each label."""
        return self.root / "classes.json"

    @property
    def recipe(self) -> Path:
        """A config that makes the same model again."""
        return self.root / "recipe.yaml"

    @property
    def parents(self) -> Path:
        """The parent sheet that goes with the recipe."""
        return self.root / "parents.tsv"

    @property
    def splits(self) -> Path:
        """Split of each parent."""
        return self.root / "splits.json"

    @property
    def metrics(self) -> Path:
        """Scores of the model."""
        return self.root / "metrics.json"

    @property
    def calibration(self) -> Path:
        """What makes probabilities of the model's scores; absent where it could not be fitted."""
        return self.root / "calibration.json"

    @property
    def gate(self) -> Path:
        """The verdict."""
        return self.root / "gate.json"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.root / "card.md"

    @property
    def checksums(self) -> Path:
        """SHA-256 of every other file; written last."""
        return self.root / "SHA256SUMS"


class LeaderboardFolder(_Folder):
    """Runs and experiments side by side."""

    @property
    def table(self) -> Path:
        """A row for each run and head (Parquet)."""
        return self.root / "leaderboard.parquet"

    @property
    def csv(self) -> Path:
        """The same as text."""
        return self.root / "leaderboard.csv"

    @property
    def record(self) -> Path:
        """All of it as JSON; written last."""
        return self.root / "leaderboard.json"

    @property
    def page(self) -> Path:
        """The same to read."""
        return self.root / "leaderboard.md"


class Layout(_Folder):
    """A results folder.

    Args:
        root: The folder, as the config key ``results`` names it.
    """

    @property
    def config(self) -> Path:
        """The resolved config, which every job reads."""
        return self.root / "config.yaml"

    @property
    def experiments(self) -> Path:
        """The same with the experiments as runs, which their jobs read."""
        return self.root / "experiments.yaml"

    @property
    def lock(self) -> Path:
        """Held while a workflow writes here."""
        return self.root / ".lock"

    @property
    def archive(self) -> ArchiveFolder:
        """The simulated archive."""
        return ArchiveFolder(self.root / "archive")

    @property
    def scenes(self) -> Path:
        """Folder of the frozen scene choices."""
        return self.root / "scenes"

    @property
    def agreement(self) -> Path:
        """What the scene choices of all parents keep to."""
        return self.root / "agreement.json"

    def scene_choice(self, parent: str) -> Path:
        """The frozen scene choice of a parent."""
        return parent_file(self.scenes, parent)

    @property
    def parents(self) -> Path:
        """Folder of the parents' folders."""
        return self.root / "parents"

    def parent(self, parent: str) -> ParentFolder:
        """One parent's folder."""
        return ParentFolder(self.parents / parent)

    @property
    def quality(self) -> Path:
        """Folder of the quality files."""
        return self.root / "quality"

    def chip_quality(self, parent: str) -> Path:
        """Quality of a parent's sub-chips."""
        return parent_file(self.quality, parent)

    @property
    def chips(self) -> Path:
        """Folder of the sub-chips."""
        return self.root / "chips"

    def chip(self, layer: str, chip_id: str) -> Path:
        """One sub-chip of one layer."""
        return chip_file(self.chips, layer, chip_id)

    def label(self, label: str) -> LabelFolder:
        """What is prepared once for a label layer."""
        return LabelFolder(self.root / "labels" / label)

    @property
    def label_check(self) -> Path:
        """What the comparison of the labels found."""
        return self.root / "labels" / "check.json"

    @property
    def label_check_figure(self) -> Path:
        """The same as a picture."""
        return self.root / "labels" / "check.png"

    @property
    def datasets(self) -> Path:
        """Folder of the store and of the folds' datasets."""
        return self.root / "dataset"

    @property
    def assignment(self) -> Path:
        """Which parents are held out when."""
        return self.datasets / "assignment.json"

    @property
    def store(self) -> StoreFolder:
        """The packed sub-chips of all folds."""
        return StoreFolder(self.datasets / "store")

    def dataset(self, fold: int | str) -> DatasetFolder:
        """The dataset as one fold splits it."""
        return DatasetFolder(self.datasets / str(fold))

    @property
    def runs(self) -> Path:
        """Folder of the trainings."""
        return self.root / "runs"

    def run(self, run: str, fold: int | str, seed: int | str) -> RunFolder:
        """One training: of a run, on a fold, with a seed."""
        return RunFolder(self.runs / run / str(fold) / str(seed))

    def settings(self, run: str, fold: int | str) -> Path:
        """Settings that were chosen for a run on validation; only where the config asks for a search."""
        return self.runs / run / str(fold) / "settings.json"

    def candidate(self, run: str, fold: int | str, candidate: int | str) -> RunFolder:
        """The training of one candidate of that search, without weights."""
        return RunFolder(self.root / "tuning" / run / str(fold) / str(candidate))

    @property
    def evaluations(self) -> Path:
        """Folder of the evaluations."""
        return self.root / "evaluation"

    def evaluation(self, run: str, fold: int | str, seed: int | str, split: str = "test") -> EvaluationFolder:
        """The evaluation of one training on its ``test`` or ``val`` split."""
        return EvaluationFolder(self.evaluations / split / run / str(fold) / str(seed))

    @property
    def test_readings(self) -> Path:
        """A line for each time that a model was scored on its test split; no rule's output, so that none deletes it."""
        return self.root / "test_readings.jsonl"

    @property
    def gate(self) -> Path:
        """The verdict."""
        return self.root / "gate.json"

    @property
    def verdict_page(self) -> Path:
        """The verdict in words."""
        return self.root / "verdict.md"

    @property
    def leaderboard(self) -> LeaderboardFolder:
        """What the runs and experiments scored on validation, and what they cost."""
        return LeaderboardFolder(self.root / "leaderboard")

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.root / "figures"

    def figure(self, name: str) -> Path:
        """One figure."""
        return self.figures / f"{name}.png"

    @property
    def figure_list(self) -> Path:
        """The figures in the order of the report."""
        return self.figures / "figures.json"

    @property
    def report(self) -> Path:
        """The report."""
        return self.root / "report.html"

    @property
    def bundle(self) -> BundleFolder:
        """What is handed on."""
        return BundleFolder(self.root / "bundle")

    @property
    def stac(self) -> Path:
        """Root of the published STAC catalogue of the dataset."""
        return self.root / "stac" / "catalog.json"

    @property
    def benchmarks(self) -> Path:
        """Folder of Snakemake's benchmark files."""
        return self.root / "benchmarks"

    def benchmark(self, rule: str, job: str) -> Path:
        """Time and memory of one job."""
        return self.benchmarks / rule / f"{job}.tsv"

    def log(self, rule: str, job: str) -> Path:
        """Messages of one job."""
        return self.root / "logs" / rule / f"{job}.log"
