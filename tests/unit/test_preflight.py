"""The preflight: what fails hours later is found first, and what a run needs is told with how it is known."""

from __future__ import annotations

import datetime
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from config_fixtures import MINIMAL, make_config, merge

from cityheads.cli import main
from cityheads.config.estimate import estimate
from cityheads.core.grid import read_parents
from cityheads.dataset.preflight import Machine, preflight
from cityheads.dataset.splits import squares_hash

NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
MACHINE = Machine(cores=2, memory_mb=16_000, gpu_mb=None, environment={})
REAL: dict[str, Any] = {
    "grid": {"parent_px": 256},
    "archive": {"provider": "stac", "catalog": "catalog.json"},
    "labels": {"BUILDINGS": {"source": "catalog.json", "boundary": "catalog.json"}},
    "parents": "s.tsv",
}
SPLITS = ("train", "val", "test")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("catalog.json").write_text("{}")
    rows = [f"P{i}\t32618\t{580000 + 2560 * i}\t4510000\t{split}" for i, split in enumerate(SPLITS)]
    Path("s.tsv").write_text("\n".join(["parent_id\tepsg\tleft\ttop\tsplit", *rows]) + "\n")
    return tmp_path


def test_a_config_that_is_right_has_no_problem() -> None:
    assert preflight(real(), MACHINE, now=NOW).problems == []


def real(**changes: Any) -> Any:
    return make_config(merge(MINIMAL, REAL), **changes)


def _of(period: str) -> dict[str, Any]:
    return {"imagery": {"S2L2A": {"datetime": period}, "S1RTC": {}, "DEM": {}}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {"backbone": "terramind_v1_bse"}}, "TerraTorch knows no backbone 'terramind_v1_bse'"),
        ({"splits": {"method": "folds"}}, "3 parents cannot fill 5 folds"),
        ({"archive": _of("2031-05-01/2031-06-01")}, "has not begun yet"),
        ({"archive": _of("2014-05-01/2014-06-01")}, "before Sentinel-2's first"),
        ({"archive": {"catalog": "nowhere.json"}}, "archive.catalog': nowhere.json: no such file"),
        ({"archive": {"catalog": "https://a.example/v1", "offline": True}}, "'archive.offline': true"),
        ({"archive": {"sign": "s3"}}, "variable AWS_SECRET_ACCESS_KEY is not set"),
        ({"labels": {"BUILDINGS": {"source": "gone.geojson"}}}, "labels.BUILDINGS.source': gone.geojson: no such"),
        ({"model": {"weights": "gone.pt"}}, "'model.weights': gone.pt: no such file"),
        ({"splits": {"test_lock": "01234567-89abcdef"}}, "'splits.test_lock': the tested squares are"),
        ({"results": "."}, "is the working directory"),
        ({"parents": "none.tsv"}, "none.tsv: no such parent sheet"),
    ],
)
def test_what_fails_hours_later_is_a_problem_at_once(changes: dict[str, Any], says: str) -> None:
    found = preflight(real(**changes), MACHINE, now=NOW)
    assert [line for line in found.problems if says in line], found.problems
    assert all("\n" not in line for line in found.problems)


def test_the_lock_of_the_squares_is_known_before_any_pixel() -> None:
    config = real()
    parents = read_parents(Path("s.tsv"), config.grid.grid)
    squares = squares_hash(parents, config.grid.grid, {"P0": None, "P1": None, "P2": 0})
    assert preflight(real(splits={"test_lock": f"{squares}-00000000"}), MACHINE, now=NOW).problems == []


def test_what_may_fail_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    signed = {"catalog": "https://planetarycomputer.example/v1", "sign": "planetary-computer"}
    assert "PC_SDK_SUBSCRIPTION_KEY" in "".join(preflight(real(archive=signed), MACHINE, now=NOW).warnings)
    keyed = Machine(2, 16_000, None, {"PC_SDK_SUBSCRIPTION_KEY": "k"})
    assert "PC_SDK_SUBSCRIPTION_KEY" not in "".join(preflight(real(archive=signed), keyed, now=NOW).warnings)
    small = Machine(2, 1_000, None, {})
    assert "a training needs about" in "".join(preflight(real(), small, now=NOW).warnings)
    cuda = preflight(real(train={"accelerator": "cuda"}), MACHINE, now=NOW)
    assert "shows no GPU" in "".join(cuda.warnings)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1_000_000))
    assert "GB are needed and" in "".join(preflight(real(), MACHINE, now=NOW).problems)


def test_the_estimate_scales_with_what_costs() -> None:
    nyc = real(grid={"parent_px": 896})
    one = estimate(nyc, 22, cores=2, gpu=False)
    # what the whole sheet of New York took when it was rehearsed: a store of 617 MB, 186 CPU seconds up to the masks
    assert 1.2 * 617 < one.disk_mb < 5 * 617
    assert one.prepare_s - one.download_mb / 10 == pytest.approx(186 / 2, rel=0.05)
    double = estimate(nyc, 44, cores=2, gpu=False)
    assert (double.download_mb, double.train_s) == pytest.approx((2 * one.download_mb, 2 * one.train_s))
    big = estimate(real(grid={"parent_px": 896}, train={"batch_size": 32}), 22, cores=2, gpu=False)
    assert big.host_mb == big.memory_mb > 1.5 * one.memory_mb
    gpu = estimate(nyc, 22, cores=2, gpu=True)
    assert gpu.host_mb < one.host_mb, "the batches lie on the GPU"
    assert gpu.train_s < one.train_s
    assert "USD" in "".join(gpu.lines())
    assert "USD" not in "".join(one.lines())
    simulated = estimate(make_config(), 22, cores=2, gpu=False)
    assert (simulated.download_mb, simulated.lines()[0]) == (0, "download nothing: the archive is simulated")


def test_the_verb_prints_all_that_is_wrong_and_ends_with_an_error(
    place: Path, repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(repository / "config", place / "config")
    (place / "over.yaml").write_text("results: mine\n")
    assert main(["check", "over.yaml"]) == 0
    told = capfd.readouterr().err
    assert "needs: download nothing" in told
    assert "snakemake --configfile over.yaml" in told
    (place / "over.yaml").write_text("results: .\nmodel: {weights: none.pt}\n")
    assert main(["check", "over.yaml"]) == 1
    told = capfd.readouterr().err
    assert "is the working directory" in told
    assert "none.pt: no such file" in told
    (place / "over.yaml").write_text("results: [\n")
    assert main(["check", "over.yaml"]) == 1
    assert "over.yaml: not valid YAML: line 2, column 1" in capfd.readouterr().err
