"""``emubench leaderboard build``: render the board as a static site. Equal entries give equal bytes.

The pages need nothing but themselves: style and script stand in them, allowed by their hashes, and nothing else may be
loaded. Whatever a submission says is escaped by the templates, after control and direction characters are replaced.
"""

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from emubench import __version__
from emubench.core.errors import EmubenchError, clean
from emubench.files import store
from emubench.leaderboard import ranking
from emubench.leaderboard.page import charts, ranks
from emubench.leaderboard.page.board import Board, read
from emubench.leaderboard.page.entry_page import entry_context
from emubench.leaderboard.page.tracks import (
    CLAIMED,
    NOBODY,
    ORDER,
    PUBLIC,
    SEALED,
    first_tables,
    matrix,
    text_tables,
    track_context,
)

OURS = "emubench leaderboard</title>"
PICTURE = "skill_over_speed.svg"
BEGIN, END = "<!-- tables: written by `emubench leaderboard build` -->", "<!-- end of tables -->"


def environment() -> Environment:
    """The templates, escaping everything that is not markup of ours."""
    made = Environment(
        loader=PackageLoader("emubench.leaderboard.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["clean"] = clean
    return made


def build(board: Path, out: Path, size: str = "standard") -> tuple[list[Path], tuple[str, ...]]:
    """Render the site of ``board`` into ``out``, and at size "standard" refresh the tables of the board's README.md.

    Return its files, and a line for all that was left out for its faults.
    """
    content = read(board, size)
    pages = render(content)
    _write(pages, out)
    if size == "standard":
        for path, text in beside(board, content).items():
            store.write_text(path, text)
    return [out / name for name in pages], content.faults


def beside(board: Path, content: Board) -> dict[Path, str]:
    """What is made of the same data in a checkout: the board's README.md, and that above it with its picture."""
    found = {}
    for readme, tables in ((board / "README.md", text_tables), (board.parent / "README.md", first_tables)):
        before = readme.read_text(encoding="utf-8") if readme.exists() else ""
        if BEGIN in before:
            found[readme] = with_tables(before, content, tables)
    chart = track_context(content, ORDER[0])["pareto"]["chart"]
    if board.parent / "README.md" in found and chart:
        found[board / PICTURE] = charts.alone(chart)
    return {path: text for path, text in found.items() if not path.exists() or path.read_text("utf-8") != text}


def _write(pages: dict[str, str], out: Path) -> None:
    """Write a site: a new one appears whole or not at all, in one that is there pages are replaced one by one."""
    store.sweep(out)
    partial = out if out.exists() else store.temporary_name(out)
    try:
        for name, text in pages.items():
            store.write_text(partial / name, text)
        if partial is not out:
            partial.rename(out)
    finally:
        if partial is not out:
            shutil.rmtree(partial, ignore_errors=True)
    for page in (out / "entries").glob("*.html"):  # of entries that are gone; what else lies there is not ours
        if f"entries/{page.name}" not in pages and OURS in page.read_text(encoding="utf-8", errors="replace"):
            page.unlink()


def render(board: Board) -> dict[str, str]:
    """All files of the site, by their path in it."""
    templates = environment()
    source = templates.loader
    assert source is not None
    style, script = (Markup(source.get_source(templates, name)[0]) for name in ("style.css", "script.js"))
    shared = {"style": style, "script": script, "policy": _policy(style, script), "version": __version__, "root": ""}

    def page(name: str, **context: Any) -> str:
        return templates.get_template(name).render(shared | context, board=board)

    files = downloads(board)
    index = {
        "tabs": {track: _track_page(track) for track in ORDER},
        "filters": _filters(board),
        "texts": {"nobody": NOBODY, "sealed": SEALED, "claimed": CLAIMED, "public": PUBLIC},
        "downloads": [name.removeprefix("data/") for name in files],
        "matrix": matrix(board),
    }
    pages = {_track_page(track): page("track.html", track=track_context(board, track), **index) for track in ORDER}
    pages["methods.html"] = page("methods.html")
    for one in board.shown:
        context = entry_context(board, one)
        pages[f"entries/{one.entry.name}.html"] = page("entry.html", root="../", one=one, **context)
    return pages | files


def _track_page(track: str) -> str:
    """The first track's page is that of the site."""
    return "index.html" if track == ORDER[0] else f"{track}.html"


def _policy(style: str, script: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def downloads(board: Board) -> dict[str, str]:
    """The tables as CSV and JSON, and what the entries say of themselves."""
    files = {}
    frames = {f"self_reported_{name}": frame for name, frame in board.self_reported.items()}
    frames["verified"] = pd.concat(list(board.verified.values()) or [pd.DataFrame(columns=list(ranks.COLUMNS))])
    for name, frame in frames.items():
        files[f"data/{name}.json"] = ranking.as_json(frame) + "\n"
        files[f"data/{name}.csv"] = frame.to_csv(index=False, lineterminator="\n")
    said = [one.entry.model_dump(exclude={"files"}) for one in board.shown]
    judged = [v.model_dump(exclude={"rows": {"__all__": {"by_seed"}}}) for one in board.shown for v in one.verified]
    for name, content in (("entries", said), ("judged", judged)):
        files[f"data/{name}.json"] = json.dumps(content, indent=1, sort_keys=True) + "\n"
    return files


def _filters(board: Board) -> dict[str, list[str]]:
    entries = [one.entry for one in board.shown]
    judges = {v.judge for one in board.shown for v in one.verified}
    return {
        "knowledge": sorted({entry.knowledge for entry in entries}),
        "division": sorted({entry.division for entry in entries}),
        "device": sorted({clean(name) for name in {entry.hardware for entry in entries} | judges}),
    }


def with_tables(readme: str, board: Board, tables: Callable[[Board], str] = text_tables) -> str:
    """``readme`` with today's tables between its two marks."""
    before, begun, rest = readme.partition(BEGIN)
    _, ended, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(board)}\n\n{END}{after}" if begun and ended else readme


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of the files of ``folder``, reachable from this machine only; port 0 takes any free one."""
    if not (folder / "index.html").is_file():
        raise EmubenchError(f"{folder}: no page here; make it with: emubench leaderboard build --out {folder}")
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    except OSError as error:
        raise EmubenchError(f"port {port}: {error.strerror}; choose another --port") from None
