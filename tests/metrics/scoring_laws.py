"""Do better emulators score better? Entries whose order is known, on fresh truth, by seed: the scoring laws.

``test_scoring_laws.py`` runs them small. At standard size they are a campaign, whose results are committed:

    python tests/metrics/scoring_laws.py stability --seeds 20 --report tests/metrics/scoring_laws_stability.md
    python tests/metrics/scoring_laws.py accuracy --seeds 20 --report tests/metrics/scoring_laws_accuracy.md
    python tests/metrics/scoring_laws.py cheats --seeds 20 --report tests/metrics/scoring_laws_cheats.md
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer

from benchmarks.maintain import floors
from emubench import __version__, baselines, systems
from emubench.core.random import stream, torch_stream
from emubench.data import dataset, generation, tasks
from emubench.data.tasks import Task
from emubench.dynamics import kernels
from emubench.dynamics.simulate import reference_rollout, simulate
from emubench.emulator import Asked, Copies, checked_ensemble
from emubench.evaluation import scoring
from emubench.files.store import write_text
from emubench.learning.training.descent import Log
from emubench.metrics import Summary, Truth, crps, stability, valid_prediction_time
from tests.support.cheats import CHEATS

STATIONARY_SEED, PERFECT_SEED, WRONG_SEED = 7000, 8000, 9000
"""Of the pooled truth, of independent runs, of runs of a wrong system: added to the seed of a trial."""


class Score(NamedTuple):
    """A score with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Wrong:
    """A system whose one parameter is 10 % off, and the units in which it is simulated."""

    parameter: str
    system: systems.System
    scale: float = 1.0
    """Its state in units of the true system's."""

    def run(self, state: np.ndarray, n_samples: int, rngs: list[np.random.Generator]) -> np.ndarray:
        """What follows ``state`` by the wrong system, be it a steady wave: unchecked, unlike truth."""
        rollout = kernels.find(self.system) or reference_rollout
        return self.scale * rollout(self.system, np.ascontiguousarray(state / self.scale), n_samples, rngs)


def wrong(name: str) -> Wrong:
    """The system with 10 % more of one parameter.

    Kuramoto–Sivashinsky gets 10 % more viscosity, ν u_xxxx. With x = √ν x′, t = ν t′, u = u′/√ν that is the known
    equation with length L/√ν. (10 % more or less of the length itself, or 10 % less viscosity, is no test: these
    systems settle down on steady waves.)
    """
    true = systems.get(name)
    if name == "kuramoto_sivashinsky":
        fields = {"length": 22.0 / 1.1**0.5, "sample_interval": 1 / 1.1, "solver_step": 1 / 1.1 / 32}
        return Wrong("viscosity", systems.get(name, climate=true.climate, **fields), 1.1**-0.5)
    parameter, value = {"lorenz63": ("rho", 30.8), "lorenz96": ("forcing", 8.8), "kpz": ("noise", 1.1)}[name]
    return Wrong(parameter, systems.get(name, climate=true.climate, **{parameter: value}))


def bootstrapped(summary: Summary, metric: str, start: torch.Tensor) -> Score:
    """One whole-forecast score of a summary."""
    (index,) = (i for i, row in enumerate(summary.rows) if (row.metric, row.lead_time) == (metric, None))
    return Score(*(float(v[index]) for v in scoring.bootstrap(summary, scoring.resample(start))))


# --- stability --------------------------------------------------------------------------------------------------------


