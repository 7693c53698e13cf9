"""What a training costs: counters of energy that run over, and parts of a resumed training put together."""

from __future__ import annotations

from pathlib import Path

import pytest

from cityheads.training.cost import Cost, CostMeter


def counter(folder: Path, name: str, energy_uj: int, kind: str = "package-0") -> Path:
    at = folder / name
    at.mkdir(parents=True, exist_ok=True)
    (at / "energy_uj").write_text(f"{energy_uj}\n")
    (at / "max_energy_range_uj").write_text("10000000\n")
    (at / "name").write_text(f"{kind}\n")
    return at


def test_packages_are_added_and_a_counter_may_run_over(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", 9_000_000)
    counter(tmp_path, "intel-rapl:1", 1_000_000, "package-1")
    counter(tmp_path, "intel-rapl:0:0", 0, "core")
    counter(tmp_path, "intel-rapl:2", 0, "psys")
    meter = CostMeter(powercap=tmp_path)
    assert meter.cost()["cpu_energy_j"] == 0
    counter(tmp_path, "intel-rapl:0", 2_000_000)  # 3 J more: from 9 over 10 to 2
    counter(tmp_path, "intel-rapl:1", 1_500_000, "package-1")
    counter(tmp_path, "intel-rapl:0:0", 7_000_000, "core")
    counter(tmp_path, "intel-rapl:2", 7_000_000, "psys")
    meter.count()
    counter(tmp_path, "intel-rapl:0", 4_000_000)
    assert meter.cost()["cpu_energy_j"] == pytest.approx(5.5)


def test_energy_that_cannot_be_read_is_unknown_and_not_nothing(tmp_path: Path) -> None:
    assert CostMeter(powercap=tmp_path / "none").cost()["cpu_energy_j"] is None
    (counter(tmp_path, "intel-rapl:0", 1) / "energy_uj").write_text("no number")
    assert CostMeter(powercap=tmp_path).cost()["cpu_energy_j"] is None


def test_parts_of_a_resumed_training_add_up(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", 0)
    earlier: Cost = {"wall_s": 100.0, "peak_memory_mb": 1e9, "peak_gpu_memory_mb": None, "cpu_energy_j": 40.0}
    meter = CostMeter(earlier, powercap=tmp_path)
    counter(tmp_path, "intel-rapl:0", 2_000_000)
    cost = meter.cost()
    assert 100 <= cost["wall_s"] < 110
    assert cost["peak_memory_mb"] == 1e9
    assert cost["peak_gpu_memory_mb"] is None
    assert cost["cpu_energy_j"] == pytest.approx(42)
    meter.earlier = {**earlier, "cpu_energy_j": None}
    assert meter.cost()["cpu_energy_j"] is None
