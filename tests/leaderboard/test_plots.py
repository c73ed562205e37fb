"""Plots: every kind is drawn from runs on disk, shows something, survives failed forecasts, and needs no display."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from emubench.core.errors import EmubenchError
from emubench.data import reference, tasks
from emubench.files.timing import Rung
from emubench.leaderboard import plots, ranking
from emubench.leaderboard.plots import curves, examples, laws, speed, style
from emubench.metrics._ensemble import LEADS
from emubench.runs import folders, scored
from tests.support import benched

INTERVAL = "95 % interval\nover cases"
VERSION = {"schema_version": 1, "emubench_version": "0.1.0"}


def write_run(
    out: Path, baseline: str, name: str, quality: float, *, fails: bool = False, figures: bool = True
) -> Path:
    """A scored run whose error grows from ``1 − quality``; one that ``fails`` stands at the clamp from a third on."""
    task, rng = tasks.get(name, "tiny"), np.random.default_rng(1)
    run = out / baseline / name / "tiny-seed-0-00000000"
    run.mkdir(parents=True)
    header = {**VERSION, "task": name, "size": "tiny"}
    card = {"baseline": baseline, "seed": 0, "data_sha256": "", "knowledge": "none", "config": {}}
    cost = {"n_parameters": 10, "train_seconds": 2.0, "threads": 1, "device": "cpu"}
    (run / "card.json").write_text(json.dumps(header | card | cost))
    metric, curve = ("crps", "crps") if task.system.stochastic else ("valid_prediction_time", "rms_error")
    leads = np.array(LEADS) if task.system.stochastic else np.arange(1, task.test_steps, 4) * task.lead_time_step
    error = (1.1 - quality) * np.sqrt(leads)
    unit: dict[str, Any] = {"task": name, "n_cases": 16, "unit": "1"}
    rows = [
        {"metric": curve, "lead_time": float(t), "value": e, "low": 0.9 * e, "high": 1.1 * e} | unit
        for t, e in zip(leads, error.tolist(), strict=True)
    ]
    for row in rows[6:] if fails else ():
        row["value"] = None
    alive = np.array([1.0, 0.6, 0.2] if fails else [1.0, 1.0, 1.0])
    rows += [
        {"metric": "surviving_fraction", "lead_time": t, "value": v, "low": max(v - 0.1, 0), "high": min(v + 0.1, 1)}
        | unit
        for t, v in zip((50.0, 100.0, 200.0), alive.tolist(), strict=True)
    ]
    cases = {metric: ((3 * quality if metric != "crps" else 3 - 2 * quality) + 0.1 * rng.standard_normal(16)).tolist()}
    (run / "scores.json").write_text(json.dumps(header | {"truth_sha256": "a", "rows": rows, "cases": cases}))
    (run / "timing.json").write_text(json.dumps({"lyapunov_times_per_second": 100.0 / quality**3}))
    if figures:
        (run / "figures.json").write_text(json.dumps(example(task, quality, fails)))
    return run


def example(task: tasks.Task, quality: float, fails: bool) -> dict[str, Any]:
    """Travelling waves; the forecast's have another speed."""
    n, (width,) = 40, task.shape
    t, x = np.arange(n)[:, None] / 5, np.arange(width) * 2 * np.pi / width
    mean, std = task.observation.select(task.system.mean), task.observation.select(task.system.std)
    truth, forecast = (mean + std * np.sin(3 * x + speed * t) for speed in (1.0, quality))
    if fails:
        forecast[n // 3 :] = 1e9
    figures: dict[str, Any] = {"lead_time": ((np.arange(n) + 1) * task.lead_time_step).tolist()}
    figures |= {"truth": truth.tolist(), "forecast": forecast.tolist(), "lost": 0.25 if fails else 0.0}
    bell, decay = np.exp(-(np.linspace(-3, 3, 60) ** 2)), 10.0 ** -np.linspace(0, 8, max(20, width // 2))
    figures["temporal_spectrum"] = [curve(decay, 1e30 if fails else quality)] * (1 if task.system.grid else width)
    figures["density"] = [curve(bell, quality)] * (1 if task.system.grid else width)
    if task.system.grid:
        figures["spatial_spectrum"] = curve(decay, None if fails else quality)
    if task.system.stochastic:
        slope = np.linspace(quality, 2 - quality, 17) / 17
        figures["rank_histogram"] = [{"lead_time": t, "frequency": slope.tolist()} for t in (1.0, 2.0, 8.0, 64.0)]
        figures["heights"] = [curve(bell, quality) | {"time": t} for t in (16.0, 64.0, 128.0)]
    return figures


def curve(truth: np.ndarray, factor: float | None) -> dict[str, Any]:
    """The truth in its band, and a run that is ``factor`` times as much."""
    known = {"x": np.linspace(-3, 3, len(truth)) if truth[0] < 0.5 else np.arange(1, len(truth) + 1), "truth": truth}
    run = {} if factor is None else {"run": truth * factor}
    return {k: v.tolist() for k, v in (known | run | {"low": 0.9 * truth, "high": 1.1 * truth}).items()}


@pytest.fixture(autouse=True)
def frozen(monkeypatch):
    def get(task: str) -> dict[str, Any]:
        return {"floor": 3.0, "oracle": 1.0} if task.startswith("kpz") else {"floor": 0.0, "oracle": 4.0}

    monkeypatch.setattr(reference, "get", get)


def draw(runs: Path, folder: Path) -> list[str]:
    read = scored.read_runs(folders.find_runs([runs]))
    return sorted(path.name for path in plots.draw(read, ranking.table(read), folder))


def colours(path: Path) -> int:
    """How many colours an image has, in steps of a sixteenth."""
    pixels = (matplotlib.image.imread(path)[..., :3] * 16).astype(int)
    return len(np.unique(pixels.reshape(-1, 3), axis=0))


@pytest.mark.slow
def test_every_kind_of_plot_is_drawn_and_shows_something(tmp_path):
    for name in ("lorenz63-noisy", "kpz-noisy"):
        for baseline, quality in (("oracle", 1.0), ("net", 0.8)):
            write_run(tmp_path / "runs", baseline, name, quality)
        write_run(tmp_path / "runs", "diverging", name, 0.4, fails=True)
    names = draw(tmp_path / "runs", tmp_path / "plots")
    assert names == [
        *(f"kpz-noisy-{kind}.png" for kind in ("density", "error", "forecast", "heights")),
        *(f"kpz-noisy-{kind}.png" for kind in ("ranks", "spectrum", "survival")),
        *(f"lorenz63-noisy-{kind}.png" for kind in ("density", "error", "forecast", "spectrum", "survival")),
        "noisy-throughput.png",
    ]
    for name in names:
        height, width, _ = matplotlib.image.imread(tmp_path / "plots" / name).shape
        assert 400 < height < 1600, name
        assert 600 < width < 1600, name
        assert colours(tmp_path / "plots" / name) > 20, name
    assert sorted(os.listdir(tmp_path / "plots")) == names  # no temporary file is left


def test_the_same_runs_give_the_same_bytes_and_touch_no_global_state(tmp_path):
    from matplotlib import pyplot, rcParams

    before = dict(rcParams)
    write_run(tmp_path / "runs", "net", "lorenz63-partial", 0.8)
    for folder in ("one", "two"):
        draw(tmp_path / "runs", tmp_path / folder)
    for name in os.listdir(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert pyplot.get_fignums() == []
    assert dict(rcParams) == before


def test_runs_without_figures_still_have_curves(tmp_path):
    write_run(tmp_path / "runs", "net", "lorenz96-noisy", 0.8, figures=False)
    assert draw(tmp_path / "runs", tmp_path / "plots") == [
        "lorenz96-noisy-error.png",
        "lorenz96-noisy-survival.png",
        "noisy-throughput.png",
    ]


def test_a_failed_forecast_does_not_stretch_the_axes(tmp_path):
    for name in ("lorenz63-noisy", "lorenz96-noisy", "kpz-noisy"):
        write_run(tmp_path, "net", name, 0.8)
        write_run(tmp_path, "diverging", name, 0.4, fails=True)
    runs = scored.read_runs(folders.find_runs([tmp_path]))
    frame, look = ranking.table(runs), style.styles(["net", "diverging"])
    for name in ("lorenz63-noisy", "lorenz96-noisy", "kpz-noisy"):
        task, of_task = tasks.get(name, "tiny"), [run for run in runs if run.task.name == name]
        best = ["net", "diverging"]
        (ax,) = curves.error_plot(task, of_task, best, look).axes
        assert ax.get_ylim()[1] < 8
        assert "diverging\n(leaves the axis)" in [text.get_text() for text in ax.figure.legends[0].get_texts()]
        drawn = examples.forecast_plot(task, of_task, best, look)
        assert drawn is not None
        for ax in drawn.axes:
            for low, high in (ax.get_xlim(), ax.get_ylim()):
                assert max(abs(low), abs(high)) < 1000
            for image in ax.images:
                assert max(map(abs, image.get_clim())) < 20
    for ax in speed.throughput_plot(frame, "noisy", look).axes:
        assert max(map(abs, ax.get_ylim())) < 10


def labels(figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_what_lies_between_floor_and_oracle_does_not_look_like_an_interval(tmp_path):
    for name, quality in (("oracle", 1.0), ("linear", 0.5), ("net", 0.8)):
        write_run(tmp_path, name, "lorenz96-noisy", quality)
    task, look = tasks.get("lorenz96-noisy", "tiny"), style.styles(["net"])
    best = ["oracle", "net", "linear"]
    runs = scored.read_runs(folders.find_runs([tmp_path]))
    assert "between floor\nand oracle" not in labels(curves.error_plot(task, runs, best, look))  # half a floor is none
    write_run(tmp_path, "persistence", "lorenz96-noisy", 0.4)
    runs = scored.read_runs(folders.find_runs([tmp_path]))
    figure = curves.error_plot(task, runs, best, look)
    assert "between floor\nand oracle" in labels(figure)
    assert [run.entry for run in runs] == ["linear", "net", "oracle", "persistence"]
    hatched = figure.axes[0].collections[0]
    assert hatched.get_hatch()
    assert not len(hatched.get_facecolor())
    band = hatched.get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(max(r.value for r in runs[0].scores.rows if r.metric == "rms_error"))


def test_survival_begins_whole_and_says_who_loses_none(tmp_path):
    write_run(tmp_path, "net", "kpz-noisy", 0.8)
    write_run(tmp_path, "diverging", "kpz-noisy", 0.4, fails=True)
    runs = scored.read_runs(folders.find_runs([tmp_path]))
    figure = curves.survival_plot(
        tasks.get("kpz-noisy", "tiny"), runs, ["net", "diverging"], style.styles(["net", "diverging"])
    )
    assert figure is not None
    assert labels(figure) == ["net (none lost)", "diverging", INTERVAL]
    lines = [line.get_ydata().tolist() for line in figure.axes[0].lines]
    assert lines == [[1, 1, 1, 1], [1, 1, 0.6, 0.2]]


def test_survival_of_all_runs_is_a_line_of_text(tmp_path):
    write_run(tmp_path, "net", "kpz-noisy", 0.8)
    runs = scored.read_runs(folders.find_runs([tmp_path]))
    figure = curves.survival_plot(tasks.get("kpz-noisy", "tiny"), runs, ["net"], style.styles(["net"]))
    assert figure is not None
    assert not figure.axes
    assert [text.get_text() for text in figure.texts][-1] == "No run is lost within 200 sample intervals: net."


@pytest.mark.parametrize("name", ["lorenz96-noisy", "kpz-noisy"])
def test_intervals_are_named_and_no_label_lies_over_a_curve(tmp_path, name):
    write_run(tmp_path, "oracle", name, 1.0)
    write_run(tmp_path, "diverging", name, 0.2, fails=True)
    runs, best = scored.read_runs(folders.find_runs([tmp_path])), ["oracle", "diverging"]
    task, look = tasks.get(name, "tiny"), style.styles(best)
    drawn = [plot(task, runs, best, look) for plot in (curves.error_plot, curves.survival_plot)]
    assert all(figure and INTERVAL in labels(figure) for figure in drawn)
    facets = speed.throughput_plot(ranking.table(runs), "noisy", look)
    assert any("95 % interval" in label for label in labels(facets))
    for figure in (*drawn, facets):
        assert figure is not None
        figure.draw_without_rendering()
        for ax in figure.axes:
            assert all(text.get_window_extent().x0 > ax.bbox.x1 for text in ax.texts if text.get_text())


def test_an_oracle_in_the_plot_is_a_star_and_no_line_besides(tmp_path):
    write_run(tmp_path, "net", "lorenz96-noisy", 0.8)
    for shown in (["floor", "oracle"], ["floor"]):
        frame = ranking.table(scored.read_runs(folders.find_runs([tmp_path])))
        (ax,) = speed.throughput_plot(frame, "noisy", style.styles(["net"])).axes
        assert [text.get_text() for text in ax.texts] == shown
        if "oracle" in shown:
            write_run(tmp_path, "oracle", "lorenz96-noisy", 1.0)


def test_what_stands_still_has_no_density_curve(tmp_path):
    run = write_run(tmp_path, "persistence", "lorenz96-noisy", 0.8)
    write_run(tmp_path, "net", "lorenz96-noisy", 0.9)
    figures = json.loads((run / "figures.json").read_text())
    figures["temporal_spectrum"][0]["run"] = [0.0] * len(figures["temporal_spectrum"][0]["x"])
    (run / "figures.json").write_text(json.dumps(figures))
    runs, best = scored.read_runs(folders.find_runs([tmp_path])), ["net", "persistence"]
    figure = laws.density_plot(tasks.get("lorenz96-noisy", "tiny"), runs, best, style.styles(best))
    assert figure is not None
    assert len(figure.axes[0].lines) == 2  # the truth and net
    assert "persistence\n(stands still)" in labels(figure)


def test_one_member_has_no_rank_histogram(tmp_path):
    run = write_run(tmp_path, "persistence", "kpz-noisy", 0.8)
    write_run(tmp_path, "net", "kpz-noisy", 0.9)
    figures = json.loads((run / "figures.json").read_text())
    figures["rank_histogram"] = [{"lead_time": t, "frequency": [0.5, 0.5]} for t in (1.0, 8.0, 64.0)]
    (run / "figures.json").write_text(json.dumps(figures))
    runs, best = scored.read_runs(folders.find_runs([tmp_path])), ["net", "persistence"]
    figure = laws.rank_plot(tasks.get("kpz-noisy", "tiny"), runs, best, style.styles(best))
    assert figure is not None
    assert [len(ax.patches) for ax in figure.axes] == [1, 1, 1]
    assert "persistence\n(one member: no ranks)" in labels(figure)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("kpz-noisy", ["one member", "mean of the members", "their spread"]),
        ("lorenz96-noisy", ["forecast", "forecast − truth"]),
    ],
)
def test_the_truth_is_shown_once_after_its_context_and_ensembles_by_mean_and_spread(tmp_path, name, kinds):
    for entry, quality in (("net", 0.8), ("other", 0.9)):
        run = write_run(tmp_path, entry, name, quality)
        figures = json.loads((run / "figures.json").read_text())
        width = len(figures["truth"][0])
        figures["context"] = [[None, *[1.0] * (width - 1)]] * 10
        figures |= {key: figures["forecast"] for key in ("mean", "spread") if name.startswith("kpz")}
        (run / "figures.json").write_text(json.dumps(figures))
    runs, best = scored.read_runs(folders.find_runs([tmp_path])), ["net", "other"]
    figure = examples.forecast_plot(tasks.get(name, "tiny"), runs, best, style.styles(best))
    assert figure is not None
    panels = figure.axes[: 3 * len(kinds)]
    assert [len(ax.images) for ax in panels] == [2, *[0] * (len(kinds) - 1), *[1] * 2 * len(kinds)]
    assert [ax.get_title() for ax in panels[len(kinds) :][: len(kinds)]] == kinds
    found = examples.read_example(runs[0])
    assert found is not None
    assert found.context_time.tolist() == pytest.approx([(i - 9) * found.lead_time[0] for i in range(10)])
    assert np.isnan(found.context[:, 0]).all()


def test_a_valid_time_beyond_the_frame_is_said(tmp_path):
    run = write_run(tmp_path, "net", "lorenz96-noisy", 0.8)
    scores = json.loads((run / "scores.json").read_text())
    look, texts = style.styles(["net"]), []
    for until in (0.25, 123.4):
        scores["cases"]["valid_prediction_time"][0] = until
        (run / "scores.json").write_text(json.dumps(scores))
        figure = examples.forecast_plot(
            tasks.get("lorenz96-noisy", "tiny"), [scored.read_run(run)], [""], look | {"": look["net"]}
        )
        assert figure is not None
        texts.append([ax.get_title(loc="right") for ax in figure.axes[2:4]])
    assert texts == [["", ""], ["valid until 123 →"] * 2]


def test_lost_runs_are_named_in_the_legend_of_laws(tmp_path):
    write_run(tmp_path, "net", "kpz-noisy", 0.8)
    write_run(tmp_path, "diverging", "kpz-noisy", 0.4, fails=True)
    runs = scored.read_runs(folders.find_runs([tmp_path]))
    task, best, look = tasks.get("kpz-noisy", "tiny"), ["net", "diverging"], style.styles(["net", "diverging"])
    for plot, lines in ((laws.density_plot, 3), (laws.spectrum_plot, 3), (laws.rank_plot, 1), (laws.height_plot, 4)):
        figure = plot(task, runs, best, look)
        assert figure is not None
        found = labels(figure)
        assert ("diverging\n(25% of runs lost)" in found) == (plot in (laws.density_plot, laws.spectrum_plot))
        assert len(figure.axes[-1].lines) == lines + (plot is laws.spectrum_plot), plot
    spatial = laws.spectrum_plot(task, runs, best, look)
    assert spatial is not None
    assert len(spatial.axes[0].lines) == 3  # truth, one run, and the level below which scores do not look


def diagnose(run: Path, task: str, **series: list[float]) -> None:
    header = VERSION | {"task": task, "size": "tiny", "truth_sha256": "a"}
    (run / "diagnostics.json").write_text(
        json.dumps(header | {"diagnostics": {"lyapunov_spectrum": {"rows": [], "series": series, "note": ""}}})
    )


def test_lyapunov_spectra_are_drawn_where_runs_were_diagnosed(tmp_path):
    task, best, look = tasks.get("lorenz63-noisy", "tiny"), ["net", "bare"], style.styles(["net", "bare"])
    run = write_run(tmp_path, "net", "lorenz63-noisy", 0.8)
    write_run(tmp_path, "bare", "lorenz63-noisy", 0.7)
    runs = scored.read_runs(folders.find_runs([tmp_path]))
    assert laws.exponent_plot(task, runs, best, look) is None
    diagnose(run, "lorenz63-noisy")  # not available: no series
    assert laws.exponent_plot(task, runs, best, look) is None
    true = {"true_exponents": [0.9, 0.0, -14.6], "true_standard_errors": [0.01, 0.01, 0.1]}
    diagnose(run, "lorenz63-noisy", exponents=[0.8, 0.1], standard_errors=[0.1, 0.1], **true)
    figure = laws.exponent_plot(task, runs, best, look)
    assert figure is not None
    assert labels(figure) == ["truth", "net"]
    assert [c.lines[0].get_ydata().tolist() for c in figure.axes[0].containers] == [[0.9, 0.0, -14.6], [0.8, 0.1]]
    low, high = figure.axes[0].get_ylim()
    assert low < -14.6 < 0.9 < high


def test_heights_are_shown_beside_the_tracy_widom_law(tmp_path):
    write_run(tmp_path, "net", "kpz-noisy", 0.8)
    runs = scored.read_runs(folders.find_runs([tmp_path]))
    figure = laws.height_plot(tasks.get("kpz-noisy", "tiny"), runs, ["net"], style.styles(["net"]))
    assert figure is not None
    assert len(figure.axes) == 3
    for ax in figure.axes:
        assert ax.get_yscale() == "log"
        u, law = ax.lines[1].get_data()
        assert float(np.sum(law) * (u[1] - u[0])) == pytest.approx(1, abs=1e-3)
        assert float(np.sum(u**2 * law) * (u[1] - u[0])) == pytest.approx(0.638, abs=0.002)


@pytest.mark.parametrize(("first", "last"), [(0.33, 5.8), (0.05, 5.9), (0.02, 0.5), (1.0, 1.9), (0.001, 10.0)])
def test_labels_of_frequencies_do_not_overlap(first, last):
    figure, axes = laws._panels(4)
    for ax in axes:
        ax.set_xlim(first, last)
        laws._frequencies(ax)
    figure.draw_without_rendering()
    labels = [label for label in axes[0].get_xticklabels(which="both") if label.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    boxes = [box for box in boxes if axes[0].bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= axes[0].bbox.x1 + 1]
    assert len(boxes) >= (3 if last > 4 * first else 1)
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


@pytest.mark.parametrize("lam", [3.0, -3.0])
def test_the_law_of_heights_leans_to_where_the_interface_grows(tmp_path, lam):
    write_run(tmp_path, "net", "kpz-noisy", 0.8)
    task = tasks.get("kpz-noisy", "tiny")
    task = dataclasses.replace(task, system=dataclasses.replace(task.system, lam=lam))
    figure = laws.height_plot(task, scored.read_runs(folders.find_runs([tmp_path])), ["net"], style.styles(["net"]))
    assert figure is not None
    u, law = figure.axes[0].lines[1].get_data()
    third = float(np.sum(u**3 * law) * (u[1] - u[0]))
    assert third / 0.638**1.5 == pytest.approx(np.copysign(0.293, lam), abs=0.01)


def test_what_failed_is_a_gap_and_stays_one(tmp_path):
    run = write_run(tmp_path, "net", "kpz-noisy", 0.4, fails=True)
    figures = json.loads((run / "figures.json").read_text())
    figures["forecast"][-1] = figures["truth"][-1]
    (run / "figures.json").write_text(json.dumps(figures))
    found = examples.read_example(scored.read_run(run))
    assert found is not None
    assert np.isnan(found.forecast).all(1).nonzero()[0].tolist() == list(range(13, 40))
    assert np.allclose(found.truth.mean(1), 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"forecast": [[0.0]] * 40}, "forecast: 40 rows of [1] values where the shape (40, 40) belongs"),
        ({"truth": [[0.0] * 40] * 3}, "truth: 3 rows of [40] values where the shape (40, 40) belongs"),
        ({"truth": "waves"}, "truth: "),
        ({"lead_time": None}, "lead_time: "),
        ({"lost": 2.0}, "lost: "),
        ({"density": [{"x": [0.0], "truth": [], "low": [0.0], "high": [0.0]}]}, "density.0: "),
        ({"spatial_spectrum": {"x": [0.0] * 9999}}, "spatial_spectrum."),
    ],
)
def test_bad_figures_are_refused_in_one_line(tmp_path, change, words):
    run = write_run(tmp_path, "net", "lorenz96-noisy", 0.8)
    path = run / "figures.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(EmubenchError) as error:
        examples.read_example(scored.read_run(run))
    assert str(error.value).startswith(f"{path}: {words}")
    assert "\n" not in str(error.value)


def test_entries_look_different_and_references_always_the_same():
    many = [f"net{i}" for i in range(12)]
    look = style.styles([*many, "oracle"])
    assert len({look[name] for name in [*many, *style.REFERENCES]}) == 16
    assert look["oracle"] == style.styles(["oracle", "zebra"])["oracle"]


def test_forecasts_shown_are_those_of_the_best_and_others_before_references():
    assert examples.chosen(["oracle", "a", "b", "linear", "persistence"]) == ["oracle", "a", "b", "linear"]
    assert examples.chosen(["oracle", "linear", "a", "b", "c", "d"]) == ["a", "b", "c", "d"]


@pytest.mark.slow
def test_no_display_is_needed(tmp_path):
    write_run(tmp_path / "runs", "net", "lorenz63-partial", 0.8)
    program = "import sys; from pathlib import Path; from emubench.cli import report; "
    program += "report.compare([Path(sys.argv[1])], Path(sys.argv[2]))"
    bare = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")}
    command = [sys.executable, "-c", program, str(tmp_path / "runs"), str(tmp_path / "plots")]
    run = subprocess.run(command, env=bare, capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "partial track: RANKED" in run.stdout
    assert (tmp_path / "plots" / "partial-throughput.png").stat().st_size > 5000


@pytest.mark.slow
def test_the_ladder_is_drawn_where_something_was_benched(tmp_path):
    for i, (baseline, quality) in enumerate((("linear", 0.1), ("net", 0.8), ("worse", 0.4))):
        run = write_run(tmp_path / "runs", baseline, "lorenz63-noisy", quality)
        benched.write(run, 10.0 ** (2 + i), 3 * quality, skill=quality)
    write_run(tmp_path / "runs", "oracle", "lorenz63-noisy", 1.0)  # scored, never benched
    write_run(tmp_path / "runs", "net", "lorenz96-noisy", 0.8)
    drawn = draw(tmp_path / "runs", tmp_path)
    assert "lorenz63-noisy-ladder.png" in drawn
    assert "lorenz96-noisy-ladder.png" not in drawn
    assert colours(tmp_path / "lorenz63-noisy-ladder.png") > 20


def test_the_line_joins_the_settings_that_none_beats_in_both():
    rungs = [Rung.model_validate(r) for r in benched.LADDER]
    task = tasks.get("lorenz63-noisy", "tiny")
    assert [r.accuracy for r in speed.envelope(task, rungs)] == [1.0, 1.5, 3.0]
    slow = [Rung.model_validate(benched.rung(1.0, a, 1)) for a in (2.0, 1.0)]
    growth = tasks.get("kpz-noisy", "tiny")
    assert [r.accuracy for r in speed.envelope(growth, [*rungs, *slow])] == [1.0, 0.5]  # lower is better
