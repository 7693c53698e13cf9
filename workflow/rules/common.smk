# Validation, names, and what the rules share. Light on purpose: the DAG must not import torch, rasterio or geopandas.
# Nothing here may reach beyond this file: another workflow can import these rules as a module, under other names, with a
# prefix, and more than once.
import fcntl
import os
import re
import sys
import time
from pathlib import Path
from shlex import quote

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import update_config

from cityheads.config import read_yaml, resolve, write_config
from cityheads.config.estimate import estimate
from cityheads.config.experiments import read_experiments, with_experiments
from cityheads.config.inputs import (
    asked_of,
    check_names,
    check_results,
    check_splits,
    typed,
)
from cityheads.core.artifacts.splits import PARENT_ASSIGNMENT
from cityheads.core.classes import CLOUD_MASK, fraction_layer, mask_layer
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import area, chip_ids, read_parents
from cityheads.core.layout import Layout
from cityheads.core.modalities import removable
from cityheads.core.progress import Bar, measured_seconds
from cityheads.dataset.preflight import machine, preflight
from cityheads.product.closing import closing_lines
from cityheads.verbs import VERBS


def placed(path):
    """Give a path with what a module's `prefix:` puts before it."""
    return str(workflow.modifier.path_modifier.modify(str(path)))


try:
    if workflow.modifier.is_main_snakefile():
        for file in workflow.configfiles:
            read_yaml(
                Path(file)
            )  # for a key that stands twice: Snakemake takes the last
        # Snakemake makes text of every value within `--config train='{epochs: 2}'`
        update_config(config, typed(workflow.config_settings.config))
    CITY = resolve(config)
    SHEET = CITY.parents
    EXPERIMENTS = read_experiments(Path(CITY.experiments)) if CITY.experiments else []
    # the config with the experiments as runs: what their jobs see
    LABORATORY = with_experiments(CITY, EXPERIMENTS)
    GRID = CITY.grid.grid
    ROWS = {parent.parent_id: parent for parent in read_parents(Path(SHEET), GRID)}
    check_names(LABORATORY)
    check_splits(list(ROWS.values()), CITY.splits)
    check_results(placed(CITY.results))
except CityHeadsError as error:
    raise WorkflowError(str(error)) from None

RESULTS = Layout(Path(CITY.results))
PARENTS = list(ROWS)
SIMULATED = CITY.archive.provider == "simulated"
MODALITIES = list(CITY.archive.imagery.names)
SYNTHESIS = bool(CITY.archive.imagery.synthesized)
LABELS = CITY.labels
NEEDS = estimate(
    CITY,
    len(PARENTS),
    cores=os.cpu_count() or 1,
    gpu=CITY.train.accelerator == "cuda",
)
DOWNLOADS = CITY.downloads
LEARNT = CITY.labels_learnt
LANDCOVER = [name for name, label in LABELS.items() if label.kind == "landcover"]
FOOTPRINTS = [name for name, label in LABELS.items() if label.kind == "footprints"]
# those that also write the covered fraction of every pixel
FRACTIONS = [name for name in FOOTPRINTS if LABELS[name].fraction_layer]
LAYERS = [name for name, label in LABELS.items() if label.kind in ("raster", "vector")]
RUNS = list(CITY.runs)
EXPERIMENT_RUNS = [one.name for one in EXPERIMENTS]
SEEDS = list(CITY.seeds)
FOLDS = list(CITY.folds)
CONTROLS = [*CITY.untrained_controls, *["ceiling"] * bool(CITY.ceiling_heads)]
TRAINED_CONTROLS = list(CITY.trained_controls)
TESTED_RUN = CITY.noninferiority.run
COMPARED = sorted({TESTED_RUN, *CITY.noninferiority.baselines.values()})
# runs whose settings are searched
TUNED = list(CITY.tuned_runs)
# seeds of each run that is on the leaderboard
LEADERBOARD = dict.fromkeys(COMPARED, SEEDS) | {
    one.name: list(one.seeds or SEEDS) for one in EXPERIMENTS
}


