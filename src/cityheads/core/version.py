"""The version of the program, for what records it; `pyproject.toml` has the same (a test compares them)."""

from __future__ import annotations

__all__ = ["VERSION"]

VERSION = "0.1.0"
