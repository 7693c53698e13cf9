"""A config as YAML: complete, for the jobs of the workflow."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from cityheads.config.config import Config
from cityheads.config.load import resolve
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_bytes

__all__ = ["resolve_config", "to_yaml"]


def to_yaml(config: Config) -> str:
    """Give a config with all its defaults as YAML, in the order of its sections."""
    return yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)


def resolve_config(*, text: str, out: Path) -> None:
    """Write a config with all its defaults.

    Args:
        text: The config, as JSON.
        out: YAML file to write.

    Raises:
        CityHeadsError: The text is no config.
    """
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise CityHeadsError(f"--text: not JSON ({error})") from None
    write_bytes(out, to_yaml(resolve(raw)).encode())
