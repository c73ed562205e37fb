"""The figure of ``docs/ideas.md``: ``python -m benchmarks.maintain.plots.ideas`` (a minute)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from matplotlib.figure import Figure

import emubench
from emubench.dynamics.first_passage import THRESHOLD

METHOD, FLOOR, CASE = "random_features", "persistence", 0
SHOWN = 6.0
"""Lyapunov times."""


def main(
    data: Annotated[Path, typer.Option(help="Folder of the datasets.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("docs/ideas.png"),
) -> None:
    """Train at tiny size on lorenz63-noisy, and draw the first test case."""
    task = emubench.tasks.get("lorenz63-noisy", "tiny")
    emubench.generate(task, data)
    made = {name: emubench.forecast(emubench.train(name, task, data), task, data)[0, CASE] for name in (METHOD, FLOOR)}
    truth = emubench.load_truth(task, data).values[CASE]
    context = emubench.load(task, data).context("test")[CASE]
    std = torch.from_numpy(task.system.std)
    error = {name: ((x - truth) / std).square().mean(-1).sqrt().numpy() for name, x in made.items()}
    ahead = np.arange(1, len(truth) + 1) * task.lead_time_step
    before = np.arange(1 - len(context), 1) * task.lead_time_step

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    upper.plot(before, context[:, 0], ".", color="grey", markersize=4, label="context, observed with noise")
    upper.plot(ahead, truth[:, 0], color="black", label="truth")
    upper.plot(ahead, made[METHOD][:, 0], color="#0173b2", label="forecast")
    upper.set_ylabel("x")
    upper.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=8, ncols=3, frameon=False)
    lower.plot(ahead, error[METHOD], color="#0173b2", label="forecast")
    lower.plot(ahead, error[FLOOR], color="#949494", linestyle=":", label=f"floor ({FLOOR})")
    lower.axhline(THRESHOLD, color="black", linewidth=0.8)
    lower.text(before[2], THRESHOLD + 0.05, f"threshold: {THRESHOLD} σ", fontsize=8)
    crossing = ahead[np.argmax(error[METHOD] > THRESHOLD)]
    for ax in (upper, lower):
        ax.axvline(crossing, color="#0173b2", linewidth=0.8, linestyle="--")
        ax.axvline(0, color="grey", linewidth=0.8)
    upper.annotate("valid prediction time", (crossing, 15.7), (4, 0), textcoords="offset points", fontsize=8)
    lower.set(xlim=(before[0], SHOWN), ylim=(0, 2.6), xlabel="lead time in Lyapunov times", ylabel="error in σ")
    lower.legend(loc="upper left", fontsize=8)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    typer.run(main)
