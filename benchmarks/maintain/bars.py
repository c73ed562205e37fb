"""What the baselines must reach, line by line: ``python -m benchmarks.maintain.bars RUNS… --data DATA`` writes
``docs/bars.md``.

From scored runs of standard size with default settings (``baselines/grids/table.toml``) and of the twins of two
baselines (the other grids there). How they are compared: :mod:`benchmarks.maintain.pairs`.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer

from benchmarks.maintain import expected
from benchmarks.maintain.pairs import Estimate, Missing, Runs, crps_gained, score
from emubench.core import hardware
from emubench.core.errors import EmubenchError
from emubench.data import tasks
from emubench.files import store
from emubench.runs.scored import read_runs

PATH = expected.FOLDER.parent / "docs" / "bars.md"
CHAOTIC = ("lorenz63", "lorenz96", "kuramoto_sivashinsky")
FAMILIES = ("resnet_ode", "neural_ode", "ot_regularized", "weak_adversarial")
CLOSED_FORM = ("polynomial", "random_features", "reservoir", "weak_sindy")
LEARNED = (*FAMILIES, "fourier_operator", *CLOSED_FORM)
TOLD = ("weak_sindy",)
"""Those that know the equation's form."""
LEADS = 32
"""Samples over which the forecasts of kpz are compared."""


class Bar(NamedTuple):
    """One line: what is asked, what was measured, and whether it is met (``None``: not all of its runs are there)."""

    asked: str
    measured: str
    met: bool | None


def bar(asked: str, measure: Callable[[], tuple[str, bool]]) -> Bar:
    """The line, or one that names the run it lacks."""
    try:
        return Bar(asked, *measure())
    except Missing as missing:
        return Bar(asked, f"not there: {missing}", None)


def at_least(asked: str, least: float, what: Callable[[], Estimate]) -> Bar:
    """A mean of at least so much."""

    def measure() -> tuple[str, bool]:
        found = what()
        return str(found), found.value >= least

    return bar(f"{asked} ≥ {least:g}", measure)


def above(asked: str, what: Callable[[], Estimate]) -> Bar:
    """A difference whose interval lies above 0."""

    def measure() -> tuple[str, bool]:
        found = what()
        return f"{found.value:+.3g} [{found.low:.3g}, {found.high:.3g}]", found.low > 0

    return bar(asked, measure)


def best(names: Iterable[str], what: Callable[[str], Estimate], by: str = "value", last: bool = False) -> str:
    """Of which of ``names`` it is highest, by value or by the lower end (``last``: lowest)."""
    return (min if last else max)(names, key=lambda name: getattr(what(name), by))


def best_of(asked: str, least: float, names: Iterable[str], what: Callable[[str], Estimate]) -> Bar:
    """The best of ``names`` reaches so much."""

    def measure() -> tuple[str, bool]:
        winner = best(names, what)
        return f"`{winner}` {what(winner)}", what(winner).value >= least

    return bar(f"{asked} ≥ {least:g}", measure)


def clean(runs: Runs) -> list[Bar]:
    """Valid prediction times without noise, in Lyapunov times."""
    wanted = {
        "lorenz63-clean": {"random_features": 10, "neural_ode": 7, "resnet_ode": 6},
        "lorenz96-clean": {"neural_ode": 6.5},
    }
    found = [
        at_least(f"{task}: `{name}`", least, lambda name=name, task=task: runs.accuracy(name, task))
        for task, bars in wanted.items()
        for name, least in bars.items()
    ]
    task, other = "lorenz96-clean", "kuramoto_sivashinsky-clean"
    found.append(best_of(f"{task}: the best in closed form", 4, CLOSED_FORM, lambda name: runs.accuracy(name, task)))
    return [*found, best_of(f"{other}: the best", 4, LEARNED, lambda name: runs.accuracy(name, other))]


