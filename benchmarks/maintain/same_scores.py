"""Whether two versions of the code score alike: ``python -m benchmarks.maintain.same_scores RUNS OTHER_RUNS``.

Both folders hold the runs of the grids in ``benchmarks/maintain/sample/``, one made by each version on one machine::

    for grid in benchmarks/maintain/sample/*.toml; do emubench run $grid --data DATA --out RUNS; done

Exit status 0 only if both have the same runs and every ``scores.json`` has equal bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path


def scores(runs: Path) -> dict[str, bytes]:
    """The bytes of every ``scores.json`` below a folder, by the place of its run."""
    return {str(path.parent.relative_to(runs)): path.read_bytes() for path in sorted(runs.rglob("scores.json"))}


def differences(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """One line for every run that only one version has, or that scores otherwise.

    >>> differences({"a": b"1", "b": b"2"}, {"a": b"1", "b": b"3", "c": b""})
    ['b: other scores', 'c: only in the second']
    """
    lines = []
    for run in sorted(one.keys() | other.keys()):
        if run not in one or run not in other:
            lines.append(f"{run}: only in the {'first' if run in one else 'second'}")
        elif one[run] != other[run]:
            lines.append(f"{run}: other scores")
    return lines


def main() -> int:
    """Compare the two folders named on the command line."""
    if len(sys.argv) != 3:
        print("give two folders of runs", file=sys.stderr)
        return 2
    one, other = (scores(Path(argument)) for argument in sys.argv[1:])
    found = differences(one, other)
    print("\n".join(found) or f"{len(one)} runs score alike, to the last byte")
    return 1 if found or not one else 0


if __name__ == "__main__":
    sys.exit(main())
