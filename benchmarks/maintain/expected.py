"""What every baseline is expected to score: ``python -m benchmarks.maintain.expected RUNS…`` writes it from scored
standard runs.

Rows of which RUNS have nothing stay as they are, so that one baseline can be measured anew without all others.

``baselines/expected.toml`` has a table per baseline and task: its scores with 95 % intervals over cases (and seeds,
where there are several), what it cost, and the command that makes it again. The tables of ``baselines/README.md`` below
``MARK`` and the last sentence of every baseline's docstring are the same figures to look at. A slow test makes a
sample of them anew.
"""

from __future__ import annotations

import math
import re
import textwrap
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import tomli_w
import typer

import emubench.baselines
from benchmarks.maintain import targets
from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.files import run_files, store
from emubench.leaderboard import ranking
from emubench.metrics._headline import headline
from emubench.runs import folders
from emubench.runs.scored import read_runs

FOLDER = Path(next(iter(emubench.baselines.__path__)))
PATH, README, PLOT = FOLDER / "expected.toml", FOLDER / "README.md", FOLDER.parent / "docs" / "baselines.png"
MARK = "<!-- below: python -m benchmarks.maintain.expected -->\n"
TARGETS = """### What the baselines must reach

Headline scores are valid prediction times in Lyapunov times, of kpz the CRPS, of which less is better. *Above*
means that the two intervals of 95 % don't touch.
"""
LOOK_UPS = """### Who is not above a look-up

`analogue` learns nothing. A learned baseline that is not above it is shown beside it, in the same sense.
"""
SENTENCE = re.compile(r"(?<=\n\n)Expected skill \(.*?``baselines/expected\.toml``\.", re.DOTALL)
"""What :func:`sentence` wrote into a docstring."""
HEAD = "# Written by python -m benchmarks.maintain.expected; standard size, intervals of 95 %.\n\n"
SCORES = ("skill_accuracy", "skill_stability", "surviving_fraction", "dead_fraction")
"""What is expected besides the headline score."""
Expected = dict[str, dict[str, dict[str, Any]]]
"""By baseline and task: scores by name, each ``{value, low, high, seeds}``, and ``cost``."""


