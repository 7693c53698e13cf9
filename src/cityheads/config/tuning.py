"""Section ``tuning``: a small search of settings, the same for all runs that are compared."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import MinLen
from pydantic import AfterValidator

from cityheads.config.base import Integer, Section, Text, field, freeze, only_once
from cityheads.config.heads import as_numbers, writable

__all__ = ["SAME_FOR_ALL", "TuningConfig"]

#: Keys of ``train`` in which compared runs may not differ, or which are no matter of what is learnt.
SAME_FOR_ALL = (
    "epochs", "batch_size", "accumulate", "checkpoint", "accelerator", "threads", "workers",
)  # fmt: skip


class TuningConfig(Section):
    """A small search of settings on the validation split, the same for the run under test and its baselines.

    Without a grid nothing is searched, and all of them take the settings of the config.
    """

    grid: Annotated[
        Mapping[Text, Annotated[tuple[Any, ...], MinLen(1), only_once]],
        AfterValidator(writable),
        AfterValidator(as_numbers),
        freeze,
    ] = field(
        {},
        "Values to try, by dotted keys of model and train, such as {train.lr: [0.001, 0.003]}; each combination is a "
        "candidate, which every compared run trains once.",
    )
    seed: Integer = field(0, "Seed with which the candidates are trained.", ge=0)
    fold: Literal["first", "each"] = field(
        "first",
        "Fold whose validation score chooses: the first one's for all folds, or each fold's own, which costs as many "
        "searches as there are folds and keeps every test parent out of the choice that its fold trains with.",
    )

    @property
    def candidates(self) -> tuple[dict[str, Any], ...]:
        """Settings to try, each by dotted key: every combination of the grid, the last key's values changing first."""
        if not self.grid:
            return ()
        return tuple(dict(zip(self.grid, point, strict=True)) for point in itertools.product(*self.grid.values()))
