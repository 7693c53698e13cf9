"""Sections ``evaluation`` and ``noninferiority``: what is measured on the test split, and what the verdict asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Ge, Gt
from pydantic import model_validator

from cityheads.config.base import Flag, Integer, Number, Section, Text, field, freeze, only_once, refuse

__all__ = ["EvaluationConfig", "NoninferiorityConfig"]


class EvaluationConfig(Section):
    """What is measured on the validation and test splits besides the scores."""

    modality_ablation: Flag = field(
        True,
        "Score every run once more for each modality that can be removed from its inputs. Costs one more pass over the "
        "test split for each.",
    )
    encoder_occlusion: Flag = field(
        True,
        "Score every run that has an encoder once more with the encoder's maps zeroed, with those of another sub-chip, "
        "and with the decoders' view of the image zeroed. Costs one more pass over the test split for each.",
    )
    windows_m: Annotated[tuple[Annotated[Number, Gt(0)], ...], only_once] = field(
        (100.0, 160.0, 500.0),
        "Class fractions, of which building density is one, are scored over squares of these sides and circles of "
        "these diameters, in metres. A window that does not fit inside a sub-chip is left out.",
    )
    min_labelled_fraction: Number = field(
        0.9, "Windows with a smaller share of labelled pixels are not scored.", gt=0, le=1
    )
    boundary_px: Annotated[tuple[Annotated[Integer, Ge(1)], ...], only_once] = field(
        (1, 3), "Outlines are scored with these tolerances, in pixels."
    )


class NoninferiorityConfig(Section):
    """The non-inferiority test of the multi-head run against its single-task baselines."""

    run: Text = field("multihead", "The run under test.")
    baselines: Annotated[Mapping[Text, Text], freeze] = field(
        {}, "Single-task run per head; a head that is not listed is compared with the run of its own name."
    )
    strong_margin_pp: Number = field(1.0, "Strong when no head loses more than this (percentage points).", ge=0)
    acceptable_margin_pp: Number = field(
        3.0,
        "Acceptable when one head loses at most this (percentage points) and another gains at least as much; negative "
        "when every head loses this or more. Not below strong_margin_pp.",
        ge=0,
    )
    confidence: Number = field(
        0.95, "Confidence of the intervals; the one-sided level of the test is half of what it leaves.", gt=0, lt=1
    )
    resamples: Integer = field(
        10_000,
        "Sign flips of the permutation test: all ways to swap the two models in some of the parents are counted if "
        "there are no more than this, and otherwise this many are drawn.",
        ge=100,
    )
    seed: Integer = field(0, "Seed of the drawn sign flips.", ge=0)

    @model_validator(mode="after")
    def _strong_asks_for_more(self) -> NoninferiorityConfig:
        if self.strong_margin_pp > self.acceptable_margin_pp:
            refuse(
                "strong_margin_pp",
                f"{self.strong_margin_pp:g} is above noninferiority.acceptable_margin_pp "
                f"({self.acceptable_margin_pp:g}); a strong verdict must ask for more than an acceptable one",
            )
        return self
