"""A small board of entries, one of them by hostile authors, and its pages taken apart."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from emubench.leaderboard.page import building
from emubench.leaderboard.page.board import read
from emubench.leaderboard.submission import entries, making
from emubench.runs import folders
from tests.support.submissions import (
    STATED,
    TASK,
    forecast_entry,
    open_season,
    publish,
    verified,
    verified_row,
)

ROOT = Path(__file__).parents[2]
VOID = {"meta", "link", "img", "br", "line", "rect", "circle", "path", "polyline", "polygon"}
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"' onmouseover=alert(3) \u202e\u2066evil\u0007"
    "</bdi></dd></style></script>{{ 7 * 7 }}{% raw %} javascript:alert(4) https://evil.example/x.js"
)


class Page(HTMLParser):
    """A page taken apart; nesting is checked on the way."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag):
        if tag == "option" or tag in ("p", "li"):
            pass
        assert self._open.pop() == tag, (tag, self._open)

    def handle_data(self, data):
        if not self._open or self._open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="session")
def small_board(submitted_runs, tmp_path_factory) -> Path:
    """A board of ``linear`` and ``persistence``, and of a forecast by hostile authors."""
    board = tmp_path_factory.mktemp("board") / "leaderboard"
    for baseline in ("linear", "persistence"):
        making.from_runs(baseline, folders.find_runs([submitted_runs / baseline]), board / "entries", STATED)
    path = board.parent / "f.npz"
    shapes = entries.asked().shapes["tiny"][TASK]
    np.savez_compressed(path, **{s: np.zeros((1, *shape[1:]), "f4") for s, shape in shapes.items()})
    folder = forecast_entry(board / "entries" / "hostile", board / "entries" / "linear", path)
    said = entries.read(folder).model_dump()
    said |= {"authors": [HOSTILE[:300], "漢字 😀"], "contact": HOSTILE[:300], "hardware": HOSTILE[:300]}
    said |= {"notes": (HOSTILE * 60)[:10_000], "training_command": HOSTILE, "licence": HOSTILE[:300]}
    (folder / "entry.toml").write_text(entries.to_toml(entries.Entry(**said)), encoding="utf-8")
    publish(board, {"2026a": open_season()}, verified("linear", [verified_row()]))
    shutil.copy(ROOT / "leaderboard" / "README.md", board)
    return board


@pytest.fixture(scope="session")
def board_pages(small_board) -> dict[str, str]:
    return building.render(read(small_board, "tiny"))
