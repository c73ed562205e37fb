"""An interrupted training goes on to the same weights, to the last byte; checkpoints that don't fit are refused."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.data import generation
from emubench.learning.models.flow import FlowConfig
from emubench.learning.training.checkpoint import STATE, Checkpoint, Checkpoints
from emubench.learning.training.descent import Descent, Log
from emubench.learning.training.polish import Polish, polish
from emubench.runs import folders, stages
from emubench.runs.jobs import Job
from tests.support.contents import contents

SMALL = {"steps": 24, "checks": 8, "batch": 8, "width": 8}
JOBS = {
    "noisy": Job("resnet_ode", "lorenz63-noisy", "tiny", overrides=SMALL | {"training_noise": 0.1, "average": 0.9}),
    "ring": Job("resnet_ode", "lorenz96-partial", "tiny", overrides=SMALL),
    "growth": Job("neural_ode", "kpz-noisy", "tiny", overrides=SMALL),
    "polished": Job("neural_ode", "lorenz63-clean", "tiny", overrides=SMALL | {"polish": 150}),
    "transport": Job("ot_regularized", "lorenz63-noisy", "tiny", overrides=SMALL),
    "operator": Job("fourier_operator", "lorenz96-noisy", "tiny", overrides=SMALL),
    "weak": Job("weak_adversarial", "lorenz63-noisy", "tiny", overrides=SMALL | {"training_noise": 0.1}),
    "weak in space": Job("weak_adversarial", "kpz-noisy", "tiny", overrides=SMALL),
    "smoothed": Job("neural_ode", "lorenz63-noisy", "tiny", overrides=SMALL | {"polish": 50, "rounds": 2}),
}
LOOKS = dict.fromkeys(JOBS, 8) | {"polished": 11, "smoothed": 11}
"""At the validation data, during the whole of a training."""


def interrupting(at: int, how=KeyboardInterrupt):
    """A progress bar that raises when it is moved for the ``at``-th time, and counts in ``moved``."""

    def progress(done: int, total: int) -> None:
        progress.moved.append(done)
        if len(progress.moved) == at:
            raise how

    progress.moved = []
    return progress


def weights(folder) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def log(folder) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Folders of the uninterrupted trainings, made when they are asked for."""
    out = tmp_path_factory.mktemp("whole")

    class Trained(dict):
        def __missing__(self, name):
            self[name] = stages.train(JOBS[name], data, out)
            return self[name]

    return Trained()


CUTS = [("noisy", (2,)), ("noisy", (5, 3)), ("noisy", (1,))]
LONG_CUTS = [
    ("ring", (4,)),
    ("polished", (4, 6, 2)),
    ("transport", (6,)),
    ("operator", (5,)),
    ("weak", (3,)),
    ("weak in space", (4, 3)),
    ("smoothed", (10,)),
    ("smoothed", (9, 2)),
    ("growth", (8,)),
    ("polished", (6,)),
    ("polished", (9,)),
    ("polished", (10, 2)),
]
CUTS += [pytest.param(*cuts, marks=pytest.mark.slow) for cuts in LONG_CUTS]


@pytest.mark.parametrize(("name", "cuts"), CUTS)
def test_an_interrupted_training_ends_with_the_same_bytes(data, tmp_path, whole, name, cuts):
    """Cut at a look, which is not kept any more: what is done again is that look, and all after it, and no more."""
    looked, job = 0, JOBS[name]
    for cut in cuts:
        with pytest.raises(KeyboardInterrupt):
            stages.train(job, data, tmp_path, interrupting(cut))
        looked += cut - 1
        assert not job.folder(tmp_path).exists()
        assert not list(tmp_path.rglob("card.json"))
        torch.randn(7)  # what else was drawn plays no part
    last = interrupting(0)
    folder = stages.train(job, data, tmp_path, last)
    assert len(last.moved) == LOOKS[name] - looked
    assert weights(folder) == weights(whole[name])
    assert log(folder) == log(whole[name])
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], "something was left behind"


def die(job: Job, data, out) -> None:
    torch.set_num_threads(1)

    def progress(done: int, total: int) -> None:
        if done == 12:
            os._exit(9)

    stages.train(job, data, out, progress)


