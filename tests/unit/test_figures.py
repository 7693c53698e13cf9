"""The figures: complete, equal for equal results, honest about simulated data and about what is missing."""

from __future__ import annotations

import itertools
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_results
import jinja2
import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from cityheads import CityHeadsError
from cityheads.core.artifacts.classes import CLASSES
from cityheads.core.artifacts.figures import FIGURE_LIST, FigureEntry
from cityheads.core.artifacts.gate import GATE
from cityheads.core.artifacts.splits import SPLIT_ASSIGNMENT
from cityheads.core.files import read_json, write_bytes, write_json
from cityheads.core.text import duration, number, signed
from cityheads.product.figures import style
from cityheads.product.figures.balance import draw_balance
from cityheads.product.figures.confusion import draw_confusion
from cityheads.product.figures.delta import draw_delta
from cityheads.product.figures.draw import draw_figures
from cityheads.product.figures.evidence import Evidence
from cityheads.product.figures.map import draw_map
from cityheads.product.figures.modality_ablation import draw_modality_ablation
from cityheads.product.figures.panels import draw_panels, rank_chips, wrong_share
from cityheads.product.figures.pictures import paint, stretch, true_colour
from cityheads.product.figures.timings import draw_timings
from cityheads.product.results import Results

CAPTIONS = fake_results.ROOT / "workflow" / "report"


def draw(fake: fake_results.Fake, out: Path) -> list[FigureEntry]:
    draw_figures(fake.settings("draw_figures"), parents=fake.parents, results=fake.results, out=out)
    return listed(out)


