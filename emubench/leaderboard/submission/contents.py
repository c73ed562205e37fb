"""What an entry's folder holds, read and schema-checked, for those who check, judge and show it. No torch."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from emubench.files import entry_files, store
from emubench.files.entry_files import FIGURES, EntryScores, Run
from emubench.files.run_files import Card, Figures, ScoreFile
from emubench.files.timing import EntryTiming
from emubench.leaderboard.submission import entries
from emubench.leaderboard.submission.entries import FORECAST_FILES, WEIGHTS, Entry


@dataclass(frozen=True)
class Contents:
    """An entry with all of its files but the large ones: figures, weights and forecasts are read when they are used."""

    folder: Path
    entry: Entry
    scores: dict[Run, EntryScores]
    cards: dict[Run, Card] = field(default_factory=dict)
    """None of forecasts made elsewhere."""
    timing: dict[Run, EntryTiming] = field(default_factory=dict)

    def figures(self) -> dict[Run, Figures]:
        """What it has to show: of one seed per task, if anything."""
        return entry_files.read(self.folder, FIGURES) if FIGURES in self.entry.files else {}

    def path(self, run: Run) -> Path:
        """Where the weights or the forecast of a run are."""
        place = self.folder / entries.place(run)
        return next((place / name for name in FORECAST_FILES if (place / name).exists()), place / WEIGHTS)

    @contextmanager
    def unpacked(self, run: Run) -> Iterator[Path]:
        """A folder as that of the run itself, for as long as it is needed: card, weights and scores."""
        with tempfile.TemporaryDirectory(prefix="emubench-entry-") as temporary:
            folder = Path(temporary)
            store.write_text(folder / "card.json", self.cards[run].model_dump_json(indent=1) + "\n")
            scores = ScoreFile(**dict(self.scores[run]))
            store.write_text(folder / "scores.json", scores.model_dump_json(indent=1) + "\n")
            shutil.copyfile(self.path(run), folder / WEIGHTS)
            yield folder
