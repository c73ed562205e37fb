"""Terminals and encodings: whatever the width, the alphabet or the name of a folder, nothing is lost without a word."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from pydantic import BaseModel
from rich.console import Console

from emubench.cli import options, report, tables
from emubench.files import schema
from emubench.files.run_files import ScoreRow
from tests.support.scored_runs import everything, table


@pytest.fixture
def frame(tmp_path, frozen):
    rows = {"skill_stability": (0.85, 0.75, 0.95), "surviving_fraction": (0.0,) * 3, "dead_fraction": (0.1,) * 3}
    for name in ("a_rather_long_name_of_a_method", "net"):
        for seed in (0, 1):
            everything(tmp_path, name, 12.0, rows=rows, seed=seed, speed=12345.0 * (1 + seed))
    return table(tmp_path)


@pytest.mark.parametrize("width", [72, 80, 100, 120, 200])
@pytest.mark.parametrize("terminal", [True, False])
def test_terminals_of_any_width_show_whole_figures(frame, width, terminal):
    console = Console(width=width, force_terminal=terminal, record=True, file=io.StringIO())
    report.show(frame, console)
    lines = console.export_text().splitlines()
    text = "\n".join(lines)
    assert terminal is False or max(map(len, lines)) <= width
    assert text.count("net ") >= 5
    assert "a_rather_lo" in text
    assert "0.85 [0.75, 0.95]" in text or (terminal and width == 72)
    assert "…" not in text.replace("better … n", "")
    for column in ("front", "lost", "knowledge"):  # it is there, or named as left out
        assert column in text
    if not terminal or width >= 120:
        assert "100%" in text
        assert "left out" not in text
    if terminal and width == 80:
        assert "left out, as this terminal is narrow: rank (s), seeds, train, params, knowledge;" in " ".join(
            text.split()
        )


def test_terminals_show_whole_names_of_scores(monkeypatch, capsys):
    names = [f"valid_prediction_time_{end}" for end in ("median", "persistent", "worst")]
    known = {"task": "kuramoto_sivashinsky-partial", "lead_time": None, "value": 1.2345, "low": 1.0, "high": 2.0}
    rows = [ScoreRow(**known, metric=name, n_cases=256, unit="Lyapunov time") for name in names]
    monkeypatch.setattr(tables, "WIDTH", 80)
    tables.show_scores("runs/a", rows)
    printed = capsys.readouterr().out
    assert "…" not in printed
    columns = [line[19:33].strip() for line in printed.splitlines()]
    assert all(name in "".join(columns) for name in names)


def test_terminals_show_stages_beside_the_bar_and_warnings_above_it(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=stream, force_terminal=True, width=80))
    log = logging.getLogger("emubench.dynamics")
    with options.progress("my.toml"):
        log.info("measuring %d samples", 256)
        log.warning("slow")
    shown = stream.getvalue()
    assert "my.toml: measuring 256 samples" in shown
    assert "my.toml: slow\n" in shown
    log.info("nobody listens")
    assert stream.getvalue() == shown


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_terminals_of_any_encoding_are_written_to(emubench, frame, tmp_path, monkeypatch, encoding):
    for arguments in (("list", "tasks"), ("compare", tmp_path, "--plot", tmp_path / "plots")):
        monkeypatch.setattr(report.ranking, "table", lambda read: frame)
        monkeypatch.setattr("emubench.leaderboard.plots.draw", lambda *_: [])
        written = io.BytesIO()
        output = io.TextIOWrapper(written, encoding)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", output)
            assert emubench(*arguments).status == 0
            output.flush()
        assert len(written.getvalue().decode(encoding)) > 100
    assert (tmp_path / "plots" / "ranking.json").exists()
    if encoding == "ascii":
        assert b" * " in written.getvalue()  # the mark of the Pareto front


def test_terminals_show_brackets_as_they_are(capsys, monkeypatch):
    row = ScoreRow(task="t", metric="m", lead_time=None, value=1.0, low=0.0, high=2.0, n_cases=1, unit="[b]:x:")
    for run in ("runs[red]/a", "runs[/b]/a", ":smile:"):
        tables.show_scores(run, [row])
        printed = capsys.readouterr().out
        assert run in printed
        assert "[b]:x:" in printed
        monkeypatch.setenv("FORCE_COLOR", "1")
        with options.progress(run) as show:
            show(1, 2)
        assert run in capsys.readouterr().err
        monkeypatch.delenv("FORCE_COLOR")


class Found(BaseModel):
    """A file of one key."""

    a: int


def test_terminals_on_other_systems_write_a_byte_order_mark(tmp_path):
    for name, text in (("a.toml", "a = 1\n"), ("a.json", '{"a": 1}')):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert schema.read_toml(tmp_path / "a.toml", "file") == {"a": 1}
    assert schema.read_json(Found, tmp_path / "a.json").a == 1
    assert schema.parse_json(Found, "\ufeff" + '{"a": 1}', "text").a == 1
