"""What every task asks for, so that it is known without torch: ``python -m benchmarks.maintain.shapes`` writes it."""

from __future__ import annotations

import json

from emubench.data import tasks
from emubench.evaluation import scoring
from emubench.files import store
from emubench.leaderboard.submission import entries


def content() -> str:
    """What :data:`emubench.leaderboard.submission.entries.SHAPES_FILE` has to hold, from the tasks themselves."""
    sizes = ("tiny", "standard")
    table = {size: {n: scoring.forecast_shapes(tasks.get(n, size)) for n in tasks.names()} for size in sizes}
    return json.dumps(table, sort_keys=True) + "\n"


if __name__ == "__main__":
    store.write_text(entries.SHAPES_FILE, content())
