from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from model_fixtures import CHIP_PX, write_store

from cityheads.core.errors import CityHeadsError
from cityheads.dataset.datamodule import ChipDataModule, ChipDataset, EpochSampler, d4
from cityheads.dataset.store import ChipStore

LABELS = {"lulc": "LULC", "buildings": "BUILDINGS"}
MODALITIES = ["S2L2A", "S1RTC", "DEM"]


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("data") / "dataset")


def test_items_are_the_stored_values(dataset_dir: Path) -> None:
    data = ChipDataset(ChipStore(dataset_dir), [3, 0], MODALITIES, LABELS)
    item = data[1]
    stored = np.load(dataset_dir.parent / "store" / "S2L2A.npy")[0]
    assert item["image"]["S2L2A"].dtype == torch.float32
    assert np.array_equal(item["image"]["S2L2A"].numpy(), stored.astype(np.float32))
    assert torch.isnan(item["image"]["S1RTC"][:, :4, :4]).all()
    assert item["mask"]["lulc"].dtype == torch.int64
    assert item["mask"]["lulc"].shape == (CHIP_PX, CHIP_PX)
    assert item["mask"]["lulc"][0, 0] == 255
    assert item["chip_id"] == "P00_r0c0"


def test_the_eight_symmetries_are_all_different_and_keep_the_pixels() -> None:
    square = np.arange(9).reshape(3, 3)
    results = {d4(square, element).tobytes() for element in range(8)}
    assert len(results) == 8
    assert np.array_equal(d4(square, 0), square)
    assert np.array_equal(d4(square, 1), [[2, 5, 8], [1, 4, 7], [0, 3, 6]])
    assert np.array_equal(d4(square, 4), [[2, 1, 0], [5, 4, 3], [8, 7, 6]])


def test_image_and_mask_turn_together(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "dataset", chips=12)
    # the same picture in every layer, so that any disagreement shows
    picture = np.load(folder.parent / "store" / "MASK_LULC.npy")
    for name in ("S1RTC", "DEM"):
        array = np.load(folder.parent / "store" / f"{name}.npy")
        array[:] = picture[:, None]
        np.save(folder.parent / "store" / f"{name}.npy", array)
    data = ChipDataset(ChipStore(folder), range(12), ["S1RTC", "DEM"], {"a": "LULC", "b": "LULC"}, augment="d4")
    turned = 0
    for epoch in range(3):
        for position in range(12):
            item = data[position, epoch]
            for layer in (item["image"]["S1RTC"][1], item["image"]["DEM"][0], item["mask"]["b"]):
                assert torch.equal(layer.long(), item["mask"]["a"])
            turned += not np.array_equal(item["mask"]["a"].numpy(), picture[position])
    assert turned > 20


def test_augmentation_depends_on_seed_epoch_and_chip_only(dataset_dir: Path) -> None:
    store = ChipStore(dataset_dir)

    def elements(seed: int, epoch: int, indices: list[int]) -> list[bytes]:
        data = ChipDataset(store, indices, ["DEM"], {}, augment="d4", seed=seed)
        return [data[position, epoch]["image"]["DEM"].numpy().tobytes() for position in range(len(indices))]

    some = [2, 5, 7, 9, 11, 13]
    assert elements(0, 1, some) == elements(0, 1, some)
    assert elements(0, 1, some)[::-1] == elements(0, 1, some[::-1])
    assert elements(0, 1, some) != elements(0, 2, some)
    assert elements(0, 1, some) != elements(1, 1, some)


def test_the_order_is_shuffled_anew_each_epoch() -> None:
    sampler = EpochSampler(50, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(position for position, _ in second) == list(range(50))
    assert [p for p, _ in first] != [p for p, _ in second]
    assert {epoch for _, epoch in second} == {1}
    sampler.set_epoch(0)
    assert list(sampler) == first


def batches(data: ChipDataModule, epoch: int) -> list[tuple[list[str], bytes]]:
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, EpochSampler)
    loader.sampler.set_epoch(epoch)
    return [(batch["chip_id"], batch["image"]["S2L2A"].numpy().tobytes()) for batch in loader]


def test_workers_do_not_change_the_batches(dataset_dir: Path) -> None:
    def module(workers: int) -> ChipDataModule:
        return ChipDataModule(dataset_dir, ["S2L2A"], LABELS, batch_size=4, seed=1, workers=workers)

    assert batches(module(0), 2) == batches(module(2), 2)


@pytest.mark.slow  # the other process imports Lightning
def test_batches_are_the_same_in_another_process(dataset_dir: Path) -> None:
    code = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[2]); from test_datamodule import batches, LABELS;"
        "from cityheads.dataset.datamodule import ChipDataModule; from pathlib import Path;"
        "data = ChipDataModule(Path(sys.argv[1]), ['S2L2A'], LABELS, batch_size=4, seed=1);"
        "print(hashlib.sha256(repr(batches(data, 1)).encode()).hexdigest())"
    )
    command = [sys.executable, "-c", code, str(dataset_dir), str(Path(__file__).parent)]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    import hashlib

    data = ChipDataModule(dataset_dir, ["S2L2A"], LABELS, batch_size=4, seed=1)
    assert hashlib.sha256(repr(batches(data, 1)).encode()).hexdigest() == other


def test_splits_come_from_the_chip_table(dataset_dir: Path) -> None:
    data = ChipDataModule(dataset_dir, MODALITIES, LABELS, batch_size=5)
    assert {split: len(indices) for split, indices in data.indices.items()} == {"train": 16, "val": 4, "test": 4}
    assert [len(batch["chip_id"]) for batch in data.train_dataloader()] == [5, 5, 5]
    assert [chip for batch in data.val_dataloader() for chip in batch["chip_id"]] == data.store.chips[16:20]
    assert [chip for batch in data.test_dataloader() for chip in batch["chip_id"]] == data.store.chips[20:]


def test_a_split_smaller_than_a_batch_is_one_batch(dataset_dir: Path) -> None:
    data = ChipDataModule(dataset_dir, MODALITIES, LABELS, batch_size=64)
    assert [len(batch["chip_id"]) for batch in data.train_dataloader()] == [16]


def test_unknown_layers_and_empty_splits_are_named(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "dataset", chips=2)
    with pytest.raises(CityHeadsError, match="no layer 'MASK_ROADS'"):
        ChipDataset(ChipStore(folder), [0], ["DEM"], {"roads": "ROADS"})
    data = ChipDataModule(folder, ["DEM"], LABELS)
    with pytest.raises(CityHeadsError, match="split 'val' has no chips"):
        data.dataset("val")


def test_coordinates_are_an_input_that_no_turn_moves(dataset_dir: Path) -> None:
    store = ChipStore(dataset_dir)
    coords = store.coords()
    dataset = ChipDataset(store, [3, 0], ["S2L2A", "coords"], {}, augment="d4")
    batch = dataset.__getitems__([(0, 1), (1, 1)])
    np.testing.assert_array_equal(batch["image"]["coords"].numpy(), coords[[3, 0]])
    assert list(batch["image"]) == ["S2L2A", "coords"]
