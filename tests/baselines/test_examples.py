"""The examples in the docstrings of the baselines give what they show."""

from __future__ import annotations

import doctest

import pytest

from emubench import baselines


@pytest.mark.parametrize("name", baselines.names())
def test_the_examples_hold(name):
    module = baselines.get(name)
    assert doctest.testmod(module).failed == 0


def test_there_are_examples():
    tried = {name: doctest.testmod(baselines.get(name)).attempted for name in ("ot_regularized", "reservoir")}
    assert tried == {"ot_regularized": 3, "reservoir": 2}
