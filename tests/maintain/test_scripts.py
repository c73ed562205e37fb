"""Scripts and benchmarks outside the package: each compiles, and what it takes from the package is there."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "benchmarks").rglob("*.py"))
OURS = ("emubench", "benchmarks")


def find(module: str, name: str) -> object:
    """What ``from module import name`` gives; raises ImportError or AttributeError where it gives nothing."""
    owner = importlib.import_module(module)
    if not hasattr(owner, name) and hasattr(owner, "__path__"):
        importlib.import_module(f"{module}.{name}")
    return getattr(owner, name)


def missing(source: str) -> list[str]:
    """What a source imports of ours that isn't there, and what it asks of our modules that they don't have."""
    tree, modules, absent = ast.parse(source), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted = [(*alias.name.rpartition(".")[::2], alias.asname) for alias in node.names if "." in alias.name]
        elif isinstance(node, ast.ImportFrom) and node.module:
            wanted = [(node.module, alias.name, alias.asname or alias.name) for alias in node.names]
        else:
            continue
        for module, name, known_as in wanted:
            if module.split(".")[0] not in OURS:
                continue
            try:
                found = find(module, name)
            except ModuleNotFoundError as error:
                if not (error.name or "").startswith(OURS):
                    continue  # a peer that isn't installed
                absent.append(f"{module}.{name}")
            except (AttributeError, ImportError):
                absent.append(f"{module}.{name}")
            else:
                if isinstance(found, ModuleType) and known_as:
                    modules[known_as] = found
    return absent + [
        f"{modules[node.value.id].__name__}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
        if node.value.id not in rebound(tree) and not hasattr(modules[node.value.id], node.attr)
    ]


def rebound(tree: ast.AST) -> set[str]:
    """Names that are arguments or variables somewhere, and so may stand for no module."""
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT / "benchmarks")))
def test_what_a_script_takes_from_the_package_is_there(path):
    source = path.read_text(encoding="utf-8")
    compile(source, path, "exec")
    assert missing(source) == []


def test_what_is_not_there_is_found():
    source = (
        "from emubench.data import tasks, task\nfrom emubench.core.random import streams\nimport emubench.data.tusks\n"
    )
    assert missing(source) == ["emubench.data.task", "emubench.core.random.streams", "emubench.data.tusks"]
    assert missing("from emubench.data import tasks as t\nt.names()\nt.titles()\n") == ["emubench.data.tasks.titles"]
    assert missing("from emubench.data import tasks\ndef f(tasks): return tasks.titles\n") == []
