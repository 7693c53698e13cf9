"""The layers that docs/architecture.md draws are those of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

#: A module that looks at a later layer, and why that is right.
EXCEPTIONS = {("artifacts", "cli"): "the rules are listed in the order of the verbs"}


def layers(repository: Path) -> dict[str, int]:
    text = (repository / "docs/architecture.md").read_text().split("## Layers of the package")[1].split("\n## ")[0]
    rows = re.findall(r"^\| \w+ \| (`.*`) \|$", text, re.MULTILINE)
    return {name: rank for rank, names in enumerate(rows) for name in re.findall(r"`(\w+)`", names)}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "cityheads":
            yield from (alias.name for alias in node.names if not alias.name.startswith("_"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cityheads."):
            yield (node.module or "").split(".")[1]


def test_every_module_has_a_layer_and_imports_from_it_or_above(repository: Path) -> None:
    rank, package = layers(repository), repository / "src/cityheads"
    assert rank["cli"] == max(rank.values()) == 7
    modules = {path: path.relative_to(package).parts[0].removesuffix(".py") for path in package.rglob("*.py")}
    missing = set(modules.values()) - set(rank) - {"__init__", "__main__"}
    assert not missing, "docs/architecture.md has no layer for these"
    assert not set(rank) - set(modules.values()), "docs/architecture.md has a layer for what is gone"
    used = set()
    for path, name in modules.items():
        for other in imported(path):
            if rank.get(name, 0) < rank[other]:
                assert (name, other) in EXCEPTIONS, f"{path.name} imports {other}, of a later layer"
                used.add((name, other))
    assert used == set(EXCEPTIONS)
