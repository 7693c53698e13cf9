"""The packed sub-chips of a dataset: memory-mapped arrays, their index, and where each chip lies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.core.artifacts.chips import CHIPS
from cityheads.core.artifacts.store import STORE_INDEX, StoreIndex
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_file
from cityheads.core.layout import DatasetFolder
from cityheads.core.modalities import COORDS, stored

__all__ = ["ChipStore"]

_ANEW = "make it anew: snakemake --forcerun pack_store"


class ChipStore:
    """The packed sub-chips, which all folds share, with the splits of one fold; opened without reading them.

    Args:
        dataset_dir: Folder of the fold's dataset; the store lies beside it.

    Raises:
        CityHeadsError: The store is missing, or an array is not what its index says.
    """

    def __init__(self, dataset_dir: Path) -> None:
        self.dataset_dir = Path(dataset_dir)
        self.files = DatasetFolder(self.dataset_dir)
        self.index: StoreIndex = STORE_INDEX.read(self.files.store.index)
        self.chips = self.index["chips"]
        self._arrays: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.chips)

    @property
    def chip_px(self) -> int:
        """Side of a sub-chip in pixels."""
        return self.index["chip_px"]

    def array(self, name: str) -> np.ndarray:
        """Give one layer of all chips, memory-mapped: (N, C, h, w) of a modality, (N, h, w) of a mask.

        Raises:
            CityHeadsError: The layer is not in the store, cannot be read, or differs from the index in dtype or shape.
        """
        if name not in self._arrays:
            entry = self.index["arrays"].get(name)
            if entry is None:
                raise CityHeadsError(
                    f"{self.files.store.root}: no layer '{name}'; there are {', '.join(self.index['arrays'])}"
                )
            path = self.files.store.array(name)
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise CityHeadsError(f"{path}: cannot be read ({error}); {_ANEW}") from None
            if array.dtype.name != entry["dtype"] or list(array.shape) != entry["shape"]:
                raise CityHeadsError(f"{path}: is not what its index says; {_ANEW}")
            self._arrays[name] = array
        return self._arrays[name]

    def inputs(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Give what a model with these inputs must be given.

        Args:
            names: Inputs of a model; derived ones stand for the modality that they are computed from.

        Returns:
            {modality: (N, C, h, w) memory-mapped, in stored units}, and with ``coords`` among the names also
            {``coords``: (N, 2) float32}.

        Raises:
            CityHeadsError: A layer is not in the store or cannot be read.
        """
        names = list(names)
        arrays = {name: self.array(name) for name in stored(names)}
        return arrays | ({COORDS: self.coords()} if COORDS in names else {})

    def coords(self) -> np.ndarray:
        """Give the centres of the sub-chips: longitude and latitude in degrees (WGS 84), (N, 2) float32.

        NaN for a sub-chip that the fold leaves out.
        """
        from pyproj import Transformer

        found = np.full((len(self), 2), np.nan, np.float32)
        columns = ("store_index", "epsg", "left", "top", "chip_px", "resolution_m")
        for position, epsg, left, top, px, step in self._rows(*columns):
            if position >= 0:
                half = px * step / 2
                to_degrees = Transformer.from_crs(epsg, 4326, always_xy=True)
                found[position] = to_degrees.transform(left + half, top - half)
        return found

    def _rows(self, *columns: str) -> Iterator[tuple[Any, ...]]:
        table = CHIPS.read_arrow(self.files.chips, columns).to_pydict()
        return zip(*(table[name] for name in columns), strict=True)

    def verify(self) -> None:
        """Compare every array's bytes with the index.

        Raises:
            CityHeadsError: A file is missing or has other bytes than when the store was written.
        """
        for name, entry in self.index["arrays"].items():
            path = self.files.store.array(name)
            if not path.exists():
                raise CityHeadsError(f"{path}: no such file; {_ANEW}")
            if sha256_file(path) != entry["sha256"]:
                raise CityHeadsError(f"{path}: its bytes have changed since it was written; {_ANEW}")

    def split_indices(self) -> dict[str, list[int]]:
        """Give the positions in the store of each split's chips, in the order of the store."""
        indices: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        for chip, split, kept, position in self._rows("chip_id", "split", "kept", "store_index"):
            if kept:
                if self.chips[position : position + 1] != [chip]:
                    raise CityHeadsError(
                        f"{self.files.chips}: chip '{chip}' is not at its place in the store; assemble again"
                    )
                indices[split].append(position)
        return {split: sorted(positions) for split, positions in indices.items()}