def test_a_killed_training_ends_with_the_same_bytes(data, tmp_path, whole):
    job = JOBS["noisy"]
    process = multiprocessing.get_context("fork").Process(target=die, args=(job, data, tmp_path))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    left = [p for p in contents(tmp_path) if p.endswith(".safetensors")]
    assert [p.rpartition("/")[2] for p in left] == ["stage-1.safetensors"]
    assert weights(stages.train(job, data, tmp_path)) == weights(whole["noisy"])
    assert not [p for p in tmp_path.rglob("*") if "partial" in p.name]  # what was killed is swept


def test_seconds_add_up_over_interruptions(data, tmp_path, monkeypatch):
    now = iter(range(0, 10**6, 10))
    monkeypatch.setattr("emubench.learning.training.logs.time.perf_counter", lambda: next(now))
    with pytest.raises(KeyboardInterrupt):
        stages.train(JOBS["noisy"], data, tmp_path, interrupting(4))
    (path,) = tmp_path.rglob("stage-1.safetensors")
    before = json.loads(safe_open(path, "pt").metadata()[STATE])["seconds"]
    assert before > 30
    assert folders.read_card(stages.train(JOBS["noisy"], data, tmp_path)).train_seconds > before + 50


def test_other_settings_begin_anew(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        stages.train(JOBS["noisy"], data, tmp_path, interrupting(4))
    other, seen = dataclasses.replace(JOBS["noisy"], seed=1), interrupting(0)
    stages.train(other, data, tmp_path, seen)
    assert len(seen.moved) == 8


# --- divergence -------------------------------------------------------------------------------------------------------


def test_a_diverging_training_keeps_and_names_its_last_good_checkpoint(data, tmp_path, monkeypatch, whole):
    job, module = JOBS["noisy"], baselines.get("resnet_ode")
    loss, calls = module.rollout_loss, []

    def broken(flow, *rest):
        calls.append(flow.training)
        return loss(flow, *rest) * (float("nan") if sum(calls) == 14 and flow.training else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(module, "rollout_loss", broken)
        with pytest.raises(EmubenchError, match=r"diverged at step 14 \(learning rate .*: lower --set") as error:
            stages.train(job, data, tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    assert f"(step 12 is kept in {path})" in str(error.value)
    assert "\n" not in str(error.value)
    tensors = {k.removeprefix("best."): v for k, v in load_file(path).items() if k.startswith("best.")}
    emulator = module.build(job.get_task(), job.config())
    emulator.load_state_dict(tensors)  # usable as it is
    assert all(torch.isfinite(t).all() for t in tensors.values())
    assert weights(stages.train(job, data, tmp_path)) == weights(whole["noisy"])  # the fault was not in the data


def test_weights_that_are_not_finite_do_not_replace_good_ones(tmp_path):
    checkpoint, good = Checkpoint(tmp_path / "c.safetensors", "key"), torch.ones(2)
    state = {"step": 3, "loss": 0.5, "best_loss": float("inf")}
    checkpoint.save({"model.p": good}, state)
    checkpoint.save({"model.p": torch.tensor([1.0, float("nan")])}, state | {"step": 4})
    assert checkpoint.kept == 3
    found = Checkpoint(tmp_path / "c.safetensors", "key")
    stored = found.load()
    assert stored is not None
    assert (stored.step, stored.loss, stored.best_loss) == (3, 0.5, float("inf"))
    assert torch.equal(found.take("model", {"p": good})["p"], good)


# --- what is not to be trusted ----------------------------------------------------------------------------------------


def rewritten(path, change=None, state=None) -> None:
    """The same file with tensors and state changed, and without a hash, as checkpoints of old."""
    with safe_open(path, "pt") as file:
        metadata = {STATE: file.metadata()[STATE]}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if change:
        change(tensors)
    if state is not None:
        metadata[STATE] = state(metadata[STATE])
    save_file(tensors, path, metadata)


FAULTS = {
    "shape": (lambda t: t.update({"model.mean": torch.zeros(4)}), None, r"model.mean: torch.float32 \(4,\) where"),
    "dtype": (lambda t: t.update({"model.mean": torch.zeros(3).double()}), None, "model.mean: torch.float64"),
    "gone": (lambda t: t.pop("best.field.out.bias"), None, "tensor best.field.out.bias is missing"),
    "foreign": (lambda t: t.update({"model.more": torch.zeros(1)}), None, "model.more is not of this architecture"),
    "optimiser": (lambda t: t.pop("adam.0.exp_avg"), None, "tensor adam.0.exp_avg is missing"),
    "generator": (lambda t: t.update({"random.own": torch.zeros(9).byte()}), None, "tensor random.own"),
    "negative step": (None, lambda s: json.dumps(json.loads(s) | {"step": -1}), "step: .*greater than or equal to 0"),
    "unknown key": (None, lambda s: json.dumps(json.loads(s) | {"more": 1}), "more: Extra inputs are not permitted"),
    "no JSON": (None, lambda s: s[:-3], "not a whole checkpoint"),
    "nothing": (None, lambda s: "null", "valid dictionary"),
    "other data": (None, lambda s: json.dumps(json.loads(s) | {"key": "0"}), "a checkpoint of other data"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(data, tmp_path, fault):
    change, state, message = FAULTS[fault]
    with pytest.raises(KeyboardInterrupt):
        stages.train(JOBS["noisy"], data, tmp_path, interrupting(3))
    (path,) = tmp_path.rglob("stage-1.safetensors")
    rewritten(path, change, state)
    before = contents(tmp_path)
    with pytest.raises(EmubenchError, match=message) as error:
        stages.train(JOBS["noisy"], data, tmp_path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert contents(tmp_path) == before
    path.unlink()
    assert stages.train(JOBS["noisy"], data, tmp_path).exists()


@pytest.mark.parametrize("cut_at", [0, 5, 500, -1])
def test_a_damaged_checkpoint_is_refused(data, tmp_path, cut_at):
    with pytest.raises(KeyboardInterrupt):
        stages.train(JOBS["noisy"], data, tmp_path, interrupting(3))
    (path,) = tmp_path.rglob("stage-1.safetensors")
    path.write_bytes(path.read_bytes()[:cut_at])
    with pytest.raises(EmubenchError, match="not a whole checkpoint .*; remove it to train anew"):
        stages.train(JOBS["noisy"], data, tmp_path)


def test_a_full_disk_leaves_nothing_behind(data, tmp_path, monkeypatch):
    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("emubench.learning.training.checkpoint.save_file", full)
    with pytest.raises(EmubenchError, match=r"cannot be written \(No space left on device\); nothing was left behind"):
        stages.train(JOBS["noisy"], data, tmp_path)
    assert contents(tmp_path) == {}


def test_a_full_disk_takes_no_checkpoint_that_was_there(data, tmp_path, monkeypatch, whole):
    with pytest.raises(KeyboardInterrupt):
        stages.train(JOBS["noisy"], data, tmp_path, interrupting(3))
    (path,) = tmp_path.rglob("stage-1.safetensors")
    before = path.read_bytes()

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("emubench.learning.training.checkpoint.save_file", full)
        message = r"cannot be written \(No space left on device\); the same command goes on from its checkpoint"
        with pytest.raises(EmubenchError, match=message):
            stages.train(JOBS["noisy"], data, tmp_path)
    assert path.read_bytes() == before
    assert weights(stages.train(JOBS["noisy"], data, tmp_path)) == weights(whole["noisy"])


def test_another_process_may_finish_first_and_tidy_up(data, tmp_path, monkeypatch, whole):
    """Its folder of checkpoints goes while this one writes to it."""
    written, name = [], "emubench.learning.training.checkpoint.save_file"

    def tidied(tensors, path, metadata) -> None:
        save_file(tensors, path, metadata)
        written.append(path)
        if len(written) == 3:
            shutil.rmtree(path.parent)

    monkeypatch.setattr(name, tidied)
    folder = stages.train(JOBS["noisy"], data, tmp_path)
    assert len(written) == 8
    assert weights(folder) == weights(whole["noisy"])
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


# --- the stages by themselves -----------------------------------------------------------------------------------------


class Valley(nn.Module):
    """Rosenbrock's valley, whose minimum, 0, is at (1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))

    def loss(self) -> torch.Tensor:
        x, y = self.p
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def test_the_memory_of_lbfgs_survives(tmp_path, monkeypatch):
    """Without it the second block would begin with steepest descent, and end elsewhere."""
    monkeypatch.setattr("emubench.learning.training.polish.BLOCK", 5)
    ends = []
    for cut in (False, True):
        module, folder = Valley(), tmp_path / str(cut)
        if cut:
            polish(module, module.loss, module.loss, 10, Log(checkpoints=Checkpoints(folder, "key")))
            module = Valley()
        polish(module, module.loss, module.loss, 20, Log(checkpoints=Checkpoints(folder, "key")))
        ends.append(module.p.detach().tolist())
    assert ends[0] == ends[1]
    module = Valley()
    work = Polish(module, module.loss, Checkpoint())
    for done in (5, 10, 15, 20):
        work.optimizer.state.clear()
        work.block(done)
    assert module.p.detach().tolist() != ends[0]


def test_a_descent_without_its_generator_begins_anew(tmp_path):
    """What the loop draws could not be drawn again: so nothing is kept."""
    for generator in (None, torch.Generator().manual_seed(0)):
        module, folder = Valley(), tmp_path / str(generator is None)
        log = Log(checkpoints=Checkpoints(folder, "key"))
        for _ in (down := Descent(module, FlowConfig(steps=4, checks=2), log, module.loss, generator)):
            down(module.loss())
        assert folder.exists() == (generator is not None)


def test_stages_have_files_of_their_own(tmp_path):
    checkpoints = Checkpoints(tmp_path, "key")
    first, second = checkpoints.stage(), checkpoints.stage()
    assert first.path != second.path
    first.save({"p": torch.ones(1)}, {"step": 1, "loss": 0.0, "best_loss": 0.0})
    assert first.kept == 1
    assert second.load() is None
    assert Checkpoint().load() is None


def test_the_data_of_a_job_are_its_checkpoints_key(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        stages.train(JOBS["noisy"], data, tmp_path / "runs", interrupting(3))
    generation.generate(JOBS["noisy"].get_task(), tmp_path / "other", seed=5)
    with pytest.raises(EmubenchError, match=r"stage-1.safetensors: a checkpoint of other data"):
        stages.train(JOBS["noisy"], tmp_path / "other", tmp_path / "runs")


def test_before_the_first_look_nothing_is_kept_and_that_is_said(data, tmp_path, monkeypatch):
    monkeypatch.setattr(baselines.get("resnet_ode"), "rollout_loss", lambda flow, *rest: torch.tensor(float("nan")))
    with pytest.raises(EmubenchError) as error:
        stages.train(JOBS["noisy"], data, tmp_path)
    wanted = "training diverged at step 1 (learning rate 3e-05): lower --set learning_rate (nothing is kept before"
    assert str(error.value).startswith(wanted)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_later_stage_that_diverges_names_what_the_one_before_it_kept(data, tmp_path, monkeypatch):
    job = JOBS["polished"]
    block = Polish.block
    monkeypatch.setattr(Polish, "block", lambda work, done: block(work, done) if done > 50 else _diverge(work))

    def _diverge(work):
        work.loss = lambda: torch.tensor(float("nan"), requires_grad=True)
        return block(work, 50)

    with pytest.raises(EmubenchError) as error:
        stages.train(job, data, tmp_path)
    (path,) = tmp_path.rglob("stage-1.safetensors")
    wanted = f"training diverged at iteration 50 of L-BFGS: --set polish=0 leaves it out (step 24 is kept in {path})"
    assert str(error.value) == wanted


def descend(validation, log=None, learning_rate=0.1) -> nn.Module:
    """A parabola's descent, looked at by ``validation`` after 2, 4, 6 and 8 steps."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    budget = FlowConfig(steps=8, checks=4, learning_rate=learning_rate)
    descent = Descent(module, budget, log or Log(), lambda: validation(module), torch.Generator())
    for _ in descent:
        descent(module.weight.square().sum())
    return module


def test_a_look_that_is_not_finite_is_not_kept(tmp_path):
    looks = iter([0.5, 0.4, float("nan"), float("inf")])
    log = Log(checkpoints=Checkpoints(tmp_path, "key"))
    descend(lambda module: torch.tensor(next(looks)), log)
    assert Checkpoint(tmp_path / "stage-1.safetensors", "key").load().step == 4


def test_a_training_that_never_had_a_finite_look_is_an_error():
    with pytest.raises(EmubenchError, match="no look at the validation data was finite: lower --set learning_rate"):
        descend(lambda module: torch.tensor(float("nan")))


def test_a_polish_that_starts_from_nan_keeps_what_it_finds():
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    looks = iter([float("nan"), 0.5])
    polish(module, lambda: (module.weight - 3).square().sum(), lambda: torch.tensor(next(looks)), 50, Log())
    assert float(module.weight) == pytest.approx(3.0)
