"""``emubench submit new`` and ``check``: what is sound passes; the rest gets one line, and nothing is executed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks.maintain import shapes
from emubench.core.errors import EmubenchError
from emubench.data import reference, tasks
from emubench.files import entry_files, run_files, timing
from emubench.files.entry_files import CARDS, FIGURES, SCORES, TIMING
from emubench.leaderboard import ranking
from emubench.leaderboard.submission import checks, entries, making
from emubench.metrics._headline import headline
from emubench.runs import folders
from tests.support import benched
from tests.support.contents import contents
from tests.support.submissions import STATED, TASK, edit_entry, edit_json, sign_again

ROOT = Path(__file__).parents[2]
SEED = f"{TASK}/seed-0"


def edit_toml(folder: Path, old: str, new_text: str) -> None:
    text = (folder / "entry.toml").read_text()
    assert old in text
    (folder / "entry.toml").write_text(text.replace(old, new_text, 1))


# --- what is sound ----------------------------------------------------------------------------------------------------


def test_an_entry_of_runs_passes_and_says_what_was_checked(emubench, submitted_runs, tmp_path):
    arguments = ("--author", "A", "--contact", "c", "--licence", "MIT", "--out", tmp_path)
    assert emubench("submit", "new", "mine", "--from", submitted_runs / "linear", "--weights", *arguments).status == 0
    finished = emubench("submit", "check", tmp_path / "mine", "--json")
    assert finished.status == 0
    answer = json.loads(finished.out)
    assert [c["faults"] for c in answer["checks"]] == [[]] * len(answer["checks"])
    said = " ".join(c["what"] for c in answer["checks"])
    for part in ("schema", "hashes", "card", "weights", "scores", "figures", "timing"):
        assert part in said
    content = tomllib.loads((tmp_path / "mine" / "entry.toml").read_text())
    (run,) = folders.find_runs([submitted_runs / "linear"])
    assert (content["method"], content["knowledge"], content["size"]) == ("linear", "structure", "tiny")
    mine = tmp_path / "mine"
    assert (mine / SEED / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    for kind, model, name in (
        (CARDS, run_files.Card, "card.json"),
        (SCORES, run_files.ScoreFile, "scores.json"),
    ):
        kept = dict(entry_files.read(mine, kind)[TASK, 0])
        assert model(**kept).model_dump() == json.loads((run / name).read_text())


def test_checking_imports_no_torch(sound_entry):
    script = (
        "import sys; from emubench.cli.main import main; sys.argv = ['emubench', 'submit', 'check', sys.argv[1]]\n"
        "try: main()\nexcept SystemExit as leaving: assert not leaving.code, leaving.code\n"
        "bad = {'torch', 'safetensors', 'emubench.baselines.linear'} & set(sys.modules); assert not bad, bad"
    )
    found = subprocess.run([sys.executable, "-c", script, sound_entry], capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("ok ") > 5


def test_what_the_submitter_has_to_say_is_asked_for(emubench, submitted_runs, faults, tmp_path):
    assert emubench("submit", "new", "mine", "--from", submitted_runs / "linear", "--out", tmp_path).status == 0
    lines = faults(tmp_path / "mine")
    for key in ("authors", "contact", "licence"):
        assert any(f"{key}: still says FILL IN" in line for line in lines)


def test_runs_that_do_not_belong_together_are_refused(refused, submitted_runs, tmp_path):
    before = contents(tmp_path)
    assert "differ in their baseline" in refused("submit", "new", "mine", "--from", submitted_runs, "--out", tmp_path)
    line = refused("submit", "new", "../mine", "--from", submitted_runs / "linear", "--out", tmp_path)
    assert "name: " in line
    assert contents(tmp_path) == before
    making.from_runs("mine", folders.find_runs([submitted_runs / "linear"]), tmp_path, STATED)
    line = refused("submit", "new", "mine", "--from", submitted_runs / "linear", "--out", tmp_path)
    assert "is there already" in line


def test_the_published_schema_and_shapes_are_today_s():
    assert (ROOT / "leaderboard" / "entry.schema.json").read_text() == entries.json_schema()
    assert entries.asked().headlines == {name: headline(tasks.get(name)).metric for name in tasks.names()}
    stored = json.loads(entries.SHAPES_FILE.read_text())["scores"]
    for name in ("lorenz63-clean", "lorenz63-partial", "kpz-noisy"):
        assert stored[name] == shapes.scores(tasks.get(name))


@pytest.mark.slow
def test_the_published_shapes_of_all_tasks_are_today_s():
    assert entries.SHAPES_FILE.read_text() == shapes.content()


def test_the_readme_s_example_reads_an_entry():
    text = (ROOT / "leaderboard" / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    found = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0, found.stderr
    scores = entry_files.read(ROOT / "leaderboard" / "entries" / "linear", SCORES)["lorenz96-noisy", 0]
    (row,) = [r for r in scores.rows if r.metric == "valid_prediction_time"]
    assert f"{row.value:.6f}" in found.stdout


def test_what_is_written_as_toml_is_read_again(tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    odd = 'quote " back \\ new\nline tab\t \x7f \u202e right-to-left 漢字 😀'
    given = entries.Entry(
        schema_version=2, name="odd", division="open", size="tiny", authors=[odd], contact=odd, licence=odd,
        method="linear", knowledge="none", tasks=[TASK], seeds=[0, 7], training_command=odd, data=odd, budget=odd,
        hardware=odd, notes=odd * 100, overrides={TASK: {"a": 1, "b": 2.5e-7, "c": True, "d": [1, 2.0, "x"], "e": odd}},
        files={"cards.json": "0" * 64},
    )  # fmt: skip
    (folder / "entry.toml").write_text(entries.to_toml(given), encoding="utf-8")
    assert entries.read(folder) == given


# --- entry.toml -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new_text", "message"),
    [
        ('name = "mine"', 'name = "../mine"', "name: String should match pattern"),
        ('name = "mine"', 'name = "yours"', "'yours' in a folder called 'mine'"),
        ("schema_version = 2", "schema_version = 2\ncolour = 'red'", "colour: Extra inputs are not permitted"),
        ("schema_version = 2", "schema_version = 1", "schema_version: Input should be 2"),
        ('"standard"', '"gold"', "division: Input should be 'standard' or 'open'"),
        ('"linear"', '"linaer"', "unknown baseline 'linaer': did you mean linear?"),
        ('"linear"', '"os"', "unknown baseline 'os'"),
        ('"linear"', '"forecasts"', "forecasts belong to the open division"),
        ("    0,\n", "    0, 0,\n", "seeds: Value error, one stands twice"),
        ("    0,\n", "    -1,\n", "seeds.0: Input should be greater than or equal to 0"),
        ("    0,\n", "    0, 1,\n", "lorenz63-noisy/seed-1/model.safetensors: missing"),
        ('code = ""', 'code = "javascript:alert(1)"', "code: String should match pattern"),
        ('    "A. Name",\n', "", "authors: List should have at least 1 item"),
        ("A. Name", "x" * 400, "authors.0: String should have at most 300 characters"),
        (
            "schema_version = 2",
            "schema_version = " + "[" * 100_000,
            "not valid TOML",
        ),
        ("schema_version = 2", "schema_version = " + "9" * 5000, "not valid TOML|schema_version"),
        ("schema_version = 2", "x = 1\nx = 2", "not valid TOML"),
        ("[files]", '[files]\n"../../../etc/passwd" = "' + "0" * 64 + '"', "should match pattern"),
        ("[files]", '[files]\n"/etc/passwd" = "' + "0" * 64 + '"', "should match pattern"),
        ("[files]", f'[files]\n"{TASK}/seed-0/model.pt" = "' + "0" * 64 + '"', "should match pattern"),
        ("[files]", '[files]\n"notes.json.xz" = "' + "0" * 64 + '"', "should match pattern"),
        ("[files]", f'[files]\n"{TASK}/seed-1/model.safetensors" = "' + "0" * 64 + '"', "none of the tasks and seeds"),
        (f'    "{TASK}",\n', '    "lorenz36-noisy",\n', "unknown task 'lorenz36-noisy'"),
        (
            f'    "{TASK}",\n',
            '    "kpz-noisy",\n',
            "model.safetensors: none of the tasks and seeds",
        ),
        (f'    "{TASK}",\n', "", "tasks: List should have at least 1 item"),
        (f'    "{TASK}",\n', f'    "{TASK}", "{TASK}",\n', "tasks: Value error, one stands twice"),
        ("[files]", "[overrides.kpz-noisy]\ndelays = 3\n[files]", "overrides.kpz-noisy: none of the entry's tasks"),
        ("[files]", f"[overrides.{TASK}]\ndelays = 3\n[files]", "overrides: {} where {'delays': 3} belongs"),
    ],
)
def test_a_wrong_entry_is_refused(faults, sound_entry, old, new_text, message):
    edit_toml(sound_entry, old, new_text)
    lines = faults(sound_entry)
    assert any(part in line for line in lines for part in message.split("|")), lines


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"name = '\xff\xfe'", "not valid TOML"), (b"#" * 2**21, "larger than"), (b"", "Field required")],
)
def test_an_entry_that_is_no_toml_is_refused(faults, sound_entry, content, message):
    (sound_entry / "entry.toml").write_bytes(content)
    (line,) = faults(sound_entry)
    assert message in line


def test_two_entries_cannot_have_one_name(faults, sound_entry):
    sound_entry.rename(sound_entry.with_name("other"))
    assert "'mine' in a folder called 'other'" in faults(sound_entry.with_name("other"))[0]


# --- the folder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["model.pt", "model.pth", "model.pkl", "m.ckpt", "m.pt2", "a.zip", "a.tar.gz", "run.py", ".hidden", f"{SEED}/x.npy",
     "scores.json", f"{SEED}/scores.json", "scores.json.xz.bak", "a/b/c/d.json", "naïve\n\x1b[31m.json"],
)  # fmt: skip
def test_an_unexpected_file_is_refused(faults, sound_entry, name):
    path = sound_entry / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"anything")
    lines = faults(sound_entry)
    assert any("unexpected" in line or "a folder where none belongs" in line for line in lines), lines


def test_a_link_is_refused_unread(faults, sound_entry, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("do not show")
    path = sound_entry / SCORES
    path.unlink()
    path.symlink_to(secret)
    (line,) = [line for line in faults(sound_entry) if "a link" in line]
    assert "do not show" not in line
    path.unlink()
    (sound_entry / SEED / "more").symlink_to("/")
    assert any("more: a link" in line for line in faults(sound_entry))


def test_a_pipe_is_refused_and_not_waited_for(faults, sound_entry):
    os.mkfifo(sound_entry / SEED / "more.json")
    assert any("not a plain file" in line for line in faults(sound_entry))


def test_a_file_that_is_gone_changed_or_too_large_is_named(faults, sound_entry):
    with (sound_entry / CARDS).open("a") as file:
        file.write(" ")
    assert any("cards.json: sha256" in line and "changed since" in line for line in faults(sound_entry))
    with (sound_entry / CARDS).open("ab") as file:
        file.truncate(2**22)
    assert any(f"cards.json: {2**22} bytes, where at most" in line for line in faults(sound_entry))
    (sound_entry / CARDS).unlink()
    assert any("cards.json: listed in entry.toml, and not there" in line for line in faults(sound_entry))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (CARDS, lambda c: c.update(baseline="oracle"), "baseline: 'oracle' where 'linear' belongs"),
        (CARDS, lambda c: c.update(knowledge="none"), "knowledge: 'none' where 'structure' belongs"),
        (CARDS, lambda c: c.update(seed=3), "seed: 3 where 0 belongs"),
        (CARDS, lambda c: c.update(n_parameters=7), "where cards.json says 7"),
        (CARDS, lambda c: c.update(overrides={"delays": 9}), "overrides: {'delays': 9} where {} belongs"),
        (SCORES, lambda c: c.update(task="kpz-noisy"), "task: 'kpz-noisy' where"),
        (SCORES, lambda c: c["cases"]["valid_prediction_time"].append(9.0), "number of cases: 17 where 16"),
        (SCORES, lambda c: c["cases"]["valid_prediction_time"].__setitem__(0, 9.0), "it was edited"),
        (SCORES, lambda c: c["rows"]["value"].__setitem__(0, float("nan")), "value, low and high in -1 … 1 belong"),
        (SCORES, lambda c: c["rows"]["value"].pop(), "rows: Value error, columns, all as long, belong here"),
        (SCORES, lambda c: c["rows"].update(value="x" * 40), "rows: Value error, columns, all as long, belong here"),
        (SCORES, lambda c: c.update(rows={}), "rows: Value error, columns, all as long, belong here"),
        (SCORES, lambda c: c.update(rows={"task": ["x"] * 10**5}), "100000 rows, where at most 2000 belong"),
        (SCORES, lambda c: c["rows"].pop("unit"), "rows.0.unit: Field required"),
        (SCORES, lambda c: c["rows"].update(rank=c["rows"]["value"]), "rows.0.rank: Extra inputs"),
        (FIGURES, lambda c: c.update(script="<script>"), "script: Extra inputs"),
        (FIGURES, lambda c: c["truth"].append([float("inf")]), "truth"),
        (TIMING, lambda c: c.update(lyapunov_times_per_second=-1.0), "lyapunov_times_per_second"),
    ],
)
def test_an_edited_file_is_refused_whatever_its_hash(faults, sound_entry, file, change, message):
    edit_entry(sound_entry, file, change)
    sign_again(sound_entry)
    lines = faults(sound_entry)
    assert any(message in line for line in lines), lines


def set_score(metric: str, column: str, value: float) -> Any:
    """An edit of a column of the first row of ``metric``."""
    return lambda content: content["rows"][column].__setitem__(content["rows"]["metric"].index(metric), value)


def all_cases_at(value: float) -> Any:
    """An edit of all cases and of what follows from them."""

    def edit(content: dict[str, Any]) -> None:
        content["cases"]["valid_prediction_time"] = [value] * 16
        for column in ("value", "low", "high"):
            set_score("valid_prediction_time", column, value)(content)
            set_score("skill_accuracy", column, reference.scale(TASK).skill(value))(content)

    return edit


def add_row(**changed: Any) -> Any:
    """An edit that puts in the first row once more, with some of it ``changed``."""

    def edit(content: dict[str, Any]) -> None:
        for name, column in content["rows"].items():
            column.append(changed.get(name, column[0]))

    return edit


def leave_out(metric: str) -> Any:
    """An edit that leaves out the first row of ``metric``."""

    def edit(content: dict[str, Any]) -> None:
        at = content["rows"]["metric"].index(metric)
        for column in content["rows"].values():
            column.pop(at)

    return edit


CLAIMS = [
    (set_score("skill_accuracy", "value", 1e6), "skill_accuracy: (1000000.0, "),
    (set_score("skill_stability", "value", 1000.0), "skill_stability: (1000.0, "),
    (set_score("skill_accuracy", "value", 0.9), "skill_accuracy: 0.9 where the mean over cases"),
    (set_score("skill_accuracy", "low", -0.02), "skill_accuracy: low and high -0.02, "),
    (all_cases_at(1e6), "in 0 … 20.0181 belong"),
    (set_score("skill_stability", "low", 1.0), "skill_stability: ("),
    (set_score("valid_prediction_time", "low", 19.0), "valid_prediction_time: (0.1"),
    (set_score("w1_distance", "value", float("inf")), "in 0 … inf belong"),
    (set_score("w1_distance", "unit", "m"), "unit: 'm' where 'climatological std' belongs"),
    (set_score("w1_distance", "n_cases", 9), "n_cases: 9 where 8 belongs"),
    (add_row(), "rows.258: anomaly_correlation at lead time 0.04529: twice"),
    (add_row(metric="my_score"), "rows.258: my_score at lead time 0.04529: unknown"),
    (add_row(lead_time=7.77), "anomaly_correlation at lead time 7.77: unknown"),
    (leave_out("skill_stability"), "skill_stability: the row is missing"),
    (lambda c: c["cases"].update({f"a{i}": [0.0] for i in range(1000)}), "cases: ['a0', "),
]


@pytest.mark.parametrize(("claim", "message"), CLAIMS)
def test_a_claim_that_can_be_bounded_or_recomputed_is_not_believed(faults, sound_entry, claim, message):
    edit_entry(sound_entry, SCORES, claim)
    sign_again(sound_entry)
    (line,) = faults(sound_entry)
    assert message in line


def test_a_claim_of_more_parameters_than_an_entry_may_hold_is_not_believed(faults, submitted_runs, tmp_path):
    folder = making.from_runs("light", folders.find_runs([submitted_runs / "linear"]), tmp_path, STATED)
    edit_entry(folder, CARDS, lambda c: c.update(n_parameters=2**62))
    sign_again(folder)
    (line,) = faults(folder)
    assert f"n_parameters: {2**62}, where weights of at most" in line


@pytest.mark.parametrize("folder", sorted((ROOT / "leaderboard" / "entries").iterdir()), ids=lambda p: p.name)
def test_the_published_entries_pass_the_check(folder):
    assert checks.faults(checks.check(folder)) == []


def test_a_deeply_nested_json_is_refused(faults, sound_entry):
    (sound_entry / CARDS).write_text('{"config": ' + "[" * 200_000 + "]" * 200_000 + "}")
    sign_again(sound_entry)
    assert any("cards.json" in line for line in faults(sound_entry))


# --- with and without weights -----------------------------------------------------------------------------------------


def test_a_standard_entry_has_weights_only_if_they_are_asked_for(emubench, submitted_runs, sound_entry, tmp_path):
    (run,) = folders.find_runs([submitted_runs / "linear"])
    light = making.from_runs("light", [run], tmp_path, STATED)
    assert {p.name for p in light.iterdir()} == {"entry.toml", CARDS, SCORES, FIGURES, TIMING}
    for name in (CARDS, SCORES, FIGURES):  # a timing holds seconds, which are the same run's
        assert (light / name).read_bytes() == (sound_entry / name).read_bytes()
    assert emubench("submit", "check", light).status == 0
    bare = tmp_path / "runs" / "bare"
    shutil.copytree(run, bare)
    (bare / "model.safetensors").unlink()
    assert emubench("submit", "check", making.from_runs("bare", [bare], tmp_path, STATED)).status == 0
    with pytest.raises(EmubenchError, match="bare: has no model.safetensors, which the entry is to keep"):
        making.from_runs("whole", [bare], tmp_path, STATED, weights=True)


def test_of_several_seeds_figures_and_solvers_are_kept_of_one(submitted_runs, tmp_path):
    (run,) = folders.find_runs([submitted_runs / "linear"])
    for seed in range(3):
        copy = tmp_path / "runs" / f"{seed}"
        shutil.copytree(run, copy)
        edit_json(copy / "card.json", lambda c, seed=seed: c.update(seed=seed))
        benched.write(copy, 700.0, 1.2, speedup=2.5 + seed)
    folder = making.from_runs("mine", folders.find_runs([tmp_path / "runs"]), tmp_path, STATED)
    assert list(entry_files.read(folder, FIGURES)) == [(TASK, 0)]
    assert list(entry_files.read(folder, SCORES)) == [(TASK, seed) for seed in range(3)]
    kept = entry_files.read(folder, TIMING)
    assert [len(timed.solvers) for timed in kept.values()] == [len(benched.LADDER), 0, 0]
    assert [timed.speedup.value for timed in kept.values()] == [2.5, 3.5, 4.5]
    assert checks.faults(checks.check(folder)) == []


def test_an_open_entry_has_weights_always(faults, submitted_runs, tmp_path):
    found = folders.find_runs([submitted_runs / "linear"])
    folder = making.from_runs("open", found, tmp_path, STATED | {"division": "open"})
    assert (folder / SEED / "model.safetensors").exists()
    shutil.rmtree(folder / TASK)
    sign_again(folder)
    (line,) = faults(folder)
    assert line.endswith(f"open/{SEED}/model.safetensors: missing")


def test_weights_of_all_seeds_or_of_none(faults, sound_entry):
    edit_toml(sound_entry, "    0,\n", "    0, 1,\n")
    assert any(line.endswith(f"{TASK}/seed-1/model.safetensors: missing") for line in faults(sound_entry))


# --- one model per file -----------------------------------------------------------------------------------------------


def test_an_entry_keeps_every_key_of_the_figures_that_a_run_has(sound_entry, submitted_runs):
    """By keys and not by what is in them: numbers are rounded, and the example is thinned."""
    (run,) = folders.find_runs([submitted_runs / "linear"])
    written = json.loads((run / "figures.json").read_text())
    assert set(written) <= set(run_files.Figures.model_fields)
    assert {"truth", "forecast", "density", "temporal_spectrum", "lost"} <= set(written)
    kept = entry_files.read(sound_entry, FIGURES)[TASK, 0].model_dump(exclude_unset=True)
    nothing = {key for key, value in kept.items() if not value and value != 0}
    assert keys({key: value for key, value in kept.items() if key not in nothing}) == keys(written)
    assert kept["density"][0]["run"] == pytest.approx(written["density"][0]["run"], rel=1e-3)


def keys(content: object) -> object:
    """Nested dictionaries without their numbers; a list is what its first item is."""
    if isinstance(content, dict):
        return {key: keys(value) for key, value in content.items()}
    return keys(content[0]) if isinstance(content, list) else ""


def test_an_entry_keeps_every_key_of_the_speed_that_a_run_has(sound_entry, submitted_runs):
    (run,) = folders.find_runs([submitted_runs / "linear"])
    written = json.loads((run / "timing.json").read_text())
    assert set(written) <= set(timing.Timing.model_fields)
    kept = entry_files.read(sound_entry, TIMING)[TASK, 0].model_dump()
    assert {key: kept[key] for key in written} == written
    assert set(timing.EntryTiming.model_fields) - {"speedup", "solvers"} == set(timing.Speed.model_fields)


def test_figures_of_every_kind_are_thinned_and_kept():
    curve = {name: [1.23456, 2.0] for name in ("x", "run", "truth", "low", "high")}
    n = 2 * making.MAX_TIMES + 1
    content = {name: [[0.123456, 2.0]] * n for name in ("truth", "forecast", "mean", "spread")}
    content |= {"context": [[None, 2.0], [None, 3.0], [None, 4.0], [None, 5.0]], "lead_time": [1.0] * n, "lost": 0.25}
    content |= {"density": [curve] * 2, "temporal_spectrum": [curve], "spatial_spectrum": curve}
    content |= {"rank_histogram": [{"lead_time": 1.0, "frequency": [0.5, 0.5]}], "heights": [curve | {"time": 16.0}]}
    assert set(content) == set(run_files.Figures.model_fields)  # a new one has to be put in here
    found = making.thinned(run_files.Figures.model_validate(content)).model_dump()
    assert keys(found) == keys(content)
    assert len(found["truth"]) == len(found["forecast"]) == len(found["lead_time"]) == 65
    assert found["context"] == [[None, 2.0], [None, 5.0]]  # every third, from the last one back
    assert found["truth"][0] == [0.1235, 2.0]
    assert found["heights"][0]["x"] == [1.235, 2.0]


def test_the_names_of_tasks_here_are_the_ranking_s():
    names = {name for track in ("clean", "noisy", "partial", "scarce") for name in ranking.names_of_track(track)}
    assert set(entries.asked().shapes["standard"]) == names
