"""How often the intervals of the verdict hold the truth, how wide they are, and how often the verdict is wrong.

Worlds of which the truth is known stand in for the trainings: parents of unequal size with classes of their own
shares, a difficulty of each parent that both models feel, and errors of each trained model that all of its parents
feel. Every row of the tables is that many made-up experiments. Run as it stands::

    python benchmarks/bench_verdict.py [--quick]

``--quick`` takes fewer experiments, for the test that runs it.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cityheads.core.confusion import HeadMetric
from cityheads.evaluation.bootstrap import resample_counts
from cityheads.evaluation.crossed import Effect, crossed, total
from cityheads.evaluation.permutation import sign_flip
from cityheads.evaluation.power import power_of
from cityheads.evaluation.verdict import INCONCLUSIVE, VERDICTS, Margins, judged, verdict_range

LANDCOVER = HeadMetric.of("miou", ("water", "developed", "forest", "herbaceous", "other"))
BUILDINGS = HeadMetric.of("iou", ("not building", "building"), "building")

#: Mean shares of the classes, and mean share of their pixels that a model finds.
SHARES = {"miou": (0.08, 0.3, 0.32, 0.22, 0.08), "iou": (0.85, 0.15)}
RECALL = {"miou": (0.93, 0.88, 0.9, 0.82, 0.7), "iou": (0.95, 0.72)}

CONFIDENCE = 0.95


@dataclass(frozen=True)
class World:
    """Where experiments are drawn from.

    Attributes:
        name: For the table.
        sizes: Spread (standard deviation of the logarithm) of the parents' numbers of labelled pixels.
        mixing: Concentration of the class shares of a parent (Dirichlet): small makes parents differ.
        presence: Share of the parents that hold the last class at all.
        difficulty: Spread between parents that both models feel, in logits of the share found, as all below.
        response: Spread between parents of the difference between the models.
        noise: Spread between trainings.
        common: Share of the trainings' variance that the folds of one seed have in common.
        shift: Lead of the first model over the second.
    """

    name: str
    sizes: float = 0.0
    mixing: float = 8.0
    presence: float = 1.0
    difficulty: float = 0.6
    response: float = 0.12
    noise: float = 0.0
    common: float = 0.0
    shift: float = 0.0


@dataclass(frozen=True)
class Design:
    """How an experiment is made: ``parents`` in ``folds``, each tested with every one of ``seeds``."""

    parents: int
    folds: int
    seeds: int

    def fold_of(self) -> list[int]:
        """Give the fold of each parent."""
        return [parent % self.folds for parent in range(self.parents)]


def draw_parents(
    rng: np.random.Generator, world: World, metric: HeadMetric, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw parents: labelled pixels (..., C), difficulty (..., C) and difference between the models (..., C)."""
    base = np.array(SHARES[metric.name])
    shares = rng.gamma(world.mixing * base, size=(*shape, base.size)) + 1e-9
    if metric.name == "miou":
        shares[..., -1] *= rng.random(shape) < world.presence
    elif world.presence < 1:
        shares[..., 1] *= rng.random(shape) < world.presence
    shares /= shares.sum(-1, keepdims=True)
    pixels = 40_000 * np.exp(world.sizes * rng.normal(size=shape))[..., None] * shares
    both = rng.normal(size=(*shape, 1)) * 0.8 + rng.normal(size=pixels.shape) * 0.6
    apart = rng.normal(size=(*shape, 1)) * 0.6 + rng.normal(size=pixels.shape) * 0.8
    return np.rint(pixels), world.difficulty * both, world.response * apart


