"""What ``emubench compare`` prints and writes: tables per track for people, the same rows as JSON and CSV."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from emubench.cli import tables
from emubench.cli.options import each, progress
from emubench.core.errors import EmubenchError, one_line
from emubench.data.tasks import CUSTOM, RANKED_TRACKS, TRACKS
from emubench.files import store
from emubench.files.run_files import DiagnosticsFile
from emubench.leaderboard import ranking, statistics
from emubench.leaderboard.formats import UNKNOWN, fixed, percent, rank, si, significant, speeds
from emubench.leaderboard.ranking import as_json
from emubench.leaderboard.statistics import ends
from emubench.runs import folders, stages
from emubench.runs.scored import comparable

SPEEDUP, OVER_ALL = "/solver", "over all"
RANK_OF_STABILITY, RANK_OF_SPEEDUP = "rank (s)", "rank (/)"


def compare(runs: list[Path], plot_dir: Path | None = None, json: bool = False) -> list[str]:
    """Rank the runs on disk at or below ``runs`` and print the tables; with ``json``, their rows.

    With ``plot_dir`` the tables (``<track>.csv``, ``ranking.json``) and plots are written there. Return a line for each
    run, or file of one, that is left out.
    """
    read, faults = comparable(folders.find_runs(runs))
    if not read:
        return faults
    frame = ranking.table(read)
    if json:
        print(as_json(frame))
    else:
        show(frame)
        for run in read:
            if run.card.warning:
                print(one_line(f"{run.entry} on {run.task.name}, seed {run.card.seed}: {run.card.warning}"))
        diagnosed: list[tuple[str, DiagnosticsFile]] = []

        def add(run: Path) -> None:
            if found := stages.read_diagnostics(run):
                diagnosed.append((entries[run], found))

        entries = {run.path: run.entry for run in read}
        faults += each(entries, add)
        if diagnosed:
            tables.console().print(tables.summary(diagnosed))
    if plot_dir is not None:
        write(frame, plot_dir)
        from emubench.leaderboard import plots  # seaborn takes seconds to import

        with progress("plots") as shown:
            plots.draw(read, frame, plot_dir, shown, faults)
    return faults


def write(frame: pd.DataFrame, folder: Path) -> None:
    """Write one CSV file per track, and all rows as ``ranking.json``."""
    try:
        store.write_text(folder / "ranking.json", as_json(frame) + "\n")
        for track, rows in frame.groupby("track", sort=False):
            store.write_text(folder / f"{track}.csv", rows.to_csv(index=False, lineterminator="\n"))
    except OSError as error:
        raise EmubenchError(f"{folder}: tables cannot be written there ({error.strerror})") from None


# --- for people -------------------------------------------------------------------------------------------------------


def show(frame: pd.DataFrame, console: Console | None = None) -> None:
    """Print two tables per track: the entries over all systems, and task by task; for tasks of recipes the latter."""
    console = console or tables.console()
    for track in (*TRACKS, CUSTOM):
        if len(ranking.rows_of_whole_track(frame, track)):
            console.print(_fitting(console, partial(summary, frame, track)))
        if len(ranking.rows_of_track(frame, track)):
            console.print(_fitting(console, partial(details, frame, track)))


def _fitting(console: Console, make: Callable[[Collection[str]], Table]) -> Table:
    """The table that ``make`` makes without so many columns that the rest fits the terminal; in a pipe all of it."""
    table = make(())
    if not console.is_terminal:
        console.width = max(console.width, tables.needed(console, table))
    for n in range(1, len(DISPENSABLE) + 1):
        if tables.needed(console, table) <= console.width:
            break
        table = make(DISPENSABLE[:n])
    return table


def _table(
    title: str, caption: str, columns: Collection[str], left_out: Collection[str], entries: Iterable[str]
) -> Table:
    if "=*" in "".join(entries):
        caption += "\n(setting=*): it differs from the default, on each task to another value"
    if left_out:
        caption += f"\nleft out, as this terminal is narrow: {', '.join(left_out)}; a pipe and --json have all"
    table = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        caption=Text(caption),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    justify = {name: JUSTIFY.get(name, "right") for name in columns}
    tables.add_columns(table, columns, ("entry",), **justify)
    return table


def summary(frame: pd.DataFrame, track: str, without: Collection[str] = ()) -> Table:
    """A track as a whole: mean skill over its systems."""
    rows = ranking.rows_of_whole_track(frame, track)
    ranked = "RANKED" if track in RANKED_TRACKS else "shown only, not ranked"
    owners = {
        name.removesuffix(f"-{track}"): set(ranking.rows_of_task(frame, name)["entry"])
        for name in ranking.names_of_track(track)
    }
    missing = {name: [entry for entry in rows["entry"] if entry not in found] for name, found in owners.items()}
    common = [name for name, entries in missing.items() if not entries]
    over = f"{len(owners)} systems" if len(common) == len(owners) else ", ".join(common) or "no system in common"
    lines = [f"accuracy, stability: mean over {over} of skill (0 floor, 1 oracle) clipped to [-1, 1]"]
    if any(missing.values()):
        lines.append(
            f"{OVER_ALL}: accuracy over {len(owners)} systems, a missing one as {ranking.MISSING:g}: ranks go by it"
        )
        lines += [f"missing: {name} of {', '.join(entries)}" for name, entries in missing.items() if entries]
    lines += [f"{kind} (geometric mean over systems)" for kind in speeds(rows)]
    lines.append(f"{RANK_OF_STABILITY}: by stability over all {len(owners)} systems")
    compared = bool(rows["speedup_at_equal_accuracy"].notna().any())
    if compared:
        lines.append(f"{SPEEDUP}: geometric mean of the speed-ups over the fastest solver as accurate, of n tasks;")
        lines.append(
            f"{RANK_OF_SPEEDUP} is by it, with a skill of 0.25 and more, where all tasks have one, on each device apart"
        )
    lines.append("train: seconds for all tasks; params: the most on a task")
    hidden = {name for name, shown in {OVER_ALL: any(missing.values()), SPEEDUP: compared}.items() if not shown}
    hidden |= set() if any(rows["speedup_rank_low"].notna()) else {RANK_OF_SPEEDUP}
    asked = {name: cell for name, cell in OF_TRACK.items() if name not in hidden}
    cells = {name: cell for name, cell in asked.items() if name not in without}
    dropped = [name for name in asked if name in without]
    table = _table(f"{track} track: {ranked}", "\n".join(lines), list(cells), dropped, rows["entry"])
    for row in rows.to_dict("records"):
        table.add_row(*(Text(cell(row)) for cell in cells.values()))
    return table


def details(frame: pd.DataFrame, track: str, without: Collection[str] = ()) -> Table:
    """A track task by task, with floor and oracle."""
    compared = bool(ranking.rows_of_track(frame, track)["speedup_at_equal_accuracy"].notna().any())
    whole = {name: cell for name, cell in OF_TASK.items() if compared or name != SPEEDUP}
    cells = {name: cell for name, cell in whole.items() if name not in without}
    title = "tasks of recipes" if track == CUSTOM else f"{track} track, task by task"
    left_out, names = [name for name in whole if name in without], ranking.rows_of_track(frame, track)["entry"]
    table = _table(title, _caption(frame, track), ["task", *cells], left_out, names)
    for name in ranking.names_of_tasks(frame, track):
        entries = ranking.rows_of_task(frame, name).to_dict("records")
        notes = _notes(name, entries[0])
        for i in range(max(len(entries), len(notes))):
            note = Text(notes[i] if i < len(notes) else "", style="bold" if i == 0 else "dim")
            table.add_row(note, *(Text(cell(entries[i])) for cell in cells.values() if i < len(entries)))
        table.add_section()
    return table


def _notes(name: str, row: dict[str, Any]) -> list[str]:
    """The lines beside a task's entries: its system, what accuracy means there, floor and oracle."""
    meaning = {"valid_prediction_time": "VPT/Lyapunov time ↑", "crps": "CRPS/height ↓"}[row["metric"]]
    mark = "*" if row["scale"] == "runs" else ""
    known = [f"{k} {significant(row[k])}{mark if pd.notna(row[k]) else ''}" for k in ("floor", "oracle")]
    return [name if row["track"] == CUSTOM else name.rsplit("-", 1)[0], meaning, *known]


