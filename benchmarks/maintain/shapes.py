"""What every task asks for, so that it is known without torch: ``python -m benchmarks.maintain.shapes`` writes it."""

from __future__ import annotations

import json

from emubench.data import tasks
from emubench.evaluation import scoring
from emubench.files import store
from emubench.leaderboard.submission import entries
from emubench.metrics._headline import headline


def content() -> str:
    """What :data:`emubench.leaderboard.submission.entries.SHAPES_FILE` has to hold, from the tasks themselves."""
    sizes, names = ("tiny", "standard"), tasks.names()
    shapes = {size: {name: scoring.forecast_shapes(tasks.get(name, size)) for name in names} for size in sizes}
    headlines = {name: headline(tasks.get(name)).metric for name in names}
    return json.dumps({"headlines": headlines, "shapes": shapes}, sort_keys=True) + "\n"


if __name__ == "__main__":
    store.write_text(entries.SHAPES_FILE, content())