def noisy(runs: Runs) -> list[Bar]:
    """``skill_accuracy`` under noise, and what the weak form is worth, in Lyapunov times."""
    found = [
        at_least(f"{system}-noisy: `{name}`, skill", least, lambda n=name, s=system: runs.skill(n, f"{s}-noisy"))
        for name in ("weak_adversarial", "neural_ode")
        for system, least in zip(CHAOTIC, (0.5, 0.5, 0.4), strict=True)
    ]
    names = [name for name in LEARNED if name not in TOLD]

    def two_of_three() -> tuple[str, bool]:
        winners = {s: best(names, lambda name, s=s: runs.skill(name, f"{s}-noisy")) for s in CHAOTIC}
        skills = {s: runs.skill(name, f"{s}-noisy") for s, name in winners.items()}
        text = "; ".join(f"{s}: `{winners[s]}` {skills[s]}" for s in CHAOTIC)
        return text, sum(one.value >= 0.7 for one in skills.values()) >= 2

    found.append(bar("noisy: the best that is not told the equation's form, skill ≥ 0.7 on two of three", two_of_three))
    return found + [
        above(
            f"{system}-noisy: `weak_adversarial` above its one-step twin",
            lambda s=system: runs.gained("weak_adversarial", "weak_adversarial twin", f"{s}-noisy"),
        )
        for system in CHAOTIC
    ]


def transport(runs: Runs) -> list[Bar]:
    """``skill_stability`` with and without transport; it has to be higher on two tasks, and lose no more runs."""

    def both() -> tuple[str, bool]:
        gains = {s: runs.calmer("ot_regularized", "ot_regularized twin", f"{s}-noisy") for s in CHAOTIC}
        text = "; ".join(f"{s}: {e.value:+.3f} [{e.low:.3f}, {e.high:.3f}]" for s, e in gains.items())
        return text, sum(one.low > 0 for one in gains.values()) >= 2

    def lost() -> tuple[str, bool]:
        pairs = [[runs.lost(n, f"{s}-noisy")[0] for n in ("ot_regularized", "ot_regularized twin")] for s in CHAOTIC]
        text = "; ".join(f"{s}: {with_} and {without}" for s, (with_, without) in zip(CHAOTIC, pairs, strict=True))
        return text, all(with_ <= without for with_, without in pairs)

    name = "`ot_regularized` and its twin without transport"
    return [bar(f"{name}: `skill_stability` higher on two noisy tasks", both), bar(f"{name}: no more lost runs", lost)]


def gappy(runs: Runs) -> list[Bar]:
    """Gaps: all above ``linear``, and the best; few data: one that isn't told the form above ``polynomial``."""
    found = []
    for system in (*CHAOTIC, "kpz"):

        def least(task: str = f"{system}-partial") -> tuple[str, bool]:
            def gained(name: str) -> Estimate:
                return runs.gained(name, "linear", task)

            name = best(LEARNED, gained, by="low", last=True)
            return f"the least: `{name}` {gained(name)}", gained(name).low > 0

        found.append(bar(f"{system}-partial: every learned one above `linear`", least))
    for system in CHAOTIC:
        task = f"{system}-partial"
        found.append(best_of(f"{task}: the best, skill", 0.4, LEARNED, lambda name, t=task: runs.skill(name, t)))
    for system in (*CHAOTIC, "kpz"):

        def one(task: str = f"{system}-scarce") -> tuple[str, bool]:
            def gained(name: str) -> Estimate:
                return runs.gained(name, "polynomial", task)

            name = best([name for name in LEARNED if name not in ("polynomial", *TOLD)], gained, by="low")
            return f"`{name}` {gained(name)}", gained(name).low > 0

        found.append(bar(f"{system}-scarce: one above `polynomial`", one))
    return found


def climates(runs: Runs) -> list[Bar]:
    """No lost run of 200 Lyapunov times (kpz: 1024 samples) of the four families."""
    found = []
    for track in ("clean", "noisy"):
        for system in (*CHAOTIC, "kpz"):

            def lost(task: str = f"{system}-{track}") -> tuple[str, bool]:
                counts = [runs.lost(name, task) for name in FAMILIES]
                return f"{sum(n for n, _ in counts)} of {sum(n for _, n in counts)}", not any(n for n, _ in counts)

            found.append(bar(f"{system}-{track}: no lost run of the four families", lost))
    return found