def _caption(frame: pd.DataFrame, track: str) -> str:
    rows = ranking.rows_of_track(frame, track)
    lines = [
        "value [95 % interval]; VPT: valid prediction time; speed: Lyapunov times (kpz: samples) per second ± half the",
        "range over seeds; ◆ on the Pareto front of accuracy and speed",
    ]
    if track in (*RANKED_TRACKS, CUSTOM):
        lines.append("rank: 1 + number significantly better … n - number significantly worse (99 %, paired by case)")
        lines += _cautions(rows)
    if any(rows["speedup_at_equal_accuracy"].notna()):
        lines.append(
            f"{SPEEDUP}: times as fast as the fastest solver setting measured of equal accuracy; (…): skill < 0.25"
        )
    for kind, names in speeds(rows).items():
        lines.append(f"{kind}: {', '.join(name.removesuffix(f'-{track}') for name in names)}")
    if any(rows["scale"] == "frozen" + ranking.OTHER_SIZE):
        lines.append(f"skill: {tables.STANDARD_SCALE}")
    if any(rows["scale"] == "runs"):
        lines.append("* from the runs at hand: this task has no frozen floor and oracle")
    if any(rows["skill_accuracy"].isna()):
        lines.append("no skill without floor and oracle: compare with runs of persistence, linear and oracle as well")
    return "\n".join(lines)


