"""Runs a plan on any executor: hands out what is ready, counts, names what fails, and goes on with the rest."""

import heapq
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from emubench.core.errors import EmubenchError
from emubench.runs.grid import steps
from emubench.runs.grid.executors import Place
from emubench.runs.grid.plans import Plan
from emubench.runs.grid.steps import Outcome, Step

MAX_DEATHS = 4
"""Workers that may die at a step before it counts as failed; as many as Dask allows."""
ALONE = 2
"""Deaths after which a step runs with no other beside it, which shows whose fault it is."""
STAGES = {
    **dict.fromkeys(("shard", "merge", "seal"), "generate"),
    "train": "train",
    "retrain": "train",
    "score": "score",
    "judge": "score",
    **dict.fromkeys(("ladder", "bench"), "bench"),
}
STATES = ("done", "running", "waiting", "failed", "not run")


@dataclass
class Execution:
    """What has become of each step of a plan so far."""

    plan: Plan
    state: dict[Step, str]
    failed: dict[Step, Outcome] = field(default_factory=dict)
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """What the steps that were done have taken, by kind and baseline."""
    workers: int = 0
    """How many work at it, as far as it is known."""

    def block(self) -> None:
        """Mark what can't be done for want of what has failed; steps stand after what they need."""
        for step in self.plan.steps:
            lost = any(self.state[need] in ("failed", "not run") for need in self.plan.needs[step])
            if self.state[step] == "waiting" and lost:
                self.state[step] = "not run"

    def stages(self) -> list[str]:
        """Those of every grid, and such as its steps have beyond."""
        return list(dict.fromkeys(("generate", "train", "score", *(STAGES[step.kind] for step in self.plan.steps))))

    def counts(self) -> dict[str, Counter[str]]:
        """Steps by stage and state."""
        table: dict[str, Counter[str]] = {stage: Counter() for stage in self.stages()}
        for step, state in self.state.items():
            table[STAGES[step.kind]][state] += 1
        return table

    def note(self, step: Step, outcome: Outcome) -> None:
        """Record that a step has ended."""
        if outcome.error:
            self.state[step], self.failed[step] = "failed", outcome
        else:
            self.state[step] = "done"
            if outcome.seconds:
                self.seconds[kind_of(step)].append(outcome.seconds)

    def left(self) -> dict[str, float | None]:
        """Seconds of work left in each stage for one worker, by the mean of like steps; ``None`` where none is done."""
        rest: dict[str, float | None] = dict.fromkeys(self.stages(), 0.0)
        for step, state in self.state.items():
            if state in ("running", "waiting"):
                stage, known = STAGES[step.kind], self.seconds.get(kind_of(step))
                before = rest[stage]
                rest[stage] = None if known is None or before is None else before + sum(known) / len(known)
        return rest


def kind_of(step: Step) -> tuple[str, str]:
    """Steps of one kind take about as long as each other."""
    return step.kind, step.label.split(" ")[1] if STAGES[step.kind] in ("train", "score") else ""


def look(plan: Plan, data: Path, out: Path) -> Execution:
    """The state of a plan as the folders tell it; at work is who has a step under way."""
    run, at_work = Execution(plan, {}), set[str]()
    for step in plan.steps:
        record = steps.read_record(step, out)
        if steps.is_done(step, data, out):
            run.note(step, Outcome(record.seconds if record else 0.0, ""))
        elif record is not None and record.state == "failed":
            log = str(steps.record_path(step, out).with_suffix(".log"))
            run.note(step, Outcome(record.seconds, record.worker, record.error or "failed", log))
        elif record is not None and record.state == "running":
            run.state[step] = "running"
            at_work.add(record.worker)
        else:
            run.state[step] = "waiting"
    run.workers = len(at_work)
    run.block()
    return run


class _Hand:
    """Hands out steps in the order of the plan, each once all that it needs is done."""

    def __init__(self, run: Execution) -> None:
        self._run, self._order = run, {step: i for i, step in enumerate(run.plan.steps)}
        self._ready: list[tuple[int, Step]] = []
        self.deaths: Counter[Step] = Counter()
        todo = [step for step, state in run.state.items() if state == "waiting"]
        self._graph = TopologicalSorter(
            {step: [need for need in run.plan.needs[step] if run.state[need] != "done"] for step in todo}
        )
        self._graph.prepare()
        self._release()

    def _release(self) -> None:
        for step in self._graph.get_ready():
            self.back(step)

    def back(self, step: Step) -> None:
        """Put a step among those that are ready."""
        self._run.state[step] = "waiting"
        heapq.heappush(self._ready, (self._order[step], step))

    def next(self, n_running: int, one_is_alone: bool) -> Step | None:
        """The next step to hand out, if there is one now."""
        if not self._ready or one_is_alone:
            return None
        if self.deaths[self._ready[0][1]] >= ALONE and n_running:
            return None
        return heapq.heappop(self._ready)[1]

    def done(self, step: Step) -> None:
        """Release what waited for ``step`` alone."""
        self._graph.done(step)
        self._release()


