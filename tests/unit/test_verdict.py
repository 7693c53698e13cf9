"""The rule of the non-inferiority test as a rule, on deltas and on intervals, and its examples in the documentation."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cityheads.evaluation.bootstrap import t_quantile
from cityheads.evaluation.crossed import Effect
from cityheads.evaluation.power import Outlook
from cityheads.evaluation.verdict import (
    HEADLINE,
    INCONCLUSIVE,
    MEANING,
    NO_EVIDENCE,
    VERDICTS,
    Margins,
    judged,
    more_data,
    rule,
    simultaneous,
    verdict_of,
    verdict_range,
)

LIMITS = Margins(1.0, 3.0)
PP = st.floats(-12, 12).map(lambda value: round(value, 2))
DELTAS = st.lists(PP, min_size=1, max_size=4)


# --- the rule ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deltas", "verdict"),
    [
        ((0.0, 0.0), "strong"),
        ((-1.0, -1.0), "strong"),
        ((5.0, -1.01), "acceptable"),
        ((-3.0, 3.0), "acceptable"),
        ((-3.0, 2.99), "mixed"),
        ((-3.01, 9.0), "mixed"),
        ((-2.0, -2.0), "mixed"),
        ((-3.0, -2.99), "mixed"),
        ((-3.0, -3.0), "negative"),
        ((-1.0,), "strong"),
        ((-2.0,), "mixed"),
        ((-3.0,), "negative"),
        # three heads: what two lose, the third must gain
        ((-2.0, -2.0, 4.0), "acceptable"),
        ((-2.0, -2.0, 3.9), "mixed"),
        ((-3.0, -4.0, -5.0), "negative"),
        ((-3.0, -4.0, 5.0), "mixed"),
    ],
)
def test_rule(deltas: tuple[float, ...], verdict: str) -> None:
    assert verdict_of(deltas, sum(deltas), LIMITS) == verdict


@given(PP, PP)
def test_rule_for_two_heads_is_the_one_that_was_written_down(one: float, two: float) -> None:
    verdict = verdict_of((one, two), one + two, LIMITS)
    loss, gain = -min(one, two), max(one, two)
    if one >= -1 and two >= -1:
        assert verdict == "strong"
    elif loss <= 3 and gain >= loss:
        assert verdict == "acceptable"
    elif one <= -3 and two <= -3:
        assert verdict == "negative"
    else:
        assert verdict == "mixed"


@given(DELTAS, st.randoms())
def test_rule_does_not_see_the_order_of_heads(deltas: list[float], random: Any) -> None:
    shuffled = list(deltas)
    random.shuffle(shuffled)
    total = math.fsum(deltas)
    assert verdict_of(deltas, total, LIMITS) == verdict_of(shuffled, total, LIMITS)


@given(DELTAS, st.lists(st.floats(0, 5), min_size=4, max_size=4), st.floats(0, 4), st.floats(0, 4))
def test_a_better_delta_never_earns_a_worse_verdict(
    deltas: list[float], gains: list[float], strong: float, more: float
) -> None:
    limits = Margins(strong, strong + more)
    better = [delta + gain for delta, gain in zip(deltas, gains, strict=False)]
    before, after = verdict_of(deltas, sum(deltas), limits), verdict_of(better, sum(better), limits)
    assert VERDICTS.index(after) >= VERDICTS.index(before)


# --- intervals -----------------------------------------------------------------------------------------------------


def estimate(point: float, half: float, parents: int = 6, seeds: int = 3, training: float = 0.0) -> Effect:
    """Give an effect whose 95 % interval reaches ``half`` to both sides, of parents alone but for ``training`` (pp)."""
    error = half / t_quantile(0.975, parents - 1)
    signs = np.where(np.arange(parents) % 2, 1.0, -1.0)
    influence = np.tile(error * signs / math.sqrt(parents), (seeds, 1))
    shape = np.eye(parents) - 1 / parents
    models = point + training * np.linspace(-1, 1, seeds)[None]
    return Effect(point, influence, shape, models, np.ones(1), np.full((seeds, 1), math.nan), np.eye(1))


@pytest.mark.parametrize(
    ("deltas", "total", "ends"),
    [
        # strong needs the lower ends, and only these: an upper end far up changes nothing
        ([(0.5, 1.4), (6.0, 6.9)], (6.5, 7.0), ("strong", "strong")),
        ([(0.5, 1.6), (6.0, 4.0)], (6.5, 4.4), ("acceptable", "strong")),
        ([(0.5, 1.6), (6.0, 4.0)], (6.5, 6.6), ("mixed", "strong")),
        # acceptable: inside [-3, -1) with a sum that stays above 0
        ([(-2.0, 0.6), (5.0, 1.0)], (3.0, 1.5), ("acceptable", "acceptable")),
        ([(-2.0, 0.6), (2.5, 1.0)], (0.5, 1.0), ("mixed", "acceptable")),
        # what strong may do with a plain interval, the others may not
        ([(-2.0, 0.9), (5.0, 1.0)], (3.0, 1.5), ("mixed", "strong")),
        # negative needs the upper ends
        ([(-4.0, 0.7), (-5.0, 1.4)], (-9.0, 2.0), ("negative", "negative")),
        ([(-4.0, 0.9), (-5.0, 1.4)], (-9.0, 2.0), ("negative", "mixed")),
        # mixed: one head surely beyond -3, another surely not
        ([(-6.0, 2.0), (4.0, 3.0)], (-2.0, 4.0), ("mixed", "mixed")),
    ],
)
def test_verdict_stands_when_both_ends_earn_it(
    deltas: list[tuple[float, float]], total: tuple[float, float], ends: tuple[str, str]
) -> None:
    assert verdict_range([estimate(*delta) for delta in deltas], estimate(*total), LIMITS, 0.95) == ends


def test_simultaneous_intervals_share_the_error() -> None:
    assert simultaneous(0.95, 1) == 0.95
    assert simultaneous(0.95, 2) == pytest.approx(1 - 0.05 / 3)
    assert simultaneous(0.9, 3) == pytest.approx(1 - 0.1 / 4)


@settings(deadline=None)
@given(st.lists(st.tuples(PP, st.floats(0, 8)), min_size=1, max_size=3), st.floats(0, 8))
def test_the_point_verdict_lies_between_the_ends(deltas: list[tuple[float, float]], half: float) -> None:
    total = round(sum(point for point, _ in deltas), 2)
    ends = verdict_range([estimate(*delta) for delta in deltas], estimate(total, half), LIMITS, 0.95)
    assert ends is not None
    worst, best = (VERDICTS.index(end) for end in ends)
    assert worst <= VERDICTS.index(verdict_of([point for point, _ in deltas], total, LIMITS)) <= best


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(PP, st.floats(0.5, 8)), min_size=2, max_size=2), st.integers(3, 8))
def test_advice_names_the_smallest_number_of_parents_that_decides_it(
    deltas: list[tuple[float, float]], parents: int
) -> None:
    found = [estimate(*delta, parents) for delta in deltas]
    total = estimate(round(sum(point for point, _ in deltas), 2), deltas[0][1] + deltas[1][1], parents)
    ends = verdict_range(found, total, LIMITS, 0.95)
    assume(ends is not None and ends[0] != ends[1])
    advice = more_data(found, total, LIMITS, 0.95)

    def decided(number: int) -> bool:
        def more(one: Effect) -> Effect:
            return estimate(one.point, Outlook.of(one).half_width(number, 3, 0.95), number)

        many = verdict_range([more(one) for one in found], more(total), LIMITS, 0.95)
        return many is not None and many[0] == many[1]

    if "more test parent" not in advice:
        assert not decided(1000)
    else:
        enough = int(advice.split("(")[1].split()[0])
        assert decided(enough)
        assert enough == parents + 1 or not decided(enough - 1)
        assert f"{enough - parents} more test parent" in advice


def test_advice_may_be_more_seeds() -> None:
    noisy = [estimate(0.0, 0.02, training=1.0), estimate(2.0, 0.02)]
    advice = more_data(noisy, estimate(2.0, 0.02), LIMITS, 0.95)
    assert "more seeds" in advice
    assert "parent" not in advice


@pytest.mark.parametrize(
    ("seeds", "folds", "ends", "verdict"),
    [
        (3, 1, ("strong", "strong"), "strong"),
        (3, 1, ("mixed", "strong"), INCONCLUSIVE),
        (3, 1, None, INCONCLUSIVE),
        (1, 1, ("strong", "strong"), INCONCLUSIVE),
        (1, 1, ("negative", "negative"), INCONCLUSIVE),
        (1, 3, ("strong", "strong"), INCONCLUSIVE),
        (1, 3, ("acceptable", "acceptable"), INCONCLUSIVE),
        (1, 3, ("negative", "negative"), "negative"),
    ],
)
def test_one_seed_never_says_that_sharing_is_harmless(
    seeds: int, folds: int, ends: tuple[str, str] | None, verdict: str
) -> None:
    one = estimate(0.0, 1.0, seeds=seeds)
    influence = np.array([[0.1, -0.2, 0.1]]) if folds > 1 else one.fold_influence
    one = replace(one, models=np.zeros((folds, seeds)), fold_influence=influence, fold_shape=np.eye(folds))
    assert judged([one], ends) == verdict


def test_every_verdict_has_its_words() -> None:
    assert set(MEANING) == set(HEADLINE) == set(rule(LIMITS)) == {*VERDICTS, INCONCLUSIVE, NO_EVIDENCE}
    assert rule(LIMITS)["acceptable"] == "every delta is at least -3 pp, and their sum is not negative"


# --- the documentation ---------------------------------------------------------------------------------------------


def rows_of(page: str, heading: str) -> list[list[str]]:
    """Give the body rows of the table whose header line starts with ``heading``."""
    lines = page.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(heading)) + 2
    body = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]


def test_worked_examples_of_the_documentation_are_true(repository: Path) -> None:
    page = (repository / "docs" / "verdict.md").read_text()
    rows = rows_of(page, "| deltas (pp)")
    assert len(rows) == 8
    for deltas, balance, verdict, _ in rows:
        values = [float(one) for one in deltas.split(",")]
        assert round(sum(values), 2) == float(balance)
        assert verdict_of(values, float(balance), LIMITS) == verdict, deltas
    rows = rows_of(page, "| head A (pp)")
    assert len(rows) == 7
    for *cells, low, high, verdict in rows:
        numbers = [[float(one) for one in cell.replace("[", " ").replace("]", " ").replace(",", " ").split()]
                   for cell in cells]  # fmt: skip
        assert all(lower <= point <= upper for point, lower, upper in numbers)
        for column, expected in ((1, low), (2, high)):
            assert verdict_of([numbers[0][column], numbers[1][column]], numbers[2][column], LIMITS) == expected
        assert verdict == (low if low == high else "inconclusive")


def test_advice_of_the_documentation_is_true() -> None:
    found = [estimate(0.53, 2.46, 5)]
    assert "4 more test parents (9 in all)" in more_data(found, found[0], LIMITS, 0.95)
