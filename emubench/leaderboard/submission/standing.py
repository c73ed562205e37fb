"""What an entry has, what it lacks to be ranked, and what judging it would cost; read from its files without torch."""

from typing import NamedTuple

from emubench.leaderboard.submission import entries
from emubench.leaderboard.submission.entries import FORECASTS, SEEDS_OF_A_METHOD, Contents

CLEAN = "clean"
"""The track that is shown only; every other is ranked."""
HOUR = 3600.0


class Standing(NamedTuple):
    """A line of the table; ``missing`` is empty where nothing is."""

    what: str
    found: str
    missing: str = ""


def standing(contents: Contents) -> list[Standing]:
    """The table of an entry that could be read."""
    entry, retrained = contents.entry, contents.entry.division == "standard"
    lines = [
        Standing("division", entry.division, "" if retrained else "only standard entries are retrained, and so ranked"),
        Standing("size", entry.size, "" if entry.size == "standard" else "seasons are of size standard"),
    ]
    for track, names in _tracks().items():
        lost = [name for name in names if name not in entry.tasks]
        found = f"{len(names) - len(lost)} of {len(names)} tasks"
        lines.append(Standing(f"track {track}", found, f"{', '.join(lost)}: counts -1" if lost else ""))
    seeds = f"fewer than {SEEDS_OF_A_METHOD}: its own scores are a checkpoint's; the judge trains {SEEDS_OF_A_METHOD}"
    lines.append(Standing("seeds", ", ".join(map(str, entry.seeds)), seeds if entry.label else ""))
    if entry.method != FORECASTS:
        weights = "" if entry.has_weights else "submit run has nothing to score; the judge needs none"
        lines.append(Standing("weights", "there" if entry.has_weights else "none", weights))
        timed = sum(run in contents.timing for run in entry.runs)
        lines.append(Standing("timing", f"{timed} of {len(entry.runs)} runs", "" if timed else "no speed is shown"))
    season = ", ".join(sorted(path.parent.name for path in _verified(contents)))
    lines.append(Standing("verified", season or "in no season", "" if season else "a rank: a maintainer gives it"))
    hours = judge_hours(contents)
    cost = "not known" if hours is None else f"{hours:.2g} hours of {SEEDS_OF_A_METHOD} seeds, one after the other"
    return [
        *lines,
        Standing("a judge's run", cost, "" if hours is not None or not retrained else "timing of every task"),
    ]


def _tracks() -> dict[str, list[str]]:
    """The tasks of the ranked tracks."""
    tracks: dict[str, list[str]] = {}
    for name in sorted(entries.asked().headlines):
        if (track := name.rpartition("-")[2]) != CLEAN:
            tracks.setdefault(track, []).append(name)
    return tracks


def _verified(contents: Contents) -> list:
    return list(contents.folder.absolute().parent.parent.glob(f"verified/*/{contents.entry.name}.json"))


def judge_hours(contents: Contents) -> float | None:
    """Hours to train and score the seeds of a ranked method on its ranked tasks, on the machine that the entry states.

    ``None`` where a task has no run of which both times are known, and for what is never ranked.
    """
    if contents.entry.division != "standard":
        return None
    total = 0.0
    for task in (name for names in _tracks().values() for name in names if name in contents.entry.tasks):
        known = []
        for seed in contents.entry.seeds:
            card, timing = contents.cards.get((task, seed)), contents.timing.get((task, seed))
            if card is not None and timing is not None and timing.test_seconds is not None:
                scored = (timing.test_seconds, timing.climate_seconds, timing.widths_seconds)
                known.append(card.train_seconds + sum(seconds or 0.0 for seconds in scored))
        if not known:
            return None
        total += SEEDS_OF_A_METHOD * sum(known) / len(known)
    return total / HOUR
