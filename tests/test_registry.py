"""A file is its own registration, and a wrong name is answered with the nearest right one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import emubench
from emubench import registry, systems
from emubench.errors import EmubenchError


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


ROSSLER = '''
"""Rössler: one nonlinear term."""

from dataclasses import dataclass

import torch

from emubench.integrate import EXPLICIT
from emubench.system import Climate, Fact, System


@dataclass(frozen=True, kw_only=True)
class Rossler(System):
    """x' = -y - z, y' = x + a y, z' = b + z (x - c)."""

    a: float = 0.2
    b: float = 0.2
    c: float = 5.7
    sample_interval: float = 0.5
    solver_step: float = 0.05

    name = "rossler"
    equation = "x' = -y - z, y' = x + a y, z' = b + z (x - c)"
    ring = False
    schemes = ("rk4", "heun")
    reference_climate = Climate(mean=(0.17, -0.87, 0.87), std=(5.1, 4.7, 3.0), time_unit=14.0)

    @property
    def shape(self):
        return (3,)

    def rhs(self, state):
        x, y, z = state.unbind(-1)
        return torch.stack([-y - z, x + self.a * y, self.b + z * (x - self.c)], dim=-1)

    def step(self, step, scheme, dtype, device):
        return EXPLICIT[scheme](self.rhs, step)

    def draw(self, rng, start):
        return 2 * rng.standard_normal(3)

    @property
    def facts(self):
        return (Fact("-<y> / <z>", 1.0, 0.1, "exact: d<x>/dt = 0", lambda s, u: -u[..., 1].mean() / u[..., 2].mean()),)
'''


def test_a_system_is_added_by_adding_one_file(tmp_path: Path):
    package = tmp_path / "emubench"
    shutil.copytree(Path(emubench.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "systems" / "rossler.py").write_text(ROSSLER, encoding="utf-8")
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
        except emubench.errors.EmubenchError as error:
            print(error)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "unknown system 'roessler': did you mean rossler?\n"), run.stderr
