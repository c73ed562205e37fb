"""Recipes: what they may say, custom tasks from start to end, and what a fingerprint tells apart."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest
import torch

from emubench import systems
from emubench.core.errors import EmubenchError
from emubench.data import dataset, fingerprints, generation, layout, recipes, tasks, verification
from emubench.data.tasks import Amount
from emubench.evaluation.scoring import evaluate
from emubench.files import header
from emubench.metrics import Truth, valid_prediction_time
from emubench.runs.jobs import Job
from emubench.runs.training import train
from tests.support.contents import contents

SMALL = """
[amounts]
train = { trajectories = 18, length = 40 }
validation = { trajectories = 1, length = 30 }
test = 3
climate = 2
context = 10
test_horizon = 2.0
climate_horizon = 30.0
"""
CUSTOM = f"""
[system]
name = "lorenz96"
parameters = {{ forcing = 10.0, n_sites = 12 }}
climate = {{ mean = [2.6], std = [4.3], time_unit = 0.43 }}
[observation]
fraction = 0.25
noise = 0.2
components = [0, 3, 6, 9]
{SMALL}"""


@pytest.fixture
def write(tmp_path):
    """Write a recipe file and return its path."""

    def written(text: str, name: str = "my-task.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


# --- the published ones -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", list(tasks.SIZES))
@pytest.mark.parametrize("name", tasks.names())
def test_a_published_recipe_is_the_task_of_the_code(name, size):
    path = fingerprints.folder() / f"{name}.toml"
    assert recipes.resolve(path, size) == recipes.resolve(str(path), size) == recipes.resolve(name, size)
    assert recipes.read(path).system.parameters == tasks.get(name, size).system.parameters()
    known = fingerprints.published(name, size)
    assert known is not None
    assert known.draws_sha256 == fingerprints.draws(tasks.get(name, size), 0)
    kinds = ("observations", "truth") if name.endswith("-clean") else ("observations",)
    shapes = {k: v for kind in kinds for k, v in layout.Layout(tasks.get(name, size), kind).shapes.items()}
    assert set(known.arrays) == set(shapes)


@pytest.mark.parametrize("name", tasks.names())
def test_fresh_files_are_the_published_ones(data, name):
    """Bit by bit on a machine like that of the fingerprints, and as a faithful rebuild on any other."""
    task = tasks.get(name, "tiny")
    for path in (layout.task_path(task, data), layout.truth_path(task, data)):
        assert fingerprints.judge(path) in (fingerprints.IDENTICAL, fingerprints.FAITHFUL)


# --- what a recipe may say --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ('track = "loud"\n[system]\nname = "kpz"', ["track: ", "'clean', 'noisy', 'partial' or 'scarce'", "'loud'"]),
        ('track = "noisy"', ["system: Field required"]),
        ('[system]\nname = "kpz"', ["give either track or an [observation] table"]),
        ('track = "noisy"\n[system]\nname = "kpz"\n[observation]', ["give either track or an [observation] table"]),
        ('track = "noisy"\n[system]\nname = "lorenz69"', ["unknown system 'lorenz69': did you mean lorenz96"]),
        ('track = "noisy"\ncolour = 3\n[system]\nname = "kpz"', ["colour: Extra inputs are not permitted (found 3)"]),
        ('track = "noisy"\n[system]\nname = "kpz"\nparameters = { nuu = 1.0 }', ["parameter of kpz 'nuu'", "mean nu?"]),
        (
            'track = "noisy"\n[system]\nname = "kuramoto_sivashinsky"\nparameters = { L = 36 }',
            ["unknown parameter of kuramoto_sivashinsky 'L': it is called length here"],
        ),
        ('track = "noisy"\n[system]\nname = "lorenz96"\nparameters = { F = 10 }', ["'F': it is called forcing here"]),
        ('track = "noisy"\n[system]\nname = "kpz"\nparameters = { Nu = 1.0 }', ["parameter of kpz 'Nu'", "mean nu"]),
        ('track = "noisy"\n[system]\nname = "kpz"\nparameters = { nu = "a" }', ["system.parameters.nu", "'a'"]),
        ('track = "noisy"\n[system]\nname = "kpz"\nparameters = { nu = nan }', ["system.parameters.nu", "finite"]),
        (
            'track = "noisy"\n[system]\nname = "kpz"\nparameters = { dx = 0.0 }',
            ["kpz: dx: 0.0, where a number above 0 belongs"],
        ),
        ('track = "noisy"\n[system]\nname = "kpz"\nparameters = { noise = 0 }', ["kpz: nothing varies at the param"]),
        (
            'track = "noisy"\n[system]\nname = "lorenz96"\nparameters = { n_sites = 4000000 }',
            ["system.parameters.n_sites: 4000000, where an integer from 1 to 1048576 belongs"],
        ),
        (
            'track = "noisy"\n[system]\nname = "lorenz63"\nparameters = { sample_interval = 0.0 }',
            ["lorenz63: sample_interval: 0.0, where a number above 0 belongs"],
        ),
        (
            'track = "noisy"\n[system]\nname = "lorenz63"\nparameters = { solver_step = 0.03 }',
            ["solver_step 0.03 does not divide sample_interval 0.05"],
        ),
        (
            'track = "noisy"\n[system]\nname = "lorenz63"\n'
            "climate = { mean = [0.0, 1.0], std = [1.0, 1.0], time_unit = 1.0 }",
            ["system: lorenz63 can't be made of these values"],
        ),
        (
            'track = "noisy"\n[system]\nname = "lorenz63"\nclimate = { mean = [0.0], std = [0.0], time_unit = 1.0 }',
            ["system.climate.std.0: Input should be greater than 0 (found 0.0)"],
        ),
        (
            '[system]\nname = "kpz"\n[observation]\nnoise = -0.1',
            ["observation.noise: Input should be greater than or equal to 0 (found -0.1)"],
        ),
        (
            '[system]\nname = "kpz"\n[observation]\nfraction = 0.0',
            ["observation.fraction: Input should be greater than 0 (found 0.0)"],
        ),
        ('[system]\nname = "kpz"\n[observation]\ncomponents = []', ["observation.components: ", "at least 1 item"]),
        (
            '[system]\nname = "lorenz63"\n[observation]\ncomponents = [0, 3]',
            ["observation.components: [0, 3], where different ones of 0 to 2 belong"],
        ),
        (
            'track = "noisy"\n[system]\nname = "kpz"\n[amounts]\ntrain = { trajectories = 0, length = 5 }',
            ["amounts.train.trajectories: Input should be greater than or equal to 1 (found 0)"],
        ),
        (
            'track = "noisy"\n[system]\nname = "kpz"\n[amounts]\ntest = 5000000',
            ["amounts.test: Input should be less than or equal to 1000000 (found 5000000)"],
        ),
        (
            'track = "noisy"\n[system]\nname = "kpz"\n[amounts]\ncontext = 8',
            ["amounts.context: 8: flat starts fix the context at 64"],
        ),
        ('name = "a b"\ntrack = "noisy"\n[system]\nname = "kpz"', ["name: String should match pattern"]),
        ('name = "kpz"\ntrack = "noisy"\n[system]\nname = "kpz"', ["name: 'kpz' is a system; choose another name"]),
        (
            'name = "kpz-noisy"\ntrack = "partial"\n[system]\nname = "kpz"',
            ["name: 'kpz-noisy' is a task of the benchmark, and not this one"],
        ),
        ("track = ", ["not valid TOML"]),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_key_value_and_range(refused, write, tmp_path, text, answers):
    path = write(text)
    line = refused("generate", path, "--size", "tiny", "--out", tmp_path / "data")
    assert str(path) in line
    for answer in answers:
        assert answer in line
    assert not (tmp_path / "data").exists()


def test_a_recipe_that_is_not_there_or_not_one(refused, write, tmp_path):
    assert "no such recipe" in refused("generate", tmp_path / "nothing.toml")
    assert "not a recipe" in refused("generate", write("#" * (2**20 + 1)))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert "not valid TOML" in refused("generate", tmp_path / "binary.toml")


def test_a_recipe_says_all_of_a_task(write):
    task = recipes.resolve(write(CUSTOM), "tiny")
    assert (task.name, task.custom, task.track) == ("my-task", True, "custom")
    assert (task.system.parameters()["forcing"], task.system.shape, task.shape) == (10.0, (12,), (4,))
    assert (task.observation.noise, task.observation.fraction, task.observation.components) == (0.2, 0.25, (0, 3, 6, 9))
    assert (task.train, task.validation) == (Amount(18, 40), Amount(1, 30))
    assert (task.n_test, task.n_climate, task.context) == (3, 2, 10)
    assert (task.test_steps, task.climate_steps) == (18, 258)


def test_what_a_recipe_leaves_out_is_the_size_s(write):
    path = write('name = "short"\ntrack = "partial"\n[system]\nname = "lorenz96"\n')
    for size in tasks.SIZES:
        same = dataclasses.replace(tasks.get("lorenz96-partial", size), name="short", custom=True)
        assert recipes.resolve(path, size) == same


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_survives_being_written_down(name):
    task = dataclasses.replace(tasks.get(name, "tiny"), name="copy", custom=True)
    assert recipes.from_json(recipes.to_json(task), "tiny", "here") == task
    assert recipes.to_json(tasks.get(name)) == ""


# --- what no later step could use -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (
            'track = "noisy"\n[system]\nname = "lorenz63"\n[amounts]\nclimate_horizon = 0.3',
            "amounts.climate_horizon: 0.3, which makes 7 samples, where at least 8 belong: 0.362",
        ),
        (
            'track = "noisy"\n[system]\nname = "kuramoto_sivashinsky"\n[amounts]\ntest_horizon = 0.04',
            "amounts.test_horizon: 0.04, which makes 1 sample, where at least 2 belong: 0.0966",
        ),
        (
            '[system]\nname = "lorenz96"\n[observation]\ncomponents = [3]',
            "observation.components: one site, where at least 2 belong",
        ),
    ],
)
def test_what_can_be_made_and_not_scored_is_refused_where_it_is_given(write, text, answer):
    with pytest.raises(EmubenchError, match=answer):
        recipes.resolve(write(text), "tiny")


def test_the_least_that_is_accepted_can_be_scored(write, tmp_path):
    least = f"test_horizon = {1.5 * 0.05 / 0.592:.3f}\nclimate_horizon = {7.5 * 0.05 / 0.592:.3f}"
    amounts = SMALL.replace("test_horizon = 2.0\nclimate_horizon = 30.0", least)
    path = write(f'[system]\nname = "lorenz96"\n[observation]\nnoise = 0.1\ncomponents = [0, 5]\n{amounts}')
    task = recipes.resolve(path, "tiny")
    assert (task.test_steps, task.climate_steps, task.shape) == (2, 8, (2,))
    generation.generate(task, tmp_path)
    rows = evaluate(train("persistence", task, tmp_path), task, tmp_path).scores.rows
    assert all(np.isfinite(row.value) for row in rows)


@pytest.mark.parametrize("seed", [-1, 2**63, 10**81])
def test_a_seed_that_no_file_takes_is_refused_where_it_is_given(tmp_path, seed):
    task = tasks.get("lorenz63-noisy", "tiny")
    for use in (
        lambda: generation.generate(task, tmp_path, seed=seed),
        lambda: train("linear", task, tmp_path, seed=seed),
        lambda: Job("linear", task.name, seed=seed),
    ):
        with pytest.raises(EmubenchError, match=f"seed: .*, where 0 to {2**63 - 1} belong"):
            use()
    assert contents(tmp_path) == {}


# --- finite but wrong solutions ---------------------------------------------------------------------------------------

L63 = "climate = { mean = [0.0, 0.0, 23.55], std = [7.92, 9.01, 8.62], time_unit = 1.1 }"
L96 = "climate = { mean = [2.34], std = [3.64], time_unit = 0.6 }"
KPZ = "climate = { mean = [0.0], std = [65.0], time_unit = 1.0 }"
KS = "climate = { mean = [0.0], std = [1.3], time_unit = 12.0 }"
REST = "no chaos found at the parameters .*: every state decays to a constant"
COARSE = "sample_interval = 0.2, solver_step = 0.1"
WIDE = "length = 60.0, n_sites = 44, solver_step = 0.25"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(
    ("system", "parameters", "climate", "answer"),
    [
        ("lorenz63", COARSE, L63, "not resolved: solver_step 0.1: the mean is .* from that with 0.05; solver_step"),
        ("lorenz63", "rho = 0.5", L63, REST),
        ("lorenz96", "forcing = 0.5", L96, REST),
        pytest.param("lorenz96", "n_sites = 3", L96, REST, marks=pytest.mark.slow),
        pytest.param("lorenz96", "n_sites = 4", L96, "no chaos found .* exponent is", marks=pytest.mark.slow),
        (
            "kpz",
            "nu = 0.005, n_sites = 64",
            KPZ,
            "not resolved: solver_step 0.05: the slope variance is 0.6.* of the exact one; solver_",
        ),
        pytest.param(
            "kpz",
            "nu = 0.01",
            KPZ,
            "not .* variance is 0.87.* of the exact one; solver_step 0.025 ",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "kuramoto_sivashinsky",
            "n_sites = 16",
            KS.replace("12", "20"),
            "not resolved: n_sites 16: the standard deviation is 1.19 times that with 32; .* and n_sites 64 would",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "kuramoto_sivashinsky",
            WIDE,
            KS.replace("12", "5"),
            "not resolved: .*n_sites 44: the standard deviation is 1.6. times that with 88",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_finite_but_wrong_solutions_are_refused(write, system, parameters, climate, answer, given):
    table = f'track = "clean"\n[system]\nname = "{system}"\nparameters = {{ {parameters} }}\n'
    path = write(table + climate * given)
    with pytest.raises(EmubenchError, match=f"^{path}: {system}: {answer}"):
        recipes.resolve(path, "tiny")


def test_solvers_have_to_agree_for_half_the_horizon(write):
    """RK4 with steps of 0.05 keeps the statistics, and the state for three Lyapunov times (of 0.025: for five)."""
    table = f'track = "noisy"\n[system]\nname = "lorenz63"\nparameters = {{ solver_step = 0.05 }}\n{L63}\n[amounts]\n'
    with pytest.raises(EmubenchError, match=r"solver_step 0.05: agrees for 3\..* of 10 Lyapunov .*; solver_step 0.00"):
        recipes.resolve(write(table), "tiny")
    known = recipes.resolve(write(table + "test_horizon = 4.0"), "tiny").system.climate
    assert known.agreement_time == pytest.approx(3.2, abs=0.5)


@pytest.mark.parametrize(
    ("climate", "answer"),
    [
        (L63.replace("1.1", "20.0"), "climate: time_unit 20, where 1.* was measured"),
        (L63.replace("7.92", "20.0"), r"climate: std \[20.0, 9.01, 8.62\], where \[8.*\] was measured"),
        (L63.replace("23.55", "0.0"), r"climate: mean \[0.0, 0.0, 0.0\], where \[.*, 25.*\] was measured"),
    ],
)
def test_a_climate_of_another_system_is_refused(write, climate, answer):
    path = write(f'track = "noisy"\n[system]\nname = "lorenz63"\nparameters = {{ rho = 30.0 }}\n{climate}\n')
    with pytest.raises(EmubenchError, match=answer):
        recipes.resolve(path, "tiny")


@pytest.mark.parametrize("name", tasks.names())
def test_the_published_parameters_are_accepted_unmeasured(write, name):
    text = (fingerprints.folder() / f"{name}.toml").read_text(encoding="utf-8").replace(f'"{name}"', '"copy"')
    assert recipes.resolve(write(text), "tiny") == dataclasses.replace(
        tasks.get(name, "tiny"), name="copy", custom=True
    )


def test_the_agreement_time_caps_clean_recipes_too(write, tmp_path):
    path = write(f'track = "clean"\n[system]\nname = "lorenz63"\nparameters = {{ rho = 30.0 }}\n{L63}\n')
    task = recipes.resolve(path, "tiny")
    task = dataclasses.replace(task, test_steps=tasks.steps_of(task.system, 25.0))
    known = task.system.climate.agreement_time
    assert 15 < known < 25
    truth = torch.zeros(2, task.test_steps, 3, dtype=torch.float64)
    found = valid_prediction_time.summarise(truth[None], Truth(task, truth, torch.zeros(2)))
    assert found.cases[:, 0].tolist() == [known] * 2


# --- a custom task from start to end ----------------------------------------------------------------------------------


def test_a_custom_task_is_generated_verified_trained_and_scored(emubench, write, tmp_path):
    path, options = write(CUSTOM), ("--size", "tiny", "--data", tmp_path / "data")
    assert emubench("generate", path, *options).out.count("wrote ") == 2
    files = sorted((tmp_path / "data" / "tiny").iterdir())
    assert [f.name for f in files] == ["my-task.h5", "my-task.truth.h5"]
    assert set(json.loads(emubench("verify", "--json", *files).out).values()) == {"whole"}
    for given in (path, "my-task"):
        assert emubench("train", "persistence", given, *options, "--out", tmp_path / "runs").status == 0
    assert len(list((tmp_path / "runs").rglob("card.json"))) == 1  # one and the same job
    rows = json.loads(emubench("score", tmp_path / "runs", "--data", tmp_path / "data", "--json").out)
    assert {"valid_prediction_time", "surviving_fraction"} <= {row["metric"] for row in rows}
    assert all(row["task"] == "my-task" for row in rows)
    assert emubench("train", "climatology", path, *options, "--out", tmp_path / "runs").status == 0
    assert emubench("score", tmp_path / "runs", "--data", tmp_path / "data").status == 0
    table = json.loads(emubench("compare", tmp_path / "runs", "--json", "--plot", tmp_path / "plots").out)
    assert [(row["track"], row["task"], row["rank_low"]) for row in table] == [("custom", "my-task", 1)] * 2
    assert {row["entry"] for row in table} == {"persistence", "climatology"}
    assert "my-task" in emubench("compare", tmp_path / "runs").out
    assert (tmp_path / "plots" / "my-task-error.png").stat().st_size > 10_000
    contexts = tmp_path / "contexts.h5"
    assert emubench("contexts", "my-task", *options, "--file", contexts).status == 0
    assert verification.verify(contexts)


def test_the_task_is_rebuilt_from_its_files_alone(write, tmp_path):
    path = write(CUSTOM)
    task = recipes.resolve(path, "tiny")
    generation.generate(task, tmp_path)
    path.unlink()
    assert recipes.resolve("my-task", "tiny", tmp_path) == task
    for kind in ("my-task.h5", "my-task.truth.h5"):
        with h5py.File(tmp_path / "tiny" / kind) as file:
            assert verification.task_of(tmp_path, header.read_header(tmp_path, file)) == task
    seen = dataset.load(task, tmp_path).train.numpy()
    assert seen.shape == (18, 40, 4)
    assert (np.isfinite(seen).sum(-1) == 1).all()


def test_a_custom_task_and_its_namesake_do_not_share_files(write, tmp_path):
    path = write(CUSTOM)
    generation.generate(recipes.resolve(path, "tiny"), tmp_path)
    other = write(CUSTOM.replace("forcing = 10.0", "forcing = 9.0"))
    with pytest.raises(EmubenchError, match="attribute parameters: .* another recipe: remove it, or give the recipe"):
        generation.generate(recipes.resolve(other, "tiny"), tmp_path)


def test_a_climate_that_is_not_given_is_measured_once(write, tmp_path, monkeypatch):
    calls = []

    def measure(system):
        calls.append(system)
        return systems.get("lorenz96").climate

    monkeypatch.setattr("emubench.dynamics.climates.measure_climate", measure)
    path = write(CUSTOM.replace("climate = { mean = [2.6], std = [4.3], time_unit = 0.43 }", ""))
    task = recipes.resolve(path, "tiny", tmp_path)
    assert len(calls) == 1
    assert task.system.climate == systems.get("lorenz96").climate
    generation.generate(task, tmp_path)
    assert recipes.resolve(path, "tiny", tmp_path) == task
    assert len(calls) == 1


def test_silence_while_a_recipe_is_measured_is_broken(emubench, write, tmp_path):
    path = write(CUSTOM.replace("forcing = 10.0", "forcing = 10.1"))
    finished = emubench("generate", path, "--size", "tiny", "--data", tmp_path)
    stages = [line.removeprefix(f"{path}: ") for line in finished.err.splitlines()]
    assert stages[0] == "measuring climate and leading exponent over 256 samples of at most 16384"
    for stage in ("measuring whether solver_step 0.00125 is resolved", "comparing with solver_step 0.000625"):
        assert stages.count(stage) == 1
    assert emubench("generate", path, "--size", "tiny", "--data", tmp_path).err == ""  # it is known


def test_silence_about_a_slow_solver_is_broken(write, caplog, monkeypatch):
    monkeypatch.setattr("emubench.dynamics.climates.measure_climate", lambda _: systems.get("lorenz96").climate)
    monkeypatch.setattr(recipes, "check_resolved", lambda *_: None)
    for n_sites in (63, 64):
        parameters = f"parameters = {{ n_sites = {n_sites}, length = 20 }}"
        recipes.resolve(write(f'track = "noisy"\n[system]\nname = "kuramoto_sivashinsky"\n{parameters}'))
    (told,) = caplog.messages
    assert told.startswith("kuramoto_sivashinsky: n_sites = 63 is computed by the slower reference solver, which ")
    assert "n_sites = 64" in told


@pytest.mark.parametrize(
    ("attribute", "answer"),
    [
        ("{", "attribute recipe: not valid JSON"),
        ("[1]", "attribute recipe: "),
        ('{"system": {"name": "kpz"}, "track": "noisy"}', "attribute recipe: name and system.climate belong in it"),
        ("[" * 100_000, "attribute recipe: not valid JSON"),
    ],
)
def test_a_recipe_attribute_is_checked(write, tmp_path, attribute, answer):
    generation.generate(recipes.resolve(write(CUSTOM), "tiny"), tmp_path)
    path = tmp_path / "tiny" / "my-task.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["recipe"] = attribute if len(attribute) < 60_000 else attribute[:60_000]
    with pytest.raises(EmubenchError, match=answer):
        verification.verify(path)


def test_recipes_are_found_beside_the_package_in_a_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "__file__", str(tmp_path / "site" / "emubench" / "data" / "fingerprints.py"))
    assert fingerprints.folder() == tmp_path / "site" / "emubench" / "recipes"
    assert fingerprints.published("kpz-noisy", "tiny") is None
