"""The device at hand: by its name, or the best there is; one that is not there is refused beside those that are."""

from __future__ import annotations

import pytest
import torch

from emubench.core.errors import EmubenchError
from emubench.core.hardware import check_device, described, devices, in_parts, sent, surely
from emubench.testing.elsewhere import ELSEWHERE, Elsewhere


@pytest.mark.parametrize("name", ["cuda:77", "gpu", "", "cpu:"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name):
    with pytest.raises(EmubenchError) as error:
        check_device(name)
    assert str(error.value).startswith(f"--device {name}: cannot be used here (")
    assert str(error.value).endswith(f"this machine has {', '.join(devices())}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "why"), [("gpu", "torch knows no such device"), ("lazy", "this torch was built without it")]
)
def test_a_list_of_all_that_torch_knows_is_not_shown(name, why):
    with pytest.raises(EmubenchError) as error:
        check_device(name)
    assert str(error.value) == f"--device {name}: cannot be used here ({why}); this machine has {', '.join(devices())}"


def test_auto_is_the_first_that_computes_in_the_precision_asked_for(monkeypatch):
    monkeypatch.setattr("emubench.core.hardware.devices", lambda: ["cuda:77", "meta", "cpu"])
    assert check_device("auto", torch.float64) == torch.device("cpu")


def test_a_cpu_is_described_by_its_name_alone():
    assert described(torch.device("cpu")) == "cpu"


def test_states_stay_in_a_processors_cache_and_are_whole_elsewhere():
    states = torch.arange(10.0)
    assert [len(part) for part in in_parts(states, 4)] == [4, 4, 2]
    with Elsewhere() as there:
        moved = sent(states, ELSEWHERE)
        assert [len(part) for part in in_parts(moved, 4)] == [10]
        assert not surely((moved >= 0).all())
        assert not there.trips
    assert surely((states >= 0).all())
