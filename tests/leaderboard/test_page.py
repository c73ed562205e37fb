"""The page: made of the entries alone, the same bytes every time, self-contained, safe whatever an entry says."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import re
import shutil
import threading
import urllib.request
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.files import entry_files, run_files
from emubench.files.entry_files import SCORES, TIMING
from emubench.leaderboard.page import building, charts, entry_page
from emubench.leaderboard.page.board import read
from emubench.leaderboard.submission import making
from emubench.runs import folders
from tests.support import benched
from tests.support.boards import ROOT, Page
from tests.support.contents import contents
from tests.support.submissions import STATED, TASK, edit_entry, open_season, publish, verified, verified_row

# --- what it shows ----------------------------------------------------------------------------------------------------


def test_every_entry_has_its_rows_and_a_page(board_pages):
    assert {name for name in board_pages if name.endswith(".html")} == {
        "index.html",
        "methods.html",
        *(f"{track}.html" for track in ("partial", "scarce", "clean")),
        *(f"entries/{name}.html" for name in ("hostile", "linear", "persistence")),
    }
    index = Page(board_pages["index.html"])
    for name in ("hostile", "linear", "persistence"):
        links = [a for a in index.all("a") if a["href"] == f"entries/{name}.html"]
        assert len(links) >= 2  # all systems together, and lorenz63
    for part in (
        "Every entry on every task skill, verified in season 2026a",
        "How to submit",
        "verified in season 2026a",
        "Standard division Self-reported on the public contexts, not ranked",
        "Open division Self-reported on the public contexts, not ranked",
        "Verified on the sealed data of season 2026a",
        "Public seeds are for development: anyone can simulate their truth",
    ):
        assert part in index.text
    marked = index.text.count("could have been made with the public truth")
    assert (
        marked == Page(board_pages["entries/hostile.html"]).text.count("could have been made with the public truth") * 2
    )
    assert "could have been made" not in Page(board_pages["entries/linear.html"]).text
    assert re.search(r"claimed 0\.\d+, outside the judge's 99 % interval", index.text)
    page = Page(board_pages["entries/linear.html"])
    for part in ("A. Name", "MIT", "emubench train linear TASK", TASK, "valid prediction time", "structure"):
        assert part in page.text
    charts_shown = [s["aria-label"] for s in page.all("svg") if s.get("role") == "img"]
    assert f"{TASK}: rms error over lead time" in charts_shown
    assert f"{TASK}: first component of the first case" in charts_shown
    for what in ("temporal spectrum", "density"):
        assert f"{TASK}: {what} of the first component" in charts_shown
    assert board_pages["entries/linear.html"].count('class="band"') == 2


def test_the_numbers_are_those_of_the_ranking(board_pages, small_board):
    rows = json.loads(board_pages["data/self_reported_standard.json"])
    (linear,) = [r for r in rows if r["entry"] == "linear" and r["task"] == TASK]
    scores = entry_files.read(small_board / "entries" / "linear", SCORES)[TASK, 0]
    assert linear["value"] == pytest.approx(np.mean(scores.cases["valid_prediction_time"]))
    shown = f"{linear['value']:.2f} [{linear['low']:.2f}, {linear['high']:.2f}]"
    assert shown in Page(board_pages["index.html"]).text
    table = list(csv.DictReader(io.StringIO(board_pages["data/self_reported_standard.csv"])))
    assert [r["entry"] for r in table] == [r["entry"] for r in rows]
    assert float(table[0]["seeds"]) == rows[0]["seeds"]
    said = json.loads(board_pages["data/entries.json"])
    assert [e["name"] for e in said] == ["hostile", "linear", "persistence"]


def test_the_open_division_is_shown_apart_and_unranked(board_pages):
    rows = json.loads(board_pages["data/self_reported_open.json"])
    assert {r["entry"] for r in rows} == {"hostile"}
    assert not [key for r in rows for key in r if "rank_" in key or "front" in key]
    assert "hostile" not in {r["entry"] for r in json.loads(board_pages["data/self_reported_standard.json"])}


def test_the_same_entries_give_the_same_bytes(small_board, board_pages, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(small_board, moved)
    assert building.render(read(moved, "tiny")) == board_pages


def test_a_further_entry_moves_no_score(small_board, board_pages, tmp_path):
    fewer = tmp_path / "fewer"
    shutil.copytree(small_board, fewer)
    shutil.rmtree(fewer / "entries" / "persistence")
    name = "data/self_reported_standard.json"
    before = {r["task"]: r["value"] for r in json.loads(building.render(read(fewer, "tiny"))[name])}
    after = json.loads(board_pages[name])
    assert {r["task"]: r["value"] for r in after if r["entry"] == "linear"} == before


# --- safe and self-contained ------------------------------------------------------------------------------------------


def test_whatever_an_entry_says_is_text(board_pages):
    for name in ("index.html", "entries/hostile.html"):
        page = Page(board_pages[name])
        assert len(page.all("script")) == 1
        assert not [k for _, attributes in page.tags for k in attributes if k.startswith("on") or k == "style"]
        assert all(a["src"].startswith("data:image/png;base64,") for a in page.all("img"))
        for mark in ("\u202e", "\u2066", "\x07"):
            assert mark not in board_pages[name]
    page = Page(board_pages["entries/hostile.html"])
    assert "<script>alert(1)</script>" in page.text  # as text
    assert "{{ 7 * 7 }}" in page.text
    assert len([a for a in page.all("a") if "evil" in a["href"]]) == 0


def test_nothing_is_loaded_from_elsewhere(board_pages):
    for name, text in board_pages.items():
        if not name.endswith(".html"):
            continue
        page = Page(text)
        for tag, attributes in page.tags:
            assert "src" not in attributes or attributes["src"].startswith("data:"), (name, tag)
            if tag == "link":
                assert attributes["href"] == "data:,"
        links = [a["href"] for a in page.all("a")]
        here = Path(name).parent
        for link in links:
            if link.startswith("#"):
                assert f'id="{link[1:]}"' in text
            else:
                target = (here / link.split("#")[0]).as_posix()
                parts: list[str] = []
                for part in target.split("/"):
                    parts = parts[:-1] if part == ".." else [*parts, part]
                assert "/".join(parts) in board_pages, link
        (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        script, style = (re.search(f"<{t}>(.*?)</{t}>", text, re.DOTALL) for t in ("script", "style"))
        assert script is not None
        assert style is not None
        assert building._policy(style[1], script[1]) == policy


def test_the_page_can_be_used_without_sight_or_mouse(board_pages):
    for name, text in board_pages.items():
        if not name.endswith(".html"):
            continue
        page = Page(text)
        assert page.all("html")[0]["lang"] == "en"
        assert len(page.all("h1")) == 1
        assert len(page.all("main")) == 1
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(set(ids)) == len(ids)
        for image in page.all("img"):
            assert image["alt"]
        for picture in page.all("svg"):
            assert picture.get("aria-hidden") == "true" or picture["aria-label"]
        for cell in page.all("th"):
            assert cell["scope"] in ("col", "row")
        for attributes in page.all("section"):
            assert attributes["aria-labelledby"] in ids
        assert "width=device-width" in text


# --- building ---------------------------------------------------------------------------------------------------------


def test_build_writes_the_site_and_the_tables(emubench, small_board, board_pages, tmp_path):
    board = tmp_path / "leaderboard"
    shutil.copytree(small_board, board)
    finished = emubench("leaderboard", "build", "--board", board, "--out", tmp_path / "site", "--size", "tiny")
    assert finished.status == 0, finished.err
    assert set(contents(tmp_path / "site")) == set(board_pages)
    assert (board / "README.md").read_bytes() == (small_board / "README.md").read_bytes()  # that of size standard
    readme = building.with_tables((board / "README.md").read_text(), read(board, "tiny"))
    assert "Verified on the sealed data of season 2026a:" in readme
    assert (
        "| 1 | 1 | skill under 0.25, or a task without | `linear` | 0.50 [0.40, 0.60] | 0.60 [0.50, 0.70] |" in readme
    )
    assert re.search(r"\n\| `linear` \| -?\d", readme), readme
    assert "hostile" not in readme
    before = contents(tmp_path)
    page = (tmp_path / "site" / "entries" / "linear.html").read_text()
    (tmp_path / "site" / "entries" / "gone.html").write_text(page)  # of an entry that was withdrawn
    assert emubench("leaderboard", "build", "--board", board, "--out", tmp_path / "site", "--size", "tiny").status == 0
    assert contents(tmp_path) == before
    (tmp_path / "site" / "entries" / "mine.html").write_text("<title>something else</title>")
    building.build(board, tmp_path / "site", "tiny")
    assert (tmp_path / "site" / "entries" / "mine.html").exists()


def test_one_bad_item_leaves_the_other_entries_on_the_board(emubench, refused, small_board, tmp_path):
    board, site = tmp_path / "leaderboard", tmp_path / "site"
    shutil.copytree(small_board, board)
    arguments = ("leaderboard", "build", "--board", board, "--out", site, "--size", "tiny")
    assert emubench(*arguments).status == 0
    before = contents(tmp_path)
    shutil.copytree(small_board / "entries" / "linear", board / "entries" / "twin")
    assert "'linear' in a folder called 'twin'" in refused(*arguments)
    shutil.rmtree(board / "entries" / "twin")
    (board / "entries" / ".DS_Store").write_text("")
    assert ".DS_Store: not an entry" in refused(*arguments)
    (board / "entries" / ".DS_Store").unlink()
    (board / "verified" / "2026a" / "cut.json").write_text("{")
    assert "cut.json: not valid JSON" in refused(*arguments)
    (board / "verified" / "2026a" / "cut.json").unlink()
    assert contents(tmp_path) == before  # the page is that of the sound entries, each time
    for name in ("linear", "persistence"):
        edit_entry(board / "entries" / name, SCORES, lambda c: c["rows"]["value"].__setitem__(0, 9.0))
    finished = emubench(*arguments)
    assert finished.status == 1
    assert [f"{name}/scores.json.xz: sha256" in finished.err for name in ("linear", "persistence")] == [True, True]
    assert [path.stem for path in (site / "entries").iterdir()] == ["hostile"]


def test_the_published_tables_are_those_of_the_published_entries():
    assert building.beside(ROOT / "leaderboard", read(ROOT / "leaderboard")) == {}


def test_two_quantities_under_one_name_are_not_two_sizes_on_a_page(emubench, refused, small_board, tmp_path):
    """A tiny board at size standard: what is verified in a season of that size is shown, the rest named."""
    board, site = tmp_path / "leaderboard", tmp_path / "site"
    shutil.copytree(small_board, board)
    publish(board, {"2026a": open_season("standard")}, verified("linear", [verified_row(size="standard")]))
    assert emubench("leaderboard", "build", "--board", board, "--out", site).status == 0
    text = Page((site / "index.html").read_text()).text
    for name in ("linear", "persistence", "hostile"):
        assert f"{name}: its own scores are of size tiny, on the page of that size." in text
    assert sorted(path.stem for path in (site / "entries").iterdir()) == ["linear"]
    assert "2026a" in Page((site / "entries" / "linear.html").read_text()).text
    assert re.search(r"`linear` \| 0\.50 \[0\.4\d, 0\.5\d\]", (board / "README.md").read_text())
    assert "nowhere: no such folder" in refused("leaderboard", "build", "--board", tmp_path / "nowhere")


def test_an_empty_board_can_be_built(emubench, tmp_path):
    (tmp_path / "leaderboard").mkdir()
    finished = emubench("leaderboard", "build", "--board", tmp_path / "leaderboard", "--out", tmp_path / "site")
    assert finished.status == 0, finished.err
    assert "No entries yet." in Page((tmp_path / "site" / "index.html").read_text()).text


def test_the_site_is_served_on_this_machine(emubench, refused, small_board, tmp_path):
    assert "no page here" in refused("leaderboard", "serve", "--out", tmp_path)
    building.build(small_board, tmp_path / "site", "tiny")
    with building.server(tmp_path / "site", 0) as server:
        host, port = server.server_address[:2]
        assert host == "127.0.0.1"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html") as answer:
            assert answer.read() == (tmp_path / "site" / "index.html").read_bytes()
        with pytest.raises(EmubenchError, match="choose another --port"):
            building.server(tmp_path / "site", port)
        server.shutdown()


def pixels_of(source: str) -> np.ndarray:
    """The colours of an image in a data URI."""
    return np.array(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


# --- charts -----------------------------------------------------------------------------------------------------------


def test_a_bar_lies_where_its_value_does():
    text = charts.interval(0.5, 0.0, 1.0, -1.0, 1.0)
    assert 'cx="74"' in text  # 2 + 96 · 3/4
    assert 'x="50" y="4" width="48"' in text
    assert charts.interval(None, None, None, 0, 1) == charts.interval(float("nan"), None, None, 0, 1) == ""
    assert 'cx="98"' in charts.interval(99.0, None, None, 0.0, 1.0)  # cut at the end of the axis


def test_what_is_not_finite_is_not_drawn():
    nan = float("nan")
    assert charts.curves("t", "x", "y", [("a", [1, 2], [nan, nan])]) == ""
    text = charts.curves("<t>", "<x>", "y", [("<a>", [1, 2, 3], [1.0, nan, 3.0]), ("b", [1, 2, 3], [1e300, 2, nan])])
    assert text.count(",") == 3
    for name in "atx":
        assert f"&lt;{name}&gt;" in text
    assert charts.scatter("t", "x", "y", [("a", 0.0, 1.0, True), ("b", 1.0, nan, False)]) == ""
    assert charts.curves("t", "x", "y", [("a", [1, 2], [0.0, 10.0])], log=True).count(",") == 1


def test_figures_of_a_ring_and_of_an_ensemble_are_drawn(submitted_runs, tmp_path):
    """Of kpz nothing is missing: the entry's figures are made up, its other files are those of lorenz63."""
    place = making.from_runs("mine", folders.find_runs([submitted_runs / "linear"]), tmp_path / "entries", STATED)
    x = [1.0, 2.0, 4.0]
    curve = {"x": x, "run": [4.0, 2.0, 1.0], "truth": [4.0, 2.0, 0.5], "low": [3.0, 1.0, 0.2], "high": [5.0, 3.0, 1.0]}
    figures = run_files.Figures.model_validate(
        {
            "lead_time": [1.0, 2.0],
            "truth": [[0.0] * 256] * 2,
            "forecast": [[1.0] * 256] * 2,
            "lost": 0.25,
            "density": [curve],
            "spatial_spectrum": curve,
            "temporal_spectrum": [curve],
            "rank_histogram": [{"lead_time": float(lead), "frequency": [0.4, 0.2, 0.4]} for lead in (1, 2, 4, 8)],
            "heights": [curve | {"time": 16.0}, curve | {"time": 128.0}],
        }
    )
    run = read(tmp_path, "tiny").get("mine").runs[0]
    card = run.card.model_copy(update={"task": "kpz-noisy"})
    run = dataclasses.replace(run, path=place, card=card)
    made = entry_page._pictures([run], None, figures)
    drawn = {p.caption: str(p.chart) for p in made if p.chart}
    for what in ("spatial spectrum", "temporal spectrum of all sites", "density of all sites"):
        text = drawn[f"{what} of the long runs; band: 99 % of truths; 25% of the runs are lost and left out"]
        assert text.count("<polyline") == 2
        assert text.count('class="band"') == 1
        (truth, forecast) = re.findall(r'<polyline class="line\d" points="([^"]+)"', text)
        assert truth.split()[:2] == forecast.split()[:2]
        assert truth.split()[2] != forecast.split()[2]
    assert any(caption.startswith("heights after growth for 128 from flat") for caption in drawn)
    ranks = next(text for caption, text in drawn.items() if caption.startswith("ranks of the truth"))
    assert [f"lead {lead}<" in ranks for lead in (1, 2, 4, 8)] == [True, False, True, True]
    assert sum(bool(p.image) for p in made) == 3  # and their difference
    members = {name: [[1.0] * 256] * 2 for name in ("mean", "spread")}
    made = entry_page._pictures([run], None, figures.model_copy(update=members))
    shown = [p.caption.split(":")[0] for p in made if p.image]
    assert shown == ["truth", "one member", "mean of the members", "spread of the members"]


