"""The solver ladder of a task: every setting started from the same contexts as an emulator, scored and timed.

An emulator's speed-up is its throughput over that of the fastest setting that is as accurate.

On noisy, partial and scarce tasks a setting is both the model of the oracle's ensemble Kalman filter and the
forecaster; on clean ones it starts from the last sample. Measured on the device, the threads and in the process in
which the emulators are timed, once for all of them.
"""

import dataclasses
import time
from pathlib import Path

import numpy as np
import torch

from emubench import baselines
from emubench.core.random import torch_stream
from emubench.data import reference
from emubench.data.tasks import Task
from emubench.dynamics.solvers import Setting, SettingSolver
from emubench.emulator import Emulator, checked_ensemble
from emubench.evaluation.forecast import Progress
from emubench.evaluation.scoring import Cases
from emubench.evaluation.throughput import roofline
from emubench.evaluation.throughput.stopwatch import EndToEnd, Subject, best_batch, scenario_of, timed
from emubench.files.timing import Bound, Rung, Scenario, Speedup
from emubench.metrics._headline import headline

CPU = torch.device("cpu")
BUDGET = 60.0
"""Seconds for the ladder of a task."""
CASES, FEWEST, LATE = 64, 16, 4.0
"""Cases on which every setting is scored at least; so few where these take ``LATE`` times its share of the time."""
REPETITIONS = 5
SMALLEST = 8
"""Members of a filter, at least."""
TOLERANCE = 0.1
"""Lyapunov times by which a setting may fall short of an emulator that it is compared with."""
CRPS_TOLERANCE = 0.1
"""The tolerance for systems scored in law, as a share of what lies between the frozen floor and oracle."""
RANKED_SKILL = 0.25
"""The skill from which on an emulator's speed-up is ranked."""


