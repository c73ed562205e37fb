"""All baselines on all tasks at a glance: two heat maps of skill."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from emubench.data import tasks

KINDS = {"skill_accuracy": "accuracy: 0 floor, 1 oracle", "skill_stability": "stability: 1 as the truth itself"}


def overview(expected: dict[str, dict[str, dict[str, Any]]]) -> Figure:
    """Skills by baseline and task, the baselines in the order of their mean accuracy; blank where there is none."""
    names = [f"{system}-{track}" for system in _unique(0) for track in _unique(1)]
    skills = {
        kind: pd.DataFrame(
            {n: {b: of[n][kind]["value"] if n in of else np.nan for b, of in expected.items()} for n in names}
        )
        for kind in KINDS
    }
    order = skills["skill_accuracy"].clip(-1, 1).fillna(-1).mean(axis=1).sort_values(ascending=False).index
    figure = Figure(figsize=(14.5, 1.6 + 0.31 * len(order)), layout="constrained")
    left, right = figure.subplots(1, 2)
    for ax, (kind, title) in zip((left, right), KINDS.items(), strict=True):
        values = skills[kind].loc[order]
        color = {"cmap": "vlag_r", "vmin": -1, "vmax": 1} if kind == "skill_accuracy" else {"cmap": "Blues", "vmin": 0}
        sns.heatmap(values, ax=ax, annot=True, fmt=".2f", annot_kws={"size": 7}, cbar=False, linewidths=0.5, **color)
        ax.set_title(title, loc="left", fontsize=10)
        ax.tick_params(length=0, labelsize=8)
        for i in range(4, 16, 4):
            ax.axvline(i, color="black", linewidth=0.8)
    right.set_yticklabels([])
    return figure


def _unique(part: int) -> list[str]:
    return list(dict.fromkeys(name.rsplit("-", 1)[part] for name in tasks.names()))
