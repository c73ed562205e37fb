"""A run is diagnosed once, for the truth it belongs to; the command shows it, and no ranking changes."""

from __future__ import annotations

import json

import pytest

from emubench.evaluation import diagnostics, scoring
from emubench.evaluation.diagnostics import measure
from emubench.files import run_files
from emubench.runs import jobs, stages


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A trained run of the smallest learned kind."""
    job = jobs.Job("resnet_ode", "lorenz63-noisy", "tiny", overrides={"steps": 20, "width": 8})
    return stages.train(job, data, tmp_path_factory.mktemp("runs"))


def test_a_run_is_diagnosed_once_and_goes_on_where_it_was(data, run, short_spectra, monkeypatch):
    first = stages.diagnose(run, data)
    assert list(first.diagnostics) == list(diagnostics.DIAGNOSTICS)
    assert stages.read_diagnostics(run) == first
    text = (run / "diagnostics.json").read_text()
    kept = json.loads(text)
    del kept["diagnostics"]["noise_doubling"]
    (run / "diagnostics.json").write_text(json.dumps(kept))
    calls = []
    monkeypatch.setattr(diagnostics, "measure", lambda name, subject: calls.append(name) or measure(name, subject))
    again = stages.diagnose(run, data)
    assert calls == ["noise_doubling"]
    assert again.diagnostics == first.diagnostics  # deterministic
    assert stages.diagnose(run, data, again=True).diagnostics == first.diagnostics
    assert calls[1:] == list(diagnostics.DIAGNOSTICS)


def test_diagnostics_of_other_data_are_made_anew(data, run, short_spectra, monkeypatch):
    stages.diagnose(run, data)
    monkeypatch.setattr(scoring, "truth_digest", lambda task, data: "0" * 64)
    monkeypatch.setattr(diagnostics, "measure", lambda name, subject: run_files.Diagnostic(note="anew"))
    assert {d.note for d in stages.diagnose(run, data).diagnostics.values()} == {"anew"}


def test_the_command_prints_and_stores_them(data, run, short_spectra, emubench, refused):
    shown = emubench("score", run, "--data", data, "--diagnostics")
    assert shown.status == 0, shown.err
    assert "twin_separation_time" in shown.out
    assert "(reported, never ranked)" in " ".join(shown.out.split())
    rows = json.loads(emubench("score", run, "--data", data, "--diagnostics", "--json").out)
    assert {"valid_prediction_time", "lyapunov_exponent_1", "true_gain_max"} <= {row["metric"] for row in rows}
    compared = emubench("compare", run)
    assert "symmetry: worst violation" in compared.out
    line = refused("score", "--forecast", "x.npz", "--task", "lorenz63-noisy", "--data", data, "--diagnostics")
    assert "--diagnostics needs RUN folders" in line


def test_diagnostics_leave_the_ranking_alone(data, run, short_spectra, emubench):
    emubench("score", run, "--data", data)
    (run / "diagnostics.json").unlink(missing_ok=True)
    before = emubench("compare", run, "--json").out
    stages.diagnose(run, data)
    assert emubench("compare", run, "--json").out == before


def test_a_diagnostics_file_is_checked(data, run, short_spectra, emubench):
    stages.diagnose(run, data)
    path = run / "diagnostics.json"
    path.write_text(path.read_text().replace('"note"', '"remark"', 1))
    try:
        finished = emubench("score", run, "--data", data, "--diagnostics")
        assert finished.status == 1
        *_, warning, fault = finished.err.splitlines()
        assert "free forecasts stood still" in warning  # after twenty steps of training
        assert "remark" in fault
    finally:
        path.unlink()
