"""What made an artifact: versions, platform, revision, and a fingerprint of the code behind a verb."""

from __future__ import annotations

import ast
import functools
import hashlib
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import read_json, write_json

__all__ = ["PACKAGES", "code_fingerprint", "environment", "git_revision"]

#: Packages whose version can change a number or a byte of what the workflow writes.
PACKAGES = (
    "cityheads", "snakemake", "numpy", "rasterio", "shapely", "pyproj", "geopandas", "pyarrow", "odc-geo",
    "pystac-client", "torch", "torchvision", "lightning", "torchmetrics", "terratorch", "torchgeo",
)  # fmt: skip

_SOURCE = Path(__file__).parents[1]
_CACHE = _SOURCE / "__pycache__" / "fingerprints.json"


def environment() -> dict[str, Any]:
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


@functools.cache
def code_fingerprint(module: str) -> str:
    """Give a hash over a module and every module of this package that it imports, directly or not.

    Templates that they name count too; comments, docstrings and layout do not: only what could change a result does.
    Snakemake reruns a job when its parameters change but does not see a changed package, so rules carry this as a
    parameter.

    Args:
        module: Dotted name, such as ``cityheads.dataset.chips``.

    Returns:
        The first 12 digits of a SHA-256.

    Raises:
        ValueError: No such module.
    """
    if _path(module) is None:
        raise ValueError(f"no module {module} in this package")
    digest = hashlib.sha256()
    before = len(_known())
    for name in sorted(_closure(module)):
        facts = _facts(name)
        digest.update(f"{name}\n{facts['code']}\n".encode())
        for template in facts["templates"]:
            digest.update((_SOURCE / "product" / "templates" / template).read_bytes())
    if len(_known()) > before:
        # an installation that cannot be written to does without
        with suppress(CityHeadsError, OSError):
            write_json(_CACHE, _known())
    return digest.hexdigest()[:12]


def _closure(module: str) -> set[str]:
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or _path(name) is None:
            continue
        found.add(name)
        waiting.extend(_facts(name)["imports"])
    return found


def _path(module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] != "cityheads":
        return None
    base = _SOURCE.joinpath(*parts[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if len(parts) > 1 and candidate.is_file():
            return candidate
    return None


@functools.cache
def _facts(module: str) -> dict[str, Any]:
    """Give what a module imports, the templates it names, and the hash of its code.

    Parsing all modules takes most of a second, which every look at the DAG would pay; so what was found is kept beside
    the compiled modules, under the hash of the source.
    """
    path = _path(module)
    assert path is not None, module
    source = path.read_bytes()
    key = hashlib.sha256(platform.python_version().encode() + source).hexdigest()
    known = _known()
    if key not in known:
        tree = ast.parse(source)
        known[key] = {
            "imports": _imports(tree),
            "templates": _templates(tree),
            "code": hashlib.sha256(_normalised(tree).encode()).hexdigest(),
        }
    return known[key]


@functools.cache
def _known() -> dict[str, dict[str, Any]]:
    # a missing or damaged cache is made anew
    with suppress(CityHeadsError):
        found: dict[str, dict[str, Any]] = read_json(_CACHE)
        return found
    return {}


def _imports(tree: ast.Module) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # `from cityheads.x import y` may name a module y or an attribute; a name that is no module has no path
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.startswith("cityheads.")]


def _templates(tree: ast.Module) -> list[str]:
    """List the files in ``templates/`` that a module names."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return [path.name for path in sorted((_SOURCE / "product" / "templates").iterdir()) if path.name in texts]


def _normalised(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body[0] = ast.Pass()
    return ast.dump(tree)
