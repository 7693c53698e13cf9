"""The report: one file without a network, verdict first, nothing hidden and nothing unescaped."""

from __future__ import annotations

import base64
import itertools
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import fake_results
import numpy as np
import pytest

from cityheads import CityHeadsError
from cityheads.core.artifacts.figures import FIGURE_LIST
from cityheads.core.artifacts.gate import GATE
from cityheads.core.files import read_json, sha256_file, write_json
from cityheads.evaluation.verdict import VERDICTS
from cityheads.product.figures.draw import draw_figures
from cityheads.product.report.page import report
from cityheads.product.report.scores import ABSENT

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


def complete(fake: fake_results.Fake) -> fake_results.Fake:
    """Add the figures, with few pixels."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("cityheads.product.figures.style.DPI", 40)
        draw_figures(
            fake.settings("draw_figures"), parents=fake.parents, results=fake.results, out=fake.results / "figures"
        )
    return fake


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> fake_results.Fake:
    return complete(fake_results.make(tmp_path_factory.mktemp("fake")))


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
    assert all(cell.get("scope") for cell in page.all("th"))
    assert not re.search(r"<tbody>\s*</tbody>", html), "a table without a row"
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for link in page.all("a"):
        assert link["href"].removeprefix("#") in identifiers


def test_nothing_is_fetched(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.tags:
        for key in ("src", "href", "srcset", "data", "poster", "action"):
            if key in attributes:
                assert attributes[key].startswith(("data:image/png;base64,", "#")), (tag, attributes[key][:80])
        assert tag not in {"link", "iframe", "object", "embed", "base"}
    style = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html


def test_all_figures_are_embedded_with_alt_text(fake: fake_results.Fake, html: str) -> None:
    images = Page(html).all("img")
    entries = FIGURE_LIST.read(fake.layout.figure_list)["figures"]
    assert len(images) == len(entries)
    by_alt = {image["alt"]: image for image in images}
    for entry in entries:
        data = base64.b64decode(by_alt[entry["alt"]]["src"].partition(",")[2])
        assert data == (fake.results / "figures" / entry["file"]).read_bytes()


def test_the_verdict_comes_first(fake: fake_results.Fake, html: str) -> None:
    gate = fake.gate()
    page = Page(html)
    text = page.text()
    assert gate["reason"] in text
    assert gate["advice"] in text
    assert gate["verdict"].capitalize() in page.inside("span")
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections[0] == "verdict"
    for head in gate["heads"].values():
        assert f"{abs(head['delta_pp']):.2f}" in text
        assert f"{100 * head['multihead']:.2f}" in text


@pytest.mark.parametrize("verdict", [*VERDICTS, "inconclusive"])
def test_each_verdict_renders(own: fake_results.Fake, verdict: str) -> None:
    gate = own.gate()
    gate |= {"verdict": verdict, "reason": f"Since {verdict} & <so>.", "advice": "", "point_verdict": None}
    GATE.write(own.layout.gate, gate)
    html = write(own)
    page = Page(html)
    assert f"Since {verdict} & <so>." in page.text()
    assert verdict.capitalize() in page.inside("span")
    assert f'<body class="v-{verdict}">' in html
    assert "What would decide it" not in page.text()


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
    entries = FIGURE_LIST.read(own.layout.figure_list)
    for entry in entries["figures"]:
        entry["alt"] = entry["alt"].removeprefix("Simulated data. ")
    FIGURE_LIST.write(own.layout.figure_list, entries)
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
    assert len(page.all("script")) == 1


def test_same_results_same_bytes(fake: fake_results.Fake, html: str, tmp_path: Path) -> None:
    assert write(fake, tmp_path / "again.html") == html


def test_the_account_of_sub_chips(fake: fake_results.Fake, html: str) -> None:
    text = Page(html).text()
    dropped = read_json(fake.results / "dataset" / "0" / "statistics.json")["dropped"]
    lost = sum(dropped.values())
    assert f"352 = {352 - lost} kept + {lost} dropped." in text
    for reason, count in dropped.items():
        assert f"{reason} {count} " in text


def test_the_account_of_footprints(html: str) -> None:
    text = Page(html).text()
    assert "120,004 rows = 119,990 kept + 14 dropped. Dropped: 13 other feature code, 1 duplicate." in text
    assert "12 outlines were repaired. Those kept cover 41.25 km²." in text


def test_a_wrong_account_is_an_error(own: fake_results.Fake) -> None:
    path = own.results / "dataset" / "0" / "statistics.json"
    statistics = read_json(path)
    statistics["dropped"]["too cloudy"] += 1
    write_json(path, statistics)
    with pytest.raises(CityHeadsError, match=r"statistics\.json"):
        write(own)


def test_per_class_tables_hold_the_scores(fake: fake_results.Fake, html: str) -> None:
    cells = Page(html).inside("td")
    for run in ("multihead", "buildings"):
        matrix = read_json(fake.results / "evaluation" / "test" / run / "0" / "0" / "metrics.json")["heads"][
            "buildings"
        ]["confusion"]
        (tn, fp), (fn, tp) = np.array(matrix)
        for share in (tp / (tp + fp + fn), tp / (tp + fp), tp / (tp + fn), 2 * tp / (2 * tp + fp + fn)):
            assert f"{100 * share:.1f}" in cells
        assert f"{tn + fp:,}" in cells


def test_undefined_scores_are_said_not_zeroed(own: fake_results.Fake) -> None:
    for run in ("multihead", "buildings"):
        path = own.results / "evaluation" / "test" / run / "0" / "0" / "metrics.json"
        metrics = read_json(path)
        part = metrics["heads"]["buildings"]
        part["confusion"] = [[sum(part["confusion"][0]), 0], [0, 0]]
        for key in ("iou", "f1", "precision", "recall"):
            part[key][1] = None
        part["metric"]["value"] = part["interval"] = None
        for parent in part["per_parent"].values():
            parent["value"] = None
        write_json(path, metrics)
    gate = own.gate()
    gate["heads"]["buildings"] |= {"multihead": None, "single_task": None, "delta_pp": None, "interval_pp": None}
    gate |= {"verdict": "inconclusive", "point_verdict": None}
    GATE.write(own.layout.gate, gate)
    page = Page(write(own))
    # the verdict's row, the class's row, two models' intervals, and a row for each test parent
    assert page.text().count(ABSENT) == 2 + 2 + len(gate["test_parents"])


def test_the_table_of_removed_modalities(fake: fake_results.Fake, html: str) -> None:
    section = html.split('<section id="ablation">')[1].split("</section>")[0]
    page = Page(section)
    assert page.inside("th")[-4:] == ["nothing", "S2L2A", "S1RTC", "DEM"]
    evaluations = {
        run: read_json(fake.results / "evaluation" / "test" / run / "0" / "0" / "metrics.json")
        for run in ("multihead", "lulc", "buildings")
    }
    columns = [("multihead", "lulc"), ("lulc", "lulc"), ("multihead", "buildings"), ("buildings", "buildings")]
    full, *rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", section, re.DOTALL)
    expected = [f"{100 * evaluations[run]['heads'][head]['metric']['value']:.2f}" for run, head in columns]
    assert Page(full).inside("td") == expected
    for name, row in zip(("S2L2A", "S1RTC", "DEM"), rows, strict=True):
        cells = [Page(cell).text() for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
        for (run, head), cell in zip(columns, cells, strict=True):
            part = evaluations[run]["modality_ablation"][name][head]
            low, high = part["interval_pp"]
            told = f"{100 * part['value']:.2f} {part['delta_pp']:+.2f} [{low:+.2f}, {high:+.2f}]"
            assert cell == told.replace("-", "\N{MINUS SIGN}")
    assert section.count('class="sub down"') == sum(
        evaluations[run]["modality_ablation"][name][head]["interval_pp"][1] < 0
        for run, head in columns
        for name in ("S2L2A", "S1RTC", "DEM")
    )
    assert "a missing input had never been seen" in page.text()
    assert len(page.all("figure")) == 1
    assert "the 95 % interval over test parents" in page.text()


@pytest.mark.slow
def test_removed_modalities_of_several_seeds_are_averaged(tmp_path: Path) -> None:
    fake = complete(fake_results.make(tmp_path, seeds=(0, 1)))
    section = write(fake).split('<section id="ablation">')[1].split("</section>")[0]
    values = []
    for seed in (0, 1):
        one = read_json(fake.results / "evaluation" / "multihead" / str(seed) / "metrics.json")
        values.append(round(one["modality_ablation"]["S1RTC"]["lulc"]["value"], 4))
    row = next(row for row in re.findall(r"<tr>.*?</tr>", section, re.DOTALL) if "S1RTC" in row)
    assert Page(row).inside("td")[0] == f"{100 * round(sum(values) / 2, 4):.2f}"


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
    row = next(row for row in re.findall(r"<tr>.*?</tr>", write(own), re.DOTALL) if ">DEM</th>" in row)
    assert Page(row).inside("td")[0] == "n/a"
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
    assert f"Trainings lulc/0 Git revision {'beef' * 10}" in text
    assert "Trainings multihead/0, buildings/0 Git revision 0123456789" in text
    assert "cpu, 1 thread First weights ibm-esa-geospatial/TerraMind-1.0-tiny" in text
    assert text.count("Linux x86_64") == 1
    assert "cpu, 2 threads First weights random" in text
    packages = read_json(path)["packages"] | {"torch": "9.9"}
    write_json(path, read_json(path) | {"packages": packages})
    text = Page(write(own)).text()
    assert "Packages of lulc/0:" in text
    assert text.count("terratorch 1.2.11") == 2


def test_radar_of_either_kind_is_listed(own: fake_results.Fake, html: str) -> None:
    identifiers = set(re.findall(r"S1A_IW_GRDH\w+", html))
    for path in (own.results / "scenes").iterdir():
        choice = read_json(path)
        choice["layers"]["S1GRD"] = choice["layers"].pop("S1RTC")
        write_json(path, choice)
    section = write(own).split('id="provenance"')[1].split("<details>")[0]
    assert set(re.findall(r"S1A_IW_GRDH\w+", section)) == identifiers
    assert "not used" not in section


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
    path = own.results / "runs" / "lulc" / "0" / "environment.json"
    write_json(path, read_json(path) | {"weights": {"file": "/home/someone/tiny.safetensors"}})
    html = write(own)
    for secret in ("secretword", "someone", "my pixels", str(own.results)):
        assert secret not in html
    assert html.count("https://stac.example.org/v1/catalog.json") == 4, "notes, provenance, and both in the settings"
    for name in ("/notes.txt", "/catalog.json", "asset_base: all", "source: footprints.parquet", "/tiny.safetensors"):
        assert name in html


@pytest.mark.slow
def test_any_number_of_heads_runs_and_seeds(tmp_path: Path) -> None:
    fake = complete(fake_results.make(tmp_path, simulated=False, zones=True, extra=True, seeds=(0, 1, 2)))
    page = Page(write(fake))
    text = page.text()
    assert "Inconclusive" in text
    for run in fake.config.runs:
        assert run in page.inside("th")
    assert "Runs that the verdict does not look at" in text
    assert "mean of 3 seeds" in text


def test_without_benchmarks_it_says_so(own: fake_results.Fake) -> None:
    shutil.rmtree(own.results / "benchmarks")
    assert "No benchmark files were found" in Page(write(own)).text()


@pytest.mark.parametrize(
    "missing",
    [
        "gate.json",
        "figures/figures.json",
        "figures/map.png",
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
