"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Give the folder of real samples, or skip: they are not part of the repository."""
    places = [os.environ.get("CITYHEADS_REALDATA"), ROOT.parent / "shared" / "realdata"]
    for place in places:
        if place and Path(place).is_dir():
            return Path(place)
    pytest.skip("no real samples on this machine (set CITYHEADS_REALDATA to their folder)")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Give the root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def snakemake() -> Run:
    """Run Snakemake on this checkout's Snakefile with another working directory."""

    def run(
        directory: Path, *arguments: str | Path, check: bool = True, source: Path = ROOT / "src"
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [
                *(Path(sys.executable).parent / "snakemake", "--snakefile", ROOT / "Snakefile"),
                *("--directory", directory, "--workflow-profile", ROOT / "profiles/default"),
                *arguments,
            ],
            capture_output=True,
            text=True,
            env=os.environ
            | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(source)},
        )
        if check and done.returncode:
            raise AssertionError(f"snakemake {arguments} failed:\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}")
        return done

    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute on one thread, as long as the test lasts."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