def only(names):
    """Give a wildcard's pattern that takes these names, and nothing where there are none."""
    return "|".join(names) or "(?!)"


wildcard_constraints:
    parent=only(PARENTS),
    label=only(LABELS),
    run=only(RUNS + TRAINED_CONTROLS + EXPERIMENT_RUNS),
    control=only(CONTROLS),
    fold=r"\d+",
    split="val|test",
    seed=r"\d+",


def at_start(action):
    """Have something done when jobs are about to start, whatever `onstart` an importing workflow has of its own."""
    register, before = workflow.onstart, workflow._onstart
    workflow._onstart = lambda log: (action(), before(log))
    workflow.onstart = lambda function: register(lambda log: (action(), function(log)))


# The config with all its defaults, as the jobs read it. It is no input: what a job depends on in it is in its parameters.
CONFIG = placed(RESULTS.config)
EXPERIMENTS_CONFIG = placed(RESULTS.experiments)
LOCK = placed(RESULTS.lock)
_HELD = []


def prepare_results():
    """Check what a real run needs, keep a second run out, and write the config down for the jobs.

    Snakemake's own lock outlives a killed run; the kernel's does not.
    """
    if not SIMULATED:
        # before anything is downloaded: what would fail hours later
        found = preflight(CITY, machine())
        for line in found.needs.lines() if found.needs else ():
            logger.info(f"needs: {line}")
        for line in found.warnings:
            logger.warning(f"warning: {line}")
        if found.problems:
            raise WorkflowError("\n".join(found.problems))
    Path(LOCK).parent.mkdir(parents=True, exist_ok=True)
    lock = open(LOCK, "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WorkflowError(
            f"{Path(LOCK).parent}: another run of the workflow is writing there; wait for it or stop it"
        ) from None
    _HELD.append(lock)
    write_config(CITY, Path(CONFIG))
    if EXPERIMENTS:
        write_config(LABORATORY, Path(EXPERIMENTS_CONFIG))


at_start(prepare_results)


def bar_of_screen():
    """Have one bar in place of Snakemake's lines about jobs; None where more was asked for, or less, or nothing runs."""
    shown = workflow.output_settings
    asked = shown.verbose or shown.printshellcmds or shown.debug_dag or shown.dryrun
    told = {kind.name.lower() for kind in shown.quiet or ()} - {"reason", "host"}
    screen = next(
        (one for one in logger.handlers if one.name == "DefaultStreamHandler"), None
    )
    main = workflow.modifier.is_main_snakefile() and workflow.is_main_process
    if asked or told or screen is None or not main or "CITYHEADS_LINES" in os.environ:
        return None
    training = NEEDS.train_s / max(1, NEEDS.trainings)
    expected = {"train": training, "tune": training} | measured_seconds(
        Path(placed(RESULTS.benchmarks))
    )
    bar = Bar(screen.stream, expected)
    screen.addFilter(bar.see)
    # jobs then leave the screen to it, but for their errors
    os.environ.update(CITYHEADS_BAR="1")
    at_start(bar.start)
    return bar


_BEGUN = time.monotonic()
BAR = bar_of_screen()


def tell_the_end(success):
    """Say how the run ended."""
    if BAR is not None:
        BAR.stop()
    took = time.monotonic() - _BEGUN
    for line in closing_lines(
        Layout(Path(placed(RESULTS.root))), FOLDS[0], took, success=success
    ):
        logger.info(line) if success else logger.error(line)


# Jobs end when Snakemake does (`cityheads.cli`): killed, it leaves no orphan that goes on writing.
os.environ.update(CITYHEADS_WORKFLOW=str(os.getpid()))

# `.venv/bin/snakemake` works without an active environment too: the command lies beside the interpreter. Last on the path,
# so that an active environment, conda's among them, goes before.
_BESIDE = str(Path(sys.executable).parent)
if _BESIDE not in os.get_exec_path():
    os.environ.update(PATH=os.pathsep.join([*os.get_exec_path(), _BESIDE]))


