"""Equal conditions for all contenders: import this first. And a summary with speed-ups."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

CORES = int(os.environ.get("EMUBENCH_BENCH_CORES", "1"))
if hasattr(os, "sched_setaffinity"):
    # Before anything is imported that starts one thread per core.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-CORES:])


@dataclass
class Results:
    """Seconds per unit of work (a step of a trajectory, a random number) by work and contender."""

    unit: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)

    def lines(self) -> list[str]:
        """The summary, one line per contender."""
        out = [f"best of all rounds, one process on {CORES} core{'s' if CORES > 1 else ''}"]
        for work, contenders in self.seconds.items():
            out.append(f"{work}  {self.notes.get(work, '')}".rstrip())
            ours = contenders.get("emubench")
            for name, seconds in contenders.items():
                line = f"    {name:<22}{seconds * 1e9:>12.4g} ns per {self.unit[work]}"
                if not name.startswith("emubench") and ours:
                    line += f"   emubench is {seconds / ours:.1f} times faster"
                    if name in work and work in self.targets:
                        line += f" (target {self.targets[work]:g})"
                out.append(line)
        return out + [f"not compared: {reason}" for reason in sorted(self.missing)]


RESULTS = Results()