def kpz(runs: Runs, data: Path) -> list[Bar]:
    """One better than the direct Gaussian AR model (``linear``) up to lead 32, with the right widths and growth."""
    name, task = "resnet_ode", "kpz-noisy"
    above_linear = above(
        f"{task}: `{name}` above `linear` in CRPS, leads 1 to {LEADS}",
        lambda: crps_gained(runs.of(name, task), runs.of("linear", task), data, LEADS),
    )

    def near(metric: str) -> tuple[str, bool]:
        scores = [score(run, metric) for run in runs.of(name, task)]
        errors = [(one.value - 1) / max((one.high - one.low) / (2 * 1.96), 1e-9) for one in scores]  # failed: no width
        text = ", ".join(f"{one.value:.3f} ({error:+.1f})" for one, error in zip(scores, errors, strict=True))
        return text, all(abs(error) <= 2 for error in errors)

    exact = "over its exact value, each seed within two standard errors (in brackets) of 1"
    return [
        above_linear,
        bar(f"{task}: `{name}`, saturated W² {exact}", lambda: near("width_ratio")),
        bar(f"{task}: `{name}`, growth {exact}", lambda: near("growth_ratio")),
    ]


# --- the page ---------------------------------------------------------------------------------------------------------

HEAD = """# What the baselines must reach

`python -m benchmarks.maintain.bars RUNS --data DATA` writes this page from runs of standard size, made by

```bash
for grid in baselines/grids/*.toml; do emubench run $grid --workers 2; done
```

Means over seeds and cases with 95 % intervals: valid prediction times in Lyapunov times, kpz's CRPS in units of height
(a gain is positive), skills where it says so. Differences are paired over cases, those of climates over seeds.
{runs}. {machine}.

What training takes, and its speed beside torchdiffeq's (`pytest -s benchmarks/test_neural_ode.py`), are measured apart,
on an idle machine: [baselines.md](baselines.md), [throughput.md](throughput.md). The first says what stands in the way
of a bar that is missed, too.

| bar | measured | |
|---|---|---|
"""
ANSWERS = {True: "met", False: "**missed**", None: "not measured"}


def page(bars: list[Bar], runs: Runs, machine: str) -> str:
    """The whole page."""
    counts = Counter(len(group) for group in runs.found.values())
    pairs = ", ".join(f"{n} seed{'s' * (n > 1)} of {counts[n]}" for n in sorted(counts, reverse=True))
    what = f"{sum(map(len, runs.found.values()))} runs: {pairs} pairs of baseline and task"
    rows = (f"| {asked} | {measured} | {ANSWERS[met]} |\n" for asked, measured, met in bars)
    return HEAD.format(runs=what, machine=machine) + "".join(rows)


def main(
    folders: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Folders of scored runs.")],
    data: Annotated[Path, typer.Option(help="Folder of the datasets, for the leads of kpz.")] = Path("data"),
) -> None:
    """Write ``docs/bars.md``; exit status 0 only if every bar is met."""
    torch.set_num_threads(1)
    try:
        read = read_runs(folders.find_runs(folders))
        runs = Runs(run for run in read if run.card.size == "standard" and run.task.name in tasks.names())
        if not runs.found:
            raise EmubenchError(f"{', '.join(map(str, folders))}: no scored runs of standard size and default settings")
        bars = [*clean(runs), *noisy(runs), *transport(runs), *gappy(runs), *climates(runs), *kpz(runs, data)]
    except EmubenchError as error:
        raise SystemExit(str(error)) from None
    store.write_text(PATH, page(bars, runs, f"{hardware.processor()}, {datetime.date.today().isoformat()}"))
    count = Counter(ANSWERS[met].strip("*") for _, _, met in bars)
    print(f"wrote {PATH}: {', '.join(f'{n} {answer}' for answer, n in count.items())}")
    if any(met is not True for _, _, met in bars):
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