def _cautions(rows: pd.DataFrame) -> list[str]:
    """What ranks can't promise, where it applies: of one seed, and of many pairs."""
    lines = []
    if any(rows["seeds"] == 1):
        lines.append("one seed: intervals and ranks say nothing of another training, so take three seeds or more")
    n = max(len(of_task) for _, of_task in rows.groupby("task"))
    if (share := statistics.false_tables(n)) >= 0.05:
        lines.append(f"the 99 % are of one pair: among {n} equal entries {share:.0%} of tables show a difference")
    return lines


def _front(row: dict[str, Any]) -> str:
    front = row["pareto_front"]
    return "◆" if pd.notna(front) and front else ""


def _interval(row: dict[str, Any], name: str, form: Callable[[Any], str]) -> str:
    value, low, high = ends(row, name)
    if pd.isna(value):
        return UNKNOWN
    if pd.isna(low) or form(low) == form(high):
        return form(value)
    return f"{form(value)} [{form(low)}, {form(high)}]"


def _speed(row: dict[str, Any]) -> str:
    value, low, high = ends(row, "lyapunov_times_per_second")
    return si(value) if pd.isna(low) or value <= 0 else f"{si(value)} ±{50 * (high - low) / value:.0f}%"


def _speedup(row: dict[str, Any]) -> str:
    value = row["speedup_at_equal_accuracy"]
    text = UNKNOWN if pd.isna(value) else f"{value:.2g}" if value < 100 else si(value)
    return text if pd.isna(value) or row["speedup_ranked"] else f"({text})"


def _speedup_of_track(row: dict[str, Any]) -> str:
    text = _speedup(row)
    return text if text == UNKNOWN else f"{text} n={row['speedup_tasks']}"


JUSTIFY: dict[str, Any] = {"task": "left", "entry": "left", "knowledge": "left", "front": "center"}
"""Columns that do not stand at the right."""
OF_TRACK: dict[str, Callable[[dict[str, Any]], str]] = {
    "rank": rank,
    "entry": lambda row: row["entry"],
    "accuracy": lambda row: _interval(row, "common_accuracy", fixed),
    "stability": lambda row: _interval(row, "common_stability", fixed),
    OVER_ALL: lambda row: fixed(row["skill_accuracy"]),
    RANK_OF_STABILITY: lambda row: rank(row, "stability_rank"),
    SPEEDUP: _speedup_of_track,
    RANK_OF_SPEEDUP: lambda row: rank(row, "speedup_rank"),
    "speed": lambda row: si(row["lyapunov_times_per_second"]),
    "front": _front,
    "seeds": lambda row: str(row["seeds"]),
    "train": lambda row: si(row["train_seconds"], "s"),
    "params": lambda row: si(row["n_parameters"]),
    "knowledge": lambda row: row["knowledge"],
}
_OF_MAKING, _OF_RUNS = ("knowledge", "params", "train", "seeds"), ("lost", "dead", "skill", "front", SPEEDUP, "speed")
DISPENSABLE = (*_OF_MAKING, RANK_OF_STABILITY, *_OF_RUNS, "missing", "stability", "rank")
"""Columns that a narrow terminal does without, from the first on."""
OF_TASK: dict[str, Callable[[dict[str, Any]], str]] = {
    "rank": rank,
    "entry": lambda row: row["entry"],
    "accuracy": lambda row: _interval(row, "value", significant),
    "skill": lambda row: fixed(row["skill_accuracy"]),
    "stability": lambda row: _interval(row, "skill_stability", fixed),
    "lost": lambda row: percent(1 - row["surviving_fraction"]),
    "dead": lambda row: percent(row["dead_fraction"]),
    "speed": _speed,
    SPEEDUP: _speedup,
    "front": _front,
}
"""The columns of both kinds of tables: from a row to its cell."""
