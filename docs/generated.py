"""Pages of the reference that are made from the code: commands, Python names, systems, metrics, baselines."""

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

import emubench
from emubench import baselines, systems
from emubench.cli.main import app
from emubench.data import tasks

ROOT = Path(__file__).parents[1]
GROUPS = {
    "Systems": ("System", "Climate", "simulate", "measure_climate"),
    "Data": ("Observation", "Task", "generate", "load", "open_dataset", "Windows"),
    "Emulators": ("Emulator", "Stepper", "step_forecast", "checked_forecast", "train"),
    "Scores": ("forecast", "load_truth", "evaluate", "score_forecast", "compare", "plot"),
    "Errors": ("EmubenchError",),
}
PACKAGES = {name: f"emubench.{name}" for name in ("systems", "baselines", "metrics", "testing")} | {
    "tasks": "emubench.data.tasks"
}


def write(folder: Path) -> None:
    """Write all of them into ``folder``; a page that would not change is left as it is."""
    pages = {"commands": commands(), "python": python(), "systems": of_systems(), "baselines": of_baselines()}
    for name, lines in pages.items():
        path, text = folder / f"{name}.md", "\n".join(lines) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def commands() -> Iterator[str]:
    """Every command with its arguments and options."""
    yield "# Command line\n"
    yield "Each command answers `--help`. Those that print a result print JSON with `--json`.\n"
    yield from _command(typer.main.get_command(app), "emubench")


def _command(command: Any, path: str) -> Iterator[str]:
    # by the attributes that commands and parameters share, whichever library typer builds them with
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _command(inner, f"{path} {name}")
        return
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = [p.name.upper() + ("…" if p.nargs != 1 else "") for p in arguments]
    words = [word if p.required else f"[{word}]" for word, p in zip(words, arguments, strict=True)]
    yield f"## {path.removeprefix('emubench ')}\n"
    yield f"```text\n{' '.join([path, *words, '[OPTIONS]'])}\n```\n"
    yield _prose(command.help or "") + "\n"
    if rows := [_parameter(p) for p in command.params if p.name != "help"]:
        yield "| | meaning | default |\n|---|---|---|"
        yield from rows
        yield ""


def _parameter(parameter: Any) -> str:
    option = parameter.param_type_name == "option"
    names = [*parameter.opts, *parameter.secondary_opts] if option else [parameter.name.upper()]
    default = parameter.default
    shown = "" if default in (None, False, (), "") or callable(default) else f"`{default}`"
    meaning = (parameter.help or "").replace("|", "\\|")
    return f"| {', '.join(f'`{name}`' for name in names)} | {meaning} | {shown} |"


def python() -> Iterator[str]:
    """The public names, in the groups of the package's own docstring."""
    yield "# Python\n"
    yield "Each name is imported when it is first asked for; the examples run as tests.\n"
    named = [name for names in GROUPS.values() for name in names]
    if missing := set(emubench.__all__) - {*named, *PACKAGES}:
        raise ValueError(f"docs/generated.py: in no group: {', '.join(sorted(missing))}")
    for group, names in GROUPS.items():
        yield f"## {group}\n"
        for name in names:
            kind = "autoclass" if inspect.isclass(getattr(emubench, name)) else "autofunction"
            members = "\n:members:" if kind == "autoclass" else ""
            yield f"```{{eval-rst}}\n.. {kind}:: emubench.{name}" + members.replace("\n", "\n   ") + "\n```\n"
    yield "## Modules\n"
    for name, module in PACKAGES.items():
        yield f"`emubench.{name}`: {_first(getattr(emubench, name).__doc__ or module)}\n"


def of_systems() -> Iterator[str]:
    """Every system: its equation, parameters, climate and facts."""
    yield "# Systems\n"
    for name in systems.names():
        system = systems.get(name)
        climate = system.reference_climate
        yield f"## {name}\n"
        yield f"{_prose(type(system).__doc__ or '')}\n"
        yield f"```text\n{system.equation}\n```\n"
        yield f"State {system.shape}; unit of lead time: {system.lead_time_unit}, {climate.time_unit} time units.\n"
        parameters = ", ".join(f"`{key} = {value}`" for key, value in system.parameters().items())
        yield f"Parameters: {parameters}.\n"
        yield "| fact | value | tolerance | source |\n|---|---|---|---|"
        for fact in system.facts:
            cells = (fact.name, f"{fact.value:g}", f"{fact.tolerance:g}", fact.source)
            yield "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"
        yield ""


def of_baselines() -> Iterator[str]:
    """Every baseline: its docstring, and its expected accuracy on every task."""
    expected = tomllib.loads((ROOT / "baselines" / "expected.toml").read_text(encoding="utf-8"))
    yield "# Baselines\n"
    yield "How they compare, and when to use which: [results](../baselines.md)."
    yield "Accuracy is the valid prediction time in Lyapunov times, on kpz the CRPS: lower is better.\n"
    for name in baselines.names():
        module = baselines.get(name)
        yield f"## {name}\n"
        yield f"Knowledge: {module.knowledge}.\n"
        yield f"{_prose(module.__doc__ or '')}\n"
        found = expected.get(name, {})
        yield "| task | accuracy | skill | stability |\n|---|---|---|---|"
        for task in (task for task in tasks.names() if task in found):
            scores = found[task]
            head = next(metric for metric in ("crps", "valid_prediction_time") if metric in scores)
            cells = [_interval(scores.get(key)) for key in (head, "skill_accuracy", "skill_stability")]
            yield f"| {task} | {' | '.join(cells)} |"
        yield ""


def _interval(row: dict[str, float] | None) -> str:
    return f"{row['value']:g} [{row['low']:g}, {row['high']:g}]" if row else "–"


def _first(text: str) -> str:
    return text.strip().split("\n\n")[0].replace("\n", " ")


def _prose(text: str) -> str:
    """A docstring as Markdown, without the examples of Python; commands that serve as one are code."""
    plain = inspect.cleandoc(text).partition(">>>")[0].replace("``", "`").strip()
    plain = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", plain)
    return re.sub(r"^Example: (.*)$", r"```bash\n\1\n```", plain, flags=re.MULTILINE)