def draw_noise(rng: np.random.Generator, world: World, classes: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Draw what each training adds, (2, trials, folds, seeds, C): partly to all classes alike."""
    trials, folds, seeds = shape

    def part(number: int) -> np.ndarray:
        alike = rng.normal(size=(2, trials, number, seeds, 1))
        return 0.6 * alike + 0.8 * rng.normal(size=(2, trials, number, seeds, classes))

    return world.noise * (math.sqrt(1 - world.common) * part(folds) + math.sqrt(world.common) * part(1))


def confusions(pixels: np.ndarray, logits: np.ndarray, metric: HeadMetric) -> np.ndarray:
    """Give counts (..., C, C) from labelled pixels (..., C) and what is added to the logits of the share found."""
    recall = np.array(RECALL[metric.name])
    base = np.array(SHARES[metric.name])
    found = 1 / (1 + np.exp(-(np.log(recall / (1 - recall)) + logits)))
    # what is missed goes to the other classes in proportion to how common these are
    errors = np.tile(base, (base.size, 1))
    np.fill_diagonal(errors, 0)
    errors /= errors.sum(1, keepdims=True)
    counts = (pixels * (1 - found))[..., None] * errors
    index = np.arange(base.size)
    counts[..., index, index] = pixels * found
    return counts


def experiments(
    rng: np.random.Generator, world: World, metric: HeadMetric, design: Design, trials: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw experiments: counts of both models (trials, seeds, parents, C, C), and their noise as `draw_noise`."""
    pixels, both, apart = draw_parents(rng, world, metric, (trials, design.parents))
    noise = draw_noise(rng, world, pixels.shape[-1], (trials, design.folds, design.seeds))
    # how a parent takes a training is its own in part
    own = world.noise * 0.5 * rng.normal(size=(2, trials, design.seeds, *pixels.shape[1:]))
    models = []
    for number, sign in ((0, 0.5), (1, -0.5)):
        of_parent = noise[number][:, design.fold_of()].transpose(0, 2, 1, 3)
        logits = (both + sign * (apart + world.shift))[:, None] + of_parent + own[number]
        models.append(np.rint(confusions(pixels[:, None], logits, metric)))
    return models[0], models[1], noise


class Truth:
    """The expected difference of a world, from many parents and trainings."""

    def __init__(
        self, world: World, metric: HeadMetric, folds: int, *, parents: int = 2000, trainings: int = 40
    ) -> None:
        rng = np.random.default_rng(987)
        self.world, self.metric, self.folds = world, metric, folds
        self.parents = draw_parents(rng, world, metric, (parents,))
        self.own = world.noise * 0.5 * rng.normal(size=(2, parents, self.parents[0].shape[-1]))
        # antithetic: each draw of noise also with its sign turned
        noise = draw_noise(rng, world, self.parents[0].shape[-1], (trainings, folds, 1))
        self.noise = np.concatenate([noise, -noise], axis=1)
        self.member = np.arange(parents) % folds

    def given(self, noise: np.ndarray, shift: float) -> np.ndarray:
        """Give the differences in pp (trials,) of models with this noise (2, trials, folds, seeds, C), over seeds."""
        pixels, both, apart = self.parents
        out = np.zeros(noise.shape[1])
        for trial in range(noise.shape[1]):
            for seed in range(noise.shape[3]):
                for number, sign in ((0, 0.5), (1, -0.5)):
                    logits = both + sign * (apart + shift) + noise[number, trial, self.member, seed] + self.own[number]
                    counts = confusions(pixels, logits, self.metric).sum(0)
                    out[trial] += 2 * sign * 100 * float(self.metric(counts)) / noise.shape[3]
        return out

    def __call__(self, shift: float) -> float:
        """Give the expected difference in pp."""
        few = self.noise if self.world.noise else self.noise[:, :1]
        return float(self.given(few, shift).mean())


# --- coverage ------------------------------------------------------------------------------------------------------

WORLDS = (
    World("alike", mixing=60),
    World("unequal", sizes=0.8, mixing=4),
    World("absent", sizes=0.8, mixing=4, presence=0.5),
)
NOISES = {"none": 0.0, "some": 0.1, "much": 0.4}
DESIGNS = (
    Design(5, 1, 1),
    Design(5, 1, 3),
    Design(22, 1, 3),
    Design(22, 5, 1),
    Design(22, 5, 2),
    Design(22, 5, 3),
    Design(22, 5, 5),
)


@dataclass(frozen=True)
class Covered:
    """One row of the table of coverage; widths are medians in pp.

    Attributes:
        about: What the interval is asked to hold: the expected difference of ``any`` training or of ``these`` models.
        told: Share of the experiments with an interval.
        ideal: Width of the interval of somebody who knows the variance.
    """

    metric: str
    world: str
    noise: str
    design: Design
    about: str
    told: float
    coverage: float
    width: float
    bootstrap_coverage: float
    bootstrap_width: float
    ideal: float


def percentiles(first: np.ndarray, second: np.ndarray, metric: HeadMetric, draws: np.ndarray) -> tuple[float, float]:
    """Give the naive interval: percentiles of resampled parents, the trained models taken as they are."""
    seeds, parents = first.shape[:2]
    both = np.concatenate([first, second]).transpose(1, 0, 2, 3)
    pooled = (draws @ both.reshape(parents, -1)).reshape(-1, 2, seeds, *first.shape[2:])
    scores = metric(pooled).mean(-1)
    low, high = np.nanquantile(100 * (scores[:, 0] - scores[:, 1]), [0.025, 0.975])
    return float(low), float(high)


def coverage(metric: HeadMetric, world: World, noise: str, designs: Sequence[Design], trials: int) -> Iterator[Covered]:
    """Run the experiments of one world with every design."""
    world = replace(world, noise=NOISES[noise])
    truths = {folds: Truth(world, metric, folds) for folds in {design.folds for design in designs}}
    expected = {folds: truth(0.0) for folds, truth in truths.items()}
    for design in designs:
        first, second, drawn = experiments(np.random.default_rng(5), world, metric, design, trials)
        draws = resample_counts(design.parents, 200, 0).astype(np.float64)
        whole = expected[design.folds]
        # one seed on one fold: the interval is about the trained models at hand
        conditional = design.seeds == 1 and design.folds == 1 and world.noise > 0
        these = truths[design.folds].given(drawn, 0.0) if conditional else np.full(trials, whole)
        rows = []
        for trial in range(trials):
            effect = crossed(first[trial], second[trial], metric, design.fold_of())
            found = effect.interval(CONFIDENCE)
            if found is not None:
                rows.append(
                    (*found, *percentiles(first[trial], second[trial], metric, draws), effect.point, these[trial])
                )
        low, high, naive_low, naive_high, points, targets = np.array(rows).T if rows else np.full((6, 1), math.nan)
        for about, target in (("these", targets), ("any", np.full_like(targets, whole))):
            if about == "these" and not conditional:
                continue
            yield Covered(
                metric.name,
                world.name,
                noise,
                design,
                about,
                len(rows) / trials,
                float(np.mean((low <= target) & (target <= high))),
                float(np.median(high - low)),
                float(np.mean((naive_low <= target) & (target <= naive_high))),
                float(np.median(naive_high - naive_low)),
                2 * 1.96 * float(np.sqrt(np.mean((points - target) ** 2))),
            )


# --- verdicts ------------------------------------------------------------------------------------------------------

MARGINS = Margins(1.0, 3.0)
#: The world of the verdicts: parents that differ, models that differ little between parents.
CITY = World("city", sizes=0.5, mixing=12, response=0.06)
TRAININGS = {"none": 0.0, "some": 0.03, "much": 0.15}
#: True deltas of the two heads, and the verdict that is true of them; some lie just beyond a margin.
TRUE_DELTAS = {
    (0.0, 0.0): "strong",
    (-0.5, 2.0): "strong",
    (-1.05, 0.0): "mixed",
    (-2.0, 4.0): "acceptable",
    (-2.0, -2.0): "mixed",
    (-2.95, -6.0): "mixed",
    (-6.0, -6.0): "negative",
}


@dataclass(frozen=True)
class Judged:
    """One row of the table of verdicts: how often each was given."""

    deltas: tuple[float, float]
    noise: str
    design: Design
    rates: dict[str, float]


def shifts(metric: HeadMetric, world: World, folds: int, targets: Sequence[float]) -> list[float]:
    """Give the leads of the first model, in logits, that make these true differences in pp."""
    truth = Truth(world, metric, folds, trainings=20)
    grid = np.linspace(-0.8, 0.6, 8)
    return [float(one) for one in np.interp(targets, [truth(float(shift)) for shift in grid], grid)]


def verdicts(noise: str, designs: Sequence[Design], trials: int) -> Iterator[Judged]:
    """Judge experiments on two heads with known true deltas."""
    world = replace(CITY, noise=TRAININGS[noise])
    wanted = [sorted({deltas[head] for deltas in TRUE_DELTAS}) for head in (0, 1)]
    for design in designs:
        leads = [
            dict(zip(wanted[head], shifts(metric, world, design.folds, wanted[head]), strict=True))
            for head, metric in enumerate((LANDCOVER, BUILDINGS))
        ]
        effects: list[dict[float, list[Effect]]] = []
        for head, metric in enumerate((LANDCOVER, BUILDINGS)):
            effects.append({})
            for delta, lead in leads[head].items():
                rng = np.random.default_rng(100 + head)
                first, second, _ = experiments(rng, replace(world, shift=lead), metric, design, trials)
                effects[head][delta] = [
                    crossed(*pair, metric, design.fold_of()) for pair in zip(first, second, strict=True)
                ]
        for deltas in TRUE_DELTAS:
            given = []
            for pair in zip(effects[0][deltas[0]], effects[1][deltas[1]], strict=True):
                ends = verdict_range(pair, total(pair), MARGINS, CONFIDENCE)
                given.append(judged(pair, ends))
            rates = {name: given.count(name) / trials for name in (*VERDICTS, INCONCLUSIVE)}
            yield Judged(deltas, noise, design, rates)


# --- power and the permutation test --------------------------------------------------------------------------------


def planned(noise: str, design: Design, trials: int) -> tuple[float, float, float]:
    """Give the median of the stated detectable difference in pp, and how often it was seen when it was the truth.

    Third: how often the sign-flip test gave p <= 0.05 when there was no difference.
    """
    world = replace(CITY, noise=TRAININGS[noise])
    zero, *_ = shifts(LANDCOVER, world, design.folds, [0.0])
    first, second, _ = experiments(np.random.default_rng(7), replace(world, shift=zero), LANDCOVER, design, trials)
    stated, small = [], 0
    for pair in zip(first, second, strict=True):
        power = power_of(crossed(*pair, LANDCOVER, design.fold_of()), CONFIDENCE, ())
        stated.append(power["detectable_pp"] or math.nan)
        test = sign_flip(*pair, LANDCOVER, 500, 0)
        small += test is not None and test["p"] <= 0.05
    typical = float(np.nanmedian(stated))
    (lead,) = shifts(LANDCOVER, world, design.folds, [-typical])
    first, second, _ = experiments(np.random.default_rng(8), replace(world, shift=lead), LANDCOVER, design, trials)
    seen = 0
    for pair in zip(first, second, strict=True):
        found = crossed(*pair, LANDCOVER, design.fold_of()).interval(CONFIDENCE)
        seen += found is not None and found[1] < 0
    return typical, seen / trials, small / trials


# --- the tables ----------------------------------------------------------------------------------------------------


def table(heading: str, rows: Iterator[Sequence[object]]) -> None:
    """Print a Markdown table; columns whose heading ends in a colon are flush right."""
    names = heading.split(" | ")
    print(f"| {' | '.join(name.rstrip(':') for name in names)} |")
    print(f"|{'|'.join('---:' if name.endswith(':') else '---' for name in names)}|")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print()


def percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def coverage_rows(rows: Sequence[Covered]) -> Iterator[Sequence[object]]:
    """Give, of each design and noise, the worst coverage over worlds and metrics, and medians of the widths."""
    for key in dict.fromkeys((row.design, row.noise, row.about) for row in rows):
        mine = [row for row in rows if (row.design, row.noise, row.about) == key]
        design, noise, about = key
        widths = [np.median([getattr(row, name) for row in mine]) for name in ("width", "ideal", "bootstrap_width")]
        yield (
            design.parents, design.folds, design.seeds, noise, about,
            percent(float(np.mean([row.told for row in mine])), 0),
            percent(min(row.coverage for row in mine)), f"{widths[0]:.1f}", f"{widths[1]:.1f}",
            percent(min(row.bootstrap_coverage for row in mine), 0), f"{widths[2]:.1f}",
        )  # fmt: skip


def verdict_rows(rows: Sequence[Judged], designs: Sequence[Design]) -> Iterator[Sequence[object]]:
    """Give how often the true verdict was given with each number of seeds, and a false one at most."""
    for noise in TRAININGS:
        for deltas, truth in TRUE_DELTAS.items():
            mine = {row.design: row.rates for row in rows if (row.deltas, row.noise) == (deltas, noise)}
            false = max(
                sum(rate for word, rate in rates.items() if word not in (truth, INCONCLUSIVE))
                for rates in mine.values()
            )
            right = [percent(mine[design][truth], 0) for design in designs]
            yield noise, f"{deltas[0]:+g}, {deltas[1]:+g}", truth, *right, percent(false)


def power_rows(designs: Sequence[Design], trials: int) -> Iterator[Sequence[object]]:
    """Give what is stated as detectable, and how often it was seen."""
    for design in designs:
        for noise in TRAININGS:
            stated, seen, small = planned(noise, design, trials)
            yield design.parents, design.folds, design.seeds, noise, f"{stated:.2f}", percent(seen, 0), percent(small)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; returns 1 when an interval covers too rarely or a false verdict is too frequent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer experiments and designs")
    parser.add_argument("--rows", action="store_true", help="also every world and metric of the first table")
    arguments = parser.parse_args(argv)
    begun = time.perf_counter()
    quick = arguments.quick
    trials = 60 if quick else 400
    designs = (DESIGNS[1], DESIGNS[5]) if quick else DESIGNS
    judging = (Design(22, 5, 3),) if quick else tuple(Design(22, 5, seeds) for seeds in (1, 2, 3, 5))
    print(
        f"Coverage of {100 * CONFIDENCE:g} % intervals of the difference; {trials} experiments a row; widths in pp.\n"
    )
    covered = [
        row
        for metric in (LANDCOVER, BUILDINGS)
        for world in (WORLDS[1:2] if quick else WORLDS)
        for noise in NOISES
        for row in coverage(metric, world, noise, designs, trials)
    ]
    covered.sort(key=lambda row: (DESIGNS.index(row.design), list(NOISES).index(row.noise), row.about))
    if arguments.rows:
        print(*covered, "", sep="\n")
    table(
        "parents: | folds: | seeds: | training noise | about | given: | coverage, worst: | width: | ideal: "
        "| bootstrap, worst: | its width:",
        coverage_rows(covered),
    )
    print(
        f"Verdicts on two heads (22 parents, 5 folds, margins 1 and 3 pp); {trials} experiments; "
        "the rest is inconclusive.\n"
    )
    found = [row for noise in TRAININGS for row in verdicts(noise, judging, trials)]
    table(
        f"training noise | true (pp) | true verdict | {' | '.join(f'given, {one.seeds} seeds:' for one in judging)} "
        "| false, at most:",
        verdict_rows(found, judging),
    )
    if arguments.rows:
        print(*found, "", sep="\n")
    print("Smallest difference seen with 80 % power: as stated (median), and how often it was seen when it was true.\n")
    table(
        "parents: | folds: | seeds: | training noise | stated (pp): | seen: | sign flips, p <= 0.05 at no difference:",
        power_rows(judging if quick else (Design(5, 1, 3), *judging[1:]), trials),
    )
    print("Training noise that the folds of one seed have in common, which seeds - 1 degrees of freedom show.\n")
    alike = Design(22, 5, 3)
    table(
        "parents: | folds: | seeds: | in common: | coverage: | width: | ideal:",
        (
            (22, 5, 3, percent(common, 0), percent(row.coverage), f"{row.width:.1f}", f"{row.ideal:.1f}")
            for common in ((0.5,) if quick else (0.0, 0.25, 0.5, 1.0))
            for row in coverage(LANDCOVER, replace(WORLDS[1], common=common), "much", [alike], trials)
        ),
    )
    told = [row for row in covered if row.about == "these" or row.design != Design(5, 1, 1)]
    least = min(row.coverage for row in told)
    false = {
        word: max(row.rates[word] for row in found if TRUE_DELTAS[row.deltas] != word) for word in reversed(VERDICTS)
    }
    rates = ", ".join(f"{word} {percent(rate)}" for word, rate in false.items())
    print(f"Least coverage {percent(least)}; most frequent false verdicts: {rates}.")
    print(f"python benchmarks/bench_verdict.py{' --quick' * quick}: {time.perf_counter() - begun:.0f} s.")
    # more seeds must not make a true "strong" rarer
    order = [design.seeds for design in judging]
    for deltas, noise in ((deltas, noise) for deltas in TRUE_DELTAS for noise in TRAININGS):
        strong = [row.rates["strong"] for row in found if (row.deltas, row.noise) == (deltas, noise)]
        if TRUE_DELTAS[deltas] == "strong" and any(b < a - 0.03 for a, b in itertools.pairwise(strong)):
            print(f"Strong falls with the seeds {order}, {noise} noise, {deltas}: {strong}")
            return 1
    return 0 if least >= (0.85 if quick else 0.93) and max(false.values()) <= (0.1 if quick else 0.05) else 1


if __name__ == "__main__":
    sys.exit(main())
