"""Better emulators score better: the scoring laws, three seeds, 16 cases, a quarter of the climate horizon."""

from __future__ import annotations

import numpy as np
import pytest
import scoring_laws as laws
import torch

from benchmarks.maintain import floors
from emubench.data import tasks
from emubench.evaluation import scoring
from emubench.metrics import Row, Summary

SEEDS = range(3)
N_CASES, SHARE, N_INDEPENDENT = 16, 0.25, 64  # 50 Lyapunov times; of kpz 256 samples
SYSTEMS = ["lorenz63", *(pytest.param(n, marks=pytest.mark.slow) for n in ("lorenz96", "kuramoto_sivashinsky", "kpz"))]


@pytest.fixture(scope="module")
def trials():
    """The stability trial of a system, made once."""
    made = {}

    def get(name: str) -> laws.StabilityTrial:
        if name not in made:
            horizon = laws.fraction(tasks.get(f"{name}-noisy"), SHARE)
            made[name] = laws.StabilityTrial(name, N_CASES, horizon, N_INDEPENDENT)
        return made[name]

    return get


@pytest.mark.parametrize("name", SYSTEMS)
def test_stability_orders_what_is_known_to_be_better(trials, data, name):
    scores = [trials(name).entries(seed, data, "tiny") for seed in SEEDS]
    assert np.mean([s["perfect"].value for s in scores]) >= 0.95
    for s in scores:
        assert s["10 % wrong"].high < s["perfect"].low
        for entry in laws.USELESS:
            assert s[entry].value <= 0.1, entry
            assert s[entry].high < s["10 % wrong"].low, entry
        for entry in laws.WORSE:
            assert s[entry].high < s["perfect"].low, entry


def better(entries: dict[str, torch.Tensor], name: str, one: str, other: str) -> tuple[float, float]:
    """By how much one entry beats another, over the cases of all seeds, and the standard error of that."""
    difference = laws.gain(name) * (entries[one] - entries[other])
    return float(difference.mean()), float(difference.std()) / len(difference) ** 0.5


@pytest.mark.parametrize("name", SYSTEMS)
def test_accuracy_orders_what_is_known_to_be_better(tmp_path, name):
    task = tasks.get(f"{name}-noisy", "tiny")
    trials = [laws.AccuracyTrial(task, tmp_path / str(seed), 100 + seed).entries() for seed in SEEDS]
    entries = {entry: torch.cat([t[entry] for t in trials]) for entry in trials[0]}
    for one, other in (("oracle", "10 % wrong"), ("10 % wrong", "linear"), ("linear", "climatology")):
        gain, error = better(entries, name, one, other)
        assert gain > 2 * error, (one, other)
    gain, error = better(entries, name, "linear", "persistence")
    assert gain > -2 * error
    # Where the score is of an ensemble, a spread-out climatology beats persistence, which has no spread, at long leads.
    if not task.system.stochastic:
        gain, error = better(entries, name, "persistence", "climatology")
        assert gain > 2 * error
    for impostor in ("replayed", "independent"):
        skill = (entries[impostor] - entries["linear"]).mean() / (entries["oracle"] - entries["linear"]).mean()
        gain, error = better(entries, name, "oracle", impostor)
        assert skill < 0.5, impostor
        assert gain > 4 * error, impostor


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_knows_its_calls_its_batch_or_the_lead_beats_no_honest_emulator(tmp_path, name):
    """Only on kpz is one as good that is right at the scored leads alone: its speed counts no other samples."""
    task = tasks.get(f"{name}-noisy", "tiny")
    trials = [laws.AccuracyTrial(task, tmp_path / str(seed), 100 + seed, analysed=False) for seed in SEEDS]
    found = [trial.cheating() for trial in trials]
    entries = {entry: torch.cat([one[entry] for one in found]) for entry in found[0]}
    for cheat in sorted(entries.keys() - {"linear"}):
        gain, error = better(entries, name, cheat, "linear")
        if cheat == "by lead" and task.system.stochastic:
            assert gain == 0.0
        else:
            assert gain < 2 * error, cheat
    if task.system.stochastic:  # the attack is one: an object that is asked for both halves gains by its count
        gain, error = better(entries | {"kept": torch.cat([t.kept() for t in trials])}, name, "kept", "linear")
        assert gain > 4 * error


# --- intervals --------------------------------------------------------------------------------------------------------


def test_twice_the_cases_give_intervals_narrower_by_the_root_of_two():
    task = floors.shortened(tasks.get("lorenz63-noisy"), 8, 20.0)
    truth = floors.pooled(task, torch.cat(list(floors.stationary_truth(task, 8, seed=5))))
    d = floors.independent_distances(truth, 256, seed=77)
    summary = Summary(d, tuple(Row(n, None, "1") for n in ("w1", "temporal_spectrum", "patches")))

    def width(n: int) -> torch.Tensor:
        widths = []
        for first in range(0, 256, n):
            part = Summary(summary.cases[first : first + n], summary.rows)
            _, low, high = scoring.bootstrap(part, scoring.resample(torch.zeros(n, dtype=torch.long)))
            widths.append(high - low)
        return torch.stack(widths).square().mean(0).sqrt()

    widths = torch.stack([width(n) for n in (32, 64, 128)])
    ratio = (widths[:-1] / widths[1:])[:, [0, 2]]  # one case in a hundred spirals out, which its spectrum shows
    assert ratio.numpy() == pytest.approx(2**0.5, rel=0.1)


# --- the entries are what they are called -----------------------------------------------------------------------------


def test_the_wrong_kuramoto_sivashinsky_is_one_with_more_viscosity():
    """The scaled system's tendency is that of u_t = −u u_x − u_xx − 1.1 u_xxxx on the true length."""
    true, other = tasks.get("kuramoto_sivashinsky-noisy").system, laws.wrong("kuramoto_sivashinsky")
    u = torch.from_numpy(true.draw(np.random.default_rng(0), "attractor"))
    v, k = torch.fft.rfft(u), torch.from_numpy(true.wavenumbers)
    wanted = true.rhs(u) - 0.1 * torch.fft.irfft(k**4 * v, n=64)
    per_sample = other.system.sample_interval / true.sample_interval  # the wrong system's clock
    found = other.scale * other.system.rhs(u / other.scale) * per_sample
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "parameter"), [("lorenz63", "rho"), ("lorenz96", "forcing"), ("kpz", "noise")])
def test_wrong_systems_are_ten_percent_off_in_one_parameter(name, parameter):
    true, other = tasks.get(f"{name}-noisy").system.parameters(), laws.wrong(name)
    off = {k: v / true[k] for k, v in other.system.parameters().items() if v != true[k]}
    assert off == {parameter: pytest.approx(1.1)}
    assert (other.parameter, other.scale) == (parameter, 1.0)


def test_a_replayed_trajectory_follows_its_most_similar_past(tmp_path):
    task = tasks.get("lorenz63-clean", "tiny")
    trial = laws.AccuracyTrial(task, tmp_path, 3)
    with laws.dataset.open_truth(task, tmp_path) as file:
        library = torch.from_numpy(file["train/truth"][:])
    trial.contexts = library[:2, 100:164]
    replayed = trial.replayed()[0, :, : 256 - 164]
    assert torch.equal(replayed, library[:2, 164:256])
