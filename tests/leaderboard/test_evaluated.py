"""What was evaluated in memory is ranked and drawn like runs on disk."""

from __future__ import annotations

import pandas as pd
import pytest

import emubench
from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.leaderboard.plots import OF_TASK
from emubench.runs import folders, stages

TASK = tasks.get("lorenz63-noisy", "tiny")
UNKNOWN = ["baseline", "knowledge", "train_seconds", "n_parameters"]
"""Of the making of an emulator in memory."""


@pytest.fixture(scope="module")
def results(data):
    return {name: emubench.evaluate(emubench.train(name, TASK, data), TASK, data) for name in ("persistence", "oracle")}


def test_results_are_ranked_like_the_runs_on_disk(data, tmp_path, results):
    for name in results:
        emubench.train(name, TASK, data, out=tmp_path)
    for run in folders.find_runs([tmp_path]):
        stages.score(run, data)
    stored, evaluated = emubench.compare(tmp_path), emubench.compare(results)
    assert evaluated[UNKNOWN].isna().all(axis=None)
    assert stored[UNKNOWN].notna().all(axis=None)
    timed = ("lyapunov_times", "pareto_front")  # the front goes by speeds, which are measured twice
    told = [*UNKNOWN, *(name for name in stored.columns if name.startswith(timed))]
    pd.testing.assert_frame_equal(stored.drop(columns=told), evaluated.drop(columns=told))
    pd.testing.assert_frame_equal(stored, emubench.compare([str(tmp_path / name) for name in results]))


def test_several_results_of_a_name_are_its_seeds(data, results):
    other = emubench.evaluate(emubench.train("persistence", TASK, data), TASK, data, seed=1)
    ranks = emubench.compare({"persistence": [results["persistence"], other], "oracle": results["oracle"]})
    seeds = ranks[ranks.task.notna()].set_index("entry")["seeds"]
    assert seeds.to_dict() == {"oracle": 1, "persistence": 2}


def test_several_tasks_may_be_compared_but_not_several_sizes(data, results):
    partial = tasks.get("lorenz63-partial", "tiny")
    other = emubench.evaluate(emubench.train("persistence", partial, data), partial, data)
    ranks = emubench.compare({"persistence": [results["persistence"], other]})
    assert set(ranks.task.dropna()) == {"lorenz63-noisy", "lorenz63-partial"}
    with pytest.raises(EmubenchError, match="scored on lorenz63-noisy, lorenz63-partial: give one of them as task="):
        emubench.plot({"persistence": [results["persistence"], other]})
    figure = emubench.plot({"persistence": [results["persistence"], other]}, task="lorenz63-partial")
    assert figure.axes[0].get_title(loc="left").startswith("lorenz63-partial (tiny): ")
    resized = other.scores.model_copy(update={"size": "standard"})
    with pytest.raises(EmubenchError, match="has size tiny and .* has size standard"):
        emubench.compare({"one": results["persistence"], "two": type(other)(partial, resized, {})})


def test_nothing_to_compare_is_one_line(tmp_path):
    with pytest.raises(EmubenchError, match=r"no results to compare; make some with: emubench.evaluate"):
        emubench.compare({})
    with pytest.raises(EmubenchError, match="no runs here"):
        emubench.compare(tmp_path)


@pytest.mark.parametrize("kind", ["error", "forecast", "survival", "density", "spectrum"])
def test_a_plot_has_all_that_was_evaluated_in_it(results, kind):
    figure = emubench.plot(results, kind)
    labels = [text.get_text() for legend in (*figure.legends, *(ax.get_legend() for ax in figure.axes)) if legend
              for text in legend.get_texts()]  # fmt: skip
    labels += [text.get_text() for text in figure.texts]  # of runs that all survive there is a line of text alone
    for name in results:
        assert any(name in label for label in labels), labels


@pytest.mark.parametrize("kind", ["ranks", "heights", "exponents", "ladder"])
def test_a_plot_of_what_was_not_measured_is_refused(results, kind):
    with pytest.raises(EmubenchError, match=f"lorenz63-noisy: there is nothing to draw a plot '{kind}' of"):
        emubench.plot(results, kind)


def test_an_unknown_plot_or_task_is_named(results):
    with pytest.raises(EmubenchError, match="unknown kind of plot 'eror': did you mean error"):
        emubench.plot(results, "eror")
    with pytest.raises(EmubenchError, match="unknown scored task 'kpz-noisy'"):
        emubench.plot(results, task="kpz-noisy")
    assert all(f'"{kind}"' in (emubench.plot.__doc__ or "") for kind in OF_TASK)
