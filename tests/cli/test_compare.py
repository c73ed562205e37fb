"""What ``emubench compare`` prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from emubench.cli import report, tables
from emubench.core.errors import EmubenchError
from emubench.leaderboard import plots, ranking
from tests.support import benched
from tests.support.scored_runs import everything, table, write_run


def printed(frame: pd.DataFrame) -> str:
    console = Console(width=tables.WIDTH, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    report.show(frame, console)
    return console.export_text()


def test_tables_fit_120_columns_with_everything_in_them(tmp_path, frozen):
    rows = {"skill_stability": (0.85, 0.75, 0.95), "surviving_fraction": (0.9, 0.7, 1.0), "dead_fraction": (0.1,) * 3}
    for name in ("a_rather_long_name_of_a_method", *(f"net{i}" for i in range(11))):
        for seed in (0, 1):
            everything(tmp_path, name, 12.0, rows=rows, seed=seed, speed=12345.0 * (1 + seed))
    text = printed(table(tmp_path))
    assert max(map(len, text.splitlines())) <= tables.WIDTH
    for words in (
        "noisy track: RANKED",
        "net10",
        "0.85 [0.75, 0.95]",
        "18.5k ±33%",
        "oracle 4.00",
        "floor 3.00",
        "1–12",
    ):
        assert words in text
    assert "…\n" not in text  # nothing is cut


def test_tables_say_what_is_missing_and_where_scales_come_from(tmp_path, unfrozen):
    for name, level in (("linear", 0.5), ("persistence", 0.3), ("oracle", 4.5), ("net", 2.5)):
        write_run(tmp_path, name, "lorenz96-noisy", np.full(16, level))
    write_run(tmp_path, "net", "lorenz96-clean", np.full(16, 5.0), speed=None)
    text = printed(table(tmp_path))
    assert "clean track: shown only, not ranked" in text
    assert "mean over lorenz96 of skill" in text
    assert "missing: kpz of oracle, net, linear, persistence" in text
    net = [line.split()[2:5] for line in text.splitlines() if line.split()[1:2] == ["net"]]
    assert ["0.50", "–", "-0.62"] in net  # over all the three that are missing count −1 each
    assert "floor 0.50*" in text
    assert "floor –" in text


@pytest.mark.parametrize(("n_entries", "n_seeds"), [(2, 1), (5, 2)])
def test_tables_say_what_ranks_cannot_promise(tmp_path, frozen, n_entries, n_seeds):
    for i in range(n_entries):
        for seed in range(n_seeds):
            write_run(tmp_path, f"net{i}", "lorenz96-noisy", np.full(16, 2.0), seed=seed)
    text = printed(table(tmp_path))
    assert ("one seed: intervals and ranks say nothing of another training" in text) == (n_seeds == 1)
    assert ("among 5 equal entries 7% of tables show a difference" in text) == (n_entries == 5)


def test_compare_prints_json_alone_and_writes_the_same_rows(tmp_path, frozen, capsys, monkeypatch):
    everything(tmp_path / "runs", "net", 2.0)
    write_run(tmp_path / "runs", "net", "lorenz96-clean", np.full(16, 2.0))
    drawn: list[Path] = []
    monkeypatch.setattr(plots, "draw", lambda runs, frame, folder, *_: drawn.append(folder))
    report.compare([tmp_path / "runs"], tmp_path / "plots", json=True)
    rows = json.loads(capsys.readouterr().out)
    assert drawn == [tmp_path / "plots"]
    assert rows == json.loads((tmp_path / "plots" / "ranking.json").read_text())
    assert list(rows[0]) == list(ranking.COLUMNS)
    assert len(rows) == 5 + 2
    csv = pd.read_csv(tmp_path / "plots" / "noisy.csv")
    assert csv["value"].dropna().to_list() == [r["value"] for r in rows if r["track"] == "noisy" and r["task"]]
    assert sorted(p.name for p in (tmp_path / "plots").iterdir()) == ["clean.csv", "noisy.csv", "ranking.json"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, frozen):
    write_run(tmp_path / "runs", "net", "lorenz96-noisy", [1.0])
    (tmp_path / "file").write_text("")
    with pytest.raises(EmubenchError, match="tables cannot be written"):
        report.compare([tmp_path / "runs"], tmp_path / "file", json=True)


def test_the_speed_up_is_shown_where_it_was_measured(tmp_path, frozen):
    for name, speedup, skill in (("net", 0.0712, 0.5), ("fast", 12345.0, 0.5), ("poor", 3.0, 0.1), ("best", None, 0.9)):
        run = write_run(tmp_path, name, "lorenz63-noisy", np.full(16, 2.0))
        benched.write(run, 100.0, 2.0, speedup, skill)
    write_run(tmp_path, "scored", "lorenz63-noisy", np.full(16, 2.0))
    write_run(tmp_path, "net", "lorenz96-clean", np.full(16, 2.0))
    frame = table(tmp_path)
    text = printed(frame)
    assert max(map(len, text.splitlines())) <= tables.WIDTH
    clean, noisy = text.split("noisy track, task by task")
    assert "/solver" not in clean.split("noisy track")[0]
    for words in ("/solver", "0.071", "12.3k", "(3)"):
        assert words in noisy
    assert "(0.071) n=1" in clean  # of the track, of which three tasks are missing
    ranks = {r["entry"]: r["speedup_rank_low"] for r in ranking.records(frame) if r["task"] == "lorenz63-noisy"}
    assert ranks == {"net": 2, "fast": 1, "poor": None, "best": None, "scored": None}
    known = {
        r["entry"]: (r["speedup_at_equal_accuracy"], r["speedup_ranked"])
        for r in ranking.records(frame)
        if r["task"] == "lorenz63-noisy"
    }
    assert known == {
        "net": (0.0712, True),
        "fast": (12345.0, True),
        "poor": (3.0, False),
        "best": (None, None),
        "scored": (None, None),
    }
