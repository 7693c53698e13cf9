"""Random numbers that depend on the place only: the same point of the map gets the same value in every raster.

Everything here is a function of (seed, name, coordinates), computed from integer hashes and element-wise sums. So
neighbouring rasters agree where they overlap, and the result does not depend on which process computes it, in which
order, or with how many threads (no linear-algebra library is called, whose sums depend on the thread count).
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["box_mean", "hash_uniform", "name_key", "noise", "rng_for"]

#: Standard deviation of a two-dimensional cubic B-spline of unit-variance coefficients: the mean over the cell of the
#: sum of the squared one-dimensional weights is 151 / 315, and the two dimensions multiply.
_SPLINE_STD = 151.0 / 315.0


def name_key(seed: int, *names: str) -> int:
    """Give the 64-bit key of a named random quantity."""
    return zlib.crc32("/".join(names).encode()) | ((seed & 0xFFFFFFFF) << 32)


def rng_for(seed: int, *names: str) -> np.random.Generator:
    """Give a generator of its own for each name, whatever else was drawn before."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def hash_uniform(key: int, *parts: ArrayLike) -> NDArray[np.float64]:
    """Give a uniform number in [0, 1) per element of the broadcast integer ``parts`` (splitmix64, Steele et al. 2014).

    Args:
        key: 64-bit key, see `name_key`.
        parts: Integers, scalars or arrays that broadcast against each other.
    """
    state: NDArray[np.uint64] = np.full(1, key, np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = _splitmix(state ^ (np.asarray(part, np.int64).astype(np.uint64) * np.uint64(0xD1342543DE82EF95)))
    shape = np.broadcast_shapes(*(np.shape(part) for part in parts))
    return np.asarray((state >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)


def _splitmix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def noise(
    seed: int, name: str, x: NDArray[np.float64], y: NDArray[np.float64], wavelength_m: float, octaves: int = 1
) -> NDArray[np.float32]:
    """Give a smooth random field of about zero mean and unit standard deviation on a grid of pixel centres.

    A cubic B-spline over random coefficients on a lattice that is fixed to the coordinates' origin; each further
    octave has half the wavelength and half the amplitude.

    Args:
        seed: Seed of the archive.
        name: Name of the field; another name gives an independent field.
        x: (W,) eastings of the columns, in metres.
        y: (H,) northings of the rows, in metres.
        wavelength_m: Distance from hill to hill, about.
        octaves: Number of scales.

    Returns:
        (H, W) float32.
    """
    total = np.zeros((len(y), len(x)), np.float32)
    power = 0.0
    for octave in range(octaves):
        step, amplitude = wavelength_m / 2.5 / 2**octave, 0.5**octave
        column, column_weights = _spline(x / step)
        row, row_weights = _spline(y / step)
        columns = np.arange(column.min(), column.max() + 4)
        rows = np.arange(row.min(), row.max() + 4)
        lattice = hash_uniform(name_key(seed, name, str(octave)), rows[:, None], columns[None, :])
        lattice = ((lattice - 0.5) * (np.sqrt(12.0) * amplitude / _SPLINE_STD)).astype(np.float32)
        row, column = row - rows[0], column - columns[0]
        across = sum(row_weights[k][:, None] * lattice[row + k] for k in range(4))
        for k in range(4):
            total += column_weights[k] * np.asarray(across)[:, column + k]
        power += amplitude**2
    return total / np.float32(np.sqrt(power))


def _spline(t: NDArray[np.float64]) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
    """Give the first of four lattice indices per point and the four cubic B-spline weights."""
    whole = np.floor(t)
    f = t - whole
    weights = [(1 - f) ** 3 / 6, (3 * f**3 - 6 * f**2 + 4) / 6, (-3 * f**3 + 3 * f**2 + 3 * f + 1) / 6, f**3 / 6]
    return whole.astype(np.int64) - 1, [weight.astype(np.float32) for weight in weights]


def box_mean(array: NDArray[np.float32], times: int = 1) -> NDArray[np.float32]:
    """Average over 3 x 3 cells, ``times`` times; the edge cells are repeated outwards."""
    for _ in range(times):
        for axis in (0, 1):
            padded = np.pad(array, [(1, 1) if k == axis else (0, 0) for k in range(2)], mode="edge")
            if axis == 0:
                array = (padded[:-2] + padded[1:-1] + padded[2:]) / np.float32(3)
            else:
                array = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / np.float32(3)
    return array
