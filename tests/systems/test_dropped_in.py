"""A system that is added as one file is scored rightly, be it driven by noise or a field in two dimensions."""

from __future__ import annotations

import sys

import pytest
import torch

from emubench import baselines, systems, testing
from emubench.core.errors import EmubenchError
from emubench.data import dataset, generation, tasks, verification
from emubench.evaluation import scoring
from emubench.files import run_files
from emubench.metrics import Pool, Truth, stability
from tests.support import dropped_in

SOURCES = {"noisy_ring": dropped_in.NOISY_RING, "plane": dropped_in.PLANE}


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """Both systems, installed by a plug-in for as long as the tests of this file run."""
    site = tmp_path_factory.mktemp("site")
    info = site / "two_systems-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: two-systems\nVersion: 1.0\n")
    lines = [f"{name} = added_{name}" for name in SOURCES]
    (info / "entry_points.txt").write_text("\n".join(["[emubench.systems]", *lines, ""]))
    for name, source in SOURCES.items():
        (site / f"added_{name}.py").write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        yield site
    for name in SOURCES:
        sys.modules.pop(f"added_{name}", None)


@pytest.fixture(scope="module")
def data_of(added, tmp_path_factory):
    """The folder with their noisy and partial tasks at tiny size."""
    folder = tmp_path_factory.mktemp("added")
    for name in SOURCES:
        for track in ("noisy", "partial"):
            for path in generation.generate(tasks.get(f"{name}-{track}", "tiny"), folder):
                verification.verify(path)
    return folder


def rows_of(result: scoring.Result) -> dict[tuple[str, float | None], run_files.ScoreRow]:
    return {(row.metric, row.lead_time): row for row in result.scores.rows}


def scored(name: str, task: tasks.Task, data, **settings) -> dict[tuple[str, float | None], run_files.ScoreRow]:
    module = baselines.get(name)
    config = module.Config(**settings)
    emulator = module.build(task, config)
    module.train(emulator, dataset.load(task, data), config, 0, None)
    result = scoring.evaluate(emulator, task, data)
    return rows_of(result)


@pytest.mark.parametrize("name", SOURCES)
def test_it_keeps_the_contract(added, name):
    testing.check_system(systems.get(name))


@pytest.mark.slow
@pytest.mark.parametrize("track", ["noisy", "partial"])
def test_a_noisy_ring_is_scored_in_law_and_keeps_its_mean(data_of, track):
    task = tasks.get(f"noisy_ring-{track}", "tiny")
    assert task.splits == ("test", "climate")  # nothing grows, so no widths
    oracle, climatology, persistence = (scored(n, task, data_of) for n in ("oracle", "climatology", "persistence"))
    assert ("valid_prediction_time", None) not in oracle
    assert ("crps_mean_height", None) not in oracle
    assert oracle["crps", None].unit == "climatological std"
    value = {key: [found[key].value for found in (oracle, climatology, persistence)] for key in oracle}
    assert value["crps", None] == sorted(value["crps", None])
    # of independent Gaussian draws E|X − y| − ½E|X − X′| is σ/√π, which the ring's law is near
    assert value["crps", None][1] == pytest.approx(torch.pi**-0.5, abs=0.06)
    assert value["crps", 128.0][0] == pytest.approx(value["crps", 128.0][1], abs=0.12)
    assert value["spread_skill_ratio", None][0] == pytest.approx(1.0, abs=0.2)
    assert value["surviving_fraction", None] == [1.0, 1.0, 1.0]


def test_a_shift_of_a_noisy_ring_costs_what_it_shifts(data_of):
    task = tasks.get("noisy_ring-noisy", "tiny")
    truth = torch.from_numpy(task.system.std)[0]
    values, start, _ = scoring.load_truth(task, data_of, "test")
    shifted = scoring.score(
        task,
        data_of,
        lambda split, cases: (scoring.load_truth(task, data_of, split)[0][cases] + truth).expand(
            task.n_members(split), -1, -1, -1
        ),
    )
    assert rows_of(shifted)["crps", None].value == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.parametrize("track", ["noisy", "partial"])
def test_a_field_on_a_plane_is_scored_along_both_dimensions(data_of, track):
    task = tasks.get(f"plane-{track}", "tiny")
    observed = dataset.load(task, data_of).train
    assert observed.shape[2:] == (6, 8)
    assert (~torch.isnan(observed)).double().mean() == pytest.approx(1.0 if track == "noisy" else 0.5)
    oracle = scored("oracle", task, data_of, members=150)  # 48 sites without localisation: 40 are too few
    persistence = scored("persistence", task, data_of)
    times = [found["valid_prediction_time", None].value for found in (oracle, persistence)]
    assert times[0] > 2 * times[1]
    assert oracle["spatial_spectrum_distance", None].value < 0.2 < persistence["spatial_spectrum_distance", None].value
    assert persistence["dead_fraction", None].value == 1.0


def test_no_distance_of_a_plane_depends_on_where_it_is_and_each_sees_its_fault(data_of):
    task = tasks.get("plane-noisy", "tiny")
    values, start, _ = scoring.load_truth(task, data_of, "climate")
    truth = Truth(task, values, start, Pool(task, values))
    names = stability.aspects(task)
    assert names == ("w1", "spatial_spectrum", "temporal_spectrum", "patches")

    def distances(run):
        return dict(zip(names, stability.distances(run, truth).mean(0).tolist(), strict=True))

    whole = distances(values)
    assert distances(values.roll((1, 3), (-2, -1))) == pytest.approx(whole, rel=1e-9)
    rows = values[:, :, torch.tensor([0, 2, 4, 1, 3, 5])]  # rows in another order, columns as they are
    shuffled = distances(rows)
    assert shuffled["spatial_spectrum"] > 10 * whole["spatial_spectrum"]
    assert shuffled["patches"] > 3 * whole["patches"]
    assert shuffled["w1"] == pytest.approx(whole["w1"])


def test_methods_for_rings_say_so_on_a_plane(added):
    task = tasks.get("plane-noisy", "tiny")
    for name in ("linear", "resnet_ode"):
        module = baselines.get(name)
        with pytest.raises(EmubenchError, match="a field in 2 dimensions, where a ring or a vector"):
            module.build(task, module.Config())
