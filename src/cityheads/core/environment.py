"""What made an artifact: versions of the packages, platform, revision of the code."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from cityheads.core.artifacts.environment import Versions

__all__ = ["PACKAGES", "environment", "git_revision"]

#: Packages whose version can change a number or a byte of what the workflow writes.
PACKAGES = (
    "cityheads", "snakemake", "numpy", "rasterio", "shapely", "pyproj", "geopandas", "pyarrow", "odc-geo",
    "pystac-client", "torch", "torchvision", "lightning", "torchmetrics", "terratorch", "torchgeo",
)  # fmt: skip

_SOURCE = Path(__file__).parents[1]


def environment() -> Versions:
    """Give Python's and the packages' versions, the platform and the revision of the checkout."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": versions,
        "revision": git_revision(),
    }


def git_revision() -> str | None:
    """Give the commit of the checkout that the package runs from, ``-dirty`` appended where files differ from it.

    None where the package does not run from a git checkout or git is not there.
    """
    git = ["git", "-C", str(_SOURCE)]
    try:
        revision = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision + ("-dirty" if changes else "")
