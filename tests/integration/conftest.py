"""Paths and servers that the integration tests share."""

from __future__ import annotations

import sys
from pathlib import Path

# the made archives of the unit tests serve here as well
sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
