"""Units of the axes of dataset files: value, unit and words agree with each other and with the scorer."""

import h5py
import numpy as np
import pytest
import torch

from emubench import systems
from emubench.data import generation, layout, tasks
from emubench.files import netcdf
from emubench.files.header import read_header
from emubench.metrics import Truth, valid_prediction_time

EQUATION = "time units of the equation"


@pytest.fixture(scope="module", params=systems.names())
def files(request, data, tmp_path_factory):
    """A task, and the open files of every kind that are made of it."""
    task = tasks.get(f"{request.param}-noisy", "tiny")
    contexts = tmp_path_factory.mktemp("contexts") / "contexts.h5"
    generation.write_context_file(task, data, contexts)
    paths = {"observations": layout.task_path(task, data), "truth": layout.truth_path(task, data), "contexts": contexts}
    opened = {kind: h5py.File(path) for kind, path in paths.items()}
    yield task, opened
    for file in opened.values():
        file.close()


def test_every_axis_of_time_says_its_unit_and_where_it_begins(files):
    task, opened = files
    for file in opened.values():
        assert "lead_time_unit" not in file.attrs
        assert file.attrs["score_time_unit"] == task.system.lead_time_unit
        for split, group in file.items():
            time, training = group["time"][()], split in layout.TRAINING
            assert np.diff(time) == pytest.approx(task.system.sample_interval)
            zero = "first sample" if training else "last context sample"
            assert time[0 if training else task.context - 1] == 0
            assert group["time"].attrs["units"] == f"{EQUATION}; 0 is the {zero}"
            if "lead_time" in group:
                assert group["lead_time"].attrs["units"].startswith(f"{EQUATION} after the last context sample")


def test_lead_times_are_those_that_the_scorer_counts(files):
    """A forecast that is right up to a lead time of the file and then lost scores that time over the time unit."""
    task, opened = files
    lead, unit = opened["contexts"]["test/lead_time"][()], float(opened["contexts"].attrs["time_unit"][0])
    assert lead / unit == pytest.approx(np.array(task.leads("test")) * task.lead_time_step)
    truth = torch.from_numpy(opened["truth"]["test/truth"][:2, task.context :])
    assert opened["truth"]["test/time"][task.context :] == pytest.approx(lead)
    if task.system.scored_in_law:
        return
    forecast, last = truth.clone(), len(lead) // 4
    forecast[:, last + 1 :] = torch.nan
    found = valid_prediction_time.summarise(forecast[None], Truth(task, truth, torch.zeros(2))).cases[:, 0]
    assert found.numpy() == pytest.approx(lead[last] / unit)


def test_files_with_the_old_name_of_the_unit_are_read(tmp_path):
    task = tasks.get("lorenz63-noisy", "tiny")
    header = layout.Layout(task, "truth").header(0)
    with netcdf.writer(tmp_path / "old.h5", header | {"lead_time_unit": header["score_time_unit"]}) as file:
        del file.attrs["score_time_unit"]
    with h5py.File(tmp_path / "old.h5") as file:
        assert read_header(tmp_path / "old.h5", file).score_time_unit == "Lyapunov time"