def forecaster(task: Task, setting: Setting, device: torch.device = CPU) -> tuple[Emulator, str]:
    """The setting as an emulator, and the path of its solver; a filter's analyses are where the contexts are.

    The filter is the one that emulators start by: what the oracle adds to it is left out.
    """
    module, solver = baselines.get("oracle"), SettingSolver(task.system, setting, device)
    if setting.start == "sample":  # taken as if it had no noise
        task = dataclasses.replace(task, observation=dataclasses.replace(task.observation, noise=0.0))
    oracle = module.Oracle(task, module.Config(rotate=0, window=0), solver)
    if setting.start == "small":
        oracle.filter = dataclasses.replace(oracle.filter, members=max(oracle.filter.members // 4, SMALLEST))
    return oracle, solver.path


def _forecast(cases: Cases, emulator: Emulator, index: torch.Tensor, label: int) -> torch.Tensor:
    task = cases.task
    generator = torch_stream(0, "ladder", task.name, label)
    members = task.n_members("test")
    return checked_ensemble(emulator, cases.contexts[index], task.test_steps, members, generator)


def _calls(cases: Cases, emulator: Emulator, batch: int, seconds: float, scores: np.ndarray | None) -> Scenario:
    """Time calls of ``batch`` cases; fill in ``scores`` ``"B"`` for every case, or for as many as time allows."""
    n, spent, begun = len(cases.contexts), [], time.perf_counter()
    for i in range(10_000):
        index = (torch.arange(batch) + i * batch) % n
        took, forecast = timed(lambda index=index, i=i: _forecast(cases, emulator, index, i), cases.contexts.device)
        spent.append(took)
        known = n if scores is None else int(np.isfinite(scores).sum())
        if scores is not None and known < n:
            new = index[: n - known]
            kept = forecast[:, : len(new)].cpu()
            found = headline(cases.task).cases(kept, cases.truth[new], cases.start[new]).numpy()
            scores[new.numpy()] = np.where(np.isfinite(found), found, headline(cases.task).worst)
            known += len(new)
        late = time.perf_counter() - begun
        enough = min(n, CASES if late <= LATE * seconds else FEWEST)
        if (late > seconds and known >= enough) or (known == n and len(spent) >= REPETITIONS):
            break
    members = cases.task.n_members("test")
    return scenario_of(cases.task, batch, members, spent, spent, 0)


def rung(cases: Cases, setting: Setting, batch: int, seconds: float, device: torch.device = CPU) -> Rung | None:
    """Score and time one setting for about ``seconds``; ``None`` if it diverges so that its filter breaks down."""
    emulator, path = forecaster(cases.task, setting, device)
    scores = np.full(len(cases.contexts), np.nan)
    try:
        _forecast(cases, emulator, torch.arange(1), 0)  # what is compiled or drawn once
        offline = _calls(cases, emulator, batch, 0.8 * seconds, scores)
        single = _calls(cases, emulator, 1, 0.2 * seconds, None)
    except RuntimeError:  # of linear algebra: an ensemble that is not finite
        return None
    known = scores[np.isfinite(scores)]
    return Rung(
        scheme=setting.scheme,
        steps_per_sample=setting.steps,
        sites=setting.sites or cases.task.system.shape[0],
        dtype=setting.dtype,
        start=setting.start,
        path=path,
        accuracy=float(known.mean()),
        scenarios={"single_end_to_end": single, "offline_end_to_end": offline},
        cases=[round(float(v), 6) for v in known],
        limit=_bound(cases.task, setting, path, offline) if device.type == "cpu" else None,
    )


def _bound(task: Task, setting: Setting, path: str, offline: Scenario) -> Bound | None:
    """How near a kernel without a filter comes to the device's ceilings."""
    sites = {"n_sites": setting.sites} if setting.sites else {}
    system = dataclasses.replace(task.system, **sites)
    work = roofline.solver_work(system, setting.scheme, setting.steps, offline.batch * task.test_steps, setting.dtype)
    if work is None or path != "kernel" or setting.start != "sample":
        return None
    return roofline.bound(work, offline.seconds.median, torch.get_num_threads(), setting.dtype)


def measure(
    task: Task, data: Path, budget: float = BUDGET, progress: Progress | None = None, device: torch.device = CPU
) -> list[Rung]:
    """The ladder of ``task``, the cheap end first; settings for which there is no time left are not measured.

    Each kind of start has the batch of most cases per second at its coarse end. Behind a filter all settings cost
    nearly the same, so few of them fit: the fine end, which no noisy start is worth, is cut first.
    """
    roofline.bound((0.0, 0.0), 1.0, torch.get_num_threads(), "float64")  # measures the ceilings, once
    cases, wanted, begun = Cases.load(task, data), settings(task), time.perf_counter()
    cases = dataclasses.replace(cases, contexts=cases.contexts.to(device))
    found: list[Rung] = []
    batches: dict[str, int] = {}
    for i, setting in enumerate(wanted):
        left = budget - (time.perf_counter() - begun)
        if left <= 0:
            break
        if setting.start not in batches:
            subject = Subject("solver", forecaster(task, setting, device)[0], task, cases.contexts, device=device)
            batches[setting.start] = best_batch(subject, EndToEnd(), budget / 20)
        # a direct start is cheap: what it leaves goes to the filters
        share = left / (len(wanted) - i) if setting.start != "sample" else min(left / (len(wanted) - i), budget / 60)
        if (made := rung(cases, setting, batches[setting.start], share, device)) is not None:
            found.append(made)
        if progress is not None:
            progress(i + 1, len(wanted))
    return found


def halvings(n: int) -> list[int]:
    """The numbers n, n/2, … 1, rounded up.

    >>> halvings(50)
    [50, 25, 13, 7, 4, 2, 1]
    """
    found = [n]
    while found[-1] > 1:
        found.append(-(-found[-1] // 2))
    return found


def settings(task: Task) -> list[Setting]:
    """The ladder of a task, the cheap end first.

    It has the truth's scheme from its own step down to one step per sample, and the cheaper schemes with up to 8 steps.
    It has half the sites and fewer where these resolve the same equation: that of a partial differential equation with
    a ``length`` (fewer sites of Lorenz-96 are another system, and kpz's lattice is its definition). Deterministic
    systems have all these with up to 8 steps also in single precision, or up to 2 where observations are noisy.

    There, up to 4 steps of the truth's scheme, half the sites and Heun also stand behind a small and the whole filter.
    The filter is nearly all of their cost, so the most accurate come first. Where observations have gaps, these do
    alone.
    """
    system, observation = task.system, task.observation
    own, *cheaper = system.schemes
    steps = halvings(system.steps_per_sample)[::-1]
    coarse = [n for n in steps if n <= 8]
    found = [Setting(own, n) for n in steps]
    if not system.stochastic:
        found += [Setting(scheme, n) for scheme in cheaper for n in coarse]
    if "length" in system.parameters():
        for sites in halvings(system.shape[0])[1:]:
            if sites % 2 == 0 and sites > 3 * getattr(system, "n_unstable", 1):
                found += [Setting(own, n, sites=sites) for n in coarse]
    if not system.stochastic:
        found += [dataclasses.replace(s, dtype="float32") for s in found if s.steps <= 8]
    found.sort(key=lambda s: s.steps)
    if observation.noise == 0 and task.full_state:
        return found
    exact = [s for s in found if s.dtype == "float64" and s.scheme == own and s.steps <= 4]
    whole = sorted((s for s in exact if not s.sites), key=lambda s: -s.steps)
    fewer = [s for s in exact if s.sites == system.shape[0] // 2 and s.steps <= 2]
    cheap = [s for s in found if s.scheme == "heun" and s.steps <= 2]
    behind = [dataclasses.replace(s, start=start) for s in (*whole, *fewer, *cheap) for start in ("small", "filter")]
    if observation.fraction < 1 or not task.full_state:
        return behind
    return [s for s in found if s.dtype == "float64" or s.steps <= 2] + behind


def tolerance(task: Task) -> float:
    """By how much a setting's mean headline score may be worse than the emulator's."""
    if not task.system.scored_in_law:
        return TOLERANCE
    scale = reference.scale(task.name)
    return CRPS_TOLERANCE * abs((scale.floor or 0.0) - (scale.oracle or 0.0))


def as_accurate(task: Task, ladder: list[Rung], cases: np.ndarray) -> list[Rung]:
    """The settings whose paired mean score is at least the emulator's, less the tolerance; ``cases`` are its scores."""
    better, least = headline(task).better, -tolerance(task)
    return [rung for rung in ladder if better * (np.array(rung.cases) - cases[: len(rung.cases)]).mean() >= least]


def label(task: Task, rung: Rung) -> str:
    """The setting, for people."""
    sites = 0 if rung.sites == task.system.shape[0] else rung.sites
    return Setting(rung.scheme, rung.steps_per_sample, sites, rung.dtype, rung.start).label


def speedup(
    task: Task,
    ladder: list[Rung],
    scenario: str,
    timing: Scenario,
    cases: np.ndarray,
    skill: float | None,
    train_seconds: float,
) -> Speedup:
    """The figure of one scenario; ``cases`` ``"B"`` are the emulator's headline scores."""
    rivals = [rung for rung in as_accurate(task, ladder, cases) if scenario in rung.scenarios]
    ranked = skill is not None and skill >= RANKED_SKILL
    if not rivals:
        none = "no setting measured is as accurate"
        return Speedup(value=None, low=None, high=None, scheme=none, ranked=ranked, break_even=None)
    best = max(rivals, key=lambda rung: rung.scenarios[scenario].lyapunov_times_per_second.median)
    theirs, ours = best.scenarios[scenario].lyapunov_times_per_second, timing.lyapunov_times_per_second
    saved = 1 / theirs.median - 1 / ours.median  # n units cost n/theirs, or training + n/ours
    return Speedup(
        value=ours.median / theirs.median,
        low=ours.low / theirs.high,  # the extremes that the percentiles allow
        high=ours.high / theirs.low,
        scheme=label(task, best),
        ranked=ranked,
        break_even=train_seconds / saved if saved > 0 else None,
    )