def listed(out: Path) -> list[FigureEntry]:
    return FIGURE_LIST.read(out / "figures.json")["figures"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> fake_results.Fake:
    return fake_results.make(tmp_path_factory.mktemp("simulated"))


def copied(fake: fake_results.Fake, place: Path) -> fake_results.Fake:
    """Link a results folder; files are replaced whole, so the original stays as it is."""
    shutil.copytree(fake.results, place / "results", copy_function=lambda source, to: Path(to).hardlink_to(source))
    return fake_results.Fake(place / "results", fake.parents, fake.config)


@dataclass
class Figures:
    """Every figure, noted at the moment it is saved."""

    texts: dict[str, list[str]]
    #: What overlaps, and what is cut at the edge.
    faults: dict[str, list[str]]

    @classmethod
    def watch(cls, monkeypatch: pytest.MonkeyPatch) -> Figures:
        found = cls({}, {})
        original = Figure.savefig

        def savefig(figure: Figure, path: Path, **more: Any) -> None:
            name = Path(path).name.removeprefix(".").removesuffix(".part.png")
            found.texts[name] = words(figure)
            original(figure, path, **more)
            found.faults[name] = faults(figure)

        monkeypatch.setattr(Figure, "savefig", savefig)
        return found


def words(figure: Figure) -> list[str]:
    return [item.get_text() for item in figure.findobj(mpl.text.Text)]


def faults(figure: Figure) -> list[str]:
    """Name the texts that overlap each other or stick out of the figure."""
    drawn: dict[int, mpl.text.Text] = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        # of the ticks, only what is drawn counts
        monkeypatch.setattr(mpl.text.Text, "draw", lambda item, *_, **__: drawn.setdefault(id(item), item))
        monkeypatch.setattr(mpl.text.Annotation, "draw", lambda item, *_, **__: drawn.setdefault(id(item), item))
        figure.draw_without_rendering()
    shown = [item for item in drawn.values() if item.get_visible() and item.get_text().strip()]
    boxes = [(item.get_text(), mpl.text.Text.get_window_extent(item)) for item in shown]
    width, height = figure.bbox.width, figure.bbox.height
    cut = [text for text, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]
    # lines stand closer than the boxes around their letters; boxes of slanted names say nothing
    slanted = {item.get_text() for item in shown if item.get_rotation() % 90}
    tight = [(text, box.padded(-0.02 * figure.dpi)) for text, box in boxes if text not in slanted]
    return [f"{text!r} is cut" for text in cut] + [
        f"{one!r} overlaps {two!r}" for (one, a), (two, b) in itertools.combinations(tight, 2) if a.overlaps(b)
    ]


def evidence(fake: fake_results.Fake) -> Evidence:
    return Evidence(fake.settings("draw_figures"), fake.parents, fake.results)


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw with few pixels, where a test looks at the words only."""
    monkeypatch.setattr("cityheads.product.figures.style.DPI", 40)


@pytest.fixture(scope="module")
def drawing(simulated: fake_results.Fake, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Figures]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        figures = Figures.watch(monkeypatch)
        out = tmp_path_factory.mktemp("drawn")
        draw(simulated, out)
    return out, figures


@pytest.fixture(scope="module")
def drawn(drawing: tuple[Path, Figures]) -> Path:
    return drawing[0]


def test_every_figure_is_listed_drawn_and_described(drawn: Path) -> None:
    entries = listed(drawn)
    assert [entry["id"] for entry in entries] == [
        "delta", "map", "panels_lulc", "panels_buildings", "curves_score", "curves_loss", "confusion_lulc",
        "confusion_buildings", "modality_ablation", "balance", "dropped", "timings",
    ]  # fmt: skip
    assert {path.name for path in drawn.iterdir()} == {entry["file"] for entry in entries} | {"figures.json"}
    for entry in entries:
        content = (drawn / entry["file"]).read_bytes()
        width, height = struct.unpack(">II", content[16:24])
        assert width >= 1600, entry["id"]
        assert height >= 300, entry["id"]
        assert entry["caption"].endswith("."), entry["id"]
        assert len(entry["alt"]) > 40, entry["id"]


def test_every_figure_has_a_caption_for_snakemakes_report(drawn: Path) -> None:
    for entry in listed(drawn):
        family = entry["section"] if entry["id"].startswith(("panels_", "confusion_")) else entry["id"]
        assert (CAPTIONS / f"{family}.rst").read_text().strip(), entry["id"]


@pytest.mark.parametrize("path", sorted(CAPTIONS.glob("*.rst")), ids=lambda path: path.stem)
def test_captions_ask_nothing_of_a_config_that_names_no_defaults(path: Path) -> None:
    told = jinja2.Template(path.read_text()).render(snakemake=SimpleNamespace(config={}))
    assert told.strip()


def test_equal_results_give_equal_bytes(
    simulated: fake_results.Fake, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # whatever the user's matplotlibrc says
    monkeypatch.setitem(mpl.rcParams, "font.size", 20)
    monkeypatch.setitem(mpl.rcParams, "axes.grid", True)
    draw(simulated, tmp_path)
    assert mpl.rcParams["font.size"] == 20
    for path in sorted(drawn.iterdir()):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_no_time_and_no_machine_in_the_bytes(drawn: Path) -> None:
    for path in drawn.glob("*.png"):
        content = path.read_bytes()
        for chunk in (b"tEXt", b"iTXt", b"tIME"):
            assert chunk not in content, (path.name, chunk)


def test_every_simulated_figure_says_so(drawing: tuple[Path, Figures]) -> None:
    out, texts = drawing[0], drawing[1].texts
    entries = listed(out)
    assert set(texts) == {entry["id"] for entry in entries}
    for name, lines in texts.items():
        assert "SIMULATED DATA" in lines, name
    assert all(entry["alt"].startswith("Simulated data.") for entry in entries)


def test_nothing_overlaps_and_nothing_is_cut(drawing: tuple[Path, Figures]) -> None:
    assert {name: found for name, found in drawing[1].faults.items() if found} == {}


def test_the_numbers_in_the_figures_are_those_of_the_results(
    simulated: fake_results.Fake, drawing: tuple[Path, Figures]
) -> None:
    texts = drawing[1].texts
    statistics = read_json(simulated.results / "dataset" / "0" / "statistics.json")
    assert f"too cloudy ({statistics['dropped']['too cloudy']})" in texts["dropped"]
    assert any(f"{statistics['chips']['train']} sub-chips" in line for line in texts["map"])
    matrix = np.array(
        read_json(simulated.results / "evaluation" / "test" / "lulc" / "0" / "0" / "metrics.json")["heads"]["lulc"][
            "confusion"
        ]
    )
    for recall in np.diag(matrix) / matrix.sum(axis=1):
        assert f"{100 * recall:.1f}" in texts["confusion_lulc"]
    for head in simulated.gate()["heads"].values():
        assert any(line.startswith(signed(head["delta_pp"], 2)) for line in texts["delta"])


def test_the_map_of_a_cross_validation_shows_the_fold_that_tests_each_parent(
    simulated: fake_results.Fake, tmp_path: Path
) -> None:
    fake = copied(simulated, tmp_path)
    fake.change(splits={"method": "folds", "folds": 3})
    path = fake.layout.dataset(0).splits
    splits = SPLIT_ASSIGNMENT.read(path)
    folds = {parent: index % 3 for index, parent in enumerate(splits["parents"])}
    SPLIT_ASSIGNMENT.write(path, {**splits, "method": "fold 0 of 3", "folds": 3, "tested_in": {**folds}})
    # the pictures need the first fold alone
    evidence = Evidence(fake.settings("draw_figures"), fake.parents, fake.results)
    assert set(evidence.group.values()) == set(evidence.group_colors) == {"fold 0", "fold 1", "fold 2"}
    assert len(set(evidence.group_colors.values())) == 3
    drawn = draw_map(evidence)
    assert "each tested in one of 3 folds" in drawn.caption
    assert f"fold 1: {', '.join(parent for parent, fold in folds.items() if fold == 1)}" in drawn.alt
    colors = {to_hex(patch.get_facecolor()) for patch in drawn.figure.axes[0].patches}
    assert set(evidence.group_colors.values()) <= colors
    assert not set(style.SPLIT_COLOR.values()) & colors


@pytest.mark.slow
@pytest.mark.usefixtures("coarse")
def test_three_zones_more_heads_more_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = Figures.watch(monkeypatch)
    fake = fake_results.make(tmp_path, simulated=False, zones=True, extra=True, seeds=(0, 4))
    entries = draw(fake, tmp_path / "figures")
    assert {"panels_built", "confusion_built"} <= {entry["id"] for entry in entries}
    texts = figures.texts
    for name, lines in texts.items():
        assert not any("SIMULATED" in line for line in lines), name
    for zone in ("EPSG:32718", "EPSG:32722", "EPSG:32736"):
        assert zone in texts["map"]
    # one test parent gives no interval, and the figures say so
    assert sum("no interval" in line for line in texts["delta"]) == 3
    assert sum(line.endswith("pp, no interval") for line in texts["modality_ablation"]) == 3 * 2 * 3
    # both seeds saw the same pixels: they count once
    counted = read_json(fake.results / "evaluation" / "test" / "lulc" / "0" / "0" / "metrics.json")["heads"]["lulc"][
        "confusion"
    ]
    assert f"water\n{sum(counted[0]):,} px" in texts["confusion_lulc"]
    assert {name: found for name, found in figures.faults.items() if found} == {}


def test_what_is_undefined_or_not_recorded_is_said(simulated: fake_results.Fake, tmp_path: Path) -> None:
    """No benchmarks; a class without test pixels, so a row of n/a and a head without a delta."""
    fake = copied(simulated, tmp_path)
    shutil.rmtree(fake.results / "benchmarks")
    gate = fake.gate()
    gate["heads"]["buildings"] |= {"multihead": None, "single_task": None, "delta_pp": None, "interval_pp": None}
    gate["heads"]["buildings"]["per_seed"][0] |= {"multihead": None, "single_task": None, "delta_pp": None}
    GATE.write(fake.layout.gate, gate)
    for run in ("multihead", "buildings"):
        where = fake.results / "evaluation" / "test" / run / "0" / "0" / "metrics.json"
        metrics = read_json(where)
        metrics["heads"]["buildings"]["confusion"][1] = [0, 0]
        write_json(where, metrics)
    found = evidence(fake)
    assert any("No benchmark files" in line for line in words(draw_timings(found).figure))
    assert "n/a (undefined here)" in words(draw_delta(found).figure)
    assert words(draw_confusion(found, "buildings").figure).count("n/a") == 4


@pytest.mark.parametrize(
    "missing",
    [
        "gate.json",
        "dataset/0/chips.parquet",
        "dataset/0/classes.json",
        "dataset/0/statistics.json",
        "dataset/0/splits.json",
        "dataset/store/S2L2A.npy",
        "dataset/store/MASK_LULC.npy",
        "runs/lulc/0/0/history.csv",
        "runs/lulc/0/0/training.json",
        "evaluation/test/lulc/0/0/metrics.json",
        "evaluation/test/lulc/0/0/confusion.parquet",
        "evaluation/test/multihead/0/0/predictions/lulc.npy",
        "evaluation/test/multihead/0/0/predictions/index.json",
    ],
)
def test_a_missing_artifact_is_named(simulated: fake_results.Fake, tmp_path: Path, missing: str) -> None:
    fake = copied(simulated, tmp_path)
    (fake.results / missing).unlink()
    with pytest.raises(CityHeadsError, match=f"{missing}: no such file"):
        draw(fake, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_a_damaged_table_is_named(simulated: fake_results.Fake, tmp_path: Path) -> None:
    fake = copied(simulated, tmp_path)
    write_bytes(fake.results / "dataset" / "0" / "chips.parquet", b"PAR1 not really")
    with pytest.raises(CityHeadsError, match=r"chips\.parquet: cannot be read"):
        draw(fake, tmp_path / "figures")


def test_the_modality_ablation_is_told(simulated: fake_results.Fake, drawing: tuple[Path, Figures]) -> None:
    out, texts = drawing[0], drawing[1].texts
    entry = next(entry for entry in listed(out) if entry["id"] == "modality_ablation")
    for run, head in (("multihead", "lulc"), ("buildings", "buildings")):
        found = read_json(simulated.results / "evaluation" / "test" / run / "0" / "0" / "metrics.json")[
            "modality_ablation"
        ]
        for name, heads in found.items():
            assert name in texts["modality_ablation"]
            low, high = heads[head]["interval_pp"]
            told = f"{signed(heads[head]['delta_pp'], 2)} pp  [{signed(low, 2)}, {signed(high, 2)}]"
            assert told in texts["modality_ablation"]
            kind = "shared" if run == "multihead" else "single-task"
            assert f"{head} without {name}, {kind}, {told}" in entry["alt"]


def test_a_changed_colour_is_drawn_and_other_classes_than_the_datasets_are_refused(
    simulated: fake_results.Fake, tmp_path: Path
) -> None:
    fake = copied(simulated, tmp_path)
    classes = fake.config.to_dict()["labels"]["LULC"]["classes"]
    classes[0]["color"] = "#123456"
    fake.change(labels={"LULC": {"classes": classes}})
    assert evidence(fake).classes("LULC")[0] == ("water", "#123456")
    classes[0]["name"] = "sea"
    fake.change(labels={"LULC": {"classes": classes}})
    with pytest.raises(CityHeadsError, match=r"classes\.json: LULC has the classes water, .* but the config has sea"):
        evidence(fake).classes("LULC")


@pytest.mark.usefixtures("coarse")
def test_without_an_ablation_there_is_no_such_figure(simulated: fake_results.Fake, tmp_path: Path) -> None:
    fake = copied(simulated, tmp_path)
    old = tmp_path / "figures" / "modality_ablation.png"
    write_bytes(old, b"of before")
    tables: tuple[dict[str, object] | None, ...] = ({}, None)
    for table in tables:
        for run in fake.config.runs:
            where = fake.results / "evaluation" / "test" / run / "0" / "0" / "metrics.json"
            write_json(where, read_json(where) | {"modality_ablation": table})
        assert draw_modality_ablation(evidence(fake)) is None
    assert "modality_ablation" not in [entry["id"] for entry in draw(fake, tmp_path / "figures")]
    assert not old.exists(), "an old one is taken away"


def test_without_radar_no_figure_speaks_of_it(simulated: fake_results.Fake, tmp_path: Path) -> None:
    fake = copied(simulated, tmp_path)
    store = fake.results / "dataset" / "store"
    (store / "S1RTC.npy").rename(store / "S1GRD.npy")
    assert "radar is VV in dB" in draw_panels(evidence(fake), "lulc").caption
    (store / "S1GRD.npy").unlink()
    panels = draw_panels(evidence(fake), "lulc")
    assert "radar" not in panels.caption + panels.alt


def test_many_classes_with_long_names_do_not_collide(simulated: fake_results.Fake, tmp_path: Path) -> None:
    fake = copied(simulated, tmp_path)
    names = ["open water", "herbaceous wetland", "low-intensity residential", "high-intensity residential", "evergreen"]
    tables = CLASSES.read(fake.layout.dataset(0).classes)
    classes = fake.config.to_dict()["labels"]["LULC"]["classes"]
    for item, rule, name in zip(tables["labels"]["LULC"], classes, names, strict=True):
        item["name"] = rule["name"] = name
    CLASSES.write(fake.layout.dataset(0).classes, tables)
    # the control that takes land cover for buildings names its class
    proxies = {"buildings": {"classes": [names[1]]}}
    fake.change(labels={"LULC": {"classes": classes}}, controls={"proxies": proxies})
    with style.style():
        found = evidence(fake)
        for drawing in (draw_confusion(found, "lulc"), draw_panels(found, "lulc"), draw_balance(found)):
            assert faults(drawing.figure) == [], drawing.id


# --- the parts -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=0, max_size=40), st.integers(1, 4))
def test_ranking_is_ordered_and_without_repeats(hits: list[int], count: int) -> None:
    matrices = {f"P_r0c{i}": np.array([[50, 50 - hit], [0, hit]]) for i, hit in enumerate(hits)}
    picked = rank_chips(matrices, count)
    chips = [chip for _, chip in picked]
    assert len(set(chips)) == len(chips)
    assert len(chips) == min(len(hits), 3 * count)
    wrong = [wrong_share(matrices[chip]) or 0.0 for chip in chips]
    assert wrong == sorted(wrong, reverse=True)
    kinds = [kind for kind, _ in picked]
    assert kinds == sorted(kinds, key=["worst", "median", "best"].index)
    if chips:
        every = [wrong_share(matrix) for matrix in matrices.values()]
        assert wrong[0] == max(every)
        assert len(chips) < 3 or wrong[-1] == min(every)


def test_a_handful_of_wrong_pixels_of_a_rare_class_is_not_the_worst() -> None:
    nearly = {"rare": np.array([[995, 0], [5, 0]]), "right": np.array([[900, 0], [0, 100]])}
    poor = {"poor": np.array([[500, 300], [50, 150]])}
    few = {"mostly ignored": np.array([[0, 10], [10, 0]]), "nothing labelled": np.zeros((2, 2), int)}
    assert rank_chips(nearly | poor | few, 1) == [("worst", "poor"), ("median", "rare"), ("best", "right")]
    assert wrong_share(few["nothing labelled"]) is None


def test_ignored_pixels_are_hatched_and_classes_keep_their_colour() -> None:
    layer = np.array([[0, 1], [255, 255]], np.uint8)
    picture = paint(layer, ["#ff0000", "#00ff00"])
    half = picture.shape[0] // 2
    assert np.all(picture[:half, :half] == (1, 0, 0))
    assert np.all(picture[:half, half:] == (0, 1, 0))
    assert len(np.unique(picture[half:].reshape(-1, 3), axis=0)) == 2


def test_a_hatch_tells_two_classes_apart_without_their_colour() -> None:
    layer = np.array([[0, 1]], np.uint8)
    picture = paint(layer, ["#888888", "#888888"], ["////", "...."])
    half = picture.shape[1] // 2
    dark = (picture < 0.5).all(axis=-1).mean(axis=0)
    assert 0 < dark[half:].mean() < dark[:half].mean() < 0.5
    assert not np.array_equal(picture[:, :half], picture[:, half:])


def test_true_colour_takes_red_green_blue_and_shows_nodata_white() -> None:
    array = np.ones((12, 2, 2), np.uint16) * 100
    array[3, 0, 0] = 1000  # B04, red
    array[1, 0, 1] = 1000  # B02, blue
    array[:, 1, 1] = 0
    picture = true_colour(array, stretch(array[None], [0]))
    assert picture[0, 0].argmax() == 0
    assert picture[0, 1].argmax() == 2
    assert np.all(picture[1, 1] == 1)


def test_numbers_for_people() -> None:
    assert number(-0.04) == "0.0"
    assert number(-1.25, 2) == "\N{MINUS SIGN}1.25"
    assert number(12345.6, 0) == "12,346"
    assert (signed(0.04), signed(0.06), signed(-2)) == ("0.0", "+0.1", "\N{MINUS SIGN}2.0")
    assert (duration(8.44), duration(185), duration(7800)) == ("8.4 s", "3 min 05 s", "2 h 10 min")


def test_timings_are_summed_per_rule(simulated: fake_results.Fake) -> None:
    timings = {item.rule: item for item in Results(simulated.results, simulated.config).timings()}
    assert list(timings)[:3] == ["simulate_archive", "select_scenes", "read_parent"]
    assert timings["read_parent"].jobs == 22
    assert timings["read_parent"].seconds == pytest.approx(sum(1.1 + 0.05 * i for i in range(22)))
    assert timings["train"].longest == pytest.approx(70.1)
    assert timings["compare"].peak_mb is None
