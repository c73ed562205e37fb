"""What is optional is no condition: without a cache that can be written and read, kernels are compiled all the same."""

from __future__ import annotations

import errno
import pickle

import pytest
from numba.core import caching

from emubench.dynamics.kernels import _simd


def test_an_optional_cache_needs_no_folder(monkeypatch):
    """A read-only installation, and a home that can't be written."""
    monkeypatch.setattr(caching.FunctionCache._impl_class, "_locator_classes", [])
    assert _simd.jit(lambda x: x + 1)(1.0) == 2.0


@pytest.mark.parametrize("failure", [OSError(errno.EACCES, "no"), EOFError(), pickle.UnpicklingError()])
def test_an_optional_cache_may_be_unreadable(monkeypatch, failure):
    def fails(*_):
        raise failure

    for name in ("load_overload", "save_overload"):
        monkeypatch.setattr(caching.FunctionCache, name, fails)
    assert _simd.jit(lambda x: x + 2)(1.0) == 3.0
