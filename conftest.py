"""Examples in docstrings run in an empty folder of their own, so that they read as one would write them."""

from __future__ import annotations

import pytest
from _pytest.doctest import DoctestItem


@pytest.fixture(autouse=True)
def empty_folder(request, tmp_path_factory, monkeypatch) -> None:
    """The working directory of an example; tests choose their own."""
    if isinstance(request.node, DoctestItem):
        monkeypatch.chdir(tmp_path_factory.mktemp("example"))
