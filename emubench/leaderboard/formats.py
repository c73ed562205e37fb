"""Figures and ranks as text."""

import math
from typing import Any

import pandas as pd

UNKNOWN = "–"


def rank(row: dict[str, Any], name: str = "rank") -> str:
    """A rank interval.

    >>> rank({"rank_low": 2, "rank_high": 3}), rank({"rank_low": None, "rank_high": None})
    ('2–3', '–')
    """
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if pd.isna(low):
        return UNKNOWN
    return f"{low}" if low == high else f"{low}–{high}"


def fixed(value: Any) -> str:
    """Two decimals; a skill far below the floor is cut.

    >>> fixed(0.256), fixed(float("nan")), fixed(-12345.6)
    ('0.26', '–', '<-99')
    """
    if pd.isna(value):
        return UNKNOWN
    return "<-99" if value < -99 else f"{value:.2f}".replace("-0.00", "0.00")


def percent(value: Any) -> str:
    """Whole percents.

    >>> percent(0.996), percent(1.0), percent(0.004)
    ('99%', '100%', '1%')
    """
    if pd.isna(value):
        return UNKNOWN
    percent = round(100 * value)
    return f"{min(percent, 99) if value < 1 and percent == 100 else 1 if value > 0 and percent == 0 else percent}%"


def significant(value: Any) -> str:
    """Two decimals, one from 10 on.

    >>> significant(20.018), significant(3.6287), significant(0.04256)
    ('20.0', '3.63', '0.04')
    """
    return UNKNOWN if pd.isna(value) else f"{value:.{1 if abs(value) >= 10 else 2}f}"


SPEED_OF = {
    "bench": "speed as benched, in the best batches",
    "scoring": "speed of the forecasts that were scored, in batches of 64",
}


def speeds(rows: pd.DataFrame) -> dict[str, list[Any]]:
    """What the speeds of some rows are, and where they were measured, with the tasks of each."""
    known = rows.dropna(subset="speed_of").groupby(["speed_of", "speed_on"])["task"].unique()
    return {f"{SPEED_OF[kind]}, on {device}": list(names) for (kind, device), names in known.items()}  # type: ignore


def si(value: Any, unit: str = "") -> str:
    """Three significant digits with a prefix.

    >>> si(25720.8), si(0.0), si(999.99), si(12, "s")
    ('25.7k', '0', '1.00k', '12.0s')
    """
    if pd.isna(value):
        return UNKNOWN
    if value <= 0:
        return f"0{unit}"
    value = float(f"{value:.3g}")
    power = min(max(int(math.floor(math.log10(value) / 3)), 0), 4)
    scaled = value / 1000**power
    digits = max(0, 2 - max(0, int(math.floor(math.log10(scaled))))) if scaled >= 0.01 else 3
    return f"{scaled:.{digits}f}{' kMGT'[power].strip()}{unit}"
