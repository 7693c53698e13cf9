"""The command line: one verb per workflow rule, and a few for people.

This module stays light (no torch, rasterio, geopandas): a verb's code is imported when the verb runs. The table of
verbs is also what the workflow reads to learn which sections of the config each rule depends on.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cityheads.core.errors import CityHeadsError

__all__ = ["VERBS", "Argument", "Verb", "main"]

log = logging.getLogger("cityheads")


@dataclass(frozen=True)
class Argument:
    """One command-line option of a verb; its name with ``_`` is the keyword of the verb's function."""

    name: str
    help: str
    type: Any = Path
    required: bool = True
    default: Any = None
    many: bool = False


@dataclass(frozen=True)
class Verb:
    """A verb: where its code lives, which sections of the config it may see, and its options."""

    name: str
    help: str
    function: str
    sections: tuple[str, ...] = ()
    arguments: tuple[Argument, ...] = field(default=())

    @property
    def module(self) -> str:
        """Module that holds the verb's function."""
        return self.function.partition(":")[0]


_PARENTS = Argument("parents", "parent sheet (TSV)")
_PARENT = Argument("parent", "parent id", str)
_SCENES = Argument("scenes", "frozen scene choice of the parent (JSON)")
_CHIPS = Argument("chips", "folder of the sub-chips; layers become folders in it")
_LABEL = Argument("label", "name of the label layer", str)
_DATASET = Argument("dataset", "folder of the assembled dataset")
_BUNDLE = Argument("bundle", "folder of the published model")
_RUN = Argument("run", "name of the run", str)
_SEED = Argument("seed", "seed", int)
_RECIPE = (
    "project", "grid", "archive", "simulate", "quality", "labels", "splits", "heads", "runs", "seeds", "model",
    "train", "evaluation", "gate", "report",
)  # fmt: skip


def _out(what: str) -> Argument:
    return Argument("out", what)


VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(
            "simulate_archive",
            "make a small archive in the shape of the real ones",
            "cityheads.simulate:simulate_archive",
            ("grid", "simulate", "archive.imagery"),
            (_PARENTS, _out("folder of the archive; catalog.json is written last")),
        ),
        Verb(
            "select_scenes",
            "choose the scenes of one parent and freeze the choice",
            "cityheads.archive.choose.scenes:select_scenes",
            ("grid", "archive", "labels"),
            (
                _PARENTS,
                _PARENT,
                Argument("catalog", "URL of the API, or URL or path of catalog.json", str),
                _out("scenes/PARENT.json"),
            ),
        ),
        Verb(
            "read_parent",
            "read all modalities of one parent onto one grid",
            "cityheads.archive.read.parent:read_parent",
            ("grid", "archive", "quality"),
            (_PARENTS, _PARENT, _SCENES, _out("folder for S2L2A.tif, S1RTC.tif, DEM.tif, SCL.tif and reading.json")),
        ),
        Verb(
            "slice_parent",
            "cut one parent into sub-chips and measure their quality",
            "cityheads.dataset.chips:slice_parent",
            ("grid", "quality", "archive.imagery"),
            (
                _PARENTS,
                _PARENT,
                Argument("parent_dir", "folder of the parent's rasters"),
                _CHIPS,
                _out("quality of the sub-chips (JSON)"),
            ),
        ),
        Verb(
            "fetch_footprints",
            "download building footprints: the city's official layer, Overture's, or any file",
            "cityheads.labels.download:fetch_footprints",
            ("grid", "archive"),
            (
                _PARENTS,
                Argument("provider", "nyc, overture or file", str),
                _out("file to write; NAME.json beside it holds its checksum"),
                Argument("url", "resource (nyc), folder of a release (overture), or file", str, required=False),
            ),
        ),
        Verb(
            "prepare_footprints",
            "clean the building footprints once, for all parents",
            "cityheads.labels.footprints:prepare_footprints",
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
        ),
        Verb(
            "rasterize_landcover",
            "map a land-cover product to classes on one parent's grid",
            "cityheads.labels.landcover:rasterize_landcover",
            ("grid", "archive", "labels"),
            (_PARENTS, _PARENT, _LABEL, _SCENES, _CHIPS, _out("the parent's mask (GeoTIFF)")),
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
        ),
        Verb(
            "check_labels",
            "compare the labels with each other and with the imagery",
            "cityheads.dataset.checks:check_labels",
            ("grid", "labels"),
            (
                _PARENTS,
                Argument("results", "results folder"),
                Argument("picture", "what was found, as a picture (PNG)"),
                _out("what was found (JSON)"),
            ),
        ),
        Verb(
            "assemble_dataset",
            "account for every sub-chip, assign the splits, and pack the kept ones",
            "cityheads.dataset.assemble:assemble_dataset",
            ("grid", "archive.imagery", "labels", "splits", "quality"),
            (
                _PARENTS,
                Argument("scenes", "folder of the frozen scene choices"),
                Argument("quality", "folder of the quality files"),
                _CHIPS,
                _out("folder for chips.parquet, splits.json, classes.json, statistics.json and store/"),
            ),
        ),
        Verb(
            "train",
            "train one run with one seed",
            "cityheads.training.run:train",
            ("labels", "heads", "runs", "model", "train"),
            (_RUN, _SEED, _DATASET, _out("folder of the run")),
        ),
        Verb(
            "evaluate",
            "evaluate one run on the held-out parents",
            "cityheads.evaluation.evaluate:evaluate",
            ("labels", "heads", "runs", "model", "train", "evaluation"),
            (_RUN, _SEED, _DATASET, Argument("run_dir", "folder of the run"), _out("folder of the evaluation")),
        ),
        Verb(
            "compare",
            "compare the multi-head run with its baselines and give the verdict",
            "cityheads.evaluation.gate:compare",
            ("heads", "runs", "seeds", "gate"),
            (
                Argument("evaluation", "folder of the evaluations, RUN/SEED below it"),
                Argument("page", "the verdict as a Markdown page"),
                _out("gate.json"),
            ),
        ),
        Verb(
            "draw_figures",
            "draw the figures of the report",
            "cityheads.product.figures:draw_figures",
            ("project", "grid", "labels", "heads", "runs", "seeds", "gate", "report"),
            (
                _PARENTS,
                Argument("results", "results folder"),
                _out("folder of the figures; figures.json lists them"),
            ),
        ),
        Verb(
            "report",
            "write the self-contained HTML report",
            "cityheads.product.report:report",
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
                "evaluation",
                "gate",
            ),
            (Argument("results", "results folder"), _out("report.html")),
        ),
        Verb(
            "publish",
            "bundle the model under test with its recipe, scores and card",
            "cityheads.product.publish:publish",
            _RECIPE,
            (_PARENTS, Argument("results", "results folder"), _out("folder of the bundle")),
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
                _DATASET,
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
                _DATASET,
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
            "cityheads.archive.tiling:cover_boundary",
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
            "document_config",
            "write every key of the config, its default and description, as a page",
            "cityheads.config:document_config",
            arguments=(_out("Markdown page to write"),),
        ),
    )
}


