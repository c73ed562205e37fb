"""Expected scores: written from runs, shown in the README, and made again."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib

import pytest

from benchmarks.maintain import expected
from benchmarks.maintain.plots import claims
from benchmarks.maintain.plots.overview import overview
from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.data import generation, tasks
from emubench.files import entry_files
from emubench.leaderboard.plots import style
from emubench.runs import jobs, stages

SAMPLE = [
    ("persistence", "lorenz63-noisy"),
    ("linear", "lorenz96-noisy"),
    ("resnet_ode", "lorenz63-scarce"),
    ("neural_ode", "lorenz63-partial"),
    ("random_features", "lorenz63-clean"),
    ("weak_adversarial", "lorenz63-noisy"),
    ("polynomial", "kuramoto_sivashinsky-scarce"),
]
"""Made again: cheap enough to be trained at standard size."""


def test_the_tables_of_the_readme_are_those_of_the_file():
    text = expected.README.read_text(encoding="utf-8")
    assert expected.readme(text, expected.load()) == text


@pytest.mark.parametrize("name", baselines.names())
def test_every_docstring_says_what_the_file_does(name):
    path = expected.FOLDER / f"{name}.py"
    source, of_tasks = path.read_text(encoding="utf-8"), expected.load()[name]
    assert expected.documented(source, of_tasks, path) == source
    assert expected.sentence(of_tasks) in (baselines.get(name).__doc__ or "")


def test_a_docstring_without_the_paragraph_is_refused(tmp_path):
    with pytest.raises(EmubenchError, match="0 paragraphs 'Expected skill"):
        expected.documented('"""Mine."""\n', {}, tmp_path / "mine.py")


def test_the_paragraph_of_a_docstring_has_all_systems_and_the_longest_training():
    found = {
        name: {"skill_accuracy": {"value": value}, "cost": {"seconds": seconds}}
        for name, value, seconds in (
            ("lorenz63-clean", 0.5, 3.0),
            ("lorenz63-noisy", -0.001, 70.4),
            ("kpz-clean", 1, 2),
        )
    }
    text = expected.sentence(found)
    assert "kpz 1.00; lorenz63 0.50 0.00; up to 70 s of training." in text.replace("\n", " ")


def test_a_readme_without_the_mark_is_refused():
    with pytest.raises(EmubenchError, match="the line <!-- below"):
        expected.readme("# Baselines\n", {})


def test_what_is_expected_is_plausible():
    for baseline, of_tasks in expected.load().items():
        assert baseline in baselines.names()
        for name, found in of_tasks.items():
            metric = "crps" if tasks.get(name).system.stochastic else "valid_prediction_time"
            assert {metric, *expected.SCORES, "cost"} == set(found)
            for score in (metric, *expected.SCORES):
                value, low, high = (found[score][key] for key in ("value", "low", "high"))
                assert low <= value <= high or math.isnan(value), (baseline, name, score)
            assert found["cost"]["command"].startswith(("emubench train", "for seed in 0 1"))


@pytest.mark.parametrize("name", baselines.names())
def test_the_entry_of_a_baseline_was_trained_with_the_settings_of_its_file(name):
    """A default that changes without its entry leaves the board with a model that no command makes."""
    cards = entry_files.read(expected.FOLDER.parent / "leaderboard" / "entries" / name, entry_files.CARDS)
    assert {task for task, _ in cards} == set(tasks.names())
    for run, card in cards.items():
        config = dataclasses.asdict(jobs.Job(name, card.task, card.size, card.seed).config())
        assert card.config == json.loads(json.dumps(config)), run


def test_the_file_survives_a_round_trip():
    score = {"value": 1.5, "low": -0.25, "high": float("1e-3"), "seeds": 3}
    made = {"linear": {"lorenz63-noisy": {"crps": score, "cost": {"command": "emubench train", "seconds": 1.0}}}}
    assert tomllib.loads(expected.as_toml(made)) == made
    assert expected.PATH.read_text(encoding="utf-8") == expected.as_toml(expected.load())


def test_tables_have_the_best_first_whatever_better_means():
    def entry(metric: str, value: float) -> dict:
        score = {"value": value, "low": value - 1, "high": value + 1, "seeds": 1}
        return {metric: score, **dict.fromkeys(expected.SCORES, score), "cost": {"parameters": 7, "seconds": 2.0}}

    names = {"lorenz96-noisy": "valid_prediction_time", "kpz-noisy": "crps"}
    made = {b: {n: entry(m, v) for n, m in names.items()} for b, v in (("linear", 2.0), ("oracle", 3.0))}
    lorenz, kpz = (expected.as_tables({b: {n: of[n]} for b, of in made.items()}).split(f"### {n}\n")[1] for n in names)
    assert lorenz.index("`oracle`") < lorenz.index("`linear`")
    assert kpz.index("`oracle`") > kpz.index("`linear`")
    assert "| `oracle` | 3.000 [2.000, 4.000] |" in kpz.split("###")[0]


def test_tiny_runs_or_changed_settings_are_not_what_is_expected(tmp_path):
    with pytest.raises(EmubenchError, match="no scored runs|no runs"):
        expected.collect([tmp_path])


def test_rows_without_new_runs_stay_and_those_of_lost_baselines_go():
    old = {"linear": {"kpz-noisy": {"a": 1}, "lorenz63-noisy": {"a": 2}}, "not_a_baseline": {"kpz-noisy": {"a": 3}}}
    new = {"linear": {"kpz-noisy": {"a": 4}}, "climatology": {"kpz-noisy": {"a": 5}}}
    found = expected.merged(old, new)
    assert found == {"climatology": new["climatology"], "linear": {"kpz-noisy": {"a": 4}, "lorenz63-noisy": {"a": 2}}}
    assert list(found) == sorted(found)


def test_the_overview_shows_every_skill_there_is():
    figure = overview(expected.load())
    shown = [float(text.get_text()) for text in figure.axes[0].texts]
    wanted = [of["skill_accuracy"]["value"] for tasks_ in expected.load().values() for of in tasks_.values()]
    assert sorted(shown) == pytest.approx(sorted(wanted), abs=0.006)
    assert len(figure.axes[1].texts) <= len(shown)


SYSTEMS = ("kuramoto_sivashinsky", "lorenz63", "lorenz96")


def points_of(ax) -> list[tuple[str, float, float]]:
    """The marks of a panel, by baseline."""
    marks = [line for line in ax.lines if not line.get_label().startswith("_")]
    return sorted((mark.get_label(), float(mark.get_xdata()[0]), float(mark.get_ydata()[0])) for mark in marks)


@pytest.mark.slow
def test_the_plot_of_costs_shows_and_names_every_baseline_on_every_track():
    figure, all_of = claims.cost_plot(expected.load()), expected.load()
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(tasks.TRACKS)
    for ax, track in zip(figure.axes, tasks.TRACKS, strict=True):
        wanted = []
        for baseline, of in all_of.items():
            rows = [of[f"{system}-{track}"] for system in SYSTEMS]
            seconds = math.prod(max(row["cost"]["seconds"], 0.1) for row in rows) ** (1 / 3)
            skill = sum(row["skill_accuracy"]["value"] for row in rows) / 3
            wanted.append((baseline, pytest.approx(seconds), pytest.approx(min(max(skill, -0.2), 1.2))))
        assert points_of(ax) == sorted(wanted, key=lambda point: point[0])
        assert set(all_of) <= {text.get_text() for text in ax.texts}


@pytest.mark.slow
def test_the_plot_of_stability_shows_every_task_of_a_system_and_names_what_learns():
    figure, all_of = claims.stability_plot(expected.load()), expected.load()
    assert [ax.get_title(loc="left") for ax in figure.axes] == [*SYSTEMS, ""]
    for ax, system in zip(figure.axes, SYSTEMS, strict=False):
        rows = [(b, of[f"{system}-{track}"]) for b, of in all_of.items() for track in tasks.TRACKS]
        wanted = [
            (b, min(max(r["skill_accuracy"]["value"], -0.2), 1.2), r["skill_stability"]["value"]) for b, r in rows
        ]
        assert points_of(ax) == sorted(wanted)
        names = [text.get_text() for text in ax.texts]
        assert sum(name in all_of and name not in style.REFERENCES for name in names) >= 4 * (len(all_of) - 4) - 2


def test_costs_leave_out_a_baseline_that_lacks_a_system():
    row = {"skill_accuracy": {"value": 3.0}, "cost": {"seconds": 0.0}}
    made = {"oracle": {f"{s}-clean": row for s in SYSTEMS}, "linear": {"lorenz63-clean": row}}
    assert claims.cost_points(made, "clean") == [("oracle", pytest.approx(0.1), 1.2)]
    assert len(claims.cost_plot(made).axes) == 4


def test_what_descends_in_gradients_is_drawn_so():
    uses = {name for name in baselines.names() if "Descent(" in (expected.FOLDER / f"{name}.py").read_text("utf-8")}
    assert uses == {*claims.NETWORKS, *claims.MIXED}


@pytest.mark.slow
@pytest.mark.parametrize(("baseline", "name"), SAMPLE)
def test_what_is_expected_comes_out_again(tmp_path, baseline, name):
    """Within four standard errors; another machine trains a network to other weights."""
    generation.generate(tasks.get(name), tmp_path / "data")
    run = stages.train(jobs.Job(baseline, name), tmp_path / "data", tmp_path / "runs")
    rows = {row.metric: row for row in stages.score(run, tmp_path / "data").rows if row.lead_time is None}
    for metric, wanted in expected.load()[baseline][name].items():
        if metric == "cost":
            continue
        error = (wanted["high"] - wanted["low"]) / (2 * 1.96)
        value = rows[metric].value
        assert value is not None
        assert abs(value - wanted["value"]) <= 4 * error + 2e-3 * abs(wanted["value"]), metric
