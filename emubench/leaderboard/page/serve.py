"""Showing the page on this machine alone."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from emubench.core.errors import EmubenchError


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of the files of ``folder``, reachable from this machine only; port 0 takes any free one."""
    if not (folder / "index.html").is_file():
        raise EmubenchError(f"{folder}: no page here; make it with: emubench leaderboard build --out {folder}")
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    except OSError as error:
        raise EmubenchError(f"port {port}: {error.strerror}; choose another --port") from None
