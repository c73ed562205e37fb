"""The table of ``docs/speedups.md`` from benched runs: ``python benchmarks/speedups.py RUNS > docs/speedups.md``

One row per baseline and task, of seed 0, in the plain mode; units of lead time (Lyapunov times; of kpz samples).
"""

from __future__ import annotations

import sys
from pathlib import Path

from emubench.data import tasks
from emubench.files import timing
from emubench.files.timing import RANKED, Bench, Speedup
from emubench.metrics._headline import headline
from emubench.runs import folders

SINGLE = "single_end_to_end"
HEAD = """# Speed-up at equal accuracy, baseline by baseline

How to read it: [throughput.md](throughput.md). *Speed-up* is the baseline's throughput over that of its *rival*. That
is the fastest solver setting measured that is as accurate, from the same contexts in the same run. Below 1 the solver
is faster. In brackets: skill under 0.25, not ranked on speed; –: no setting is as accurate. *Break-even*: units of
lead time to simulate until training has paid; –: never.

Measured by `emubench bench RUNS --seconds 1 --ladder 30`; printed by `python benchmarks/speedups.py RUNS`.
Each row is for the run of seed 0. A few were measured apart and with a longer ladder: see there.
{hardware}.
"""
COLUMNS = (
    "baseline", "accuracy", "skill", "per second, many", "speed-up [10 %, 90 %]", "rival", "per second, one",
    "speed-up, one", "break-even", "binds",
)  # fmt: skip


def short(value: float | None) -> str:
    """Three figures, thousands and millions as k and M.

    >>> short(12345.0), short(None)
    ('12.3k', '–')
    """
    if value is None:
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.2g}" if value < 1 else f"{value:.3g}"


def gained(found: Speedup | None, interval: bool) -> str:
    """The speed-up, in brackets where it is not ranked."""
    if found is None or found.value is None:
        return "–"
    text = short(found.value) + (f" [{short(found.low)}, {short(found.high)}]" if interval else "")
    return text if found.ranked else f"({text})"


def row(baseline: str, bench: Bench) -> list[str]:
    """One line of the table."""
    many, one = (bench.scenarios[name].lyapunov_times_per_second.median for name in (RANKED, SINGLE))
    speedup, single = bench.speedups.get(RANKED), bench.speedups.get(SINGLE)
    limit = bench.limits.get(RANKED)
    return [
        f"`{baseline}`", f"{bench.accuracy:.2f} [{bench.accuracy_low:.2f}, {bench.accuracy_high:.2f}]",
        "–" if bench.skill is None else f"{bench.skill:.2f}", short(many), gained(speedup, True),
        speedup.scheme if speedup and speedup.value is not None else "–", short(one), gained(single, False),
        short(speedup.break_even) if speedup and speedup.break_even is not None else "–", limit.binds if limit else "–",
    ]  # fmt: skip


def main(folder: Path) -> None:
    """Print the page."""
    found: dict[str, list[tuple[float, list[str]]]] = {}
    places: set[str] = set()
    for run in folders.find_runs([folder]):
        card, timed = folders.read_card(run), timing.read(run)
        bench = timed.benches.get("eager") if timed else None
        if bench is None or card.seed:
            continue
        hardware = bench.hardware
        places.add(f"{hardware.name}, {hardware.threads} thread, {hardware.date}")
        sign = -headline(tasks.get(card.task)).better
        found.setdefault(card.task, []).append((sign * bench.accuracy, row(card.baseline, bench)))
    print(HEAD.format(hardware="; ".join(sorted(places))))
    for name in (n for n in tasks.names() if n in found):
        print(f"\n## {name}\n\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for _, cells in sorted(found[name], key=lambda r: r[0]):
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
