"""The rooms of the package, and what breaks their order: ``python -m benchmarks.maintain.rooms``.

With ``--readme`` the table of ``README.md`` is written anew, of the first paragraph of each room's docstring.

Each room imports only from those before it. No file imports another in a circle. No import of emubench stands inside a
function, but for the doors to what is heavy or optional: see :data:`DOORS`. Exit status 1 if any of this is broken.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[2] / "emubench"
README = PACKAGE.parent / "README.md"
ORDER = (
    "core",
    "files",
    "dynamics",
    "systems",
    "data",
    "emulator",
    "metrics",
    "learning",
    "baselines",
    "evaluation",
    "runs",
    "testing",
    "leaderboard",
    "cli",
)
"""The rooms, the lowest first; ``baselines`` is the folder beside the package."""
DOORS = {
    "emubench.dynamics.simulate": "kernels import numba, and a reference solution needs none",
    "emubench.core.registry": "a plug-in",
    "emubench.cli": "a command imports what it calls, so that the others start without torch",
}
"""Files, or whole rooms, that may import inside functions, and why."""
TOP_ENTRIES = 15


class Import(NamedTuple):
    """One file importing another, at a line; ``inside`` a function or not."""

    importer: str
    imported: str
    line: int
    inside: bool


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Dotted names of all files of the package, and those of the baselines beside it."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    baselines = sorted((package.parent / "baselines").glob("*.py"))
    return found | {f"emubench.baselines.{path.stem}": path for path in baselines}


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[Import]:
    """What a file imports of the package."""

    def visit(node: ast.AST, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            names: list[str] = []
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom) and child.module:
                full = [f"{child.module}.{alias.name}" for alias in child.names]
                names = [one if one in known else child.module for one in full]
            for one in dict.fromkeys(names):
                if one in known and one != name:
                    yield Import(name, one, child.lineno, inside)  # type: ignore[attr-defined]
            yield from visit(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    return visit(ast.parse(path.read_text(encoding="utf-8")), False)


def room(name: str) -> str:
    """The room of a file: the first part below the package; that of the package itself is empty.

    >>> room("emubench.data.tasks"), room("emubench")
    ('data', '')
    """
    return (name.split(".") + [""])[1]


def circles(found: list[Import]) -> list[list[str]]:
    """Groups of files that import each other, directly or by way of others."""
    graph: dict[str, set[str]] = {}
    for one in found:
        graph.setdefault(one.importer, set()).add(one.imported)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for following in graph.get(todo.pop(), ()):
                if following not in seen:
                    seen.add(following)
                    todo.append(following)
        return seen

    reach = {name: reached(name) for name in graph}
    groups = {tuple(sorted(b for b in reach[a] if a in reach.get(b, ()))) for a in graph if a in reach[a]}
    return [list(group) for group in sorted(groups)]


def faults(package: Path = PACKAGE) -> list[str]:
    """One line for everything that breaks the order of the rooms."""
    known = modules(package)
    files = {name: path for name, path in known.items() if room(name)}  # the face imports from any, when it is asked
    found = [one for name, path in files.items() for one in imports(name, path, known)]
    lines = []
    for one in found:
        place = f"{known[one.importer].relative_to(package.parent)}:{one.line}"
        above, below = room(one.importer), room(one.imported)
        if above and below and ORDER.index(below) > ORDER.index(above):
            lines.append(f"{place}: {above} imports {one.imported}, of a room above it")
        if one.inside and not any(one.importer == door or one.importer.startswith(f"{door}.") for door in DOORS):
            lines.append(f"{place}: imports {one.imported} inside a function")
    lines += [f"in a circle: {', '.join(group)}" for group in circles(found)]
    entries = [path for path in package.iterdir() if path.name != "__pycache__"]
    if len(entries) > TOP_ENTRIES:
        lines.append(f"{package.name}/ has {len(entries)} entries, where at most {TOP_ENTRIES} belong")
    return lines


def summary(package: Path = PACKAGE) -> list[str]:
    """A line per room: files, lines, and the rooms that it imports from."""
    known = modules(package)
    lines = []
    for place in ORDER:
        files = {name: path for name, path in known.items() if room(name) == place}
        used = {room(one.imported) for name, path in files.items() for one in imports(name, path, known)} - {place, ""}
        length = sum(path.read_text(encoding="utf-8").count("\n") for path in files.values())
        below = " ".join(sorted(used, key=ORDER.index))
        lines.append(f"{place:12} {len(files):3} files {length:6} lines   imports {below or 'nothing'}")
    return lines


def table(package: Path = PACKAGE) -> str:
    """A row of Markdown per room: its name, and what its docstring says first."""
    known = modules(package)
    rows = ["| room | holds |", "|---|---|"]
    for place in ORDER:
        path = known[f"emubench.{place}"]
        said = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
        said = re.sub(r":\w+:`~?(.*?)`|``(.*?)``", lambda found: f"`{found[1] or found[2]}`", " ".join(said.split()))
        link = f"emubench/{place}" if path.name == "__init__.py" else f"emubench/{place}.py"
        rows.append(f"| [`{link.removeprefix('emubench/')}`]({link}) | {said} |")
    return "\n".join(rows)


def readme(text: str) -> str:
    """``text`` with the table of rooms, the only one that begins so, made anew."""
    head = "| room | holds |"
    before, found, after = text.partition(head)
    if not found:
        raise ValueError(f"README.md: the table {head} is missing")
    return "\n\n".join([before + table(), after.partition("\n\n")[2]])


def main() -> int:
    """Print the rooms in their order, then what breaks it."""
    if sys.argv[1:] == ["--readme"]:
        README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
    found = faults()
    print("\n".join(summary()))
    print("\n".join(found) or "no arrow runs back up, no circle, no import inside a function but at the doors")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
