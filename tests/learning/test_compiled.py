"""Compiled training steps: what is compiled, when, and what a run says of it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from emubench import baselines
from emubench.core.errors import EmubenchError
from emubench.data import dataset
from emubench.emulator import load_weights
from emubench.evaluation.throughput import modes
from emubench.learning.training.compiled import compiled
from emubench.runs import folders, jobs, stages
from tests.support.small_jobs import JOB, small


class Flow(torch.nn.Module):
    """Doubles, and says that a training step repeats that."""

    repeated = "advance"

    def advance(self, state):
        return 2 * state


def test_steps_with_a_gradient_are_compiled_and_the_rest_is_as_ever(monkeypatch):
    seen = []

    def marked(function, **options):
        def run(*arguments):
            seen.append(options)
            return function(*arguments)

        return run

    monkeypatch.setattr(torch, "compile", marked)
    flow = Flow()
    with compiled(flow, "a flow"):
        kept = flow.advance
        assert flow.advance(3.0) == 6.0
        assert seen == [{"dynamic": False}]
        with torch.no_grad():
            assert flow.advance(3.0) == 6.0
        assert len(seen) == 1
    assert kept(3.0) == flow.advance(3.0) == 6.0
    assert len(seen) == 1
    assert "advance" not in vars(flow)


@pytest.mark.parametrize("baseline", ["linear", "neural_ode"])
def test_a_training_without_such_a_step_is_refused(data, baseline):
    job = small(baseline, "lorenz63-noisy")
    fitted = (baselines.get(baseline), job.get_task(), job.config(), dataset.load(job.get_task(), data))
    with pytest.raises(EmubenchError, match=f"--compile: a training of {baseline} on cpu repeats no step"):
        jobs.fit(*fitted, compile=True)


def test_a_compiled_job_is_another_and_a_plain_one_the_same_as_ever():
    assert "compile" not in JOB.values()
    other = dataclasses.replace(JOB, compile=True)
    assert other.hash8() != JOB.hash8()
    assert jobs.Job(**other.values()) == other


def test_without_a_compiler_one_line_says_so(refused, data, tmp_path, monkeypatch):
    monkeypatch.setattr(modes, "compiler", lambda: None)
    options = ("--size", "tiny", "--data", data, "--out", tmp_path, "--compile")
    assert refused("train", "resnet_ode", "lorenz63-noisy", *options) == f"emubench: {modes.NONE_FOUND}"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(modes.compiler() is None, reason="needs a C++ compiler")
def test_compiled_steps_are_the_eager_ones_but_for_rounding(data, tmp_path):
    job, weights = small("weak_adversarial", "lorenz96-noisy"), []
    for one in (job, dataclasses.replace(job, compile=True)):
        run = stages.train(one, data, tmp_path)
        assert run == one.folder(tmp_path)
        assert folders.read_card(run).device == ("cpu, compiled" if one.compile else "cpu")
        emulator = folders.build(run).emulator
        load_weights(emulator, run / "model.safetensors")
        weights.append(torch.cat([p.detach().flatten() for p in emulator.parameters()]))
    assert torch.allclose(*weights, atol=1e-4)
