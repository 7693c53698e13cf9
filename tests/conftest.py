"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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