def test_what_has_no_curve_to_show_is_said(submitted_runs, tmp_path):
    """Runs of which none is lost, the density of what stands still, the ranks among a single member."""
    making.from_runs("mine", folders.find_runs([submitted_runs / "linear"]), tmp_path / "entries", STATED)
    run = read(tmp_path, "tiny").get("mine").runs[0]
    found = str(entry_page._over_lead_time([run], "surviving_fraction").chart)
    assert found == "<p>No long run is lost within 200 Lyapunov times.</p>"
    still = {"x": [1.0, 2.0], "run": [0.0, 0.0], "truth": [4.0, 2.0], "low": [3.0, 1.0], "high": [5.0, 3.0]}
    figures = run_files.Figures(
        lead_time=[1.0],
        truth=[[0.0]],
        forecast=[[0.0]],
        density=[still],
        temporal_spectrum=[still],
        rank_histogram=[{"lead_time": 1.0, "frequency": [0.5, 0.5]}],
    )
    assert "stand still" in entry_page._climate(run, figures)[-1].chart
    assert "single member" in entry_page._law(run, figures)[0].chart


def test_a_band_is_cut_at_the_ends_of_the_axis():
    text = charts.curves("t", "x", "y", [("a", [0, 1], [0.0, 1.0])], band=([0, 1], [-9.0, 0.5], [0.5, 9.0]))
    heights = [float(p.split(",")[1]) for p in re.findall(r'class="band" points="([^"]+)"', text)[0].split()]
    assert heights == [174, 99, 24, 99]


