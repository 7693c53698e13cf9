"""The packed dataset as batches, augmented the same way whatever reads them and in whatever order."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cityheads.core.classes import mask_layer
from cityheads.core.errors import CityHeadsError
from cityheads.core.modalities import COORDS, MODALITIES, Modality, stored
from cityheads.dataset.store import ChipStore

__all__ = ["ChipDataModule", "ChipDataset", "EpochSampler", "d4", "keep_freed_memory"]

#: Names of the random streams, so that no two draw the same numbers from one seed.
_SHUFFLE, _AUGMENT = 1, 2


def d4(array: np.ndarray, element: int) -> np.ndarray:
    """Apply one of the eight flips and quarter turns of the square to the last two axes.

    Args:
        array: (..., h, w).
        element: 0 to 7: quarter turns in the lower two bits, a left-right flip before them in the third.

    Returns:
        A view; (..., w, h) after an odd number of turns.
    """
    if element & 4:
        array = array[..., ::-1]
    return np.rot90(array, element & 3, axes=(-2, -1))


class ChipDataset(Dataset[dict[str, Any]]):
    """Sub-chips of one split as ``{"image": {MOD: (C, h, w) float32}, "mask": {head: (h, w) int64}, "chip_id"}``.

    With the input ``coords`` a chip's image also has its centre, (2,) float32: longitude and latitude in degrees.

    Images are in stored units with their nodata values; the model normalises. An item is asked for by its position,
    or by (position, epoch): which augmentation it gets depends on the seed, the epoch and the chip, and on nothing
    else, so the number of workers does not matter.

    Args:
        store: The packed dataset.
        indices: Positions in the store.
        modalities: Inputs of the model; derived ones stand for the modality that they are computed from.
        labels: Label layer per head.
        augment: ``none`` or ``d4``.
        jitter: Standard deviation of one random shift per band, in units of the band's pretraining standard deviation.
        seed: Seed of the augmentation.
    """

    def __init__(
        self,
        store: ChipStore,
        indices: Sequence[int],
        modalities: Sequence[str],
        labels: Mapping[str, str],
        *,
        augment: str = "none",
        jitter: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.store = store
        self.indices = list(indices)
        self.images = store.inputs(modalities)
        self.coords = self.images.pop(COORDS, None)
        self.masks = {head: store.array(mask_layer(label)) for head, label in labels.items()}
        self.augment = augment
        self.jitter = jitter
        self.seed = seed
        self.files: str | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        batch = self.__getitems__([key])
        item = {part: {name: tensor[0] for name, tensor in batch[part].items()} for part in ("image", "mask")}
        return item | {name: value[0] for name, value in batch.items() if name not in item}

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> dict[str, Any]:
        """Give a whole batch: every pixel is turned, converted and put in its place in one pass."""
        pairs = [key if isinstance(key, tuple) else (key, 0) for key in keys]
        indices = [self.indices[position] for position, _ in pairs]
        streams = [
            np.random.default_rng([self.seed, _AUGMENT, epoch, index])
            for (_, epoch), index in zip(pairs, indices, strict=True)
        ]
        turns = [int(stream.integers(8)) if self.augment == "d4" else 0 for stream in streams]
        images = {name: _gather(array, indices, turns, torch.float32) for name, array in self.images.items()}
        if self.jitter:
            for name, image in images.items():
                for chip, stream in zip(image, streams, strict=True):
                    chip.copy_(_shift(chip, MODALITIES[name], self.jitter, stream))
        if self.coords is not None:
            images[COORDS] = torch.from_numpy(self.coords[indices])
        chips = [self.store.chips[index] for index in indices]
        batch: dict[str, Any] = {
            "image": images,
            "mask": {name: _gather(array, indices, turns, torch.int64) for name, array in self.masks.items()},
            "chip_id": chips,
        }
        if self.files is not None:
            batch["filename"] = [self.files.format(chip) for chip in chips]
        return batch


def _gather(array: np.ndarray, indices: Sequence[int], turns: Sequence[int], dtype: torch.dtype) -> Tensor:
    out = torch.empty((len(indices), *array.shape[1:]), dtype=dtype)
    target = out.numpy()
    for row, (index, turn) in enumerate(zip(indices, turns, strict=True)):
        chip = array[index]
        # turning touches pixels out of order, which is cheaper on the stored type than on a wider one
        target[row] = np.ascontiguousarray(d4(chip, turn)) if turn else chip
    return out


def _whole(batch: Any) -> Any:
    """Take a batch as it is: the dataset has put it together."""
    return batch


def _shift(image: Tensor, modality: Modality, jitter: float, rng: np.random.Generator) -> Tensor:
    """Shift every band of (C, h, w) by its own random amount; missing pixels stay missing, the others valid."""
    shift = jitter * rng.standard_normal(len(modality.bands)) * np.array(modality.std)
    moved = (image + torch.from_numpy(shift.astype(np.float32)).view(-1, 1, 1)).clamp_min(modality.valid_min)
    return moved.where(image != modality.nodata, image)


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the next batch, in place of giving it back and having it zeroed anew.

    Most of the time of filling a large batch goes there. Where the C library is another one, nothing happens.

    Returns:
        Whether it was told.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD of malloc.h
    return all([mallopt(-3, 1 << 30), mallopt(-1, (1 << 31) - 1), mallopt(-2, 1 << 26)])


class EpochSampler(Sampler[tuple[int, int]]):
    """Positions shuffled by (seed, epoch), each with its epoch; Lightning calls ``set_epoch``."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, _SHUFFLE, self.epoch]).permutation(self.size)
        return ((int(position), self.epoch) for position in order)


