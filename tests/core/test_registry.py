"""A file is its own registration, and a wrong name is answered with the nearest right one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import emubench.baselines
from emubench import baselines, systems
from emubench.core import registry
from emubench.core.errors import EmubenchError
from tests.support.recipes import blocks


def test_names_are_the_public_files():
    assert {"kpz", "kuramoto_sivashinsky", "lorenz63", "lorenz96"} <= set(systems.names())
    assert registry.names("emubench.systems") == systems.names()
    assert all(systems.get(name).name == name for name in systems.names())


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("lorenz69", "did you mean lorenz96 or lorenz63?"),
        ("kuramoto", "did you mean kuramoto_sivashinsky?"),
        ("navier", f"known: {', '.join(systems.names())}"),
        ("__init__", "known: "),
        ("", "known: "),
    ],
)
def test_an_unknown_system_is_answered_with_the_nearest(name, answer):
    with pytest.raises(EmubenchError) as error:
        systems.get(name)
    assert str(error.value).startswith(f"unknown system {name!r}: {answer}")


def test_an_unknown_parameter_is_answered_with_the_nearest():
    with pytest.raises(EmubenchError, match="unknown parameter of lorenz63 'sigme': did you mean sigma?"):
        systems.get("lorenz63", sigme=1.0)


def test_an_unknown_scheme_is_answered_with_the_nearest():
    with pytest.raises(EmubenchError, match="unknown scheme of lorenz63 'rk45': did you mean rk4?"):
        systems.get("lorenz63").solver(scheme="rk45")


def test_an_unknown_start_is_refused():
    with pytest.raises(EmubenchError, match="unknown start 'flatt'.*flat"):
        systems.get("kpz").draw(None, "flatt")


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """Installs a distribution that offers a baseline: ``plug_in(name, source)``."""

    def install(name: str, source: str) -> None:
        (tmp_path / "their_method.py").write_text(source)
        info = tmp_path / "their_package-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[emubench.baselines]\n{name} = their_method\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "their_method", raising=False)

    return install


def test_a_plug_in_is_a_baseline_like_any_other(plug_in, emubench, data, tmp_path):
    plug_in("last_value", (Path(baselines.get("persistence").__file__)).read_text())
    assert "last_value" in baselines.names()
    assert "their_method" not in sys.modules  # listing runs nothing
    for name in ("last_value", "persistence"):
        emubench("train", name, "lorenz63-noisy", "--size", "tiny", "--data", data, "--out", tmp_path / "runs")
        emubench("score", tmp_path / "runs" / name, "--data", data)
    found = [next((tmp_path / "runs" / name).rglob("scores.json")) for name in ("last_value", "persistence")]
    assert found[0].read_text() == found[1].read_text()


def test_a_plug_in_with_the_name_of_a_file_is_refused(plug_in):
    plug_in("linear", "raise SystemError('never imported')")
    with pytest.raises(EmubenchError, match="baseline linear: both a file .* plug-in their_method of their-package"):
        baselines.get("linear")


def test_a_broken_plug_in_is_one_line(plug_in):
    plug_in("broken", "import no_such_module")
    with pytest.raises(EmubenchError, match="plug-in their_method of their-package can't be imported .No module named"):
        baselines.get("broken")


def rossler() -> str:
    """The system that CONTRIBUTING.md shows: its block of Python code."""
    (code,) = blocks("Add a system: one file", "python")
    return code


def copied_package(folder: Path) -> None:
    """A copy of the package, baselines included, with one file more."""
    package = folder / "emubench"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(emubench.__file__).parent, package, ignore=ignore)
    for path in emubench.baselines.__path__:
        shutil.copytree(path, package / "baselines", ignore=ignore, dirs_exist_ok=True)
    (package / "systems" / "rossler.py").write_text(rossler(), encoding="utf-8")


def run_in(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the copy in ``folder``."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_system_is_added_by_adding_one_file(tmp_path: Path):
    copied_package(tmp_path)
    program = f"""
        import torch
        torch.set_num_threads(1)
        import emubench
        from emubench import systems, testing
        assert emubench.__file__.startswith({str(tmp_path)!r}), emubench.__file__
        assert "rossler" in systems.names()
        testing.check_system(systems.get("rossler"), n_trajectories=16, n_samples=64)
        assert systems.get("rossler", c=4.0).parameters()["c"] == 4.0
        try:
            systems.get("roessler")
        except emubench.core.errors.EmubenchError as error:
            print(error)
    """
    run = run_in(tmp_path, program)
    assert (run.returncode, run.stdout) == (0, "unknown system 'roessler': did you mean rossler?\n"), run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("track", ["partial", "clean"])
def test_an_added_system_is_generated_verified_trained_and_scored(tmp_path: Path, track: str):
    copied_package(tmp_path)
    program = f"""
        import sys
        import torch
        torch.set_num_threads(1)
        import emubench
        from emubench.cli.main import main
        assert emubench.__file__.startswith({str(tmp_path)!r}), emubench.__file__

        def call(*arguments):
            sys.argv = ["emubench", *arguments]
            try:
                main()
            except SystemExit as leaving:
                assert not leaving.code, arguments

        name = "rossler-{track}"
        call("generate", name, "--size", "tiny")
        call("verify", f"data/tiny/{{name}}.h5", "data/tiny/rossler.truth.h5")
        call("train", "persistence", name, "--size", "tiny")
        call("score", "runs", "--json")
    """
    run = run_in(tmp_path, program)
    assert run.returncode == 0, run.stderr
    head, _, rows = run.stdout.partition("[\n")
    files = (f"data/tiny/rossler-{track}.h5", "data/tiny/rossler.truth.h5")
    assert all(f"wrote {file}\n" in head and f"{file}: whole\n" in head for file in files), head
    scores = {row["metric"]: row for row in json.loads("[" + rows)}
    assert 0 < scores["valid_prediction_time"]["value"] < 1
    assert scores["surviving_fraction"]["value"] == 1
    assert scores["valid_prediction_time"]["n_cases"] == 16
