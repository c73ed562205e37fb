"""What the file of a grid may say, and the plan that it expands to."""

from __future__ import annotations

import pytest

from emubench.data import tasks
from emubench.files import schema
from emubench.runs.grid import plans, steps
from tests.support.grids import GRID

# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ("seeds = [0, 1]|seeds = [0, -1]", "seeds.1: Input should be greater than or equal to 0 (found -1)"),
        ("seeds = [0, 1]|seeds = [0, true]", "seeds.1: Input should be a valid integer (found True)"),
        ("seeds = [0, 1]|seeds = []", "seeds: List should have at least 1 item"),
        ("seeds = [0, 1]|seeds = [3, 3]", "seeds: Value error, 3 is there twice"),
        ("seeds = [0, 1]|", "seeds: Field required"),
        ("seeds = |seed = 0\nseeds = ", "unknown key 'seed': did you mean seeds or size?"),
        ("size = |threads = 0\nsize = ", "threads: Input should be greater than or equal to 1 (found 0)"),
        ('size = |device = "gpu"\nsize = ', "device: String should match pattern"),
        ("size = |budget = 1.5\nsize = ", "budget: Input should be a valid integer (found 1.5)"),
        ("size = |budget = 0\nsize = ", "budget: Input should be greater than or equal to 1 (found 0)"),
        ('size = "tiny"|size = "teeny"', "unknown size 'teeny': did you mean tiny?"),
        ("lorenz63-noisy|lorenz36-noisy", "unknown task 'lorenz36-noisy': did you mean lorenz"),
        ("persistence|persistense", "unknown baseline 'persistense': did you mean persistence?"),
        ("tasks = |tasks = 3 #", "tasks: Input should be a valid list (found 3)"),
        ("tasks = |tasks = [", "not valid TOML"),
        ("lorenz63-noisy|mine.toml", "mine.toml: no such recipe"),
        ('"tiny"|"tiny"\n[overrides.linear]\ndelays = 3', "[overrides.linear]: linear is not among baselines"),
        ('"tiny"|"tiny"\n[overrides.persistence]\nsteps = 3', "overrides.persistence: unknown setting of persistence"),
        (
            '"tiny"|"tiny"\n[resources.persistence]\nGPU = 0',
            "resources.persistence.GPU: Input should be greater than 0",
        ),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it_and_the_key(grid_file, refused, tmp_path, change, answer):
    before, _, after = change.partition("|")
    assert before in GRID
    grid_file.write_text(GRID.replace(before, after, 1))
    for command in ("run", "status"):
        line = refused(command, grid_file, "--data", tmp_path / "data", "--out", tmp_path / "runs")
        assert f"{grid_file}: " in line
        assert answer in line
    assert [p.name for p in tmp_path.iterdir()] == ["grid.toml"]


def test_a_grid_that_is_none_is_refused(refused, tmp_path):
    assert "no such grid" in refused("run", tmp_path / "none.toml")
    (tmp_path / "long.toml").write_bytes(b"#" * (schema.MAX_TEXT_BYTES + 1))
    assert "not a grid" in refused("run", tmp_path / "long.toml")


def test_a_grid_of_too_many_jobs_is_refused(grid_file, refused):
    many, seeds = [f"recipe-{i}.toml" for i in range(1000)], list(range(100))
    grid_file.write_text(f"tasks = {many}\nbaselines = ['persistence', 'climatology']\nseeds = {seeds}\n")
    assert "200000 jobs, where at most 100000 belong" in refused("run", grid_file)


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_a_plan_holds_every_job_once_after_what_it_needs(grid_file, tmp_path):
    plan = plans.expand(grid_file, tmp_path / "data")
    assert len(plan.jobs) == len(set(job.folder(tmp_path) for job in plan.jobs)) == 8
    assert len(plan.steps) == len(set(plan.steps)) == len({step.name for step in plan.steps})
    place = {step: i for i, step in enumerate(plan.steps)}
    for step, needs in plan.needs.items():
        assert all(place[need] < place[step] for need in needs)
    kinds = [step.kind for step in plan.steps]
    assert kinds.count("train") == kinds.count("score") == 8
    assert kinds.count("merge") == 4
    assert kinds.count("shard") == 2 * (4 + 4)  # tiny: one block in each split of each file
    for step in plan.steps:
        if step.kind == "score":
            (train,) = plan.needs[step]
            assert steps.job_of(train) == steps.job_of(step)


def test_the_tracks_of_a_system_share_its_truth(grid_file, tmp_path):
    grid_file.write_text(GRID.replace("lorenz96-noisy", "lorenz63-partial"))
    plan = plans.expand(grid_file, tmp_path / "data")
    assert [step.label for step in plan.steps if step.kind == "merge"] == [
        "merge lorenz63.truth.h5",
        "merge lorenz63-noisy.h5",
        "merge lorenz63-partial.h5",
    ]


def test_all_stands_for_the_sixteen(grid_file, tmp_path):
    grid_file.write_text(GRID.replace('["lorenz63-noisy", "lorenz96-noisy"]', '["all"]'))
    plan = plans.expand(grid_file, tmp_path)
    assert {job.task for job in plan.jobs} == set(tasks.names())
    assert len(plan.jobs) == 16 * 2 * 2


def test_budget_and_overrides_reach_the_baselines_that_take_them(grid_file, tmp_path):
    text = GRID.replace("climatology", "resnet_ode").replace("size", "budget = 70\nthreads = 2\nsize")
    grid_file.write_text(text)
    plan = plans.expand(grid_file, tmp_path)
    by_baseline = {job.baseline: job for job in plan.jobs}
    assert by_baseline["resnet_ode"].config().steps == 70
    assert by_baseline["persistence"].overrides == {}
    assert {job.threads for job in plan.jobs} == {2}
    grid_file.write_text(text + "[overrides.resnet_ode]\nsteps = 30\nbatch = 8\n[resources.resnet_ode]\nGPU = 1\n")
    plan = plans.expand(grid_file, tmp_path, threads=1)
    by_baseline = {job.baseline: job for job in plan.jobs}
    assert (by_baseline["resnet_ode"].config().steps, by_baseline["resnet_ode"].config().batch) == (30, 8)
    assert {job.threads for job in plan.jobs} == {1}
    for step in plan.steps:
        wants = step.kind in ("train", "score") and steps.job_of(step).baseline == "resnet_ode"
        assert step.resources == ((("GPU", 1.0),) if wants else ())


def test_jobs_on_a_gpu_take_one_each_and_those_on_a_cpu_none(grid_file, tmp_path):
    plan = plans.expand(grid_file, tmp_path)
    assert {job.device for job in plan.jobs} == {"cpu"}
    assert not any("device" in step.values.get("job", {}) for step in plan.steps)  # as before there was a choice
    grid_file.write_text(GRID.replace("size = ", 'device = "cuda"\nsize = ', 1))
    plan = plans.expand(grid_file, tmp_path)
    on_jobs = [step for step in plan.steps if step.kind in ("train", "score")]
    assert {steps.job_of(step).device for step in on_jobs} == {"cuda"}
    assert {step.resources for step in on_jobs} == {(("GPU", 1.0),)}
    grid_file.write_text(grid_file.read_text() + "[resources.persistence]\nbig = 2\n")
    asked = {s.resources for s in plans.expand(grid_file, tmp_path).steps if s.label.startswith("train persistence")}
    assert asked == {(("big", 2.0),)}