def _parser() -> argparse.ArgumentParser:
    from cityheads import __version__

    parser = argparse.ArgumentParser(
        prog="cityheads",
        description="One geospatial foundation model, many maps of a city. Each rule of the workflow is one verb.",
    )
    parser.add_argument("--version", action="version", version=f"cityheads {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS.values():
        sub = verbs.add_parser(verb.name, help=verb.help, description=f"{verb.help[0].upper()}{verb.help[1:]}.")
        if verb.sections:
            sub.add_argument("--config", type=Path, required=True, metavar="YAML", help="config file")
        sub.add_argument("--log", type=Path, metavar="FILE", help="write messages to FILE, errors also to the screen")
        for argument in verb.arguments:
            option = f"--{argument.name.replace('_', '-')}"
            if argument.type is bool:
                sub.add_argument(option, dest=argument.name, action="store_true", help=argument.help)
                continue
            sub.add_argument(
                option,
                dest=argument.name,
                type=argument.type,
                required=argument.required,
                default=argument.default,
                nargs="+" if argument.many else None,
                metavar=argument.name.upper(),
                help=argument.help,
            )
    return parser


def _set_up_logging(path: Path | None) -> None:
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    screen = logging.StreamHandler()
    screen.setFormatter(logging.Formatter("%(message)s"))
    if path is None:
        logging.getLogger().addHandler(screen)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, mode="w")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(file)
    # with a log file, the screen shows the errors and what a verb marks as progress
    screen.setLevel(logging.ERROR)
    screen.addFilter(lambda record: record.levelno >= logging.ERROR)
    logging.getLogger().addHandler(screen)
    progress = logging.StreamHandler()
    progress.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("cityheads.progress").addHandler(progress)


def _die_with_workflow() -> None:
    """Under the workflow, end when Snakemake is killed: an orphan would go on writing beside the next run.

    Linux only (``prctl(PR_SET_PDEATHSIG)``); elsewhere an orphan finishes its own job, which is harmless but for time.
    """
    workflow = os.environ.get("CITYHEADS_WORKFLOW")
    if workflow and sys.platform == "linux":
        import ctypes
        import signal

        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        # Snakemake may have been killed before this line; its orphans are handed to process 1
        if os.getppid() == 1 and workflow != "1":
            os.kill(os.getpid(), signal.SIGKILL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; give 0, or 1 after one line that says what is wrong."""
    arguments = vars(_parser().parse_args(argv))
    verb = VERBS[arguments.pop("verb")]
    config_path, log_path = arguments.pop("config", None), arguments.pop("log")
    _set_up_logging(log_path)
    # torch's threads wait for each other spinning; on a machine that does anything else besides, that made a training
    # ten times slower. A short spin costs nothing on an idle one. Read when torch is loaded, so it is set here.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    _die_with_workflow()
    try:
        settings: list[dict[str, Any]] = []
        if config_path is not None:
            from cityheads.config import load_config, pick

            settings.append(pick(load_config(config_path), verb.sections))
        module, _, function = verb.function.partition(":")
        getattr(importlib.import_module(module), function)(*settings, **arguments)
    except CityHeadsError as error:
        log.error("cityheads %s: %s", verb.name, error)
        return 1
    except KeyboardInterrupt:
        log.error("cityheads %s: interrupted", verb.name)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        log.error("cityheads %s: unexpected %s: %s%s", verb.name, type(error).__name__, error,
                  f"; the traceback is in {log_path}" if log_path else "")  # fmt: skip
        if log_path:
            with log_path.open("a") as stream:
                traceback.print_exc(file=stream)
        else:
            traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