def execute(
    plan: Plan,
    place: Place,
    data: Path,
    out: Path,
    threads: int,
    watch: Callable[[Execution], None] = lambda run: None,
    debug: bool = False,
    work: Callable[..., Outcome] = steps.run,
) -> Execution:
    """Do all steps of ``plan`` that are not done; ``watch`` is called whenever something has changed.

    Earlier failures are tried once more. A step that a worker died at is handed out again, a step that fails is not,
    nor is what needs it. Raises :class:`EmubenchError` when the one that hands out the work (a scheduler) is gone.
    """
    run = look(plan, data, out)
    run.workers = place.workers()
    for step, state in run.state.items():
        if state != "done":
            run.state[step] = "waiting"
    run.failed.clear()
    hand, ended, running = _Hand(run), SimpleQueue[tuple[Step, Future[Outcome]]](), set[Step]()
    while True:
        while len(running) < place.ahead:
            alone = bool(hand.deaths) and any(hand.deaths[step] >= ALONE for step in running)
            step = hand.next(len(running), alone)
            if step is None:
                break
            running.add(step)
            run.state[step] = "running"
            watch(run)
            future = place.executor(step.resources).submit(work, step, data, out, threads, debug)
            future.add_done_callback(lambda f, s=step: ended.put((s, f)))
        if not running:
            if run.failed:
                run.block()
                watch(run)
            return run
        try:
            step, future = ended.get(timeout=1)
        except Empty:
            run.workers = place.workers()
        else:
            running.remove(step)
            _settle(run, hand, step, future, place)
        watch(run)


def _settle(run: Execution, hand: _Hand, step: Step, future: Future[Outcome], place: Place) -> None:
    try:
        outcome = future.result()
    except BrokenExecutor:
        hand.deaths[step] += 1
        if hand.deaths[step] < MAX_DEATHS:
            hand.back(step)
            return
        outcome = Outcome(0.0, "", f"{MAX_DEATHS} worker processes died at it, perhaps of too little memory")
    except CancelledError:
        place.workers()  # says what is gone
        raise EmubenchError("the work was cancelled from elsewhere; run the same command again to go on") from None
    except Exception as error:
        outcome = Outcome(0.0, "", f"{type(error).__name__}: {error}")
    run.note(step, outcome)
    if not outcome.error:
        hand.done(step)


def table(run: Execution) -> Any:
    """Steps by stage and state with the time left, as a rich table."""
    from rich.table import Table

    title = f"{run.workers} worker{'s' * (run.workers != 1)}" if run.workers else "nobody at work; time left for one"
    shown, left = Table("stage", *STATES, "time left", title=title), run.left()
    for stage, states in run.counts().items():
        rest = left[stage]
        estimate = "?" if rest is None else _duration(rest / max(1, run.workers))
        shown.add_row(stage, *(str(states[s]) for s in STATES), estimate)
    return shown


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"


@contextmanager
def live() -> Iterator[Callable[[Execution], None]]:
    """A table on standard error that follows a run, in a terminal only; it has no thread, so that workers may fork."""
    from rich.console import Console
    from rich.live import Live

    console, shown = Console(stderr=True), [0.0]
    if not console.is_terminal:
        yield lambda run: None
        return
    with Live(console=console, auto_refresh=False) as display:

        def update(run: Execution) -> None:
            if time.monotonic() - shown[0] > 0.2 or set(run.state.values()) <= {"done", "failed", "not run"}:
                run.block()
                shown[0] = time.monotonic()
                display.update(table(run), refresh=True)

        yield update


def failures(run: Execution) -> list[dict[str, str]]:
    """What failed, why, where its log lies, and on which worker."""
    return [
        {"step": step.label, "error": outcome.error, "log": outcome.log, "worker": outcome.worker}
        for step, outcome in run.failed.items()
    ]


def summary(run: Execution) -> dict[str, Any]:
    """The state of a run for machines."""
    return {
        "stages": {stage: {s: states[s] for s in STATES} for stage, states in run.counts().items()},
        "workers": run.workers,
        "seconds_left": run.left(),
        "failed": failures(run),
    }


def say_failures(run: Execution) -> None:
    """One line each on standard error; then raise if there are any."""
    for f in failures(run):
        where = f" (on {f['worker']}; log: {f['log']})" if f["log"] else ""
        print(f"failed: {f['step']}: {f['error']}{where}", file=sys.stderr)
    if run.failed:
        n, lost = len(run.failed), sum(state == "not run" for state in run.state.values())
        rest = f" and {lost} that need them were not run" if lost else ""
        raise EmubenchError(f"{n} of {len(run.state)} steps failed{rest}; the same command tries these again")


def show(run: Execution) -> None:
    """Print the table and what failed."""
    from rich.console import Console

    Console().print(table(run))
    for f in failures(run):
        print(f"failed: {f['step']}: {f['error']} (log: {f['log']})")
