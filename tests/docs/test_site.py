"""The site builds without a warning, its links lead somewhere, and no page asks another host for anything."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import emubench
from emubench import baselines, systems
from tests.support.recipes import ROOT


class Page(HTMLParser):
    """What a page links to and loads, and the places in it that others may link to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.loaded, self.places = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.places.add(found.get("id"))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        loads = found.get("src") or (found.get("href") if tag == "link" else None)
        if loads:
            self.loaded.append(loads)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", out / "doctrees", ROOT / "docs", out]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert finished.returncode == 0, finished.stderr
    return out


@pytest.mark.slow
def test_links_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 20
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link == "leaderboard/index.html":  # which `make docs` builds beside it
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.exists(), (path, link)
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].places, (path, link)
        assert not [one for one in page.loaded if urlsplit(one).scheme in ("http", "https")], path


@pytest.mark.slow
def test_the_reference_has_every_command_name_system_and_baseline(site):
    text = {path.stem: path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html")}
    for name in systems.names():
        assert f'id="{name.replace("_", "-")}"' in text["systems"]
    for name in baselines.names():
        assert f'id="{name.replace("_", "-")}"' in text["baselines"]
    named = set(emubench.__all__) - {"systems", "baselines", "metrics", "tasks", "testing"}
    assert [name for name in named if f'id="emubench.{name}"' not in text["python"]] == []
    for command in ("train", "season-new", "leaderboard-build", "doctor"):
        assert f'id="{command}"' in text["commands"]
