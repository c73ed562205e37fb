"""The order of the rooms holds, what would break it is found, and the README shows them."""

from __future__ import annotations

import shutil

from benchmarks.maintain import rooms


def test_rooms_keep_their_order():
    assert rooms.faults() == []


def test_every_kind_of_fault_is_named(tmp_path):
    package = tmp_path / "emubench"
    shutil.copytree(rooms.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("core/one.py", "core/two.py", "extra.txt"):
        (package / name).touch()
    (package / "core" / "one.py").write_text("from emubench.core import two\nfrom emubench.runs.jobs import Job\n")
    (package / "core" / "two.py").write_text("def late():\n    from emubench.core import one\n")
    found = rooms.faults(package)
    assert "emubench/core/one.py:2: core imports emubench.runs.jobs, of a room above it" in found
    assert "emubench/core/two.py:2: imports emubench.core.one inside a function" in found
    assert any(line.startswith("in a circle: ") and "emubench.core.one, emubench.core.two" in line for line in found)
    assert any("entries, where at most" in line for line in found)


def test_every_folder_of_the_package_is_a_room():
    entries = {path.stem for path in rooms.PACKAGE.iterdir()} - {"__init__", "__pycache__"}
    assert entries == set(rooms.ORDER)


def test_the_readme_shows_the_rooms_by_their_docstrings():
    text = rooms.README.read_text(encoding="utf-8")
    assert rooms.readme(text) == text
    shown = rooms.table().splitlines()[2:]
    assert [line.split("`")[1].removesuffix(".py") for line in shown] == list(rooms.ORDER)
    assert all(len(line.split(" | ")[1]) > 20 for line in shown)
