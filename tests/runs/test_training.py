"""Training from Python: in memory and into a run folder alike."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

import emubench
from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.data import recipes, tasks
from emubench.runs import folders

TASK = tasks.get("lorenz63-noisy", "tiny")
SMALL = {"steps": 3, "batch": 4}


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    states = a.state_dict(), b.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_a_run_holds_what_training_in_memory_gives(data, tmp_path):
    kept = emubench.train("resnet_ode", TASK, data, seed=2, out=tmp_path, **SMALL)
    (run,) = folders.find_runs([tmp_path])
    assert folders.read_card(run).seed == 2
    assert folders.read_card(run).overrides == SMALL
    written = (run / "model.safetensors").stat().st_mtime_ns
    assert equal(kept, emubench.train("resnet_ode", TASK, data, seed=2, **SMALL))
    assert equal(kept, emubench.train("resnet_ode", TASK, str(data), seed=2, out=str(tmp_path), **SMALL))
    assert (run / "model.safetensors").stat().st_mtime_ns == written  # it was read
    assert not equal(kept, emubench.train("resnet_ode", TASK, data, seed=3, **SMALL))


def test_a_module_is_as_good_as_its_name(data, tmp_path):
    module = baselines.get("linear")
    assert equal(emubench.train(module, TASK, data), emubench.train("linear", TASK, data))
    emubench.train(module, TASK, data, out=tmp_path)
    assert len(folders.find_runs([tmp_path])) == 1


def test_a_module_that_is_no_baseline_trains_in_memory_alone(data, tmp_path):
    mine = ModuleType("my_package.linear")
    known = vars(baselines.get("persistence"))
    vars(mine).update({name: known[name] for name in ("Config", "build", "train")})
    assert type(emubench.train(mine, TASK, data)).__name__ == "Persistence"
    with pytest.raises(EmubenchError, match="a run is rebuilt by the name of its baseline, and linear is none"):
        emubench.train(mine, TASK, data, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_others_drew_from_torch_is_left_alone_and_progress_is_shown(data):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    shown = []
    emubench.train("resnet_ode", TASK, data, progress=lambda done, total: shown.append((done, total)), **SMALL)
    assert torch.equal(torch.rand(2), expected)
    assert shown[-1] == (3, 3)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("resnet", TASK), {}, "unknown baseline 'resnet': did you mean resnet_ode"),
        (("resnet_ode", "lorenz36-noisy"), {}, "unknown task 'lorenz36-noisy'"),
        (("resnet_ode", TASK), {"step": 3}, "unknown setting of resnet_ode 'step': did you mean steps"),
        (("resnet_ode", TASK), {"steps": "3"}, "steps: '3' where a value like 4000 belongs"),
        (("resnet_ode", tasks.get("lorenz63-noisy")), {}, "no such dataset; make it with: emubench generate"),
    ],
)
def test_what_cannot_be_trained_is_one_line(data, arguments, settings, message):
    with pytest.raises(EmubenchError, match=message) as error:
        emubench.train(*arguments, data, **settings)
    assert "\n" not in str(error.value)


def test_a_task_is_taken_as_it_is_by_its_name_or_from_its_recipe(tmp_path):
    assert recipes.resolve(TASK) is TASK
    assert recipes.resolve("lorenz63-noisy") == tasks.get("lorenz63-noisy")
    path = tmp_path / "few.toml"
    path.write_text(
        'track = "noisy"\n[system]\nname = "lorenz63"\n[amounts]\ntrain = { trajectories = 2, length = 64 }\n'
        "validation = { trajectories = 1, length = 64 }\ntest = 2\nclimate = 2\nclimate_horizon = 2.0\n"
    )
    folder = tmp_path / "data"
    assert len(emubench.generate(path, folder)) == 2
    for given in (str(path), "few"):
        assert emubench.load(given, str(folder)).train.shape == (2, 64, 3)
    result = emubench.evaluate(emubench.train("linear", "few", folder), "few", folder)
    assert emubench.compare({"mine": result})["track"].tolist() == ["custom"]
