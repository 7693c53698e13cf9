#!/usr/bin/env python3
"""Set up everything that CityHeads needs in .venv, then run the workflow or the tests.

    python3 bootstrap.py run    [snakemake arguments]   the default workflow, up to results/report.html
    python3 bootstrap.py test   [pytest arguments]      linters, type checker and the fast test suite
    python3 bootstrap.py setup                          the environment alone

Needs Python 3.11 or 3.12 and nothing else. The environment is made once and again only when requirements.lock changes.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
STAMP = ENVIRONMENT / ".complete"
BIN = ENVIRONMENT / "bin"

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports", "--no-cache"),
    ("snakefmt", "--check", "Snakefile", "workflow"),
    ("snakemake", "--lint"),
)


def main(arguments: list[str]) -> int:
    """Do what the first argument says."""
    if not arguments or arguments[0] not in ("run", "test", "setup"):
        print(__doc__)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        print(f"bootstrap.py: Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 1
    set_up()
    verb, rest = arguments[0], arguments[1:]
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = os.environ | {"PATH": path, "VIRTUAL_ENV": str(ENVIRONMENT)}
    if verb == "run":
        return subprocess.call([BIN / "snakemake", *(rest or ["--cores", "all"])], cwd=ROOT, env=environment)
    if verb == "test":
        for check in CHECKS:
            print("+", *check, flush=True)
            code = subprocess.call([BIN / check[0], *check[1:]], cwd=ROOT, env=environment)
            if code:
                return code
        # two processes; a file's tests stay together, since they share what is slow to set up, and the slowest files,
        # which run the workflow, come first
        how = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
        return subprocess.call([BIN / "pytest", *how, *rest], cwd=ROOT, env=environment)
    return 0


def set_up() -> None:
    """Make the environment from the lock file, unless it is there and up to date."""
    wanted = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    print("Setting up .venv (about 7 GB, once) ...", flush=True)
    STAMP.unlink(missing_ok=True)
    if not (BIN / "pip").exists():
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
    uv = re.search(r"^uv==(\S+)", LOCK.read_text(), re.MULTILINE)
    if uv is None:
        raise SystemExit("requirements.lock: pins no uv")
    steps = (
        [BIN / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"uv=={uv[1]}"],
        [BIN / "uv", "pip", "install", "--quiet", "--python", BIN / "python", "--require-hashes", "-r", LOCK],
        [BIN / "uv", "pip", "install", "--quiet", "--python", BIN / "python", "--no-deps", "--editable", ROOT],
    )
    for step in steps:
        subprocess.run(step, check=True)
    STAMP.write_text(wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