def load(path: Path = PATH) -> Expected:
    """What ``expected.toml`` says."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def collect(places: list[Path]) -> Expected:
    """Scores and costs of the scored standard runs with default settings below ``places``."""
    runs = [
        run for run in read_runs(folders.find_runs(places)) if run.card.size == "standard" and not run.card.overrides
    ]
    if not runs:
        raise EmubenchError(f"{', '.join(map(str, places))}: no scored runs of standard size and default settings")
    cards: dict[tuple[str, str], list[run_files.Card]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.card.seed):
        cards[run.card.baseline, run.task.name].append(run.card)
    table = ranking.table(runs)
    rows = [row for row in ranking.records(table) if row["task"] is not None]
    found: Expected = {}
    for row in sorted(rows, key=lambda row: (row["baseline"], row["task"])):
        scores = {row["metric"]: _interval(row, "value", "low", "high")}
        scores |= {name: _interval(row, name, f"{name}_low", f"{name}_high") for name in SCORES}
        own = cards[row["baseline"], row["task"]]
        command, seeds = f"emubench train {row['baseline']} {row['task']}", [card.seed for card in own]
        cost = {
            "command": command
            if seeds == [0]
            else f"for seed in {' '.join(map(str, seeds))}; do {command} --seed $seed; done",
            # other work on the machine only ever adds some
            "seconds": round(min(card.train_seconds for card in own), 1),
            "device": f"{own[0].threads} thread of {own[0].device}",
            "parameters": row["n_parameters"],
            "lyapunov_times_per_second": _rounded(row["lyapunov_times_per_second"] or 0.0),
        }
        found.setdefault(row["baseline"], {})[row["task"]] = scores | {"cost": cost}
    return found


def merged(old: Expected, new: Expected) -> Expected:
    """``new`` and the rows of ``old`` that it lacks, of baselines that there still are; sorted by name."""
    rows = {(b, t): found for part in (old, new) for b, of in part.items() for t, found in of.items()}
    result: Expected = {}
    for baseline, task in sorted(rows):
        if baseline in baselines.names():
            result.setdefault(baseline, {})[task] = rows[baseline, task]
    return result


def _interval(row: dict[str, Any], *names: str) -> dict[str, Any]:
    value, low, high = (math.nan if row[name] is None else _rounded(row[name]) for name in names)
    return {"value": value, "low": low, "high": high, "seeds": row["seeds"]}


def _rounded(value: float) -> float:
    """To four significant digits."""
    return float(f"{value:.4g}")


def as_toml(expected: Expected) -> str:
    """The text of ``expected.toml``."""
    return HEAD + tomli_w.dumps(expected)


def as_tables(expected: Expected) -> str:
    """One table per task, the best first."""
    parts = []
    for name in tasks.names():
        task = tasks.get(name)
        metric, better = headline(task).metric, -headline(task).better
        entries = [(baseline, found[name]) for baseline, found in expected.items() if name in found]
        entries.sort(key=lambda entry: (better * entry[1][metric]["value"], -entry[1]["skill_accuracy"]["value"]))
        heads = (
            "baseline",
            metric,
            "skill_accuracy",
            "lost",
            "dead",
            "skill_stability",
            "parameters",
            "training s",
            "seeds",
        )
        lines = [f"### {name}", "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        lines += [_table_row(baseline, metric, found) for baseline, found in entries]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _table_row(baseline: str, metric: str, found: dict[str, Any]) -> str:
    cost = found["cost"]
    cells = [f"`{baseline}`", _shown(found[metric], 3), _shown(found["skill_accuracy"])]
    cells += [f"{1 - found['surviving_fraction']['value']:.0%}", f"{found['dead_fraction']['value']:.0%}"]
    cells += [_shown(found["skill_stability"]), str(cost["parameters"]), f"{cost['seconds']:.0f}"]
    return f"| {' | '.join(cells)} | {found[metric]['seeds']} |"


def _shown(score: dict[str, Any], digits: int = 2) -> str:
    value, low, high = (f"{round(score[key], digits) + 0.0:.{digits}f}" for key in ("value", "low", "high"))  # no −0
    return f"{value} [{low}, {high}]"


def sentence(of_tasks: dict[str, dict[str, Any]]) -> str:
    """What a baseline's docstring says of its scores on all tasks: one paragraph."""
    skills: dict[str, list[str]] = defaultdict(list)
    seconds = [found["cost"]["seconds"] for found in of_tasks.values()]
    for name in tasks.names():
        if name in of_tasks:
            value = round(of_tasks[name]["skill_accuracy"]["value"], 2) + 0.0  # no −0
            skills[tasks.get(name).system.name].append(f"{value:.2f}")
    scores = "; ".join(f"{system} {' '.join(values)}" for system, values in skills.items())
    cost = f"up to {max(seconds):.0f} s of training" if max(seconds) >= 0.5 else "no training"
    what = "Expected skill (clean noisy partial scarce; 0 the floor, 1 the oracle)"
    return textwrap.fill(
        f"{what}: {scores}; {cost}. Intervals: ``baselines/expected.toml``.", 120, break_on_hyphens=False
    )


def documented(source: str, of_tasks: dict[str, dict[str, Any]], where: Path) -> str:
    """The source of a baseline with that paragraph made anew."""
    new, count = SENTENCE.subn(lambda _: sentence(of_tasks), source)
    if count != 1:
        raise EmubenchError(f"{where}: {count} paragraphs 'Expected skill (…' where one belongs, in its docstring")
    return new


def readme(text: str, expected: Expected) -> str:
    """``text`` with what follows :data:`MARK` made anew."""
    head, mark, _ = text.partition(MARK)
    if not mark:
        raise EmubenchError(f"{README}: the line {MARK.strip()} is missing")
    tables = as_tables(expected)
    return f"{head}{MARK}\n{TARGETS}\n{targets.as_table(expected)}\n{LOOK_UPS}\n{targets.look_ups(expected)}\n{tables}"


def main(runs: Annotated[list[Path], typer.Argument(help="Folders of scored runs.")]) -> None:
    """Write what RUNS score: ``expected.toml``, README, docstrings of the baselines, ``docs/baselines*.png``."""
    try:
        expected = merged(load(), collect(runs))
        texts = {README: readme(README.read_text(encoding="utf-8"), expected)}
        for name, of_tasks in expected.items():
            path = FOLDER / f"{name}.py"
            texts[path] = documented(path.read_text(encoding="utf-8"), of_tasks, path)
    except EmubenchError as error:
        raise SystemExit(str(error)) from None
    for path, text in (texts | {PATH: as_toml(expected)}).items():
        store.write_text(path, text)
    from benchmarks.maintain.plots.claims import cost_plot, stability_plot  # seaborn takes seconds to import
    from benchmarks.maintain.plots.overview import overview

    PLOT.parent.mkdir(exist_ok=True)
    for end, plot in {"": overview, "_cost": cost_plot, "_stability": stability_plot}.items():
        plot(expected).savefig(PLOT.with_stem(PLOT.stem + end), dpi=110)
    print(f"wrote {PATH}, {README}, {PLOT}: {sum(map(len, expected.values()))} scores of {len(expected)} baselines")


if __name__ == "__main__":
    typer.run(main)
