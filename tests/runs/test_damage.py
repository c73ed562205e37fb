"""Damage is named and nothing is built on it: what is read of a file is what its hash says."""

from __future__ import annotations

import json

import h5py
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from emubench.core.errors import EmubenchError
from emubench.data import dataset, generation, tasks
from emubench.data.loader import Windows, open_dataset
from emubench.evaluation import diagnostics, scoring
from emubench.files.safetensors_header import read_header
from emubench.learning.training.checkpoint import STATE, Checkpoint
from emubench.runs import folders, stages
from emubench.runs.jobs import Job
from tests.support.contents import contents

TASK = tasks.get("lorenz63-noisy", "tiny")
OBSERVATIONS, TRUTH = "lorenz63-noisy.h5", "lorenz63.truth.h5"
JOB = Job("linear", TASK.name, "tiny")


def flip_bit(path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def flip_value(path, array: str) -> None:
    """Flip the lowest bit of an array's last number, which only a hash can tell from a sound one."""
    with h5py.File(path) as file:
        stored = file[array]
        position = stored.id.get_offset() + stored.nbytes - stored.dtype.itemsize
    flip_bit(path, position)


def read_true_context(data):
    return diagnostics.Subject(None, TASK, data).true_context()


READERS = {
    "train": (OBSERVATIONS, "train/observation", lambda data: dataset.load(TASK, data)),
    "validation": (OBSERVATIONS, "validation/observation", lambda data: dataset.load(TASK, data)),
    "context": (OBSERVATIONS, "test/context", lambda data: dataset.load(TASK, data)),
    "long context": (OBSERVATIONS, "climate/context", lambda data: scoring.Cases.load(TASK, data)),
    "truth": (TRUTH, "test/truth", lambda data: scoring.load_truth(TASK, data)),
    "long truth": (TRUTH, "climate/truth", lambda data: scoring.load_truth(TASK, data, "climate")),
    "kind of start": (TRUTH, "test/start", lambda data: scoring.load_truth(TASK, data)),
    "true context": (TRUTH, "test/truth", read_true_context),
    "lazy windows": (OBSERVATIONS, "train/observation", lambda data: Windows(TASK, 8, 8, data)),
    "view": (OBSERVATIONS, "test/context", lambda data: open_dataset(TASK, "test", data)),
    "view's axis": (OBSERVATIONS, "test/lead_time", lambda data: open_dataset(TASK, "test", data)),
    "view of the truth": (TRUTH, "train/truth", lambda data: open_dataset(TASK, "train", data, truth=True)),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_flipped_bit_of_data_is_named_by_whatever_reads_it(own_data, reader):
    name, array, read = READERS[reader]
    read(own_data)
    path = own_data / "tiny" / name
    flip_value(path, array)
    with pytest.raises(EmubenchError) as error:
        read(own_data)
    assert str(error.value) == f"{path}: array {array}: bytes differ from their own hash: it was damaged or edited"


def test_no_observations_are_made_of_a_damaged_truth(own_data):
    path = own_data / "tiny" / TRUTH
    (own_data / "tiny" / OBSERVATIONS).unlink()
    flip_value(path, "validation/truth")
    before = contents(own_data)
    with pytest.raises(EmubenchError, match="array validation/truth: bytes differ from their own hash"):
        generation.generate(TASK, own_data)
    assert contents(own_data) == before


def test_a_seed_that_is_not_the_header_s_is_refused(own_data):
    with h5py.File(own_data / "tiny" / OBSERVATIONS, "r+") as file:
        file.attrs["seed"] = "1"
    with pytest.raises(EmubenchError, match="attribute header_sha256: the header was edited"):
        dataset.load(TASK, own_data)


@pytest.fixture
def run(own_data, tmp_path):
    return stages.train(JOB, own_data, tmp_path / "runs")


def test_a_flipped_bit_of_a_weight_is_named_and_not_scored(own_data, run):
    path = run / "model.safetensors"
    (tensor, *_) = read_header(path).values()
    flip_bit(path, tensor.begin + 3, 6)
    before = contents(run)
    with pytest.raises(EmubenchError) as error:
        stages.score(run, own_data)
    assert str(error.value) == f"{path}: bytes differ from the hash in the card: the file was damaged or edited"
    assert contents(run) == before


def test_a_card_of_old_without_a_hash_is_read_as_before(run):
    wanted = folders.load(run).emulator.state_dict()
    card = json.loads((run / "card.json").read_text())
    assert len(card.pop("weights_sha256")) == 64
    (run / "card.json").write_text(json.dumps(card))
    found = folders.load(run)
    assert found.card.weights_sha256 == ""
    assert all(torch.equal(wanted[name], tensor) for name, tensor in found.emulator.state_dict().items())


def test_every_flipped_bit_of_a_checkpoint_is_named(tmp_path):
    """Wherever it is: in the numbers, their names, their shapes, the state, the hash or its name."""
    path, state = tmp_path / "stage-1.safetensors", {"step": 3, "loss": 0.5, "best_loss": 0.25}
    tensors = {"model.p": torch.arange(6.0).reshape(2, 3), "random.own": torch.zeros(2).byte()}
    Checkpoint(path, "key").save(tensors, state)
    whole = path.read_bytes()

    def read() -> object:
        checkpoint = Checkpoint(path, "key")
        try:
            return checkpoint.load(), {name: t.tolist() for name, t in checkpoint.group("model").items()}
        except EmubenchError as error:
            return str(error).startswith(f"{path}: ")

    sound = read()
    assert sound[1] == {"p": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]}
    for position in range(len(whole)):
        path.write_bytes(whole)
        flip_bit(path, position, position % 8)
        assert read() in (True, sound), position  # blanks between the words of a header are nobody's


def test_a_checkpoint_of_old_without_a_hash_is_resumed_as_before(tmp_path):
    path, state = tmp_path / "stage-1.safetensors", {"step": 3, "loss": 0.5, "best_loss": 0.25}
    Checkpoint(path, "key").save({"model.p": torch.ones(2)}, state)
    with safe_open(path, "pt") as file:
        save_file({"model.p": file.get_tensor("model.p")}, path, {STATE: file.metadata()[STATE]})
    found = Checkpoint(path, "key")
    assert found.load().step == 3
    assert found.take("model", {"p": torch.zeros(2)})["p"].tolist() == [1.0, 1.0]