class ChipDataModule(LightningDataModule):
    """Loaders over the three splits of an assembled dataset.

    Args:
        dataset_dir: Folder of the assembled dataset.
        modalities: Inputs of the model.
        labels: Label layer per head.
        batch_size: Chips a step.
        augment: Augmentation of the training split, ``none`` or ``d4``.
        jitter: Random shift per band of the training split, as in ``ChipDataset``.
        seed: Seed of shuffling and augmentation.
        workers: Loader processes; 0 reads in this one.
        pin_memory: Copy batches to page-locked memory, for a CUDA device.
        chips_dir: Folder of the sub-chips' GeoTIFFs; batches of ``predict`` then name the first modality's file, from
            which TerraTorch's writer takes the georeference.
    """

    def __init__(
        self,
        dataset_dir: Path,
        modalities: Sequence[str],
        labels: Mapping[str, str],
        *,
        batch_size: int = 16,
        augment: str = "d4",
        jitter: float = 0.0,
        seed: int = 0,
        workers: int = 0,
        pin_memory: bool = False,
        chips_dir: Path | None = None,
    ) -> None:
        super().__init__()
        self.chips_dir = chips_dir
        self.store = ChipStore(dataset_dir)
        self.indices = self.store.split_indices()
        self.modalities = list(modalities)
        self.labels = dict(labels)
        self.batch_size = batch_size
        self.augment = augment
        self.jitter = jitter
        self.seed = seed
        self.workers = workers
        self.pin_memory = pin_memory

    def dataset(self, split: str, *, augment: str = "none", jitter: float = 0.0) -> ChipDataset:
        """Give one split.

        Raises:
            CityHeadsError: The split has no chips.
        """
        if not self.indices[split]:
            raise CityHeadsError(
                f"{self.store.dataset_dir}: split '{split}' has no chips; change the splits or the quality limits"
            )
        return ChipDataset(
            self.store,
            self.indices[split],
            self.modalities,
            self.labels,
            augment=augment,
            jitter=jitter,
            seed=self.seed,
        )

    def _loader(self, dataset: ChipDataset, **kwargs: Any) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            collate_fn=_whole,
            **kwargs,
        )

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Give the training chips, shuffled and augmented anew each epoch.

        A last batch that is not full is left out (the chips in it differ from epoch to epoch), unless it is the only
        one: batch statistics over one or two chips would unsettle the decoders.
        """
        dataset = self.dataset("train", augment=self.augment, jitter=self.jitter)
        return self._loader(
            dataset, sampler=EpochSampler(len(dataset), self.seed), drop_last=len(dataset) >= self.batch_size
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Give the validation chips in the order of the store."""
        return self._loader(self.dataset("val"))

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Give the test chips in the order of the store."""
        return self._loader(self.dataset("test"))

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Give the test chips, with the name of a file that holds their georeference."""
        dataset = self.dataset("test")
        if self.chips_dir is not None:
            dataset.files = str(Path(self.chips_dir) / stored(self.modalities)[0] / "{}.tif")
        return self._loader(dataset)
