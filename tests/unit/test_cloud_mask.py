"""Which pixels do not show the ground: by scene classification, by cloud probability, and around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cityheads.config import CloudMaskConfig
from cityheads.dataset.cloud_mask import HIDDEN, cloud_mask

CODES = np.arange(12, dtype=np.uint8).reshape(3, 4)
ALL = np.ones((3, 4), bool)


def reasons(mask: np.ndarray) -> list[str]:
    names = {value: reason for reason, value in HIDDEN.items()} | {0: ""}
    return [names[value] for value in mask.ravel().tolist()]


def mask_of(
    scl: np.ndarray | None = None, percent: np.ndarray | None = None, *, data: np.ndarray | None = None, **rule: Any
) -> np.ndarray:
    shape = next(array.shape for array in (scl, percent, data) if array is not None)
    return cloud_mask(CloudMaskConfig(**rule), np.ones(shape, bool) if data is None else data, scl, percent, 10.0)


def test_each_class_of_the_scene_classification_means_what_the_product_says() -> None:
    assert reasons(mask_of(CODES)) == [
        "no_data", "saturated", "", "shadow", "", "", "", "", "cloud", "cloud", "cloud", "",
    ]  # fmt: skip
    assert reasons(mask_of(CODES, scl_classes=("snow_or_ice", "thin_cirrus"))) == [*[""] * 10, "cloud", "other"]
    assert not mask_of(CODES, enabled=False).any()


def test_pixels_without_data_are_hidden_also_without_a_classification() -> None:
    data = ALL.copy()
    data[1, 2] = False
    assert np.argwhere(mask_of(data=data)).tolist() == [[1, 2]]
    assert not mask_of(data=data, enabled=False).any()


@pytest.mark.parametrize(("threshold", "hidden"), [(50.0, [50, 100]), (20.0, [20, 49, 50, 100])])
def test_cloud_probability_hides_from_its_threshold_on(threshold: float, hidden: list[int]) -> None:
    percent = np.array([[0, 20, 49], [50, 100, 19]], np.uint8)
    mask = mask_of(np.full((2, 3), 4, np.uint8), percent, min_cloud_probability_percent=threshold)
    assert sorted(percent[mask > 0].tolist()) == hidden
    assert set(reasons(mask)) == {"", "cloud"}


def test_only_cloud_and_shadow_are_dilated_in_metres_all_around() -> None:
    scl = np.full((11, 15), 5, np.uint8)
    scl[5, 4], scl[0, 14] = 9, 1
    mask = mask_of(scl, dilation_m=20)
    rows, columns = np.mgrid[0:11, 0:15]
    disc = (rows - 5) ** 2 + (columns - 4) ** 2 <= 4
    assert np.array_equal(mask == HIDDEN["near_cloud"], disc & (scl == 5))
    assert mask[5, 4] == HIDDEN["cloud"]
    assert mask[0, 14] == HIDDEN["saturated"]
    assert np.count_nonzero(mask) == disc.sum() + 1


def test_small_groups_are_roofs_and_not_clouds() -> None:
    scl = np.full((8, 8), 5, np.uint8)
    scl[0, 0] = scl[1, 1] = 8  # one group over the corner: 200 m2
    scl[5:7, 5:7] = 9
    scl[7, 7] = 3  # touches it: 500 m2 with the shadow
    mask = mask_of(scl, smallest_m2=500, dilation_m=10)
    assert not mask[:3, :3].any()
    assert (mask[5:7, 5:7] == HIDDEN["cloud"]).all()
    assert mask[7, 7] == HIDDEN["shadow"]
    assert mask[5, 4] == HIDDEN["near_cloud"]
    assert np.count_nonzero(mask_of(scl, smallest_m2=501)) == 0
