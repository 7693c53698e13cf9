"""The folders of the package are its layers, and the documentation draws the same ones."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path


def test_imports_go_down_the_layers_and_never_in_circles(repository: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: \d+ kept, 0 broken", done.stdout)


def test_every_folder_is_a_layer_that_says_what_lives_there(repository: Path) -> None:
    package = repository / "src/cityheads"
    contracts = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [name.removeprefix("cityheads.") for name in contracts[0]["layers"]]
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert folders == set(layers) - {"cli"}
    drawn = re.findall(r"^\| `(\w+)/?` \|", (repository / "docs/architecture.md").read_text(), re.MULTILINE)
    assert [name for name in drawn if name in layers] == layers[::-1], (
        "docs/architecture.md lists them, first the lowest"
    )
    for folder in folders:
        text = (package / folder / "__init__.py").read_text()
        assert text.startswith('"""'), folder
        assert len(text.splitlines()) >= 3, f"{folder}/__init__.py says in a few lines what lives there"


def test_the_public_names_are_loaded_when_they_are_used() -> None:
    import cityheads

    assert set(cityheads._HOME) < set(cityheads.__all__)
    assert dir(cityheads) == sorted(cityheads.__all__)
    for name in cityheads.__all__:
        found = getattr(cityheads, name)
        assert name.startswith("__") or found.__name__ == name
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert cityheads.__version__ == project["version"]
