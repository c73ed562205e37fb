"""The section "On a GPU" of ``docs/throughput.md``, made from what ``benchmarks/gpu.py`` has measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.speedups import short

PAGE = Path(__file__).resolve().parents[1] / "docs" / "throughput.md"
BEGIN, END = "<!-- tables: python -m benchmarks.gpu table -->", "<!-- end of tables -->"
NONE = "No GPU has been measured: every figure of this section is **not measured**."
Found = dict[str, Any]


def table(columns: list[str], rows: list[list[str]]) -> Iterator[str]:
    """A table of Markdown; nothing where it has no rows."""
    if rows:
        yield from (f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}")
        yield from (f"| {' | '.join(row)} |" for row in rows)
        yield ""


def section(content: dict[str, Any]) -> str:
    """All that was measured on one machine; what was not is said so."""
    found = {name: one["found"] for name, one in content["steps"].items() if "found" in one}
    hardware = content["hardware"]
    where = f"{hardware['name']}, {hardware['driver'] or 'no driver'}, torch {hardware['torch']}, {content['date']}"
    lines = [f"Measured by `make gpu`: {where}. The CPU beside it: {content['cpu']}, {hardware['cores']} cores.", ""]
    lines += [*_tests(found), *_solvers(found), *_training(found), *_modes(found), *_speedups(found)]
    failed = [name for name, one in content["steps"].items() if "error" in one]
    if failed:
        lines += [f"Not measured, as they failed: {', '.join(failed)}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _tests(found: Found) -> Iterator[str]:
    if (one := found.get("tests")) is not None:
        counts = ", ".join(f"{one.get(name, 0)} {name}" for name in ("passed", "failed", "skipped"))
        yield from (f"Tests that need a GPU: {counts}.", "")


def _solvers(found: Found) -> Iterator[str]:
    rows = [
        [one["system"], one["dtype"], one["path"], short(one["steps_per_second"]), f"{one['share_of_ceiling']:.0%}"]
        for one in found.get("solvers", [])
    ]
    columns = ["RK4, all steps in one launch", "precision", "path", "steps per second", "of the ceiling in registers"]
    yield from table(columns, rows)


def _training(found: Found) -> Iterator[str]:
    tried: dict[tuple[str, str], dict[str, float]] = {}
    for name, one in found.items():
        kind, *rest = name.split()
        if kind == "training":
            baseline, task, *where = rest
            place = "cpu" if where[0] == "cpu" else "gpu"
            tried.setdefault((baseline, task), {})[" ".join([place, *where[1:]])] = one["steps_per_second"]
    rows = []
    for (baseline, task), rates in tried.items():
        cells = [short(rates.get(where)) for where in ("cpu", "gpu", "gpu compiled")]
        gain = f"{rates['gpu'] / rates['cpu']:.2g}" if {"gpu", "cpu"} <= rates.keys() else "–"
        rows.append([f"`{baseline}`", task, *cells, gain])
    columns = ["training steps per second", "task", "CPU", "GPU", "GPU, compiled", "GPU / CPU"]
    yield from table(columns, rows)


def _modes(found: Found) -> Iterator[str]:
    rows, batches = [], list[int]()
    for name, ones in found.items():
        kind, *rest = name.split()
        if kind == "bench":
            for way in ("rollout", "end_to_end"):
                cells = {one["batch"]: one for one in ones if one.get("kind") == way}
                batches = sorted({*batches, *cells})
                if cells:
                    rows.append((rest, way, cells))
    shown = []
    for (baseline, task, mode), way, cells in rows:
        rates = [short(cells.get(batch, {}).get("samples_per_second")) for batch in batches]
        timed = [one for one in cells.values() if "seconds" in one]
        peak = max((one["peak_memory"] for one in timed), default=None)
        counted, ways = [one for one in timed if "memory" in one], ("arithmetic", "memory")
        shares = [f"{max(one[way] for one in counted):.1%}" if counted else "–" for way in ways]
        shown.append([f"`{baseline}`", task, mode, way.replace("_", " "), *rates, short(peak), *shares])
    columns = ["samples per second", "task", "mode", "what", *(f"batch {batch}" for batch in batches)]
    yield from table([*columns, "peak memory, bytes", "of arithmetic", "of memory"], shown)


def _speedups(found: Found) -> Iterator[str]:
    """Each entry's accuracy, this device's speed of its method, and the fastest solver that is as accurate."""
    rows = []
    for name, climbed in found.items():
        kind, _, task = name.partition(" ")
        for entry, rival in climbed["rivals"].items() if kind == "ladder" else ():
            ones = [one for one in found.get(f"bench {entry} {task} eager", []) if one.get("kind") == "end_to_end"]
            timed = [one for one in ones if "seconds" in one]
            if not timed:
                continue
            best = max(timed, key=lambda one: one["lead_times_per_second"]["median"])
            rate = best["lead_times_per_second"]
            rows.append([f"`{entry}`", task, str(best["batch"]), short(rate["median"]), *_gained(rate, rival)])
    columns = ["entry, its accuracy", "task", "best batch", "lead times per second", "speed-up", "rival"]
    yield from table(columns, rows)


def _gained(rate: dict[str, float], rival: dict[str, Any] | None) -> list[str]:
    if rival is None:
        return ["–", "no setting measured is as accurate"]
    theirs = rival["lead_times_per_second"]
    low, high = rate["low"] / theirs["high"], rate["high"] / theirs["low"]
    return [f"{short(rate['median'] / theirs['median'])} [{short(low)}, {short(high)}]", rival["label"]]


def made(results: Path) -> str:
    """The section from the newest file of every machine in ``results``; that there is none, where there is none."""
    newest = {path.name.rpartition("-gpu-")[0]: path for path in sorted(results.glob("*-gpu-*.json"))}
    sections = [section(json.loads(path.read_text(encoding="utf-8"))) for path in newest.values()]
    return "\n".join(sections) if sections else NONE + "\n"


def page(text: str, results: Path) -> str:
    """The page with its section made anew."""
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"{PAGE}: {BEGIN} … {END} is missing")
    return f"{before}{BEGIN}\n\n{made(results)}\n{END}{after}"


def write(results: Path) -> None:
    """Write the section into the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
