"""Choices made together in the DAG: agreed on once, and kept when a parent is added."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml

from cityheads.core.layout import Layout

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_parent_that_is_added_keeps_to_the_agreement_and_the_others_are_not_chosen_again(
    snakemake: Run, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "together.yaml").write_text(yaml.safe_dump({"archive": {"together": {"window_days": 10}}}))
    layout = Layout(tmp_path / "results")
    chosen = [str(layout.scene_choice(f"P{number:02d}")) for number in range(1, 23)]
    files = [layout.archive.catalog, layout.archive.footprints, layout.archive.boundary, layout.agreement]
    # all but the last parent have their scenes; the agreement is newer than these
    for age, file in enumerate([*files, *map(Path, chosen[:-1])]):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
        moment = 1_700_000_000 + (0 if file != layout.agreement else 5000) + (100 if age >= len(files) else 0)
        os.utime(file, (moment, moment))
    targets = [str(Path(file).relative_to(tmp_path)) for file in chosen]
    how = ("-n", "--configfile", tmp_path / "together.yaml", "--rerun-triggers", "mtime", "--", *targets)
    told = snakemake(tmp_path, *how).stdout
    assert "Choose the scenes of parent P22" in told
    assert told.count("Choose the scenes of parent") == 1
    assert "Agree on dates" not in told
    layout.agreement.unlink()
    assert "Agree on dates" in snakemake(tmp_path, *how).stdout
