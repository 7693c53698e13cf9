"""What a user can get wrong, and the one line that says so before any job starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from config_fixtures import make_config

from cityheads.config.inputs import check_names, check_results, check_splits, typed
from cityheads.config.load import read_yaml
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Grid, read_parents

HEAD = "parent_id\tepsg\tleft\ttop"
ROW = "A\t32618\t580000\t4510000"
ROWS = "\n".join(f"P{i}\t32618\t{580000 + 640 * i}\t4510000" for i in range(4))


def config(**changes: Any) -> Callable[[], object]:
    return lambda: make_config(**changes)


def sheet(content: str | bytes, *, encoding: str = "utf-8", **splits: Any) -> Callable[[], object]:
    def read() -> None:
        raw = content if isinstance(content, bytes) else content.encode(encoding)
        Path("s.tsv").write_bytes(raw)
        parents = read_parents(Path("s.tsv"), Grid(10, 64, 4))
        check_splits(parents, make_config(splits=splits).splits)

    return read


def folder(name: str, *, holds: str | None = None) -> Callable[[], object]:
    def look() -> None:
        if holds:
            Path(name, holds).mkdir(parents=True)
        check_results(name)

    return look


def file(content: bytes) -> Callable[[], object]:
    def read() -> None:
        Path("c.yaml").write_bytes(content)
        read_yaml(Path("c.yaml"))

    return read


def installed(**changes: Any) -> Callable[[], object]:
    return lambda: check_names(make_config(**changes))


def imagery(**s2: Any) -> dict[str, Any]:
    return {"imagery": {"S2L2A": s2, "S1RTC": {}, "DEM": {}}}


def with_split(*splits: str) -> str:
    return f"{HEAD}\tsplit\n" + "\n".join(f"{row}\t{s}" for row, s in zip(ROWS.split("\n"), splits, strict=False))


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (file(b"train: {lr: 1}\ntrain: {}"), "c.yaml: line 2, column 1: key 'train' stands twice, also in line 1"),
        (file(b"train:\n  lr: [1\n"), "c.yaml: not valid YAML: line 3, column 1: did not find"),
        (file(b"a: \xfc"), "c.yaml: line 1, column 4: not UTF-8"),
        (config(heads={"lulc": {"weight": 0}}), "'heads.lulc.weight': 0 is not above 0"),
        (config(train={"lr": float("nan")}), "'train.lr': NaN is not a finite number"),
        (config(splits={"buffer_m": float("inf")}), "'splits.buffer_m': Infinity is not a finite number"),
        (config(archive=imagery(datetime="2024-09-01/2024-05-01")), "ends before it starts"),
        (
            config(archive=imagery(datetime="2024-05-01/2024-09-30", target_date="2023-07-01")),
            "target_date': 2023-07-01 is outside of 'datetime' (2024-05-01/2024-09-30)",
        ),
        (installed(model={"backbone": "terramind_v1_tny"}), "'terramind_v1_tny'; did you mean 'terramind_v1_tiny'?"),
        (installed(heads={"lulc": {"decoder": "UNetDecodr"}}), "'heads.lulc.decoder': TerraTorch knows no decoder"),
        (
            installed(runs={"lulc": {"set": {"model.backbone": "terramind_v9"}}}),
            "'runs.lulc.set: model.backbone': TerraTorch knows no backbone 'terramind_v9'",
        ),
        (sheet(f"{HEAD}\n{ROW}\tx"), "s.tsv: line 2: has 5 cells where the sheet has 4 columns"),
        (sheet(f"{HEAD}\ttop\n{ROW}\t1"), "s.tsv: column top stands there twice"),
        (sheet(f"{HEAD}\n{ROW}\n", encoding="utf-16"), "s.tsv: line 1, column 1: not UTF-8"),
        (sheet(f"{HEAD}\n{ROW}\n# \xfc".encode("latin-1")), "s.tsv: line 3, column 3: not UTF-8"),
        (sheet(f"{HEAD}\nA\t32618\tinf\t4510000"), "line 2 (A): left 'inf' is not a number"),
        (sheet(f"{HEAD}\nA\t32618\t1e300\t4510000"), "A: left 1e+300, top 4.51e+06 lies nowhere on Earth"),
        (sheet(f"{HEAD}\nA\t32618\t4510000\t580000"), "are left and top swapped, or is it another CRS?"),
        (sheet(f"{HEAD}\nA\t32618\t580003.7\t4510000"), "left 580003.7 is not a multiple of 10 m"),
        (sheet(f"{HEAD}\n{ROW}"), "1 parents cannot fill 3 splits"),
        (sheet(f"{HEAD}\n{ROWS}", method="folds"), "4 parents cannot fill 5 folds"),
        (sheet(with_split("train", "train", "val")), "split column leaves test empty"),
        (sheet(f"{HEAD}\n{ROWS}", method="region", region="x"), "the parent sheet has no region column"),
        (lambda: read_parents(Path("."), Grid(10, 64, 4)), ".: is a folder, not a parent sheet"),
        (folder("/"), "is the working directory or lies above it"),
        (folder("."), "is the working directory or lies above it"),
        (folder("a/../.."), "is the working directory or lies above it"),
        (folder("src", holds="cityheads"), "'src' holds other things (cityheads) and no results"),
        (folder("my results"), "holds space; use letters"),
        (folder("it's"), "holds '; use letters"),
        (folder("{a}"), "holds { }; use letters"),
        (folder("~/x"), "holds ~; use letters"),
        (config(splits={"test_lock": "2f6c1b0d"}), "config key 'splits.test_lock'"),
        (config(downloads={"a": {"provider": "file"}}), "config key 'downloads.a.url': provider file needs a URL"),
        (config(downloads={"a": {"provider": "nyc", "sha256": "1f"}}), "a SHA-256 is 64 hexadecimal digits"),
    ],
)
def test_a_fault_is_one_line_at_once(
    attempt: Callable[[], object], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CityHeadsError) as told:
        attempt()
    assert says in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "attempt",
    [
        sheet(b"\xef\xbb\xbf" + f"{HEAD}\r\n{ROWS}\r\n".encode()),
        sheet(f"{HEAD}\tregion\n" + "\n".join(f"{row} \t" for row in ROWS.split("\n"))),
        file(b"\xef\xbb\xbftrain: {lr: 1e-3}"),
        folder("results"),
        folder("out/städte.v2", holds="scenes"),
        installed(model={"backbone": "prithvi_eo_v2_300"}),
        installed(heads={"lulc": {"decoder": "smp_FPN"}}),
    ],
)
def test_what_looks_odd_and_is_right(
    attempt: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    attempt()


def test_imagery_on_a_grid_of_its_own_is_taken_on_request(tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text(f"{HEAD}\nA\t32618\t580003.7\t4510000\n")
    (found,) = read_parents(tmp_path / "s.tsv", Grid(10, 64, 4, aligned=False))
    assert found.left == 580003.7


def test_values_of_the_command_line_are_read_as_in_a_file() -> None:
    # what Snakemake makes of --config train='{epochs: 2, lr: 1e-3}' seeds='[0, 1]' and a quoted text
    given = {"train": {"epochs": "2", "compile": "true"}, "seeds": ["0", "1"], "project": {"title": "'2024'"}, "n": 3}
    assert typed(given) == {
        "train": {"epochs": 2, "compile": True}, "seeds": [0, 1], "project": {"title": "2024"}, "n": 3,
    }  # fmt: skip
