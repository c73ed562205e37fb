"""What the pages point to is there: links between them, and paths of the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path for path in sorted(ROOT.rglob("*.md")) if not {".venv", "entries"} & set(path.relative_to(ROOT).parts)]
FOLDERS = tuple(f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
MADE = ("baselines/my_method.py", "leaderboard/entries/my-model", "emubench/systems/rossler.py")
MADE += ("emubench/metrics/mean_absolute_error.py",)
"""What a reader of CONTRIBUTING.md makes."""
REFERENCE = tuple(ROOT / "docs" / "reference" / f"{name}.md" for name in ("baselines", "commands", "python", "systems"))
"""What ``docs/generated.py`` makes of the code, when the site is built."""


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(text: str, page: Path) -> list[str]:
    """Links of a page that lead nowhere, and paths that it names and that aren't there."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        place = page.parent / target if target else page
        if "://" in link:
            continue
        if place.resolve() in REFERENCE and not place.exists():
            continue
        if not place.exists() or (anchor and anchor not in anchors(place)):
            found.append(link)
    for named in re.findall(r"`([^`\s]+)`", text):
        path, _, name = named.partition("::")
        place = ROOT / re.split(r"[^/]*[<*{…]", path)[0]  # of a pattern the folder
        ours = path.startswith(FOLDERS) and not path.startswith(MADE)
        if ours and (not place.exists() or (name and name not in place.read_text(encoding="utf-8"))):
            found.append(named)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_to_is_there(page):
    assert broken(page.read_text(encoding="utf-8"), page) == []


def test_what_is_not_there_is_found():
    there = "[c](docs/metrics.md) [d](https://a.org/b) `x/y.py` `tests/<room>/` `tests/docs/test_paths.py::broken`"
    assert broken(there, ROOT / "README.md") == []
    assert broken("[a](reference/systems.md)", ROOT / "docs" / "ideas.md") == []
    links = ["docs/none.md", "README.md#nowhere", "docs/reference/none.md"]
    paths = ["emubench/none.py", "emubench/kernels/<name>.py"]
    paths.append("docs/metrics.md::test_nothing")
    text = " ".join([*(f"[a]({link})" for link in links), *(f"`{path}`" for path in paths)])
    assert broken(text, ROOT / "README.md") == links + paths
