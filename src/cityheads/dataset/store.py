"""The packed sub-chips of an assembled dataset: memory-mapped arrays, their index, and where each chip lies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json, sha256_file
from cityheads.core.modalities import COORDS, stored

__all__ = ["ChipStore"]


class ChipStore:
    """The packed sub-chips of an assembled dataset, opened without reading them.

    Args:
        dataset_dir: Folder with ``chips.parquet`` and ``store/``.

    Raises:
        CityHeadsError: The store is missing, or an array is not what its index says.
    """

    def __init__(self, dataset_dir: Path) -> None:
        self.dataset_dir = Path(dataset_dir)
        self.folder = self.dataset_dir / "store"
        self.index: dict[str, Any] = read_json(self.folder / "index.json")
        self.chips: list[str] = self.index["chips"]
        self._arrays: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.chips)

    @property
    def chip_px(self) -> int:
        """Side of a sub-chip in pixels."""
        return int(self.index["chip_px"])

    def array(self, name: str) -> np.ndarray:
        """Give one layer of all chips, memory-mapped: (N, C, h, w) of a modality, (N, h, w) of a mask.

        Raises:
            CityHeadsError: The layer is not in the store, cannot be read, or differs from the index in dtype or shape.
        """
        if name not in self._arrays:
            entry = self.index["arrays"].get(name)
            if entry is None:
                raise CityHeadsError(f"{self.folder}: no layer '{name}'; there are {', '.join(self.index['arrays'])}")
            path = self.folder / f"{name}.npy"
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise CityHeadsError(f"{path}: cannot be read ({error}); assemble the dataset again") from None
            if array.dtype.name != entry["dtype"] or list(array.shape) != list(entry["shape"]):
                raise CityHeadsError(f"{path}: is not what index.json says; assemble the dataset again")
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
        """Give the centres of the sub-chips: longitude and latitude in degrees (WGS 84), (N, 2) float32."""
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
        from pyarrow import parquet

        path = self.dataset_dir / "chips.parquet"
        if not path.exists():
            raise CityHeadsError(f"{path}: no such file")
        return zip(*parquet.read_table(path, columns=list(columns)).to_pydict().values(), strict=True)

    def verify(self) -> None:
        """Compare every array's bytes with the index.

        Raises:
            CityHeadsError: A file is missing or has other bytes than when the store was written.
        """
        for name, entry in self.index["arrays"].items():
            path = self.folder / f"{name}.npy"
            if not path.exists():
                raise CityHeadsError(f"{path}: no such file; assemble the dataset again")
            if sha256_file(path) != entry["sha256"]:
                raise CityHeadsError(f"{path}: its bytes have changed since it was written; assemble the dataset again")

    def split_indices(self) -> dict[str, list[int]]:
        """Give the positions in the store of each split's chips, in the order of the store."""
        indices: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        for chip, split, kept, position in self._rows("chip_id", "split", "kept", "store_index"):
            if kept:
                if self.chips[position] != chip:
                    path = self.dataset_dir / "chips.parquet"
                    raise CityHeadsError(f"{path}: chip '{chip}' is not at its place in the store; assemble again")
                indices[split].append(position)
        return {split: sorted(positions) for split, positions in indices.items()}
