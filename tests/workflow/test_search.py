"""The search of settings in the DAG: as many candidates for every compared run, and none without a grid."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


def test_every_compared_run_trains_the_same_candidates(snakemake: Run, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({"tuning": {"grid": {"train.lr": [0.001, 0.003, 0.01]}}}))
    told = snakemake(tmp_path, "-n", "--configfile", tmp_path / "grid.yaml").stdout
    tried = re.findall(r"Train candidate (\d) of run (\w+) on fold 0", told)
    assert sorted(tried) == sorted((str(n), run) for n in range(3) for run in ("multihead", "lulc", "buildings"))
    assert sorted(re.findall(r"Choose the settings of run (\w+)", told)) == ["buildings", "lulc", "multihead"]
