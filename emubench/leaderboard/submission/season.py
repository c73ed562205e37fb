"""Seasons by commit and reveal: sealed training data, contexts and truth from a secret that is published at the close.

``leaderboard/seasons.toml`` holds per season its tasks, the SHA-256 of the 32-byte secret and that of the first draws
made from it. The secret itself is read from the file that the variable ``EMUBENCH_SEASON_SECRET`` names, or asked for
in a terminal; it is never an argument, and no message of this module shows it.
"""

import getpass
import hashlib
import os
import re
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import tomli_w
from pydantic import Field, model_validator

from emubench import __version__
from emubench.core.errors import EmubenchError, unknown
from emubench.core.random import SealedSeed
from emubench.data import tasks
from emubench.data.fingerprints import draws
from emubench.files import schema, store
from emubench.files.schema import Model, Name
from emubench.leaderboard.submission.entries import Digest

VARIABLE = "EMUBENCH_SEASON_SECRET"


class Season(Model):
    """One season; ``secret`` is empty while it is open."""

    size: Name
    tasks: Annotated[list[Name], Field(min_length=1, max_length=64)]
    emubench_version: Annotated[str, Field(max_length=40)]
    opened: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    closed: Annotated[str, Field(pattern=r"^(\d{4}-\d{2}-\d{2})?$")] = ""
    commitment: Digest
    draws_sha256: Digest
    secret: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""

    @model_validator(mode="after")
    def _fits(self) -> "Season":
        if bool(self.secret) != bool(self.closed):
            raise ValueError("a season is closed by its secret, and shows none before")
        if self.secret and hashlib.sha256(bytes.fromhex(self.secret)).hexdigest() != self.commitment:
            raise ValueError("the secret is not the one that this season committed to")
        return self


class Seasons(Model):
    """``seasons.toml``."""

    seasons: Annotated[dict[Name, Season], Field(max_length=1000)] = {}


def _first_draws(names: list[str], size: str, seed: int) -> str:
    return store.combine([draws(tasks.get(name, size), seed) for name in names])


def path_of(board: Path) -> Path:
    """Where the seasons of a board are listed."""
    return board / "seasons.toml"


def read(board: Path) -> dict[str, Season]:
    """All seasons of a board, by name."""
    path = path_of(board)
    if not path.exists():
        return {}
    return schema.parse(Seasons, schema.read_toml(path, "list of seasons"), path).seasons


def get(board: Path, name: str) -> Season:
    """The season called ``name``."""
    known = read(board)
    if name not in known:
        raise unknown("season", name, known)
    return known[name]


def _write(board: Path, seasons: dict[str, Season]) -> None:
    head = "# Written by `emubench season new` and `close`: what a season commits to; once it is over, its secret.\n\n"
    store.write_text(path_of(board), head + tomli_w.dumps(Seasons(seasons=seasons).model_dump()))


def open_season(board: Path, name: str, size: str, only: list[str] | None = None) -> Season:
    """Draw a secret into the file that the variable names, and commit to it in ``seasons.toml``."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_\-]{0,79}", name):
        raise EmubenchError(f"season {name!r}: lower-case letters, digits, - and _ belong in a name")
    ranked = [task for task in tasks.names() if task.rsplit("-", 1)[-1] in tasks.RANKED_TRACKS]
    chosen = only or ranked
    if size not in tasks.SIZES:
        raise EmubenchError(f"season {name!r}: {unknown('size', size, tasks.SIZES)}")
    for task in chosen:
        tasks.get(task, size)
        if task not in ranked or chosen.count(task) > 1:
            fault = "stands twice" if task in ranked else "is of no ranked track"
            raise EmubenchError(f"season {name!r}: task {task} {fault}; name each ranked task at most once")
    if not (file := _file()):
        raise EmubenchError(f"name in {VARIABLE} a new file, outside any git checkout, for the season's secret")
    secret = secrets.token_bytes(32)
    season = Season(
        size=size,
        tasks=chosen,
        emubench_version=__version__,
        opened=_today(),
        commitment=hashlib.sha256(secret).hexdigest(),
        draws_sha256=_first_draws(chosen, size, SealedSeed(secret)),
    )
    with store.locked(board):
        if name in (known := read(board)):
            raise EmubenchError(f"{path_of(board)}: season {name} is there already; choose another name")
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            raise EmubenchError(f"{file}: is there already; name a new file in {VARIABLE}") from None
        with os.fdopen(descriptor, "w") as sink:
            sink.write(secret.hex() + "\n")
        _write(board, known | {name: season})
    return season


def close_season(board: Path, name: str) -> Season:
    """Publish the secret of an open season."""
    with store.locked(board):
        season = get(board, name)
        if season.closed:
            raise EmubenchError(f"{path_of(board)}: season {name} is closed since {season.closed}")
        secret = read_secret()
        _seed(board, name, season, secret)
        closed = season.model_copy(update={"secret": secret.hex(), "closed": _today()})
        _write(board, read(board) | {name: closed})
    return closed


def seed_of(board: Path, name: str) -> SealedSeed:
    """The seed of a season: of a closed one from its published secret, else from ours."""
    season = get(board, name)
    return _seed(board, name, season, bytes.fromhex(season.secret) if season.secret else read_secret())


def _seed(board: Path, name: str, season: Season, secret: bytes) -> SealedSeed:
    """The seed that a secret makes, if it is the one that the season committed to."""
    seed = SealedSeed(secret)
    same = hashlib.sha256(secret).hexdigest() == season.commitment
    if not same or _first_draws(season.tasks, season.size, seed) != season.draws_sha256:
        part = "draws_sha256" if same else "commitment"
        where = f"{path_of(board)}: season {name}: {part}"
        raise EmubenchError(f"{where}: the secret is not the one that this season committed to")
    return seed


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _file() -> Path | None:
    """The file that the variable names, if it does, which has to lie where git would not add it."""
    if not (name := os.environ.get(VARIABLE)):
        return None
    return outside_git(Path(name).expanduser(), "the season's secret")


def outside_git(path: Path, what: str) -> Path:
    """``path`` itself, which has to lie where git would not add it."""
    for folder in path.absolute().resolve().parents:
        if (folder / ".git").exists():
            raise EmubenchError(f"{path}: lies in the git checkout {folder}; keep {what} outside of any")
    return path


def read_secret() -> bytes:
    """The secret from the file that the variable names, or asked for in a terminal; 64 hexadecimal digits."""
    if file := _file():
        where = str(file)
        if not file.is_file():
            raise EmubenchError(f"{where}: no such file; {VARIABLE} has to name the one that holds the season's secret")
        content = file.read_bytes()[:1000]
    elif sys.stdin.isatty():
        where, content = "secret", getpass.getpass("secret of the season (64 hexadecimal digits): ").encode()
    else:
        raise EmubenchError(f"name the file that holds the season's secret in {VARIABLE}")
    if not re.fullmatch(rb"[0-9a-f]{64}", content.strip()):
        raise EmubenchError(f"{where}: 64 hexadecimal digits belong here")
    return bytes.fromhex(content.strip().decode("ascii"))
