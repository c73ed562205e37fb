"""The public face: what ``import emubench`` gives, how fast, and that each name is documented by an example."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import emubench
from tests.support.recipes import blocks

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "emubench" / "__init__.py"
HEAVY = ("torch", "numpy", "h5py", "pandas", "matplotlib", "pydantic", "typer")


def loaded_by(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter holds after ``code``."""
    program = f"import sys\n{code}\nprint(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_package_is_imported_without_what_is_heavy():
    assert loaded_by("import emubench; dir(emubench); emubench.__version__") == set()


def test_a_name_brings_what_it_needs_and_no_more():
    assert loaded_by("from emubench import EmubenchError") == set()
    assert {"torch", "numpy"} <= loaded_by("import emubench; emubench.Task") < set(HEAVY) - {"matplotlib"}


def test_the_commands_that_need_no_torch_start_without_it():
    started = "from emubench.cli import main; import sys; sys.argv = ['emubench', '--help']"
    assert "torch" not in loaded_by(f"{started}\ntry:\n    main.main()\nexcept SystemExit:\n    pass")


def test_every_name_is_there_and_no_other():
    assert emubench.__all__ == sorted(emubench.__all__, key=lambda name: (name[0].islower(), name))
    assert 20 <= len(emubench.__all__) <= 30
    for name in emubench.__all__:
        assert getattr(emubench, name).__name__.rpartition(".")[2] == name
    assert set(emubench.__all__) <= set(dir(emubench))
    with pytest.raises(AttributeError, match="module 'emubench' has no attribute 'trian'"):
        emubench.trian  # noqa: B018
    with pytest.raises(ImportError):
        exec("from emubench import trian")


def test_an_editor_is_told_the_same_as_the_interpreter():
    (block,) = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    told = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        told |= {alias.name: node.module for alias in node.names}
    assert sorted(told) == sorted(emubench.__all__)
    for name, module in told.items():
        found = getattr(emubench, name)
        assert (found.__name__ if inspect.ismodule(found) else found.__module__) in (module, f"{module}.{name}")


@pytest.mark.parametrize("name", emubench.__all__)
def test_every_name_is_documented_in_sentences_with_an_example(name):
    """The examples are run where they stand, with those of all docstrings."""
    text = inspect.getdoc(getattr(emubench, name)) or ""
    pieces = doctest.DocTestParser().parse(text)
    examples = [piece for piece in pieces if isinstance(piece, doctest.Example)]
    assert len(examples) > 1
    assert examples[0].source.startswith(("import emubench", "from emubench import"))
    prose = "\n\n".join(piece for piece in pieces if isinstance(piece, str))
    for paragraph in filter(None, map(str.strip, prose.split("\n\n"))):
        assert re.match(r"[A-Z`-]", paragraph), paragraph
        assert paragraph[-1] in ".:;", paragraph


def test_every_name_is_listed_on_the_first_page():
    text = emubench.__doc__ or ""
    assert set(emubench.__all__) <= set(re.findall(r"`(\w+)`", text))


def test_the_lines_of_the_readme_run_as_they_are_printed(tmp_path, monkeypatch, capsys):
    (program,) = blocks("In Python", "python", "README.md")
    assert len([line for line in program.splitlines() if line]) <= 15
    monkeypatch.chdir(tmp_path)
    held: dict[str, Any] = {}
    exec(program, held)
    printed = capsys.readouterr().out
    assert "<xarray.DataArray 'observation' (trajectory: 4, time: 256, component: 3)>" in printed
    held["train"].close()
    ranks = held["emubench"].compare(held["results"]).set_index(["task", "entry"]).loc["lorenz63-noisy"]
    assert ranks["rank_low"].idxmin() == "oracle"
    assert ranks.loc["resnet_ode", "value"] > ranks.loc["persistence", "value"]
    assert tuple(held["forecast"].shape[1:]) == tuple(held["truth"].shape)
    width, height = struct.unpack(">II", (tmp_path / "error.png").read_bytes()[16:24])
    assert width > height > 300
