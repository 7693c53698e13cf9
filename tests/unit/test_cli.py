"""The command line: light, and one clear line for what goes wrong."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from cityheads.cli import main
from cityheads.core.environment import environment
from cityheads.core.layout import STAGES
from cityheads.verbs import VERBS

#: The command, which need not be on the path.
COMMAND = Path(sys.executable).parent / "cityheads"


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    "code",
    [
        "import cityheads",
        "import cityheads.cli; cityheads.cli.main(['--help'])",
        "import cityheads.cli; cityheads.cli.main(['train', '--help'])",
    ],
)
def test_the_package_and_its_help_import_nothing_heavy(code: str) -> None:
    heavy = ["torch", "rasterio", "geopandas", "pandas", "numpy", "terratorch", "odc", "shapely"]
    done = python(
        f"import sys\ntry:\n    {code}\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('HEAVY', sorted(set({heavy}) & set(sys.modules)))"
    )
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr


def test_the_dag_imports_nothing_heavy(repository: Path) -> None:
    heavy = ["torch", "rasterio", "geopandas", "terratorch", "odc.geo", "matplotlib"]
    done = python(
        f"""
import sys
sys.path.insert(0, "{repository}/src")
import os; os.chdir("{repository}")
from snakemake.cli import main
try:
    main(["-n", "--quiet", "all"])
except SystemExit as stop:
    print("EXIT", stop.code)
print("HEAVY", sorted(set({heavy}) & set(sys.modules)))
"""
    )
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr
    assert "EXIT 0" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", list(VERBS))
def test_a_verbs_options_are_its_functions_arguments(name: str) -> None:
    verb = VERBS[name]
    module, _, function = verb.function.partition(":")
    parameters = inspect.signature(getattr(import_module(module), function)).parameters
    expected = [*(["config"] if verb.sections else []), *(argument.name for argument in verb.arguments)]
    assert sorted(parameters) == sorted(expected)


def test_a_mistake_is_one_line_and_exit_code_1(
    tmp_path: Path, repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((repository / "config/config.yaml").read_text())
    config["trian"] = {}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [
            COMMAND,
            "cover_boundary",
            "--config",
            tmp_path / "c.yaml",
            "--boundary",
            "x",
            "--out",
            tmp_path / "p.tsv",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(
        r"cityheads cover_boundary: \S*c\.yaml: config key 'trian' is unknown; did you mean 'train'\?\n", done.stderr
    )
    assert not (tmp_path / "p.tsv").exists()


def test_no_message_holds_credentials(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    url = "https://me:secretword@host.example/x?sig=secretword"
    code = (
        "import logging, sys; from cityheads import cli, CityHeadsError; import cityheads.config.document as verb\n"
        "def fail(**_):\n"
        f"    logging.getLogger('other').warning('asked %s', {url!r})\n"
        f"    raise ValueError({url!r})\n"
        "verb.document_config = fail\n"
        f"cli.main(['document_config', '--out', 'x', '--log', {str(log)!r}])"
    )
    done = python(code)
    assert "secretword" not in done.stdout + done.stderr + log.read_text()
    assert log.read_text().count("https://host.example/x") >= 3, "the warning, the error and its traceback"
    assert "unexpected ValueError: https://host.example/x" in done.stderr


def test_a_defect_of_ours_is_one_line_with_the_traceback_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    log = tmp_path / "x.log"
    done = subprocess.run(
        [COMMAND, "document_config", "--out", tmp_path / "out", "--log", log], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "unexpected IsADirectoryError" in done.stderr
    assert "Traceback" in log.read_text()


def test_help_of_all_verbs_renders(capsys: pytest.CaptureFixture[str]) -> None:
    for name in VERBS:
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
    assert "--parents" in capsys.readouterr().out


def test_every_rule_has_a_version_of_its_results_and_no_other_verb_has_one() -> None:
    assert {name for name, verb in VERBS.items() if verb.version} == set(STAGES)
    assert [name for name in VERBS if name in STAGES] == sorted(STAGES, key=list(VERBS).index)


def test_versions_are_recorded() -> None:
    found = environment()
    assert found["packages"]["terratorch"] == "1.2.11"
    assert found["packages"]["torch"].startswith("2.14.1")


def test_the_conda_environment_pins_what_pyproject_pins(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    conda = yaml.safe_load((repository / "envs/cityheads.yaml").read_text())
    pip = next(entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))
    assert pip == project["dependencies"]


def test_the_lock_file_meets_pyproject(repository: Path) -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((repository / "pyproject.toml").read_text())
    text = (repository / "requirements.lock").read_text()
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE):
        locked.setdefault(name.lower(), []).append(version)
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    for line in wanted:
        requirement = Requirement(line)
        versions = locked[requirement.name.lower()]
        assert all(requirement.specifier.contains(version) for version in versions), line
    assert "http" not in re.sub(r"^httpx?\S*==.*$|^\S*http\S*==.*$", "", text, flags=re.MULTILINE)
