"""The report: one file without a network, verdict first, nothing hidden and nothing unescaped."""

from __future__ import annotations

import base64
import csv
import html as entities
import io
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import fake_results
import numpy as np
import pytest
from PIL import Image

from cityheads import CityHeadsError
from cityheads.core.artifacts.gate import GATE, HeadComparison
from cityheads.core.artifacts.leaderboard import LEADERBOARD, Entry, EntryCost, EntryHead
from cityheads.core.classes import IGNORE
from cityheads.core.files import read_json, sha256_file, write_json
from cityheads.core.text import signed
from cityheads.evaluation.verdict import HEADLINE
from cityheads.product.report import images
from cityheads.product.report.first import verdict_sign
from cityheads.product.report.page import report
from cityheads.product.report.tables import Cell, Column, Table, count, points, score, words

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Reads a page and fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.stack, f"left open: {self.stack}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.stack):
            self.words.append((self.stack[-1] if self.stack else "", data))

    def text(self) -> str:
        return " ".join(" ".join(data for _, data in self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def inside(self, tag: str) -> list[str]:
        return [data.strip() for parent, data in self.words if parent == tag and data.strip()]


def write(fake: fake_results.Fake, out: Path | None = None) -> str:
    out = out or fake.results / "report.html"
    report(fake.settings("report"), results=fake.results, out=out)
    return out.read_text()


def section(html: str, name: str) -> str:
    return html.split(f'<section id="{name}">')[1].split("</section>")[0]


def table(html: str, name: str) -> list[list[str]]:
    """Read a table's CSV, header first."""
    url = re.findall(rf'download="{name}\.csv" href="data:text/csv;charset=utf-8,([^"]*)"', html)
    assert len(url) == 1
    return list(csv.reader(io.StringIO(unquote(url[0]))))


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> fake_results.Fake:
    return fake_results.make(tmp_path_factory.mktemp("fake"))


@pytest.fixture(scope="module")
def html(fake: fake_results.Fake) -> str:
    return write(fake)


@pytest.fixture
def own(fake: fake_results.Fake, tmp_path: Path) -> fake_results.Fake:
    """A copy that a test may change."""
    # links: files are replaced whole, so the original stays as it is
    shutil.copytree(fake.results, tmp_path / "results", copy_function=lambda source, to: Path(to).hardlink_to(source))
    return fake_results.Fake(tmp_path / "results", fake.parents, fake.config)


def test_it_is_well_formed_and_accessible(html: str) -> None:
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("alt" in image for image in page.all("img"))
    assert all(svg["aria-label"] for svg in page.all("svg"))
    assert all(cell.get("scope") for cell in page.all("th"))
    assert not re.search(r"<tbody>\s*</tbody>", html), "a table without a row"
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for link in page.all("a"):
        assert "download" in link or link["href"].removeprefix("#") in identifiers


def test_nothing_is_fetched(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.tags:
        for key in ("src", "href", "srcset", "data", "poster", "action"):
            if key in attributes:
                assert attributes[key].startswith(
                    ("data:image/png;base64,", "data:image/jpeg;base64,", "data:text/csv;charset=utf-8,", "#")
                ), (tag, attributes[key][:80])
        assert tag not in {"link", "iframe", "object", "embed", "base"}
    style = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html


def test_the_first_screen_answers_in_one_sentence(fake: fake_results.Fake, html: str) -> None:
    gate = fake.gate()
    first = html.split('<header class="first"')[1].split("</header>")[0]
    page = Page('<header class="first"' + first + "</header>")
    assert page.inside("h1") == [gate["headline"]]
    text = page.text()
    assert "One model draws two maps of a city from satellite images: land cover (lulc) and buildings." in text
    assert f"Verdict on the comparison: {gate['verdict']}" in text
    assert len(page.all("img")) == 3, "image, reference and map"
    for head in gate["heads"].values():
        assert f"{100 * head['multihead']:.1f}" in text
        low, high = head["multihead_interval"]
        assert f"{100 * low:.1f} to {100 * high:.1f}" in text
        assert f"{100 * head['ceiling']['score']:.1f}" in text
        best = max(head["controls"].values(), key=lambda one: one["score"])
        assert f"{100 * best['score']:.1f}" in text
    beaten = [fair_floor(head) for head in gate["heads"].values()]
    assert text.count("Better than the best simple method") == sum(beaten)
    assert text.count("Not shown to be better than a simple method") == len(beaten) - sum(beaten)
    for jargon in ("mIoU", "IoU of building", "encoder"):
        assert jargon in page.inside("dfn"), "explained where it first stands"


def fair_floor(head: HeadComparison) -> bool:
    """Say whether the shared model beats the best control of a head."""
    best = max(head["controls"].values(), key=lambda one: one["score"] or 0.0)
    return best["models"]["multihead"]["beaten"]


def test_the_numbers_stand_where_they_belong_on_the_scale(fake: fake_results.Fake, html: str) -> None:
    strips = re.findall(r'<div class="strip " role="img" aria-label="(.*?)">(.*?)</div>', html, re.DOTALL)
    assert len(strips) == 2
    for (alt, strip), head in zip(strips, fake.gate()["heads"].values(), strict=True):
        placed = dict(re.findall(r'class="m (\w+)" style="left: ([\d.]+)%"', strip))
        assert float(placed["shared"]) == pytest.approx(100 * head["multihead"], abs=1e-3)
        assert float(placed["single"]) == pytest.approx(100 * head["single_task"], abs=1e-3)
        assert float(placed["ceiling"]) == pytest.approx(100 * head["ceiling"]["score"], abs=1e-3)
        low, high = head["multihead_interval"]
        left, width = re.findall(r'class="bar" style="left: ([\d.]+)%; width: ([\d.]+)%"', strip)[0]
        assert float(left) == pytest.approx(100 * low, abs=1e-3)
        assert float(width) == pytest.approx(100 * (high - low), abs=1e-3)
        assert f"the shared model {100 * head['multihead']:.1f}" in alt


def test_without_controls_and_ceiling_nothing_is_invented(own: fake_results.Fake) -> None:
    gate = own.gate()
    for head in gate["heads"].values():
        nothing = {"zeroed": None, "permuted": None, "image_skip": None, "trained": {}, "matters": None}
        head |= {"controls": {}, "ceiling": None, "encoder": nothing, "multihead_interval": None, "permutation": None}
        head["power"] = {"power": 0.8, "detectable_pp": None, "needed": []}
    GATE.write(own.layout.gate, gate)
    html = write(own)
    text = Page(html).text()
    assert text.count("nothing says whether this is much or little") == 2
    assert 'class="m ceiling"' not in html
    assert 'class="m floor"' not in html
    for name in ("controls", "encoder", "power"):
        assert f"{name}.csv" not in html
    assert text.count("what could have been seen is unknown") == 2


def test_no_evidence_is_said_first_with_its_reasons(own: fake_results.Fake) -> None:
    gate = own.gate()
    missing = [f"lulc: control {number} was not made." for number in range(5)]
    floor = {"held": False, "measured": [], "missing": missing, "failures": ["lulc: boosted trees do <better>."]}
    gate |= {"verdict": "no evidence", "headline": HEADLINE["no evidence"], "reason": "Why & how.", "floor": floor}
    GATE.write(own.layout.gate, gate)
    html = write(own)
    first = Page("<header" + html.split("<header")[1].split("</header>")[0] + "</header>")
    assert first.inside("h1") == [HEADLINE["no evidence"]]
    assert "lulc: boosted trees do <better>. lulc: control 0 was not made." in first.text()
    assert "2 more" in first.text()
    assert all(line in Page(section(html, "verdict")).text() for line in missing)
    assert "The floor does not hold" in Page(html).text()


@pytest.mark.parametrize("verdict", [*HEADLINE])
def test_each_verdict_renders(own: fake_results.Fake, verdict: str) -> None:
    gate = own.gate()
    gate |= {"verdict": verdict, "headline": HEADLINE[verdict], "reason": f"Since {verdict} & <so>.", "advice": ""}
    GATE.write(own.layout.gate, gate | {"point_verdict": None})
    html = write(own)
    text = Page(html).text()
    assert f"Since {verdict} & <so>." in text
    assert HEADLINE[verdict] in Page(html).inside("h1")
    assert "What would decide it" not in text
    # a shape and a word, the same ink for all: no colour says good or bad
    assert f'<span class="sign" aria-hidden="true">{verdict_sign(verdict)}</span>' in html
    assert len({verdict_sign(name) for name in HEADLINE}) == len(HEADLINE)


def test_power_is_stated_before_the_comparison(html: str) -> None:
    part = section(html, "verdict")
    assert part.index("What this design could have seen") < part.index("The comparison")
    assert "lulc: a true difference of 2.40 percentage points or more would have been seen" in Page(part).text()
    assert table(html, "power")[1] == ["lulc", "1", "31", "7", "18 parents, 4 seeds"]
    assert table(html, "power")[2][2:4] == ["6", ""], "undefined stays empty"


def test_the_comparison_holds_what_the_verdict_says(fake: fake_results.Fake, html: str) -> None:
    rows = {row[0]: row for row in table(html, "comparison")[1:]}
    text = Page(section(html, "verdict")).text()
    for head, part in fake.gate()["heads"].items():
        assert [float(value) for value in rows[head][1:4]] == pytest.approx(
            [100 * part["multihead"], 100 * part["single_task"], part["delta_pp"]]
        )
        low, high = part["interval_pp"]
        assert f"{signed(part['delta_pp'], 2)} pp ({signed(low, 2)} to {signed(high, 2)})" in text


def test_controls_and_encoder_are_listed(fake: fake_results.Fake, html: str) -> None:
    rows = {(row[0], row[1]): row for row in table(html, "controls")[1:]}
    for head, part in fake.gate()["heads"].items():
        for name, control in part["controls"].items():
            lead = control["models"]["multihead"]
            assert float(rows[head, name][3]) == pytest.approx(lead["delta_pp"])
            assert rows[head, name][5] == ("yes" if lead["beaten"] else "no")
        assert rows[head, "no_encoder"][6] == "", "it is held against the shared model only"
        assert rows[head, "ceiling"][5] == "no"
    lost = {(row[0], row[1]): row for row in table(html, "encoder")[1:]}
    for head, part in fake.gate()["heads"].items():
        lead = part["encoder"]["zeroed"]["models"]["multihead"]
        low, high = lead["interval_pp"]
        row = lost[head, "encoder's output set to zero"]
        assert float(row[3]) == pytest.approx(-lead["delta_pp"])
        assert row[4] == f"{signed(-high, 2)} to {signed(-low, 2)}"


def _real(own: fake_results.Fake, catalog: str) -> None:
    """Make the config one of a catalogue in place of the simulated archive."""
    own.change(
        archive={"provider": "stac", "catalog": catalog},
        labels={"BUILDINGS": {"source": "footprints.parquet", "boundary": "city.gpkg"}},
    )


def test_simulated_data_are_called_so(own: fake_results.Fake, html: str) -> None:
    assert "Simulated data." in Page(html).inside("strong")
    for path in (own.results / "gate.json", own.results / "dataset" / "0" / "statistics.json"):
        write_json(path, read_json(path) | {"simulated": False})
    _real(own, "https://stac.example.org/v1")
    write_json(own.results / "gate.json", read_json(own.results / "gate.json") | {"caveats": []})
    own.change(project={"name": "real"})
    assert "simulated data" not in Page(write(own)).text().lower()


def test_html_in_the_config_is_escaped(own: fake_results.Fake) -> None:
    bad = '<script>alert(1)</script> & "quotes" \''
    own.change(project={"title": f"T {bad}", "notes": f"N {bad}"})
    _real(own, f"https://x/{bad}")
    html = write(own)
    assert "<script>alert" not in html
    page = Page(html)
    assert f"T {bad}" in page.text()
    assert f"N {bad}" in page.text()
    assert len(page.all("script")) == 2, "the data of the map, and our own"


def test_same_results_same_bytes(fake: fake_results.Fake, html: str, tmp_path: Path) -> None:
    assert write(fake, tmp_path / "again.html") == html


def test_the_account_of_sub_chips(fake: fake_results.Fake, html: str) -> None:
    text = Page(html).text()
    dropped = read_json(fake.results / "dataset" / "0" / "statistics.json")["dropped"]
    lost = sum(dropped.values())
    assert f"352 = {352 - lost} kept + {lost} dropped." in text
    rows = {row[0]: row for row in table(html, "dropped")[1:]}
    for reason, number in dropped.items():
        assert rows[reason][1] == str(number)


def test_the_account_of_footprints(html: str) -> None:
    text = Page(html).text()
    assert "120,004 rows = 119,990 kept + 14 dropped. Dropped: 13 coded as ground, 1 duplicate." in text
    assert "12 outlines were repaired. Those kept cover 41.25 km²." in text


def test_a_wrong_account_is_an_error(own: fake_results.Fake) -> None:
    path = own.results / "dataset" / "0" / "statistics.json"
    statistics = read_json(path)
    statistics["dropped"]["too cloudy"] += 1
    write_json(path, statistics)
    with pytest.raises(CityHeadsError, match=r"statistics\.json"):
        write(own)


def test_per_class_tables_hold_the_scores(fake: fake_results.Fake, html: str) -> None:
    header, *rows = table(html, "buildings-classes")
    row = rows[1]
    for column, run in (("shared", "multihead"), ("single", "buildings")):
        matrix = read_json(fake.layout.evaluation(run, 0, 0).metrics)["heads"]["buildings"]["confusion"]
        (tn, fp), (fn, tp) = np.array(matrix)
        expected = {"IoU": tp / (tp + fp + fn), "Precision": tp / (tp + fp), "Recall": tp / (tp + fn)}
        expected["F1"] = 2 * tp / (2 * tp + fp + fn)
        for name, share in expected.items():
            assert float(row[header.index(f"{name} {column}")]) == pytest.approx(100 * share)
        assert rows[0][header.index("pixels")] == str(tn + fp)
        means = {one[0]: one for one in table(html, "buildings-means")[1:]}
        chance = ((tn + fp) * (tn + fn) + (fn + tp) * (fp + tp)) / np.sum(matrix) ** 2
        kappa = ((tn + tp) / np.sum(matrix) - chance) / (1 - chance)
        assert float(means["Cohen's kappa"][1 if run == "multihead" else 2]) == pytest.approx(100 * kappa)


def test_undefined_scores_are_said_not_zeroed(own: fake_results.Fake) -> None:
    for run in ("multihead", "buildings"):
        path = own.layout.evaluation(run, 0, 0).metrics
        metrics = read_json(path)
        part = metrics["heads"]["buildings"]
        part["confusion"] = [[sum(part["confusion"][0]), 0], [0, 0]]
        part["metric"]["value"] = part["interval"] = None
        for parent in part["per_parent"].values():
            parent["confusion"] = [[sum(parent["confusion"][0]), 0], [0, 0]]
            parent["value"] = None
        write_json(path, metrics)
    gate = own.gate()
    nothing = dict.fromkeys(("multihead", "single_task", "delta_pp", "interval_pp", "simultaneous_pp"))
    gate["heads"]["buildings"] |= nothing
    GATE.write(own.layout.gate, gate | {"verdict": "inconclusive", "point_verdict": None})
    html = write(own)
    first = Page("<header" + html.split("<header")[1].split("</header>")[0] + "</header>")
    assert "n/a: the test labels hold no pixel of a class that the score needs." in first.text()
    assert table(html, "comparison")[2][1:6] == [""] * 5
    assert table(html, "buildings-classes")[2][2:] == [""] * 12
    assert {tuple(row[3:]) for row in table(html, "buildings-parents")[1:]} == {("", "", "")}


def test_the_table_of_removed_modalities(fake: fake_results.Fake, html: str) -> None:
    evaluations = {run: read_json(fake.layout.evaluation(run, 0, 0).metrics) for run in fake.config.runs}
    columns = [("multihead", "lulc"), ("lulc", "lulc"), ("multihead", "buildings"), ("buildings", "buildings")]
    _, full, *rows = table(html, "modality-ablation")
    assert [float(value) for value in full[1:]] == pytest.approx(
        [100 * evaluations[run]["heads"][head]["metric"]["value"] for run, head in columns], abs=0.01
    )
    assert [row[0] for row in rows] == ["S2L2A", "S1RTC", "DEM"]
    text = Page(section(html, "ablation")).text()
    for name, *values in rows:
        for (run, head), value in zip(columns, values, strict=True):
            part = evaluations[run]["modality_ablation"][name][head]
            assert float(value) == pytest.approx(100 * part["value"], abs=0.01)
            low, high = part["interval_pp"]
            assert f"{signed(part['delta_pp'], 2)} pp [{signed(low, 2)}, {signed(high, 2)}]" in text
    assert "a missing input had never been seen" in text


@pytest.mark.slow
def test_removed_modalities_of_several_seeds_are_averaged(tmp_path: Path) -> None:
    fake = fake_results.make(tmp_path, seeds=(0, 1))
    values = []
    for seed in (0, 1):
        one = read_json(fake.layout.evaluation("multihead", 0, seed).metrics)
        values.append(one["modality_ablation"]["S1RTC"]["lulc"]["value"])
    row = next(row for row in table(write(fake), "modality-ablation") if row[0] == "S1RTC")
    assert float(row[1]) == pytest.approx(100 * sum(values) / 2, abs=0.01)


def test_what_could_not_be_removed_or_measured_is_said(own: fake_results.Fake) -> None:
    def change(**values: object) -> str:
        for run in own.config.runs:
            path = own.results / "evaluation" / "test" / run / "0" / "0" / "metrics.json"
            write_json(path, read_json(path) | values)
        return Page(write(own)).text()

    path = own.results / "evaluation" / "test" / "multihead" / "0" / "0" / "metrics.json"
    metrics = read_json(path)
    metrics["modality_ablation"]["DEM"]["lulc"] |= {"value": None, "delta_pp": None, "interval_pp": None}
    for parent in [metrics["heads"]["lulc"], metrics["modality_ablation"]["DEM"]["lulc"]]:
        for one in parent["per_parent"].values():
            one["confusion"] = np.zeros_like(one["confusion"]).tolist()
    write_json(path, metrics)
    row = next(row for row in table(write(own), "modality-ablation") if row[0] == "DEM")
    assert row[1] == ""
    told = change(modality_ablation={}, not_ablated={"S2L2A": "the only image that the model sees"})
    assert "S2L2A was not left out: it is the only image that the model sees." in told
    assert "How to read this" not in told
    assert "Not measured: evaluation.modality_ablation is off." in change(modality_ablation=None, not_ablated={})


def test_missing_classes_are_warned_of(own: fake_results.Fake, html: str) -> None:
    assert "Classes that a split lacks" not in html
    path = own.results / "dataset" / "0" / "splits.json"
    gap = {"split": "val", "label": "LULC", "class": "other"}
    write_json(path, read_json(path) | {"missing": [gap]})
    assert "val has no pixel of other (LULC)" in Page(write(own)).text()


def test_budgets_are_shown_and_unequal_ones_are_said(own: fake_results.Fake, html: str) -> None:
    header, *rows = table(html, "trainings")
    assert {row[header.index("steps")] for row in rows} == {"90"}
    assert "All compared models were given the same" in Page(html).text()
    path = own.layout.run("lulc", 0, 0).training
    write_json(path, read_json(path) | {"steps": 40})
    text = Page(write(own)).text()
    assert "A difference may be one of effort." in text
    assert "optimizer steps 90 in multihead, 40 in lulc" in text


def test_a_leaderboard_is_shown_where_there_is_one(own: fake_results.Fake, html: str) -> None:
    assert "Leaderboard" not in Page(html).text()
    head: EntryHead = {
        "metric": "miou", "positive_class": None, "score": 0.61, "interval": [0.5, 0.7], "delta_pp": None,
        "delta_interval_pp": None,
    }  # fmt: skip
    cost: EntryCost = {
        "parameters": 6_100_000, "trainable": 6_100_000, "steps": 90.0, "candidates": 1, "train_s": 61.0,
        "peak_memory_mb": None, "cpu_energy_j": None, "inference_chips_per_s": 87.5,
    }  # fmt: skip
    entry: Entry = {
        "name": "lora", "experiment": True, "set": {"model.lora": 8}, "settings": [], "comment": "small & quick",
        "seeds": [0], "parents": 3, "heads": {"lulc": head}, "score": 0.61, "cost": cost,
        "front": {"parameters": True, "train_s": False},
    }  # fmt: skip
    LEADERBOARD.write(
        own.layout.leaderboard.record,
        {
            "split": "val",
            "folds": [0],
            "confidence": 0.95,
            "simulated": True,
            "entries": [entry],
            "notes": ["Note <1>."],
        },
    )
    page = write(own)
    header, row = table(page, "leaderboard")
    assert row[header.index("lulc, mIoU, %")] == "61"
    assert row[header.index("memory, MB")] == ""
    assert row[-1] == "parameters"
    assert "Note <1>." in Page(page).text()
    assert "model.lora: 8 small & quick" in Page(page).text()


def test_provenance(fake: fake_results.Fake, html: str) -> None:
    text = Page(html).text()
    for name in ("P01", "P22"):
        scenes = read_json(fake.results / "scenes" / f"{name}.json")["layers"]
        for layer in ("S2L2A", "S1RTC"):
            for item in scenes[layer]["items"]:
                assert item["id"] in text
    assert "0123456789abcdef0123456789abcdef01234567" in text
    assert "terratorch 2.14.1" not in text
    assert "terratorch 1.2.11" in text
    assert sha256_file(fake.results / "dataset" / "0" / "chips.parquet") in text
    assert "chips_per_side: 4" in text
    assert "training 0; splits 7; bootstrap 0; simulated city 20" in text


def test_what_all_trainings_share_is_said_once(own: fake_results.Fake) -> None:
    path = own.results / "runs" / "lulc" / "0" / "0" / "environment.json"
    weights = {"repository": "ibm-esa-geospatial/TerraMind-1.0-tiny", "revision": "f" * 40}
    write_json(path, read_json(path) | {"revision": "beef" * 10, "threads": 1, "weights": weights})
    text = Page(write(own)).text()
    assert text.count("terratorch 1.2.11") == 1
    assert text.count("training 0; splits 7") == 1
    assert f"Trainings lulc/0/0 Git revision {'beef' * 10}" in text
    assert "Trainings multihead/0/0, buildings/0/0 Git revision 0123456789" in text
    assert "cpu, 1 thread First weights ibm-esa-geospatial/TerraMind-1.0-tiny" in text
    assert text.count("Linux x86_64") == 1
    assert "cpu, 2 threads First weights random" in text
    packages = read_json(path)["packages"] | {"torch": "9.9"}
    write_json(path, read_json(path) | {"packages": packages})
    text = Page(write(own)).text()
    assert "Packages of lulc/0/0:" in text
    assert text.count("terratorch 1.2.11") == 2


def test_radar_of_either_kind_is_listed(own: fake_results.Fake, html: str) -> None:
    identifiers = set(re.findall(r"S1A_IW_GRDH\w+", Page(section(html, "provenance")).text()))
    for path in (own.results / "scenes").iterdir():
        choice = read_json(path)
        choice["layers"]["S1GRD"] = choice["layers"].pop("S1RTC")
        write_json(path, choice)
    listed = section(write(own), "provenance").split("<details>")[0]
    assert set(re.findall(r"S1A_IW_GRDH\w+", Page(listed).text())) == identifiers
    assert "not used" not in listed


def test_shares_are_round_numbers_without_a_decimal(html: str) -> None:
    text = Page(html).text()
    assert "has data in at least 95 % of its pixels, at least 95 % of its values" in text
    assert "at least 80 % of its optical pixels are clear" in text


def test_no_credentials_and_no_folder_of_the_machine_reach_the_page(own: fake_results.Fake) -> None:
    url = "https://user:secretword@stac.example.org/v1/catalog.json?sig=secretword"
    own.change(
        project={"notes": f"See {url}, and /home/someone/notes.txt."},
        archive={
            "provider": "stac", "catalog": url, "asset_base": "/home/someone/my pixels/all",
            "frozen_scenes": "/home/someone/scenes",
        },
        labels={"BUILDINGS": {"source": "/home/someone/footprints.parquet", "boundary": "/home/someone/city.gpkg"}},
    )  # fmt: skip
    for name, catalog in (("P01", url), ("P02", "/home/someone/data/city/catalog.json")):
        path = own.results / "scenes" / f"{name}.json"
        write_json(path, read_json(path) | {"catalog": catalog})
    path = own.layout.run("lulc", 0, 0).environment
    write_json(path, read_json(path) | {"weights": {"file": "/home/someone/tiny.safetensors"}})
    html = write(own)
    for secret in ("secretword", "someone", "my pixels", str(own.results)):
        assert secret not in html
    assert html.count("https://stac.example.org/v1/catalog.json") == 4, "notes, provenance, and both in the settings"
    for name in ("/notes.txt", "/catalog.json", "asset_base: all", "source: footprints.parquet", "/tiny.safetensors"):
        assert name in html


@pytest.mark.slow
def test_any_number_of_heads_runs_and_seeds(tmp_path: Path) -> None:
    fake = fake_results.make(tmp_path, simulated=False, zones=True, extra=True, seeds=(0, 1, 2))
    html = write(fake)
    text = Page(html).text()
    assert "draws three maps" in text
    assert {row[0] for row in table(html, "trainings")[1:]} == set(fake.config.runs)
    assert len(table(html, "lulc-trainings")) == 1 + 3
    assert "EPSG 32718, 32722, 32736" in text
    assert "One seed does not show" not in text
    assert "Runs that the verdict does not look at" in text
    assert "averaged over 3 seeds" in text


def test_without_benchmarks_it_says_so(own: fake_results.Fake) -> None:
    shutil.rmtree(own.results / "benchmarks")
    assert "No benchmark files were found" in Page(write(own)).text()


def test_the_map_has_every_parent_and_layer(fake: fake_results.Fake, html: str) -> None:
    data = json.loads(entities.unescape(html.split('id="map-data">')[1].split("</script>")[0]))
    assert len(data["places"]) == 22
    kinds = ("map", "label", "error")
    expected = {f"{head}-{kind}" for head in ("lulc", "buildings") for kind in kinds}
    assert set(data["layers"]) == expected | {"buildings-density", "buildings-density-label", "image"}
    tested = {
        parent for parent, split in read_json(fake.layout.dataset(0).splits)["parents"].items() if split == "test"
    }
    for name in ("buildings-map", "buildings-error", "buildings-density"):
        assert set(data["layers"][name]["tiles"]) == tested
    assert data["layers"]["lulc-map"]["tiles"] is None
    assert set(first_layer(html)) == tested
    assert len(data["layers"]["image"]["tiles"]) == 22
    # squares keep their order and do not overlap, however much the distances between them are shortened
    for one, two in itertools.combinations(data["places"], 2):
        assert max(abs(one[1] - two[1]), abs(one[2] - two[2])) >= one[3]
    assert "distances are drawn 3.0 times too short" in Page(html).text()


def first_layer(html: str) -> dict[str, str]:
    """Give the tiles that stand in the page itself, by parent."""
    groups = re.findall(r'<g class="place[^"]*" data-id="(\w+)">(.*?)</g>', html, re.DOTALL)
    tiles = {parent: re.findall(r' href="([^"]*)"', group) for parent, group in groups}
    return {parent: found[0] for parent, found in tiles.items() if found}


def test_a_tile_of_the_map_holds_the_predicted_classes(fake: fake_results.Fake, html: str) -> None:
    folder = fake.layout.evaluation("multihead", 0, 0)
    chips = read_json(folder.predictions)["chips"]
    guess = np.load(folder.prediction("lulc"))
    parent = chips[0].rsplit("_", 1)[0]
    row, col = (int(text) for text in re.findall(r"_r(\d+)c(\d+)", chips[0])[0])
    picture = np.asarray(opened(first_layer(html)[parent]).convert("RGBA"))
    side = guess.shape[1]
    piece = picture[row * side : (row + 1) * side, col * side : (col + 1) * side]
    colors = [item.color for item in fake.config.labels["LULC"].classes]
    for number, color in enumerate(colors):
        rgb = tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))
        assert np.array_equal((piece[..., :3] == rgb).all(axis=-1), guess[0] == number)


def opened(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_ignored_and_missing_pixels_are_transparent() -> None:
    picture = np.asarray(
        opened(images.classes(np.array([[0, 1], [IGNORE, IGNORE]]), ["#ff0000", "#00ff00"])).convert("RGBA")
    )
    assert picture[..., 3].tolist() == [[255, 255], [0, 0]]
    assert picture[0, 0, :3].tolist() == [255, 0, 0]
    shares = np.asarray(opened(images.shares(np.array([[0.0, 1.0], [0.5, np.nan]]))).convert("RGBA"))
    assert shares[..., 3].tolist() == [[255, 255], [255, 0]]
    light = shares[..., :3].sum(axis=-1)
    assert light[0, 0] > light[1, 0] > light[0, 1], "more is darker"


def test_the_worst_sub_chip_is_the_one_with_most_wrong_pixels(fake: fake_results.Fake, html: str) -> None:
    folder = fake.layout.evaluation("multihead", 0, 0)
    chips = read_json(folder.predictions)["chips"]
    index = {row["chip_id"]: row["store_index"] for row in fake_results.chip_rows(fake)}
    truth = np.load(fake.layout.store.array("MASK_LULC"))
    wrong = {}
    for chip, guess in zip(chips, np.load(folder.prediction("lulc")), strict=True):
        mask = truth[index[chip]]
        wrong[chip] = float((guess != mask)[mask != IGNORE].mean())
    worst = max(wrong, key=lambda chip: wrong[chip])
    text = Page(section(html, "pictures")).text()
    assert f"Worst: {worst} Wrong pixels: shared model {100 * wrong[worst]:.1f}" in text
    assert text.index("Worst: ") < text.index("Median: ") < text.index("Best: ")


def test_a_table_keeps_numbers_undefined_values_and_secrets_apart() -> None:
    made = Table(
        "t",
        "c",
        [Column("a", number=False), Column("b", group="g"), Column("d")],
        [
            [words('x, "y"'), count(12345), score(None)],
            [words("https://me:secretword@a.example/x?sig=1"), Cell("3 min", 180.5), points(-1.234)],
        ],
    )
    rows = list(csv.reader(io.StringIO(unquote(made.csv.partition(",")[2]))))
    assert rows == [
        ["a", "g b", "d"], ["x, \"y\"", "12345", ""], ["https://a.example/x", "180.5", "-1.234"],
    ]  # fmt: skip
    assert made.groups == [("", 1), ("g", 1), ("", 1)]
    assert points(0.001).sign == 0, "what rounds to nothing has no colour"
    assert points(-0.2).sign == -1


AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"


def browse(tmp_path: Path, page: str, width: int, script: str) -> dict[str, Any]:
    """Open a page in a frame of a width, run a script there, and give what it resolves to.

    A frame, since Chromium's own window is never narrower than 500 px.
    """
    tell = f"<script>(async()=>{{{script}}})().then(r=>parent.postMessage(JSON.stringify(r),'*'))</script></body>"
    framed = entities.escape(page.replace("</body>", tell), quote=True)
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'<meta charset="utf-8"><iframe width="{width}" height="900" style="border:0" srcdoc="{framed}"></iframe>'
        "<script>addEventListener('message', e => { const p = document.createElement('pre'); p.id = 'told'; "
        "p.textContent = e.data; document.body.append(p); })</script>"
    )
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1500,1000",
               "--virtual-time-budget=60000", "--dump-dom", outer.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stdout[-300:]
    told: dict[str, Any] = json.loads(entities.unescape(found[1]))
    return told


needs_browser = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")


@pytest.mark.slow
@needs_browser
@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: npm install --no-save axe-core")
@pytest.mark.parametrize("width", [390, 1400])
def test_axe_finds_no_violation(html: str, tmp_path: Path, width: int) -> None:
    script = f"{AXE.read_text()}\n document.querySelectorAll('details').forEach(d => d.open = true);"
    script += "const r = await axe.run(document); return {v: r.violations.map(v => [v.id, v.nodes[0].html])};"
    assert browse(tmp_path, html, width, script)["v"] == []


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_sticks_out_or_is_cut(html: str, tmp_path: Path, width: int) -> None:
    script = """
      document.querySelectorAll('details').forEach(d => d.open = true);
      const out = [...document.querySelectorAll('body *')].filter(e => {
        const r = e.getBoundingClientRect();
        return r.width && (r.right > innerWidth + 1 || r.left < -1) && !e.closest('.out, .skip, thead, svg');
      });
      const cut = [...document.querySelectorAll('td.n .v, .key b, .big')].filter(e => e.scrollWidth > e.clientWidth + 1
        && getComputedStyle(e).display !== 'inline');
      return {out: out.map(e => e.outerHTML.slice(0, 90)), cut: cut.map(e => e.outerHTML.slice(0, 90)),
        scrolls: document.documentElement.scrollWidth > innerWidth};"""
    assert browse(tmp_path, html, width, script) == {"out": [], "cut": [], "scrolls": False}


@pytest.mark.slow
@needs_browser
def test_tables_sort_and_filter_and_the_map_answers_keys(html: str, tmp_path: Path) -> None:
    script = """
      const box = document.getElementById('table-lulc-parents'), head = box.querySelectorAll('tr.heads th')[2];
      const column = () => [...box.querySelectorAll('tbody tr')].map(r => Number(r.cells[2].dataset.key));
      head.querySelector('button').click(); const up = column(), first = head.getAttribute('aria-sort');
      head.querySelector('button').click(); const down = column(), second = head.getAttribute('aria-sort');
      const scenes = document.getElementById('table-scenes'), input = scenes.querySelector('input');
      input.value = 'P07'; input.dispatchEvent(new Event('input'));
      const shown = [...scenes.querySelectorAll('tbody tr')].filter(r => !r.hidden).length;
      const map = document.querySelector('.map'), svg = map.querySelector('svg'), views = [];
      const press = key => { svg.dispatchEvent(new KeyboardEvent('keydown', {key, cancelable: true}));
        views.push(svg.getAttribute('viewBox').split(' ').map(Number)); };
      ['0', '+', 'ArrowRight', '-', '0', '2'].forEach(press);
      const tile = svg.querySelector('g.place:not(.untested) image').getAttribute('href').slice(0, 15);
      return {up, down, first, second, shown, status: scenes.querySelector('[role=status]').textContent, views, tile,
        layer: map.querySelector('#map-layer').value,
        legends: map.querySelectorAll('[data-layer]:not([hidden])').length};"""
    found = browse(tmp_path, html, 1000, script)
    assert found["up"] == sorted(found["up"])
    assert found["down"] == sorted(found["up"], reverse=True)
    assert (found["first"], found["second"]) == ("ascending", "descending")
    assert found["shown"] == 1
    assert found["status"] == "1 of 22 rows"
    whole, near, right, back, again, _ = found["views"]
    assert near[2] < whole[2]
    assert right[0] > near[0]
    assert back[2] == pytest.approx(whole[2])
    assert again == whole
    assert found["layer"] == "lulc-label"
    assert found["legends"] == 1
    assert found["tile"] == "data:image/png;"


@pytest.mark.parametrize(
    "missing",
    [
        "gate.json",
        "dataset/0/chips.parquet",
        "dataset/0/splits.json",
        "dataset/0/classes.json",
        "dataset/0/statistics.json",
        "dataset/store/index.json",
        "evaluation/test/buildings/0/0/metrics.json",
        "runs/multihead/0/0/training.json",
        "runs/multihead/0/0/environment.json",
        "scenes/P07.json",
        "parents/P07/reading.json",
        "labels/BUILDINGS/summary.json",
    ],
)
def test_a_missing_artifact_is_named(own: fake_results.Fake, missing: str) -> None:
    (own.results / missing).unlink()
    with pytest.raises(CityHeadsError, match=missing):
        write(own)


def test_synthesized_radar_is_said(own: fake_results.Fake, html: str) -> None:
    assert "was not acquired" not in html
    statistics = read_json(own.results / "dataset" / "0" / "statistics.json")
    counts = dict.fromkeys(statistics["chips"], 0) | {"test": 3}
    write_json(own.results / "dataset" / "0" / "statistics.json", statistics | {"synthesized": {"S1RTC": counts}})
    path = sorted((own.results / "scenes").glob("*.json"))[0]
    scenes = read_json(path)
    scenes["layers"]["S1RTC"] |= {"items": [], "synthesized": True, "why": "synthesized: no item covers the parent"}
    write_json(path, scenes)
    text = Page(write(own)).text()
    assert f"(3 of {statistics['chips']['test']} in test) was not acquired" in text
    assert "none found; S1RTC was generated" in text
    assert "synthesized: no item covers the parent" in text
