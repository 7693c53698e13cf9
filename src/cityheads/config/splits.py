"""Section ``splits``: how whole parents are assigned to training, validation and test."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import model_validator

from cityheads.config.base import Flag, Integer, Number, Section, Text, field, named, only_once, refuse, section

__all__ = ["FractionsConfig", "SplitsConfig"]

_LOCK = named(
    "^[0-9a-f]{8}-[0-9a-f]{8}$", "a lock is two times 8 hexadecimal digits; take test_lock of dataset/0/splits.json"
)


class FractionsConfig(Section):
    """Share of the parents per split; the three sum to 1."""

    train: Number = field(0.6, "Share for training.", gt=0, lt=1)
    val: Number = field(0.15, "Share for choosing settings, epochs and thresholds.", gt=0, lt=1)
    test: Number = field(0.25, "Share for the evaluation.", gt=0, lt=1)

    @model_validator(mode="after")
    def _whole(self) -> FractionsConfig:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            refuse("", f"train, val and test must sum to 1, not {self.train + self.val + self.test:g}")
        return self


class SplitsConfig(Section):
    """How whole parents are assigned to train, val and test."""

    method: Literal["search", "folds", "region"] = field(
        "search",
        "search looks for the most balanced assignment, or takes the sheet's split column where it has one; folds "
        "is a cross-validation: every run is trained once per fold; region leaves one region of the sheet's region "
        "column out.",
    )
    fractions: FractionsConfig = section(FractionsConfig)
    seed: Integer = field(7, "Seed of the search for a balanced split.", ge=0)
    folds: Integer = field(
        5,
        "Number of folds (method folds). The parents are cut into as many groups: group K is the test split of fold K, "
        "the next one its val, the others its train. So every parent is tested in exactly one fold.",
        ge=3,
    )
    only_folds: Annotated[tuple[Annotated[Integer, Ge(0)], ...], only_once] | None = field(
        None,
        "Run these folds only, from 0 (method folds); null runs all of them. What is made for a fold does not depend "
        "on which others are run.",
        affects="nothing",
        min_length=1,
    )
    region: Text | None = field(None, "The region that is the test split (method region).")
    buffer_m: Number = field(
        100.0,
        "Training and validation sub-chips nearer than this to a parent of a split that is held out from them are "
        "dropped, in metres: by default those that touch it, or nearly so. 0 keeps them.",
        ge=0,
    )
    test_lock: Annotated[Text, _LOCK] | None = field(
        None,
        "What the test set is, as dataset/0/splits.json gives it: a hash of the test parents' places and one of their "
        "sub-chips and label pixels (method folds: of all parents, with their folds); another test set is then an "
        "error until this key says otherwise.",
    )
    require_every_class: Flag = field(
        True,
        "Fail when a split lacks a class of some label; false only warns, in the log and in the report.",
    )

    @model_validator(mode="after")
    def _method(self) -> SplitsConfig:
        if self.only_folds is not None:
            if self.method != "folds":
                refuse("only_folds", f"is for method folds, not {self.method}; remove it")
            if max(self.only_folds) >= self.folds:
                refuse("only_folds", f"{max(self.only_folds)} is not below splits.folds ({self.folds})")
        if self.method == "region" and not self.region:
            refuse("region", "name the region that method region leaves out")
        return self
