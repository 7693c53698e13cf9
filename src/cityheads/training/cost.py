"""What a training costs: time, memory, and the energy of the processor where the system tells."""

from __future__ import annotations

import operator
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import torch

__all__ = ["Cost", "CostMeter"]

#: Linux' counters of energy (Running Average Power Limit): one folder for each processor package and each part of it.
_POWERCAP = Path("/sys/class/powercap")
_STATUS = Path("/proc/self/status")


class Cost(TypedDict):
    """What was spent so far; as in ``environment.json``."""

    wall_s: float
    peak_memory_mb: float | None
    peak_gpu_memory_mb: float | None
    cpu_energy_j: float | None


class CostMeter:
    """Measures this process from its making on, and adds what an earlier process of the same training spent.

    Args:
        earlier: What the earlier process had spent when it saved its state.
        powercap: Folder of the counters of energy.
    """

    def __init__(self, earlier: Cost | None = None, powercap: Path = _POWERCAP) -> None:
        self.earlier = earlier
        self._began = time.perf_counter()
        self._packages = _packages(powercap)
        self._last = [_read(package / "energy_uj") for package in self._packages]
        self._energy_uj = 0

    def cost(self) -> Cost:
        """Give what was spent so far."""
        self.count()
        now: Cost = {
            "wall_s": time.perf_counter() - self._began,
            "peak_memory_mb": _peak_memory_mb(),
            "peak_gpu_memory_mb": torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_initialized() else None,
            "cpu_energy_j": self._energy_uj / 1e6 if self._packages else None,
        }
        before = self.earlier
        if before is None:
            return now
        return {
            "wall_s": before["wall_s"] + now["wall_s"],
            "peak_memory_mb": _together(max, before["peak_memory_mb"], now["peak_memory_mb"]),
            "peak_gpu_memory_mb": _together(max, before["peak_gpu_memory_mb"], now["peak_gpu_memory_mb"]),
            "cpu_energy_j": _together(operator.add, before["cpu_energy_j"], now["cpu_energy_j"]),
        }

    def count(self) -> None:
        """Look at the counters of energy; to be done more often than they run over, which takes them minutes."""
        for index, package in enumerate(self._packages):
            value, last = _read(package / "energy_uj"), self._last[index]
            # the counter starts from 0 when it has reached its range
            self._energy_uj += value - last if value >= last else value - last + _read(package / "max_energy_range_uj")
            self._last[index] = value


def _together(how: Callable[[float, float], float], before: float | None, now: float | None) -> float | None:
    """Put two parts together; unknown where one of them is."""
    return None if before is None or now is None else how(before, now)


def _packages(powercap: Path) -> list[Path]:
    """Give the folders of the processor packages whose counters may be read; often only root may."""
    found = []
    for folder in sorted(powercap.glob("*")):
        # intel-rapl:0 is a package; intel-rapl:0:1 is a part of it, and psys would count the packages once more
        if re.fullmatch(r"intel-rapl:\d+", folder.name):
            try:
                _read(folder / "max_energy_range_uj")
                _read(folder / "energy_uj")
                if (folder / "name").read_text().startswith("package"):
                    found.append(folder)
            except (OSError, ValueError):
                continue
    return found


def _read(path: Path) -> int:
    return int(path.read_text())


def _peak_memory_mb() -> float | None:
    """Give the most resident memory of this process (Linux); what ``getrusage`` tells may be its parent's."""
    try:
        match = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), flags=re.MULTILINE)
    except OSError:
        return None
    return int(match.group(1)) * 1024 / 1e6 if match else None
