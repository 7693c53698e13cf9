"""What the DAG promises of the splits: the validation split can be scored without the test split, not the other way."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(("split", "scored"), [("val", ["val"]), ("test", ["test", "val"])])
def test_test_parents_are_not_read_for_the_validation_scores(
    snakemake: Run, tmp_path: Path, split: str, scored: list[str]
) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    told = snakemake(tmp_path, "-n", f"results/evaluation/{split}/lulc/0/0/metrics.json").stdout
    found = re.findall(r"Evaluate run (\w+) on the (\w+) parents of fold 0 with seed 0", told)
    assert sorted(set(found)) == [("lulc", name) for name in scored]