class StabilityTrial:
    """Entries of a system on stationary cases of ``horizon`` units of lead time, with floors of their own."""

    def __init__(self, name: str, n_cases: int, horizon: float, n_independent: int) -> None:
        full = tasks.get(f"{name}-noisy")
        self.task = floors.shortened(full, n_cases, horizon)
        values = torch.cat(list(floors.stationary_truth(self.task, n_cases, STATIONARY_SEED)))
        plain = floors.pooled(self.task, values)
        found = floors.measure(plain, n_independent)
        reference = {"d_floor": {self.task.size: found["d_floor"]}, "d_zero": found["d_zero"]}
        self.truth = replace(plain, reference=reference)

    def score(self, run: torch.Tensor) -> Score:
        """``skill_stability`` of runs ``"B T *S"``, 32 at a time."""
        parts = []
        for first in range(0, len(run), 32):
            cases = slice(first, first + 32)
            truth = replace(self.truth, values=self.truth.values[cases], start=torch.zeros(len(run[cases])).long())
            parts.append(stability.summarise(run[None, cases], truth))
        whole = Summary(torch.cat([p.cases for p in parts]), parts[0].rows, parts[0].finish)
        return bootstrapped(whole, "skill_stability", torch.zeros(len(run), dtype=torch.long))

    def wrong_run(self, seed: int) -> torch.Tensor:
        """Runs of the wrong system, from its own attractor."""
        task, other = self.task, wrong(self.task.system.name)
        rngs = [stream(WRONG_SEED + seed, task.system.name, "wrong", i) for i in range(task.n_climate)]
        state = other.scale * np.stack([other.system.draw(rng, task.system.starts[0]) for rng in rngs])
        spin_up = other.system.spin_up_samples
        run = other.run(state, spin_up + task.climate_steps, rngs)[:, spin_up:]
        return torch.from_numpy(np.ascontiguousarray(task.observation.select(run)))

    def linear_run(self, seed: int, data: Path, size: str) -> torch.Tensor:
        """The linear baseline, trained on noisy data and run from noisy contexts of attractor states."""
        task = tasks.get(self.task.name, size)
        emulator = trained("linear", task, data, seed)
        contexts = dataset.load(task, data).contexts["test"][:: len(task.system.starts)][: self.task.n_climate]
        parts = [
            emulator.forecast(part, self.task.climate_steps, 1, torch_stream(seed, "linear"))[0]
            for part in contexts.split(16)
        ]
        return torch.cat(parts)

    def entries(self, seed: int, data: Path, size: str) -> dict[str, Score]:
        """Scores by entry, the perfect one first."""
        perfect = torch.cat(list(floors.stationary_truth(self.task, self.task.n_climate, PERFECT_SEED + seed)))
        scores = {"perfect": self.score(perfect), "10 % wrong": self.score(self.wrong_run(seed))}
        scores["linear"] = self.score(self.linear_run(seed, data, size))
        for name, spoil in SPOILED.items():
            scores[name] = self.score(spoil(perfect.clone(), self.truth, seed))
        return scores


