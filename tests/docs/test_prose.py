"""The pages can be read at once: no sentence is long, and most are short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST, MEAN = 25, 17
"""Words of a sentence, and their mean over a page."""
FOLDERS = ("docs", "docs/how_to", "leaderboard")  # the pages in docs/reference are made from the code
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "baselines/README.md", "datasets/README.md")]
PAGES += [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.md"))]
MADE = (
    r"<!-- below: python -m benchmarks.maintain.expected -->.*",
    r"<!-- tables: .*?<!-- end of tables -->",
)
"""Parts of pages that a program writes."""
NO_PROSE = (*MADE, r"^```.*?^```", r"^~~~.*?^~~~", r"<!--.*?-->", r"^\|.*?\|$", r"^(?:[#<]|!\[).*?$")
ITEM = re.compile(r"^\s*(?:[-*]|\d+\.|:)\s+", re.MULTILINE)
ONE_WORD = ((r"`[^`]*`", "code"), (r"\[([^\]]*)\]\([^)]*\)", r"\1"), (r"\b(?:doi|arXiv):\S+[\w>]", ""))
END = re.compile(r"(?<!\bal)(?<!e\.g)(?<!i\.e)[.!?][*)\"”]*(?:\s+|$)")


def sentences(text: str) -> list[list[str]]:
    """The words of every sentence of a page: no code, table, heading or comment; code and links count as they read."""
    for pattern in NO_PROSE:
        text = re.sub(pattern, "\n\n", text, flags=re.DOTALL | re.MULTILINE)
    found = []
    for block in re.split(r"\n\s*\n", ITEM.sub("\n\n", text)):
        for pattern, word in ONE_WORD:
            block = re.sub(pattern, word, block)
        found += [[word for word in part.split() if re.search(r"\w", word)] for part in END.split(block)]
    return [words for words in found if len(words) > 2]  # labels are no sentences


def faults(text: str) -> list[str]:
    """Sentences of a page that are too long, and its mean if that is."""
    found = sentences(text)
    mean = sum(map(len, found)) / max(len(found), 1)
    long = [f"{len(words)} words: {' '.join(words)}" for words in found if len(words) > LONGEST]
    return long + [f"{mean:.1f} words a sentence in the mean"] * (mean > MEAN)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_sentences_are_short(page):
    found = faults(page.read_text(encoding="utf-8"))
    assert not found, "\n".join([str(page.relative_to(ROOT)), *found])


def test_words_are_counted_as_they_are_read():
    text = "# A heading of five words\n\nSee [the page](https://a.org/b c), e.g. `a b c`. It says\nmore than that!\n"
    text += "\n```bash\nemubench list tasks\n```\n\n| a | table of words |\n\n<!-- a comment\n\nof two -->\n"
    text += "- one item here\n- **Two.** Lorenz et al. 1963, doi:10.1/2: 0.5 of\n|it| all\n"
    assert [len(words) for words in sentences(text)] == [5, 5, 3, 8]


def test_a_long_sentence_and_a_page_of_middling_ones_are_found():
    short, most = "It is so. " * 20, "word " * (LONGEST - 1)
    assert faults(f"{short}{most}planted.\n") == []
    assert faults(f"{short}{most}one planted.\n") == [f"26 words: {most}one planted"]
    assert faults(("word " * MEAN + "last. ") * 3) == ["18.0 words a sentence in the mean"]
