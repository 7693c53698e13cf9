# Validation, names, and what the rules share. Light on purpose: the DAG must not import torch, rasterio or geopandas.
import fcntl
import os
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from cityheads.verbs import VERBS
from cityheads.config import resolve
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import read_parents
from cityheads.core.files import write_bytes

try:
    RESOLVED = resolve(config)
    config = RESOLVED.to_dict()
    SHEET = config["parents"]
    GRID = RESOLVED.grid.grid
    PARENTS = [parent.parent_id for parent in read_parents(Path(SHEET), GRID)]
except CityHeadsError as error:
    raise WorkflowError(str(error)) from None

RESULTS = config["results"].rstrip("/")
CONFIG = f"{RESULTS}/config.yaml"
SIMULATED = config["archive"]["provider"] == "simulated"
CATALOG = (
    f"{RESULTS}/archive/catalog.json" if SIMULATED else config["archive"]["catalog"]
)
MODALITIES = list(config["archive"]["imagery"])
SYNTHESIS = any(
    layer.get("missing") == "synthesize"
    for layer in config["archive"]["imagery"].values()
)
HAS_SCL = config["archive"]["imagery"]["S2L2A"]["scl_asset"] is not None
LABELS = config["labels"]
LANDCOVER = [name for name, label in LABELS.items() if label["kind"] == "landcover"]
FOOTPRINTS = [name for name, label in LABELS.items() if label["kind"] == "footprints"]
# those that also write the covered fraction of every pixel
FRACTIONS = [name for name in FOOTPRINTS if LABELS[name]["fraction_layer"]]
LAYERS = [
    name for name, label in LABELS.items() if label["kind"] in ("raster", "vector")
]
RUNS = list(config["runs"])
SEEDS = config["seeds"]
GATE_RUN = config["noninferiority"]["run"]
COMPARED = sorted({GATE_RUN, *config["noninferiority"]["baselines"].values()})
SIDE = range(GRID.chips_per_side)


wildcard_constraints:
    parent="|".join(PARENTS),
    label="|".join(LABELS),
    run="|".join(RUNS),
    seed=r"\d+",


# A job is a single command that takes the shell's place: killed with Snakemake, it leaves no orphan that goes on writing.
shell.prefix(f"set -euo pipefail; export CITYHEADS_WORKFLOW={os.getpid()}; exec ")


onstart:
    # Snakemake's own lock outlives a killed run; the kernel's does not (profiles/default turns the former off).
    os.makedirs(RESULTS, exist_ok=True)
    _lock = open(f"{RESULTS}/.lock", "w")
    try:
        fcntl.flock(_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WorkflowError(
            f"{RESULTS}: another run of the workflow is writing there; wait for it or stop it"
        ) from None
    globals()["_RUN_LOCK"] = _lock
    resolved = yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode()
    if not Path(CONFIG).exists() or Path(CONFIG).read_bytes() != resolved:
        write_bytes(Path(CONFIG), resolved)


def settings(verb, narrow=None, **kept):
    """Give the part of the config that a verb depends on, as text: a change of it, and of it alone, reruns the job."""

    def trigger(wildcards):
        seen = RESOLVED if narrow is None else narrow(wildcards)
        return seen.fingerprint(VERBS[verb].sections, **kept)

    return trigger


def code(verb):
    """Give the version of a verb's results: a change of it reruns the job."""
    return VERBS[verb].version


def of_label(wildcards):
    """Narrow the config to one label layer."""
    return RESOLVED.for_label(wildcards.label)


def of_run(wildcards):
    """Narrow the config to the heads and labels of one run."""
    return RESOLVED.for_run(wildcards.run)


def only(names):
    """Give a wildcard's pattern that takes these names, and nothing where there are none."""
    return "|".join(names) or "(?!)"


def pieces(layers):
    """Give the sub-chip files of one parent (a wildcard) in some layers."""
    return expand(
        f"{RESULTS}/chips/{{layer}}/{{{{parent}}}}_r{{row}}c{{col}}.tif",
        layer=layers,
        row=SIDE,
        col=SIDE,
    )


def folder_of(file, up=1):
    """Give the folder that lies ``up`` levels above an input or output (``output.mask``) of the job."""

    def find(wildcards, input, output):
        kind, _, name = file.partition(".")
        found = getattr(input if kind == "input" else output, name)
        return str(
            Path(str(found if isinstance(found, str) else found[0])).parents[up - 1]
        )

    return find


def vector_input(key, simulated):
    """Give the file that a footprints label reads: the config's, or the simulated archive's."""

    def find(wildcards):
        return LABELS[wildcards.label][key] or f"{RESULTS}/archive/{simulated}"

    return find