def _nan_after_half(run, truth, seed):
    run[:, run.shape[1] // 2 :] = float("nan")
    return run


def _shuffled(run, truth, seed):
    generator = torch_stream(seed, "shuffle")
    return torch.stack([case[torch.randperm(len(case), generator=generator)] for case in run])


def _one_component_escaped(run, truth, seed):
    half = run.shape[1] // 2
    run[:, half:, ..., 0] += 20 * truth.std[0] * torch.linspace(0, 1, run.shape[1] - half)
    return run


SPOILED = {
    "damped 0.7×": lambda run, truth, seed: truth.mean + 0.7 * (run - truth.mean),
    "amplified 1.4×": lambda run, truth, seed: truth.mean + 1.4 * (run - truth.mean),
    "shuffled in time": _shuffled,
    "NaN after half": _nan_after_half,
    "one component escaped": _one_component_escaped,
    "frozen": lambda run, truth, seed: run[:, :1].expand(run.shape).clone(),
    "zeros": lambda run, truth, seed: torch.zeros_like(run),
    "all NaN": lambda run, truth, seed: torch.full_like(run, float("nan")),
}
USELESS = ("linear", "frozen", "zeros", "all NaN")
WORSE = ("damped 0.7×", "amplified 1.4×", "shuffled in time", "NaN after half", "one component escaped")


# --- accuracy ---------------------------------------------------------------------------------------------------------


def trained(baseline: str, task: Task, data: Path, seed: int):
    """A baseline, trained."""
    module = baselines.get(baseline)
    config = module.default_config(task) if hasattr(module, "default_config") else module.Config()
    emulator = module.build(task, config)
    with tempfile.TemporaryDirectory() as folder:
        log = Log(Path(folder) / "log.jsonl", None)
        module.train(emulator, dataset.load(task, data), config, seed, log)
        log.close()
    return emulator


class AccuracyTrial:
    """Entries of one task on the test split of a dataset of its own seed."""

    def __init__(self, task: Task, data: Path, seed: int, analysed: bool = True) -> None:
        self.task, self.data, self.seed = task, data, seed
        generation.generate(task, data, seed)
        self.contexts = dataset.load(task, data).contexts["test"]
        self.values, self.start, _ = scoring.load_truth(task, data, "test")
        self.n_members = task.n_members("test")
        if not analysed:  # for entries that start from no analysis
            return
        rng = stream(seed, "scoring laws", task.name)
        analysis = trained("oracle", task, data, seed).start(self.contexts, rng)
        self.analysis = analysis[: self.n_members] if task.system.stochastic else analysis.mean(0, keepdim=True)

    def cases(self, forecast: torch.Tensor) -> torch.Tensor:
        """The headline score of every case."""
        metric = crps if self.task.system.stochastic else valid_prediction_time
        return metric.summarise(forecast, Truth(self.task, self.values, self.start)).cases[:, 0]

    def by(self, baseline: str) -> torch.Tensor:
        """The forecast of a baseline."""
        emulator = trained(baseline, self.task, self.data, self.seed)
        return emulator.forecast(self.contexts, self.task.test_steps, self.n_members, torch_stream(self.seed, baseline))

    def cheating(self) -> dict[str, torch.Tensor]:
        """Headline scores per case of ``linear``, and of cheats that wrap it, asked as emulators are scored."""
        honest = trained("linear", self.task, self.data, self.seed)
        entries = {"linear": honest} | {name: cheat(honest) for name, cheat in CHEATS.items()}
        return {name: self.asked(Copies(emulator)) for name, emulator in entries.items()}

    def kept(self) -> torch.Tensor:
        """What the stateful one would get if one object were asked for both halves."""
        return self.asked(Asked(CHEATS["stateful"](trained("linear", self.task, self.data, self.seed))))

    def asked(self, how: Asked) -> torch.Tensor:
        """Headline scores per case through the door by which emulators are scored."""
        stream = torch_stream(self.seed, "cheats")
        return self.cases(checked_ensemble(how, self.contexts, self.task.test_steps, self.n_members, stream))

    def from_analysis(self, advance) -> torch.Tensor:
        """What ``advance(states, n_samples, rngs)`` makes of the oracle's analysis: its members, or their mean."""
        flat, n = self.analysis.reshape(-1, *self.task.system.shape).numpy(), self.task.test_steps
        run = advance(flat, n, [stream(self.seed, "scoring laws", self.task.name, i) for i in range(len(flat))])
        run = self.task.observation.select(run.reshape(*self.analysis.shape[:2], *run.shape[1:]))
        return torch.from_numpy(np.ascontiguousarray(run))

    def independent(self) -> torch.Tensor:
        """A perfect run of other initial states."""
        n = self.n_members * self.contexts.shape[0]
        short = replace(self.task, context=0, climate_steps=self.task.test_steps)
        runs = torch.cat(list(floors.stationary_truth(short, n, PERFECT_SEED + self.seed)))
        return runs.reshape(self.n_members, -1, *runs.shape[1:])

    def replayed(self) -> torch.Tensor:
        """What followed the most similar 8 samples of the *noise-free* training trajectories, then its last sample."""
        with dataset.open_truth(self.task, self.data) as file:
            amount = self.task.train
            library = torch.from_numpy(file["train/truth"][: amount.trajectories, : amount.length])  # type: ignore
        library = torch.from_numpy(self.task.observation.select(library.numpy()))
        growth = self.task.system.stochastic
        windows = library.unfold(1, 8, 1).movedim(-1, 2)
        seen = torch.nan_to_num(self.contexts[:, -8:] - (self.level(self.contexts[:, -8:]) if growth else 0))
        mask = torch.isfinite(self.contexts[:, -8:]).double()
        candidates = (windows - self.level(windows) if growth else windows).flatten(2)
        weight = (mask / (seen.new_tensor(self.task.observation.select(self.task.system.std)) ** 2)).flatten(1)
        square = torch.einsum("btk,ck->cbt", candidates**2, weight)
        cross = torch.einsum("btk,ck->cbt", candidates, weight * seen.flatten(1))
        best = (square - 2 * cross).flatten(1).argmin(1)
        row, first = best // windows.shape[1], best % windows.shape[1] + 8
        following = (first[:, None] + torch.arange(self.task.test_steps)).clamp(max=library.shape[1] - 1)
        return library[row[:, None], following][None]

    @staticmethod
    def level(values: torch.Tensor) -> torch.Tensor:
        """Mean height of the last sample."""
        return values[..., -1:, :].nanmean(-1, keepdim=True)

    def entries(self) -> dict[str, torch.Tensor]:
        """Headline scores per case, by entry, the best first."""
        system, other = self.task.system, wrong(self.task.system.name)
        forecasts = {
            "oracle": lambda: self.from_analysis(lambda u, n, rngs: simulate(system, u, n, rngs)),
            "10 % wrong": lambda: self.from_analysis(other.run),
            **{name: (lambda name=name: self.by(name)) for name in ("linear", "persistence", "climatology")},
            "replayed": self.replayed,
            "independent": self.independent,
        }
        return {name: self.cases(make()) for name, make in forecasts.items()}


# --- the campaign -----------------------------------------------------------------------------------------------------

app = typer.Typer(help=__doc__)


def fraction(task: Task, share: float) -> float:
    """A share of the climate horizon, in units of lead time."""
    return share * task.climate_steps * task.lead_time_step


def gain(name: str) -> int:
    """The sign of better of a system's headline score."""
    return -1 if systems.get(name).stochastic else 1


def put(report: Path, system: str, about: str, table: list[str]) -> None:
    """Put a system's section into the report, in the place of an older one; the others stay."""
    head = "# Scoring laws\n\nMade by `tests/metrics/scoring_laws.py`, which says what the entries are.\n"
    sections = report.read_text(encoding="utf-8").split("\n## ")[1:] if report.exists() else []
    machine = f"{os.cpu_count()}-core {platform.machine()} VM"
    text = f"{system}\n\n{about}; emubench {__version__}, {time.strftime('%Y-%m-%d')}, {machine}.\n\n"
    kept = [s.rstrip() + "\n" for s in sections if s.split("\n")[0] != system]
    write_text(report, "\n## ".join([head, *sorted([*kept, text + "\n".join(table) + "\n"])]))
    print(text + "\n".join(table), flush=True)


Names = Annotated[list[str] | None, typer.Argument(help="Systems; all if none is named.")]
Report = Annotated[Path, typer.Option(help="Where to put the tables.")]
Data = Annotated[Path, typer.Option(help="Folder of datasets and of finished trials; what is missing is made.")]


@app.command(name="stability")
def stability_campaign(
    report: Report, names: Names = None, data: Data = Path("data"), seeds: int = 20, size: str = "standard"
) -> None:
    """``skill_stability`` of every entry: mean, range, and how often its interval lies below the perfect one's."""
    for name in names or systems.names():
        full = tasks.get(f"{name}-noisy", size)
        generation.generate(full, data)
        n = full.n_climate // len(full.system.starts)
        trial = StabilityTrial(name, n, fraction(full, 1.0), floors.N_INDEPENDENT)
        scores = [trial.entries(seed, data, size) for seed in range(seeds)]
        table = ["| entry | mean | least | most | interval below perfect's |", "|---|---|---|---|---|"]
        for entry in scores[0]:
            values = [s[entry].value for s in scores]
            below = sum(s[entry].high < s["perfect"].low for s in scores)
            cells = f"{np.mean(values):.3f} | {min(values):.3f} | {max(values):.3f} | {below} of {seeds}"
            table.append(f"| {entry} | {cells} |")
        put(report, name, f"`skill_stability`, {n} cases × {full.climate_steps} samples, {seeds} seeds", table)


@app.command(name="cheats")
def cheats_campaign(
    report: Report, names: Names = None, data: Data = Path("data"), seeds: int = 20, size: str = "standard"
) -> None:
    """What stateful, batch-dependent and lead-dependent emulators gain over ``linear``, which they wrap."""
    data.mkdir(parents=True, exist_ok=True)
    for name in names or systems.names():
        task, scores = tasks.get(f"{name}-noisy", size), []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory(dir=data) as folder:
                scores.append(AccuracyTrial(task, Path(folder), 100 + seed, analysed=False).cheating())
        table = ["| cheat | gain over `linear` | of its score | on how many seeds |", "|---|---|---|---|"]
        honest = np.array([float(s["linear"].mean()) for s in scores])
        for cheat in CHEATS:
            gains = gain(name) * (np.array([float(s[cheat].mean()) for s in scores]) - honest)
            cells = f"{gains.mean():.4f} ± {_error(gains):.4f} | {100 * gains.mean() / honest.mean():.1f} %"
            table.append(f"| {cheat} | {cells} | {(gains > 0).sum()} of {seeds} |")
        what = "CRPS" if gain(name) < 0 else "valid prediction time"
        put(report, name, f"{task.name}: {what}, {task.n_test} cases, {seeds} seeds, ± standard error", table)


@app.command(name="accuracy")
def accuracy_campaign(
    report: Report,
    names: Names = None,
    data: Data = Path("data"),
    seeds: int = 20,
    size: str = "standard",
    track: str = "noisy",
) -> None:
    """The headline score of every entry: mean over seeds, and by how much it is better than the next entry."""
    data.mkdir(parents=True, exist_ok=True)
    for name in names or systems.names():
        task, scores = tasks.get(f"{name}-{track}", size), []
        for seed in range(seeds):
            kept = data / f"{task.name}-{size}-{seed}.json"  # an interrupted campaign goes on after its last seed
            if not kept.exists():
                with tempfile.TemporaryDirectory(dir=data) as folder:
                    entries = AccuracyTrial(task, Path(folder), 100 + seed).entries()
                write_text(kept, json.dumps({entry: float(cases.mean()) for entry, cases in entries.items()}))
            scores.append(json.loads(kept.read_text(encoding="utf-8")))
        table = ["| entry | mean over seeds | better than the next by | on how many seeds |", "|---|---|---|---|"]
        order = [*scores[0]]
        for entry, following in zip(order, [*order[1:], None], strict=True):
            means = np.array([s[entry] for s in scores])
            cells = f"{means.mean():.4f} ± {_error(means):.4f} | "
            if following:
                margin = gain(name) * (means - np.array([s[following] for s in scores]))
                cells += f"{margin.mean():.4f} ± {_error(margin):.4f} | {(margin > 0).sum()} of {seeds}"
            table.append(f"| {entry} | {cells} |" if following else f"| {entry} | {cells} | |")
        what = "CRPS (lower is better)" if gain(name) < 0 else "valid prediction time (higher is better)"
        put(report, name, f"{task.name}: {what}, {task.n_test} cases, {seeds} seeds, ± standard error", table)


def _error(values: np.ndarray) -> float:
    """Standard error of the mean."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    app()