def test_round_off_does_not_stretch_a_logarithmic_axis():
    text = charts.curves("t", "x", "y", [("a", [0, 1, 2, 3], [1.0, 1e-8, 1e-16, 1e-300])], log=True)
    heights = [float(p.split(",")[1]) for p in re.findall(r'points="([^"]+)"', text)[0].split()]
    assert heights == [24, 99, 174, 174]


@pytest.mark.parametrize("n", [1, 3, 12])
def test_names_in_a_wide_plot_cover_neither_each_other_nor_a_point(n):
    marks = [charts.Mark(f"entry-{i}", (1e3 + i, 900.0, 2e3), (0.5 - 1e-3 * i, 0.4, 0.6), i == 0) for i in range(n)]
    text = charts.plane("t", "x", "y", marks)
    names = [tuple(map(float, at)) for at in re.findall(r'class="name" x="([\d.]+)" y="([\d.]+)"', text)]
    points = [tuple(map(float, at)) for at in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', text)]
    assert (len(names), len(points), text.count('class="front"')) == (n, n, 1)
    assert text.count('class="whisker"') == 2 * n
    wide = charts.LETTER * len("entry-0")
    for i, (x, y) in enumerate(names):
        assert all(abs(y - v) >= charts.LINE - 0.1 or abs(x - u) >= wide for u, v in names[i + 1 :])
        assert not any(x < u < x + wide and abs(y - 4 - v) < 6 for u, v in points)
    assert charts.plane("t", "x", "y", [charts.Mark("a", (0.0, None, None), (1.0, None, None), True)]) == ""


@pytest.mark.parametrize("n", [1, 3, 40])
def test_names_in_a_plot_never_cover_one_another(n):
    points = [(f"entry-{i}", 1e3 + i, 0.5 - 1e-4 * i, i == 0) for i in range(n)]
    text = charts.scatter("t", "x", "y", [*points, ("", 5.0, 0.1, False)])
    heights = [float(y) for y in re.findall(r'class="name" x="[\d.]+" y="([\d.]+)"', text)]
    whole = float(re.findall(r'viewBox="0 0 360 ([\d.]+)"', text)[0])
    assert len(heights) == n
    assert all(after - before >= 11.9 for before, after in zip(heights, heights[1:], strict=False))
    assert 0 < min(heights) <= max(heights) < whole - 20  # above the axis' labels
    assert text.count('class="front"') == 1
    assert "very-long-name-of-an-en…" in charts.scatter(
        "t", "x", "y", [("very-long-name-of-an-entry", 1.0, 1.0, False)]
    )


def test_a_field_is_drawn_with_time_upwards_and_both_signs():
    field, grey, black = [[-1.0, 0.0], [1.0, float("nan")]], [140] * 3, [0] * 3
    below, above = [[33, 102, 172], [247] * 3], [[178, 24, 43], grey]
    assert pixels_of(charts.image(field, scale=1.0, middle=0.0)).tolist() == [above, below]
    lined = charts.image(field, scale=1.0, middle=0.0, before=1)
    assert pixels_of(lined).tolist() == [above, [black] * 2, below]


@pytest.mark.parametrize("name", ["kuramoto_sivashinsky-partial", "kpz-noisy"])
def test_the_context_of_a_ring_is_shown_below_its_truth(name):
    task = tasks.get(name, "tiny")
    truth = 5.0 + np.random.default_rng(0).standard_normal((12, *task.shape))
    context = [[None, *row[1:]] for row in truth[:3].tolist()]
    known = {"lead_time": list(range(1, 10)), "truth": truth[3:].tolist(), "forecast": truth[3:].tolist()}
    run = SimpleNamespace(task=task)
    first, *_ = entry_page._forecast(run, run_files.Figures(**known, context=context))  # type: ignore[arg-type]
    assert first.caption.startswith("below the line what was observed, above it the truth: ")
    pixels = pixels_of(first.image)
    assert pixels.shape == (13, task.shape[0], 3)
    assert not pixels[-4].any()
    assert (pixels[-3:, 0] == 140).all()
    assert (pixels[:9] != 140).any(-1).all()
    assert (pixels[-3:, 1:] != 247).any()
    bare, *_ = entry_page._forecast(run, run_files.Figures(**known))  # type: ignore[arg-type]
    assert bare.caption.startswith("truth: ")


def test_a_benched_run_shows_its_speed_up_and_the_solvers_beside_it(submitted_runs, tmp_path):
    shutil.copytree(submitted_runs / "linear", tmp_path / "runs" / "linear")
    (run,) = folders.find_runs([tmp_path / "runs"])
    before = json.loads((run / "timing.json").read_text())
    benched.write(run, 700.0, 1.2, speedup=2.5, skill=0.1)
    (run / "timing.json").write_text(json.dumps(before | json.loads((run / "timing.json").read_text())))
    board = tmp_path / "leaderboard"
    kept = entry_files.read(making.from_runs("fast", [run], board / "entries", STATED), TIMING)[TASK, 0]
    assert [s.accuracy for s in kept.solvers] == [rung["accuracy"] for rung in benched.LADDER]
    assert kept.speedup.value == 2.5
    assert kept.test_seconds == before["test_seconds"]
    pages = building.render(read(board, "tiny"))
    assert "(2.50×)" in Page(pages["index.html"]).text  # in brackets: skill is too low to be ranked
    charts_ = [a["aria-label"] for a in Page(pages["entries/fast.html"]).all("svg") if "aria-label" in a]
    assert sum("valid prediction time over throughput" in label for label in charts_) == 1
    (chart,) = re.findall(r'<svg class="chart"[^>]*over throughput.*?</svg>', pages["entries/fast.html"])
    assert chart.count('class="point"') == len(benched.LADDER)
    assert chart.count('class="front"') == 1
    page = Page(pages["entries/fast.html"])
    assert "speed-up at equal accuracy (2.50×)" in page.text
    assert "Hardware a processor, 1 thread(s)" in page.text
    for solver in kept.solvers:
        assert solver.name in page.text


def test_the_picture_of_the_readme_is_an_image_that_names_every_entry():
    place = ROOT / "leaderboard"
    root = ElementTree.fromstring((place / building.PICTURE).read_text(encoding="utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    names = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {folder.name for folder in (place / "entries").iterdir()} <= names
