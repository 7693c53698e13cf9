"""Class colours can be told apart by everyone: CIEDE2000 between all pairs under simulated colour vision deficiency."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

from cityheads.config import load_config, read_yaml
from cityheads.product.figures import style

#: Complete deficiency (severity 1.0), on linear RGB: Machado, Oliveira and Fernandes, "A Physiologically-based Model
#: for Simulation of Color Vision Deficiency", IEEE TVCG 15 (2009), as published with the paper.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}

#: Two patches this far apart differ at a glance; about 2 can just be told apart side by side.
LEAST = 15.0

#: All but those that are laid over another one.
CONFIGS = [
    path for path in sorted((Path(__file__).parents[2] / "config").glob("*.yaml")) if "labels" in read_yaml(path)
]


def seen(color: str, vision: str) -> np.ndarray:
    """Give a colour in CIE L*a*b* as somebody sees it, (3,)."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(VISION[vision] @ linear, 0, 1)
    back = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    lab: np.ndarray = rgb2lab(back)
    return lab


def nearest(colors: dict[str, str], vision: str) -> tuple[float, str, str]:
    """Give the distance of the two colours that are nearest to each other, and their names."""
    return min(
        (float(deltaE_ciede2000(seen(colors[one], vision), seen(colors[two], vision))), one, two)
        for one, two in itertools.combinations(colors, 2)
    )


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_classes_of_a_config_are_clearly_apart(path: Path, vision: str) -> None:
    labels = load_config(path).labels
    colors = {f"{label}: {item.name}": item.color for label, rule in labels.items() for item in rule.classes}
    distance, *pair = nearest(colors, vision)
    assert distance >= LEAST, pair


@pytest.mark.parametrize("vision", VISION)
def test_errors_are_apart_by_colour_and_by_hatch(vision: str) -> None:
    distance, *pair = nearest({name: color for name, (color, _) in style.ERRORS.items()}, vision)
    assert distance >= LEAST, pair
    looks = {(hatch, round(style.luminance(color), 1)) for color, hatch in style.ERRORS.values()}
    assert len(looks) == len(style.ERRORS), "also in print without colours"


def test_the_measure_finds_what_looks_alike() -> None:
    assert nearest({"developed": "#c8574d", "forest": "#2e7d4f"}, "protanopia")[0] < 5
    assert nearest({"developed": "#c8574d", "forest": "#2e7d4f"}, "normal")[0] > 40
