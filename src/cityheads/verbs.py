"""The table of verbs: for each rule of the workflow, and a few verbs for people, what it is and what it depends on.

The command line makes its options of it, and the workflow reads it to learn when a job must run again: when one of the
verb's *sections* of the config changes, or its *version*. This module imports nothing, so that both stay quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["VERBS", "Argument", "Verb"]


@dataclass(frozen=True)
class Argument:
    """One command-line option of a verb; its name with ``_`` is the keyword of the verb's function."""

    name: str
    help: str
    type: Any = Path
    required: bool = True
    default: Any = None
    many: bool = False
    positional: bool = False


@dataclass(frozen=True)
class Verb:
    """A verb: where its code lives, what its results depend on, and its options.

    Attributes:
        name: Name of the verb and of the workflow's rule.
        help: What it does, for ``--help``.
        function: ``module:function``.
        sections: Sections of the config that it is handed; a change in them makes the workflow run it again.
        arguments: Options of the command line.
        version: Version of its results, raised when the same input comes to give other results; that makes the
            workflow run it again. A change of the code that leaves the results alone does not raise it. The test
            ``tests/e2e/test_tiny_dag.py`` knows what each version gives. 0 for a verb that is no rule.
    """

    name: str
    help: str
    function: str
    sections: tuple[str, ...] = ()
    arguments: tuple[Argument, ...] = field(default=())
    version: int = 0


_PARENTS = Argument("parents", "parent sheet (TSV)")
_PARENT = Argument("parent", "parent id", str)
_SCENES = Argument("scenes", "frozen scene choice of the parent (JSON)")
_CHIPS = Argument("chips", "folder of the sub-chips; layers become folders in it")
_LABEL = Argument("label", "name of the label layer", str)
_DATASET = Argument("dataset", "folder of the assembled dataset")
_BUNDLE = Argument("bundle", "folder of the published model")
_RESULTS = Argument("results", "results folder")
_RUN = Argument("run", "name of the run", str)
_FOLD = Argument("fold", "fold whose test split is held out", int)
_SEED = Argument("seed", "seed", int)
_RECIPE = (
    "project", "grid", "archive", "simulate", "downloads", "quality", "labels", "splits", "heads", "runs", "seeds",
    "model", "train", "tuning", "evaluation", "controls", "noninferiority", "report",
)  # fmt: skip


#: What reading a raster of the archive looks at.
_ACCESS = (
    "archive.asset_base",
    "archive.sign",
    "archive.trusted_hosts",
    "archive.workers",
    "archive.offline",
    "archive.network",
)


#: What says which folds are run.
_FOLDS = ("splits.method", "splits.folds", "splits.only_folds")


def _out(what: str) -> Argument:
    return Argument("out", what)


VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(
            "simulate_archive",
            "make a small archive in the shape of the real ones",
            "cityheads.simulate.archive:simulate_archive",
            ("grid", "simulate", "archive.imagery"),
            (_PARENTS, _out("folder of the archive; catalog.json is written last")),
            version=3,
        ),
        Verb(
            "agree_scenes",
            "look over the scenes of all parents, and agree on dates and orbit for their choices",
            "cityheads.archive.choose.together:agree_scenes",
            ("grid", "archive"),
            (
                _PARENTS,
                Argument("catalog", "URL or path of the catalogue; default: that of the config", str, False),
                _out("agreement.json"),
            ),
            version=1,
        ),
        Verb(
            "select_scenes",
            "choose the scenes of one parent and freeze the choice",
            "cityheads.archive.choose.scenes:select_scenes",
            ("grid", "archive", "labels"),
            (
                _PARENTS,
                _PARENT,
                Argument("catalog", "URL or path of the catalogue; default: that of the config", str, False),
                Argument("agreement", "what the choices of all parents keep to (JSON)", required=False),
                _out("scenes/PARENT.json"),
            ),
            version=2,
        ),
        Verb(
            "read_parent",
            "read all modalities of one parent onto one grid",
            "cityheads.archive.read.parent:read_parent",
            ("grid", *_ACCESS, "archive.imagery", "archive.synthesis", "quality.s1_median_db"),
            (_PARENTS, _PARENT, _SCENES, _out("folder for S2L2A.tif, S1RTC.tif, DEM.tif, SCL.tif and reading.json")),
            version=2,
        ),
        Verb(
            "slice_parent",
            "cut one parent into sub-chips and measure their quality",
            "cityheads.dataset.chips:slice_parent",
            (
                "grid",
                "archive.imagery",
                "quality.min_valid_fraction",
                "quality.min_in_range_fraction",
                "quality.min_clear_fraction",
                "quality.cloud_mask",
            ),
            (
                _PARENTS,
                _PARENT,
                Argument("parent_dir", "folder of the parent's rasters"),
                _CHIPS,
                _out("quality of the sub-chips (JSON)"),
            ),
            version=2,
        ),
        Verb(
            "fetch_footprints",
            "download building footprints: the city's official layer, Overture's, or any file",
            "cityheads.labels.download:fetch_footprints",
            ("grid", "archive.network", "archive.offline", "downloads"),
            (
                _PARENTS,
                Argument(
                    "provider", "nyc, overture or file; default: what downloads says of --out", str, required=False
                ),
                _out("file to write; NAME.json beside it holds its checksum"),
                Argument("url", "resource (nyc), folder of a release (overture), or file", str, required=False),
            ),
            version=1,
        ),
        Verb(
            "prepare_footprints",
            "clean the building footprints once, for all parents",
            "cityheads.labels.preparation:prepare_footprints",
            ("grid", "labels"),
            (
                _PARENTS,
                _LABEL,
                Argument("source", "vector file of the footprints"),
                Argument("boundary", "vector file of the surveyed area"),
                _out("footprints (GeoParquet)"),
                Argument("boundary_out", "boundary in the parents' CRS (GeoParquet)"),
                Argument("summary", "what was kept, repaired and dropped (JSON)"),
            ),
            version=2,
        ),
        Verb(
            "rasterize_landcover",
            "map a land-cover product to classes on one parent's grid",
            "cityheads.labels.landcover:rasterize_landcover",
            ("grid", *_ACCESS, "labels"),
            (_PARENTS, _PARENT, _LABEL, _SCENES, _CHIPS, _out("the parent's mask (GeoTIFF)")),
            version=2,
        ),
        Verb(
            "rasterize_buildings",
            "rasterize the footprints on one parent's grid",
            "cityheads.labels.footprints:rasterize_buildings",
            ("grid", "labels"),
            (
                _PARENTS,
                _PARENT,
                _LABEL,
                Argument("footprints", "prepared footprints (GeoParquet)"),
                Argument("boundary", "prepared boundary (GeoParquet)"),
                _CHIPS,
                _out("the parent's mask (GeoTIFF)"),
                Argument("scenes", "frozen scene choice of the parent (JSON), for standing_only", required=False),
            ),
            version=2,
        ),
        Verb(
            "rasterize_layer",
            "map a folder of rasters or a vector layer to classes on one parent's grid",
            "cityheads.labels.custom:rasterize_layer",
            ("grid", "labels"),
            (
                _PARENTS,
                _PARENT,
                _LABEL,
                Argument("source", "folder of GeoTIFFs, or vector file"),
                _CHIPS,
                _out("the parent's mask (GeoTIFF)"),
                Argument("boundary", "vector file of the surveyed area", required=False),
            ),
            version=2,
        ),
        Verb(
            "check_labels",
            "compare the labels with each other and with the imagery",
            "cityheads.dataset.checks:check_labels",
            ("grid", "labels", *_FOLDS),
            (
                _PARENTS,
                _RESULTS,
                Argument("picture", "what was found, as a picture (PNG)"),
                _out("what was found (JSON)"),
            ),
            version=1,
        ),
        Verb(
            "pack_store",
            "account for every sub-chip and pack those that are good enough",
            "cityheads.dataset.pack:pack_store",
            ("grid", "archive.imagery", "labels", "heads", "runs"),
            (
                _PARENTS,
                Argument("scenes", "folder of the frozen scene choices"),
                Argument("quality", "folder of the quality files"),
                _CHIPS,
                _out("folder for subchips.parquet, an array per layer and index.json, written last"),
            ),
            version=2,
        ),
        Verb(
            "assign_splits",
            "say which parents are held out when",
            "cityheads.dataset.assemble:assign_splits",
            ("grid", "splits.method", "splits.fractions", "splits.seed", "splits.folds", "splits.region"),
            (
                _PARENTS,
                Argument("table", "subchips.parquet of the store"),
                _out("assignment.json"),
            ),
            version=1,
        ),
        Verb(
            "assemble_dataset",
            "split what is packed as one fold does",
            "cityheads.dataset.assemble:assemble_dataset",
            ("grid", "archive.imagery", "labels", "heads", "runs", "splits"),
            (
                Argument("fold", "number of the fold, from 0", int),
                _PARENTS,
                Argument("assignment", "which parents are held out when (JSON)"),
                _out(
                    "folder for splits.json, classes.json, statistics.json and chips.parquet; the store lies beside it"
                ),
            ),
            version=3,
        ),
        Verb(
            "tune",
            "train one candidate of the search of settings, for its validation score",
            "cityheads.training.tuning:tune",
            ("labels", "heads", "runs", "model", "train", "tuning"),
            (
                _RUN,
                _FOLD,
                Argument("candidate", "position of the candidate in tuning.grid, from 0", int),
                _DATASET,
                _out("folder of the candidate"),
            ),
            version=2,
        ),
        Verb(
            "choose_settings",
            "choose the settings of a run by the validation scores of its candidates",
            "cityheads.training.tuning:choose_settings",
            ("tuning",),
            (
                _RUN,
                _FOLD,
                Argument("trainings", "training.json of each candidate", many=True),
                _out("settings.json"),
            ),
            version=1,
        ),
        Verb(
            "train",
            "train one run on one fold with one seed",
            "cityheads.training.run:train",
            ("labels", "heads", "runs", "model", "train"),
            (
                _RUN,
                _FOLD,
                _SEED,
                _DATASET,
                Argument("settings", "settings that a search chose for the run (JSON)", required=False),
                _out("folder of the run"),
            ),
            version=3,
        ),
        Verb(
            "evaluate",
            "evaluate one run on its validation or test parents",
            "cityheads.evaluation.evaluate:evaluate",
            ("runs", "train.accelerator", "train.batch_size", "train.threads", "evaluation"),
            (
                _RUN,
                _FOLD,
                _SEED,
                _DATASET,
                Argument("run_dir", "folder of the run"),
                _out("folder of the evaluation"),
                Argument("split", "val or test", str, False, "test"),
                Argument("calibration", "calibration.json of the evaluation on val, for test", required=False),
                Argument("readings", "log of the readings of the test split", required=False),
            ),
            version=2,
        ),
        Verb(
            "evaluate_control",
            "make and evaluate one control that trains no network",
            "cityheads.evaluation.controls.verb:evaluate_control",
            ("grid", "labels", "heads", "controls", "evaluation"),
            (
                Argument("control", "name of the control", str),
                _FOLD,
                _DATASET,
                _out("folder of the evaluation"),
                Argument("readings", "log of the readings of the test split", required=False),
                Argument("archive", "folder of the simulated archive, for the ceiling", required=False),
                Argument("parents", "parent sheet (TSV), for the ceiling", required=False),
            ),
            version=2,
        ),
        Verb(
            "leaderboard",
            "put runs and experiments side by side: scores on validation, and what they cost",
            "cityheads.evaluation.leaderboard:leaderboard",
            ("runs", "seeds", "splits", "tuning", "noninferiority"),
            (
                _RESULTS,
                Argument("experiments", "sheet of the experiments (TSV)", required=False),
                _out("folder of the leaderboard; leaderboard.json is written last"),
            ),
            version=1,
        ),
        Verb(
            "compare",
            "compare the multi-head run with its baselines and give the verdict",
            "cityheads.evaluation.compare:compare",
            ("heads", "runs", "seeds", "splits", "model", "controls", "noninferiority"),
            (
                Argument("evaluation", "folder of the evaluations on the test split, RUN/FOLD/SEED below it"),
                Argument("results", "results folder with the trainings, whose budgets are compared", required=False),
                Argument("page", "the verdict as a Markdown page"),
                _out("gate.json"),
            ),
            version=3,
        ),
        Verb(
            "draw_figures",
            "draw the figures of the report",
            "cityheads.product.figures.draw:draw_figures",
            ("grid", "labels", "heads", "runs", "seeds", "splits", "noninferiority", "report"),
            (
                _PARENTS,
                _RESULTS,
                _out("folder of the figures; figures.json lists them"),
            ),
            version=2,
        ),
        Verb(
            "report",
            "write the self-contained HTML report",
            "cityheads.product.report.page:report",
            (
                "project",
                "grid",
                "archive",
                "simulate",
                "quality",
                "labels",
                "splits",
                "heads",
                "runs",
                "seeds",
                "model",
                "train",
                "tuning",
                "evaluation",
                "noninferiority",
                "report",
            ),
            (_RESULTS, _out("report.html")),
            version=4,
        ),
        Verb(
            "publish",
            "bundle the model under test with its recipe, scores and card",
            "cityheads.product.publish:publish",
            _RECIPE,
            (_PARENTS, _RESULTS, _out("folder of the bundle")),
            version=3,
        ),
        Verb(
            "publish_catalog",
            "describe the dataset as a static STAC catalogue",
            "cityheads.dataset.catalog:publish_catalog",
            ("project", "archive.imagery", "labels"),
            (
                Argument("scenes", "folder of the frozen scene choices"),
                Argument("parents_dir", "folder of the parents' rasters"),
                _CHIPS,
                _DATASET,
                _out("folder of the catalogue; catalog.json is written last"),
            ),
            version=3,
        ),
        Verb(
            "fetch",
            "print as JSON what the published model says about a point",
            "cityheads.product.predict:print_fetch",
            (),
            (
                Argument("lat", "latitude in degrees", float),
                Argument("lon", "longitude in degrees", float),
                _BUNDLE,
                _RESULTS,
                Argument("radius_m", "radius of the circle that counts, in metres", float, False, 100.0),
            ),
        ),
        Verb(
            "predict_parent",
            "map a whole parent with the published model",
            "cityheads.product.predict:predict_parent",
            (),
            (
                _PARENT,
                _BUNDLE,
                _RESULTS,
                _out("folder for one GeoTIFF per head"),
                Argument("overlap_px", "least overlap of tiles; default: a quarter of a tile", int, False),
            ),
        ),
        Verb(
            "reconstruct",
            "encode a sub-chip as TerraMind's tokens, decode them, and measure the difference",
            "cityheads.evaluation.reconstruction:reconstruct",
            (),
            (
                _DATASET,
                Argument("chip", "id of the sub-chip", str),
                Argument("modality", "S2L2A, S1RTC, S1GRD or DEM", str),
                _out("folder for the tokens, the reconstruction and reconstruction.json, written last"),
                Argument("weights", "checkpoint of the tokenizer", Path, False),
                Argument(
                    "pretrained", "take the published weights; without weights they are random", bool, False, False
                ),
                Argument("steps", "diffusion steps", int, False, 10),
                Argument("seed", "seed of the diffusion's first noise, and of random weights", int, False, 0),
            ),
        ),
        Verb(
            "cover_boundary",
            "find a parent grid that covers a city, and write its sheet",
            "cityheads.labels.cover:cover_boundary",
            ("grid",),
            (
                Argument("boundary", "vector file of the city's land"),
                _out("parent sheet to write (TSV)"),
                Argument("epsg", "metric CRS of the grid; default: the UTM zone", int, required=False),
                Argument("step_px", "spacing of the origins tried, in pixels", int, required=False, default=32),
                Argument("count", "wanted number of parents; default: the fewest", int, required=False),
                Argument("prefix", "prefix of the parent ids", str, required=False, default="P"),
            ),
        ),
        Verb(
            "check",
            "find what would fail later in a run of a config, and print what it needs; downloads and writes nothing",
            "cityheads.dataset.preflight:check",
            arguments=(Argument("file", "config file, whole or to lay over config/config.yaml", positional=True),),
        ),
        Verb(
            "document_config",
            "write every key of the config, its default and description, as a page",
            "cityheads.config.document:document_config",
            arguments=(_out("Markdown page to write"), Argument("schema", "JSON schema to write", required=False)),
        ),
    )
}
