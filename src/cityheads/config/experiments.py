"""The sheet of experiments: one more run a row, with settings of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cityheads.config.base import FrozenDict, plain
from cityheads.config.config import Config
from cityheads.config.heads import RunConfig, as_numbers
from cityheads.config.load import resolve, yaml_value
from cityheads.core.errors import CityHeadsError
from cityheads.core.sheets import read_sheet

__all__ = ["Experiment", "read_experiments", "with_experiments"]

_REQUIRED = ("name", "set")
_OPTIONAL = ("heads", "seeds", "comment")
#: Where a setting begins: a dotted key and ``=``, at the start or after a space.
_SETTING = re.compile(r"(?:^|\s+)([a-z_]+(?:\.[A-Za-z0-9_]+)+)=")


@dataclass(frozen=True)
class Experiment:
    """A row of the sheet.

    Attributes:
        where: File and line, for messages.
        name: Name of the run.
        heads: Its heads; None takes those of the run under test.
        seeds: Its seeds; None takes those of the config.
        set: What it sets otherwise than the run under test, by dotted key.
        comment: Remark of the row.
    """

    where: str
    name: str
    heads: tuple[str, ...] | None
    seeds: tuple[int, ...] | None
    set: Mapping[str, Any]
    comment: str


def read_experiments(path: Path) -> list[Experiment]:
    """Read the sheet: tab-separated, ``#`` lines are comments, the columns ``name``, ``set`` and optional ones.

    ``set`` holds settings apart from each other by spaces, ``model.merge=concat train.balance=pcgrad``, with values as
    YAML has them; ``heads`` and ``seeds`` hold names and numbers with commas between them.

    Raises:
        CityHeadsError: The file is missing or empty, a column is missing or unknown, or a cell cannot be read.
    """
    found: list[Experiment] = []
    for number, cells in read_sheet(path, _REQUIRED, _OPTIONAL, what="sheet of experiments", key="experiments"):
        where = f"{path}: line {number} ({cells['name']})"
        if cells["name"] in (other.name for other in found):
            raise CityHeadsError(f"{where}: column name: '{cells['name']}' stands twice; names must be unique")
        heads, seeds = _listed(cells.get("heads", "")), _listed(cells.get("seeds", ""))
        for seed in seeds:
            if not re.fullmatch(r"\d+", seed):
                raise CityHeadsError(f"{where}: column seeds: '{seed}' is not a whole number of 0 or more")
        if len(set(seeds)) < len(seeds):
            raise CityHeadsError(f"{where}: column seeds: '{cells['seeds']}' names a seed twice")
        found.append(
            Experiment(
                where=where,
                name=cells["name"],
                heads=heads or None,
                seeds=tuple(map(int, seeds)) or None,
                set=_settings(f"{where}: column set", cells["set"]),
                comment=cells.get("comment", ""),
            )
        )
    return found


def _listed(cell: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split(",") if part.strip())


def _settings(where: str, cell: str) -> dict[str, Any]:
    """Read ``key=value key=value``."""
    found = list(_SETTING.finditer(cell))
    if cell and (not found or found[0].start() != 0):
        raise CityHeadsError(f"{where}: '{cell}' is not of the form model.merge=concat train.lr=0.001")
    settings: dict[str, Any] = {}
    ends = [*(match.start() for match in found[1:]), len(cell)]
    for match, end in zip(found, ends, strict=False):
        key, text = match.group(1), cell[match.end() : end]
        if key in settings:
            raise CityHeadsError(f"{where}: '{key}' stands twice; remove one")
        try:
            value = as_numbers(yaml_value(text))
        except ValueError as error:
            raise CityHeadsError(f"{where}: {key}: '{text}' cannot be read ({error})") from None
        if not text or (isinstance(value, float) and not math.isfinite(value)):
            raise CityHeadsError(f"{where}: {key}: '{text}' is no value")
        settings[key] = value
    return settings


def with_experiments(config: Config, experiments: Sequence[Experiment]) -> Config:
    """Give the config with the experiments as runs besides its own, each checked.

    An experiment starts from the run under test: it has that run's heads, unless it names some, and its settings.

    Raises:
        CityHeadsError: A row names a run or control that there is, an unknown head or setting, or a value that does not
            do; the message has file, row and column.
    """
    # the runs and the search of the config are right already; they are not checked once more for each row
    raw: dict[str, Any] = config.to_dict()
    raw["tuning"]["grid"] = {}
    raw["runs"] = {name: {"heads": list(run.heads)} for name, run in config.runs.items()}
    tested = config.runs[config.noninferiority.run]
    added: dict[str, RunConfig] = {}
    for one in experiments:
        if one.name in config.runs:
            raise CityHeadsError(f"{one.where}: column name: there is a run '{one.name}' in the config; choose another")
        heads = one.heads or tested.heads
        for head in heads:
            if head in config.heads and config.heads[head].label not in config.labels_learnt:
                raise CityHeadsError(
                    f"{one.where}: column heads: {head} learns {config.heads[head].label}, which no run of the config "
                    "learns, so that the dataset lacks it"
                )
        inherited = {key: value for key, value in tested.set.items() if _is_of(key, heads)}
        # what a search may choose for the run under test holds for the experiment too, below its own settings; the
        # last to be checked is the experiment without such a choice
        for candidate in (*config.tuning.candidates, {}):
            run = {"heads": list(heads), "set": {**inherited, **candidate, **one.set}}
            try:
                checked = resolve({**raw, "runs": {**raw["runs"], one.name: plain(run)}})
            except CityHeadsError as error:
                raise CityHeadsError(_placed(one, str(error))) from None
        added[one.name] = checked.runs[one.name]
    return config.model_copy(update={"runs": FrozenDict({**config.runs, **added})})


def _is_of(key: str, heads: Sequence[str]) -> bool:
    """Say whether a setting is of a run with these heads."""
    first, _, rest = key.partition(".")
    return first != "heads" or rest.partition(".")[0] in heads


def _placed(one: Experiment, error: str) -> str:
    """Give an error about the config with the place in the sheet in place of the key."""
    here = f"config key 'runs.{one.name}"
    if not error.startswith(here):
        return f"{one.where}: {error}"
    key, _, text = error.removeprefix(here).partition("'")
    column = "heads" if key.startswith(".heads") else "set" if key.startswith(".set") else "name"
    return f"{one.where}: column {column}{text or ':'}"