def version(verb):
    """Give the version of a verb's results: a change of it runs the job again; a change of the code alone does not."""
    return VERBS[verb].version


def settings(
    verb,
    label=False,
    run=False,
    control=False,
    learnt=False,
    label_keys=None,
    **how,
):
    """Give what a job depends on in the config, as text: a change of it, and of it alone, runs the job again.

    Args:
        verb: The verb, whose sections count.
        label: Of the labels, only the job's own counts.
        run: Of runs, heads and labels, only the job's own count.
        control: Of the controls' settings, only the job's own count.
        learnt: Of the labels, only those that some run learns count; heads and runs do not count besides.
        label_keys: Of the job's own label, only these keys count.
        how: What `Config.fingerprint` takes besides.
    """

    def trigger(wildcards):
        narrowed = CITY
        if label:
            narrowed = narrowed.for_label(wildcards.label)
        if run:
            narrowed = LABORATORY.for_run(wildcards.run)
        if control:
            narrowed = narrowed.for_control(wildcards.control)
        sections = VERBS[verb].sections
        if learnt:
            narrowed = narrowed.for_labels(LEARNT)
            sections = [name for name in sections if name not in ("heads", "runs")]
        if label_keys is not None:
            own = LABELS[wildcards.label]
            sections = [name for name in sections if name != "labels"]
            return narrowed.fingerprint(sections, **how) + str(
                [getattr(own, key) for key in label_keys]
            )
        return narrowed.fingerprint(sections, **how)

    return trigger


def place(*parents):
    """Give the place of parents as text: what a job depends on in the sheet, whatever else stands there."""
    return ";".join(
        f"{row.parent_id} {row.epsg} {row.left!r} {row.top!r}"
        for row in (ROWS[parent] for parent in parents)
    )


def sheet_rows():
    """Give all that stands in the sheet as text, comments left out: what the jobs of the whole city depend on."""
    return ";".join(
        f"{place(parent)} {row.split} {row.region}" for parent, row in ROWS.items()
    )


def split_rows():
    """Give what the splits depend on in the sheet, in any order: the places, and the column that the method looks at."""
    column = {"search": "split", "region": "region"}.get(CITY.splits.method)
    return ";".join(
        sorted(
            f"{place(parent)} {getattr(row, column) if column else None}"
            for parent, row in ROWS.items()
        )
    )


def assigned():
    """Tell whether the assignment that is there answers what the sheet and the config ask now."""
    path = Path(placed(RESULTS.assignment))
    try:
        there = PARENT_ASSIGNMENT.read(path)["asked"] if path.exists() else None
    except CityHeadsError as error:
        logger.warning(f"warning: {error}")
        return False
    return there == asked_of(list(ROWS.values()), CITY.splits)


ASSIGNED = assigned()


def own_place(wildcards):
    """Give the place of the job's own parent."""
    return place(wildcards.parent)


def untracked(value):
    """Hand a value to a job that may change without running it again: what the results do not depend on."""
    return lambda wildcards, input: value


def of_leaderboard(name):
    """Give what a function of run, fold and seed names, for all runs that are on the leaderboard."""
    return [
        str(name(run, fold, seed))
        for run, seeds in LEADERBOARD.items()
        for fold in FOLDS
        for seed in seeds
    ]


def chosen_settings(wildcards):
    """Give the settings that were chosen for the job's run, where any were searched.

    Trained controls and experiments are variants of the run under test, and start from what was chosen for that.
    """
    variants = TRAINED_CONTROLS + EXPERIMENT_RUNS
    run = TESTED_RUN if wildcards.run in variants else wildcards.run
    return str(RESULTS.settings(run, wildcards.fold)) if run in TUNED else []


