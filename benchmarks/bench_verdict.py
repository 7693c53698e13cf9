"""How often the intervals of the verdict hold the truth, how wide they are, and how often the verdict is wrong.

Worlds of which the truth is known stand in for the trainings: parents of unequal size with classes of their own
shares, a difficulty of each parent that both models feel, and errors of each trained model that all of its parents
feel. Every row of the tables is that many made-up experiments. Run as it stands::

    python benchmarks/bench_verdict.py [--quick]

``--quick`` takes fewer experiments, for the test that runs it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cityheads.core.confusion import HeadMetric

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

    def fold_of(self) -> np.ndarray:
        """Give the fold of each parent, (parents,)."""
        return np.arange(self.parents) % self.folds


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

    def __init__(self, world: World, metric: HeadMetric, folds: int, *, parents: int = 1500, trainings: int = 150):
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
