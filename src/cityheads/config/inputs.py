"""What can be told to be wrong before any job starts, from config, sheet, disk and what is installed; quick to do."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cityheads.config.base import plain
from cityheads.config.config import Config
from cityheads.config.load import yaml_value
from cityheads.config.splits import SplitsConfig
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import canonical_json, sha256_bytes
from cityheads.core.grid import SPLITS, Parent
from cityheads.core.layout import Layout

__all__ = ["asked_of", "check_names", "check_results", "check_splits", "typed"]

#: What a path may be written with that passes through shells, Snakemake's patterns and URLs unharmed.
_PATH = re.compile(r"[\w./@%+=:,-]+")


def check_results(results: str) -> None:
    """Refuse a results folder that is no folder of its own.

    Raises:
        CityHeadsError: The path holds characters that not every tool passes on, is the working directory or lies above
            it, or is a file or a folder that holds other things than results.
    """
    here = f"config key 'results': '{results}'"
    odd = sorted({character for character in results if not _PATH.fullmatch(character)})
    if odd or results.startswith("-"):
        what = " ".join("space" if character == " " else repr(character)[1:-1] for character in odd) or "- at the start"
        raise CityHeadsError(f"{here} holds {what}; use letters, digits and . _ - / only, such as results/nyc")
    path = Path(results).resolve()
    if Path.cwd().resolve().is_relative_to(path):
        raise CityHeadsError(
            f"{here} is the working directory or lies above it; name a folder of its own, such as results"
        )
    if path.exists() and not path.is_dir():
        raise CityHeadsError(f"{here} is a file; name a folder")
    try:
        found = sorted(path.iterdir()) if path.is_dir() else []
    except OSError as error:
        raise CityHeadsError(f"{here} cannot be read ({error.strerror})") from None
    if found and not _holds_results(path):
        raise CityHeadsError(
            f"{here} holds other things ({found[0].name}) and no results; name a folder that is empty or not there yet"
        )


def _holds_results(path: Path) -> bool:
    own = Layout(path)
    marks = own.lock, own.archive.catalog, own.scenes, own.parents, own.chips, own.gate, own.report
    return any(mark.exists() for mark in marks)


def check_splits(parents: Sequence[Parent], splitting: SplitsConfig) -> None:
    """Refuse a split that is impossible whatever the labels are.

    Raises:
        CityHeadsError: Too few parents for the splits or folds, a split column that leaves a split empty, a region that
            is not there or leaves too little.
    """
    count = len(parents)
    if count < len(SPLITS):
        raise CityHeadsError(f"{count} parents cannot fill {len(SPLITS)} splits; add parents to the sheet")
    if splitting.method == "folds" and count < splitting.folds:
        raise CityHeadsError(f"{count} parents cannot fill {splitting.folds} folds; lower splits.folds")
    given = {parent.split for parent in parents}
    if splitting.method == "search" and None not in given:
        for name in SPLITS:
            if name not in given:
                raise CityHeadsError(
                    f"the parent sheet's split column leaves {name} empty; give it at least one parent"
                )
    if splitting.method == "region":
        regions = sorted({parent.region for parent in parents if parent.region})
        if splitting.region not in regions:
            known = f"there are {', '.join(regions)}" if regions else "the parent sheet has no region column"
            raise CityHeadsError(f"config key 'splits.region': no region '{splitting.region}'; {known}")
        left = sum(parent.region != splitting.region for parent in parents)
        if left < 2:
            raise CityHeadsError(f"leaving region '{splitting.region}' out leaves {left} parents; two are needed")


def typed(value: Any) -> Any:
    """Give a value of ``--config``, of which Snakemake makes text at every depth, as a config file would have it.

    ``{epochs: 2}`` comes as ``{"epochs": "2"}``. Text that looks like a number needs quotes within quotes to stay text.
    """
    if isinstance(value, Mapping):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, str):
        try:
            return yaml_value(value)
        except ValueError:
            return value
    return value


def check_names(config: Config) -> None:
    """Refuse a backbone or decoder that nothing installed knows.

    Importing TerraTorch's registries takes longer than everything else before the first job. The sources say the same:
    a name that stands in none of the modules that could register it is unknown. Where TerraTorch is not installed,
    nothing is refused.

    Raises:
        CityHeadsError: A name is unknown; the message has the nearest one that is known.
    """
    runs = {name: config.for_run(name) for name in config.runs}
    for name, run in {"": config, **runs}.items():
        where = f"runs.{name}.set: " if name else ""
        _check_name("backbone", run.model.backbone, f"{where}model.backbone")
        for head, own in run.heads.items():
            if own.decoder not in (None, OWN_DECODER):
                _check_name("decoder", str(own.decoder), f"{where}heads.{head}.decoder")


#: The decoder of `cityheads.model.decoders`; the others are in TerraTorch's registry.
OWN_DECODER = "FullResolutionDecoder"

#: Where names of a kind are registered, beside TerraTorch's own: prefix of the name, package, folder.
_ELSEWHERE = {
    "backbone": ("timm_", "timm", "models"),
    "decoder": ("smp_", "segmentation_models_pytorch", "decoders"),
}


def _check_name(kind: str, name: str, key: str) -> None:
    own = _sources("terratorch", f"models/{kind}s")
    if own is None or name.startswith("mmseg_"):
        return
    prefix, package, folder = _ELSEWHERE[kind]
    bare = name.removeprefix("terratorch_")
    if not bare.startswith(prefix) and re.search(rf"\b{re.escape(bare)}\b", own):
        return
    # timm's names may end in a dot and the name of weights
    found = _sources(package, folder) if not name.startswith("terratorch_") else ""
    if found is None or re.search(rf"\b{re.escape(name.removeprefix(prefix).split('.')[0])}\b", found):
        return
    known = [*re.findall(r"_REGISTRY\.register\s+(?:def|class) (\w+)", own), *[OWN_DECODER] * (kind == "decoder")]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    raise CityHeadsError(f"config key '{key}': TerraTorch knows no {kind} '{name}'{hint}")


@functools.cache
def _sources(package: str, folder: str) -> str | None:
    """Give the text of all modules in a folder of an installed package; None where it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(spec.submodule_search_locations[0], folder)
    return "\n".join(path.read_text(errors="replace") for path in sorted(root.rglob("*.py")))


def asked_of(parents: Sequence[Parent], splitting: SplitsConfig) -> str:
    """Give a hash of what an assignment answers: the places, in any order, and how they are to be split."""
    column = {"search": "split", "region": "region"}.get(splitting.method)
    rows = sorted(
        [one.parent_id, one.epsg, one.left, one.top, getattr(one, column) if column else None] for one in parents
    )
    how = [splitting.method, plain(splitting.fractions), splitting.seed, splitting.folds, splitting.region]
    return sha256_bytes(canonical_json([rows, how]).encode())[:16]