def candidate_trainings(wildcards):
    """Give the trainings of all candidates of a run, on the fold that chooses."""
    fold = 0 if CITY.tuning.fold == "first" else wildcards.fold
    return [
        str(RESULTS.candidate(wildcards.run, fold, position).training)
        for position in range(len(CITY.tuning.candidates))
    ]


def own_candidate(wildcards):
    """Give the settings of the job's candidate as text."""
    return f"{CITY.tuning.candidates[int(wildcards.candidate)]} {CITY.tuning.seed}"


def own_calibration(wildcards):
    """Give the calibration of the same training, which was fitted on its validation split, to score its test split."""
    if wildcards.split == "val":
        return []
    names = wildcards.run, wildcards.fold, wildcards.seed
    return str(RESULTS.evaluation(*names, "val").calibration)


def config_of_run(wildcards, input):
    """Give the config that knows the job's run; untracked, as CONFIG is."""
    return CONFIG if wildcards.run not in EXPERIMENT_RUNS else EXPERIMENTS_CONFIG


def masks_of(labels):
    """Name the mask layers of some labels."""
    return [mask_layer(label) for label in labels]


def masks_besides():
    """Give the masks of all parents in the labels that no head learns: nothing else asks for them."""
    return [
        str(RESULTS.parent(parent).raster(layer))
        for parent in PARENTS
        for layer in masks_of(name for name in LABELS if name not in LEARNT)
    ]


def pieces(layers, parent="{parent}"):
    """Give the sub-chip files of one parent (by default a wildcard) in some layers."""
    return [
        str(RESULTS.chip(layer, chip))
        for layer in layers
        for chip in chip_ids(parent, GRID.chips_per_side)
    ]


def of_parents(name):
    """Give what a function of the parent's id names, for all parents."""
    return [str(name(parent)) for parent in PARENTS]


def of_folds(name, folds=FOLDS):
    """Give what a function of the fold names, for all folds that are run."""
    return [str(name(fold)) for fold in folds]


def datasets(folds=FOLDS):
    """Give what `assemble_dataset` writes for some folds."""
    return [
        file
        for name in ("chips", "splits", "classes", "statistics")
        for file in of_folds(lambda fold: getattr(RESULTS.dataset(fold), name), folds)
    ]


def of_trainings(name, runs=RUNS, seeds=SEEDS):
    """Give what a function of run, fold and seed names, for all folds and seeds."""
    return [
        str(name(run, fold, seed)) for run in runs for fold in FOLDS for seed in seeds
    ]


def folder_of(file, up=1):
    """Give the folder that lies ``up`` levels above an input or output (``output.mask``) of the job."""

    def find(wildcards, input, output):
        kind, _, name = file.partition(".")
        found = getattr(input if kind == "input" else output, name)
        return str(
            Path(str(found if isinstance(found, str) else found[0])).parents[up - 1]
        )

    return find


def users(path):
    """Mark a file that the user names in the config: a module's `prefix:` is not for it."""
    return local(path)


def settings_of_download(wildcards):
    """Give what a download depends on: where it comes from and, where parents cut it out, their places."""
    own = DOWNLOADS[wildcards.download]
    cut = own.provider == "overture"
    place_of_all = settings("fetch_footprints")(wildcards) + place(*PARENTS)
    return f"{own.provider} {own.url} {own.sha256} {place_of_all if cut else ''}"


def footprint_source(wildcards):
    """Give the file that a footprints label reads: the config's, or the simulated archive's."""
    named = LABELS[wildcards.label].source
    return users(named) if named else str(RESULTS.archive.footprints)


def footprint_boundary(wildcards):
    """Give the file of a footprints label's surveyed area, likewise."""
    named = LABELS[wildcards.label].boundary
    return users(named) if named else str(RESULTS.archive.boundary)


def catalog_option(wildcards, input):
    """Give the option that names the simulated catalogue.

    A catalogue's URL may hold credentials, which a command line would show: the job reads it in the config.
    """
    return f"--catalog {quote(str(input.catalog))}" if input.catalog else ""
