"""Entries are known by their hashes: a clone that turns line ends into CRLF must leave their files as they are."""

from __future__ import annotations

import shutil
import subprocess

from emubench.leaderboard.submission.entries import ENTRY_FILE
from tests.support.recipes import ROOT


def test_entries_keep_their_bytes_in_a_clone_with_autocrlf(tmp_path):
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "core.autocrlf=true"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    entry = ROOT / "leaderboard" / "entries" / "linear"
    names = sorted(path.name for path in entry.iterdir() if path.is_file())
    assert ENTRY_FILE in names
    git("init")
    for path in (ROOT / ".gitattributes", *(entry / name for name in names)):
        shutil.copyfile(path, tmp_path / path.name)
    git("add", ".")
    git("commit", "-m", "an entry")
    for name in names:
        (tmp_path / name).unlink()
    git("checkout", "--", ".")
    assert {n: (tmp_path / n).read_bytes() for n in names} == {n: (entry / n).read_bytes() for n in names}
