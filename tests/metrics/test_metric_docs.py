"""``docs/metrics.md`` names every row that scoring emits, and nothing else; every entry is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from emubench.data import tasks
from emubench.evaluation import scoring

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
PARTS = ("Formula", "Estimator", "Reference", "Range", "Can't see")


def sections() -> dict[str, str]:
    """Text by heading of the third level; the headings name metrics."""
    pieces = re.split(r"^### (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {head: text.split("\n## ")[0] for head, text in zip(pieces[1::2], pieces[2::2], strict=True)}


def documented() -> set[str]:
    return {name for head in sections() for name in re.findall(r"`([a-z0-9_]+)`", head)}


@pytest.fixture(scope="module")
def emitted(data) -> set[str]:
    """Names of all rows of three tasks: off rings, on a ring, stochastic."""
    found = {"lyapunov_times_per_second"}
    for name in ("lorenz63-noisy", "lorenz96-noisy", "kpz-noisy"):
        task = tasks.get(name, "tiny")

        def forecaster(split: str, cases: slice, task=task) -> torch.Tensor:
            n = min(cases.stop, task.cases(split)) - cases.start
            return torch.zeros(task.n_members(split), n, len(task.leads(split)), *task.shape)

        found |= {row.metric for row in scoring.score(task, data, forecaster).scores.rows}
    return found


def test_every_row_is_documented_and_every_documented_row_is_emitted(emitted):
    assert emitted - documented() == set()
    assert documented() - emitted == set()


@pytest.mark.parametrize("head", sections())
def test_every_metric_has_all_its_parts(head):
    for part in PARTS:
        assert f"- **{part}**: " in sections()[head], part


def test_references_have_identifiers_that_look_like_one():
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"doi:(\S+?)[,;.:]?(?:\s|$)", text)
    assert len(found) > 15
    assert all(re.fullmatch(r"10\.\d{4,5}/\S+", doi) for doi in found), found
