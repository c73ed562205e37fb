"""One bad item of many: the others are judged all the same, it is named at the end, and the exit status is 1."""

from __future__ import annotations

import json
import shutil

import pytest

from emubench import baselines
from emubench.runs import jobs, stages
from tests.support.scored_runs import write_run


def test_one_bad_item_leaves_the_other_runs_to_be_scored(emubench, data, tmp_path, monkeypatch):
    """Forecasts of another shape are refused by a message that knows no run, and a model's own error by none at all."""
    names = ("linear", "persistence", "oracle")
    runs = {name: stages.train(jobs.Job(name, "lorenz63-noisy", "tiny"), data, tmp_path) for name in names}
    monkeypatch.setattr(baselines.get("linear").DelayMap, "forecast", lambda self, context, *_: context[None, :, :2])
    monkeypatch.setattr(baselines.get("oracle").Oracle, "forecast", lambda *_: 1 // 0)
    finished = emubench("score", tmp_path, "--data", data, "--json")
    assert finished.status == 1
    assert {row["run"] for row in json.loads(finished.out)} == {str(runs["persistence"])}
    one, other = finished.err.splitlines()
    assert one.startswith(f"emubench: {runs['linear']}: forecast: shape (1, 16, 2, 3) where (1, 16, 442, 3) belongs")
    assert other.startswith(f"emubench: {runs['oracle']}: ZeroDivisionError: ")


def test_one_bad_item_leaves_the_other_files_to_be_verified(emubench, own_data):
    paths = sorted((own_data / "tiny").iterdir())
    paths[1].write_bytes(paths[1].read_bytes()[:1000])
    finished = emubench("verify", own_data / "no.h5", *paths)
    assert finished.status == 1
    assert finished.out.splitlines() == [f"{path}: identical bytes" for path in (paths[0], paths[2])]
    named = [line.split(":")[1].strip() for line in finished.err.splitlines()]
    assert named == [str(own_data / "no.h5"), str(paths[1])]


def test_one_bad_item_leaves_the_other_datasets_to_be_generated(emubench, own_data):
    clean, noisy, scarce = (own_data / "tiny" / f"lorenz63-{name}.h5" for name in ("clean", "noisy", "scarce"))
    clean.unlink()
    shutil.copy(own_data / "tiny" / "lorenz63.truth.h5", noisy)
    finished = emubench("generate", "lorenz63-noisy", "lorenz63-scarce", "--size", "tiny", "--data", own_data)
    assert finished.status == 1
    assert finished.out == f"wrote {scarce}\n"
    assert f"{noisy}: holds truth where observations belong" in finished.err
    finished = emubench("generate", "lorenz63-nosy", "no.toml", "lorenz63-clean", "--size", "tiny", "--data", own_data)
    assert (finished.status, finished.out) == (1, f"wrote {clean}\n")
    assert len(finished.err.splitlines()) == 2
    assert emubench("generate", "no.toml", "--data", own_data).out == ""


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"truth": "b" * 64}, "different truths of lorenz96-noisy"),
        ({"cases": [1.0, 2.0]}, "different numbers of cases"),
        ({"size": "standard"}, "size tiny and"),
        ({"version": "0.2.0"}, "emubench 0.1.0 and 0.2.0"),
        ({"cases": []}, "cases.valid_prediction_time: missing"),
        ({"task": "lorenz96-nosy"}, "unknown task"),
        ({"baseline": "net1", "name": "twin"}, "both are net1 on lorenz96-noisy with seed 0"),
    ],
)
def test_one_bad_item_leaves_the_other_runs_to_be_compared(emubench, tmp_path, frozen, bad, words):
    sound = {"task": "lorenz96-noisy", "cases": [1.0] * 4}
    write_run(tmp_path / "a", **({"baseline": "bad"} | sound | bad))  # the first: most decide, not who comes first
    for name in ("net1", "net2"):
        write_run(tmp_path / "b", name, **sound)
    finished = emubench("compare", tmp_path, "--json")
    assert finished.status == 1
    assert words in finished.err
    assert finished.err.count("\n") == 1
    assert {row["entry"] for row in json.loads(finished.out)} == {"net1", "net2"}


def test_one_bad_item_leaves_the_other_plots_to_be_drawn(emubench, tmp_path, frozen):
    for task in ("lorenz63-noisy", "lorenz96-noisy"):
        run = write_run(tmp_path / "runs", "net", task, [1.0] * 4)
    (run / "figures.json").write_text("{")
    (run / "diagnostics.json").write_text("{")
    finished = emubench("compare", tmp_path / "runs", "--plot", tmp_path / "plots")
    assert finished.status == 1
    wrong = [line.split(":")[1].strip() for line in finished.err.splitlines()]
    assert wrong == [str(run / "diagnostics.json"), str(run / "figures.json")]
    assert (tmp_path / "plots" / "noisy-throughput.png").exists()


def test_one_bad_item_leaves_the_other_baselines_to_be_listed(emubench, monkeypatch):
    known = baselines.get
    monkeypatch.setattr(baselines, "get", lambda name: known("no" if name == "linear" else name))
    finished = emubench("list", "baselines", "--json")
    assert finished.status == 1
    assert "unknown baseline 'no'" in finished.err
    assert {row["baseline"] for row in json.loads(finished.out)} == set(baselines.names()) - {"linear"}
