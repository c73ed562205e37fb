"""Charts of the page as inline SVG and PNG: written by hand, so that equal numbers give equal bytes."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 360.0, 200.0, 46.0, 34.0, 10.0
Series = tuple[str, Sequence[float], Sequence[float]]
"""(name, x, y)."""


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def bar(value: float | None, low: float | None, high: float | None, start: float, end: float) -> Markup:
    """A value as a dot with its interval as a bar, on an axis from ``start`` to ``end``; the text beside it says it."""
    if value is None or not math.isfinite(value) or end <= start:
        return Markup("")

    def place(v: float) -> float:
        return 2 + 96 * min(max((v - start) / (end - start), 0.0), 1.0)

    whiskers = ""
    if low is not None and high is not None:
        first, last = place(low), place(high)
        whiskers = f'<rect class="interval" x="{_n(first)}" y="4" width="{_n(max(last - first, 0.5))}" height="4"/>'
    zero = f'<line class="zero" x1="{_n(place(0))}" x2="{_n(place(0))}" y1="0" y2="12"/>' if start < 0 < end else ""
    dot = f'<circle class="dot" cx="{_n(place(value))}" cy="6" r="2.5"/>'
    return Markup(f'<svg class="bar" viewBox="0 0 100 12" aria-hidden="true">{zero}{whiskers}{dot}</svg>')


def ticks(start: float, end: float) -> list[float]:
    """Round numbers between ``start`` and ``end``.

    >>> ticks(0.0, 1.0)
    [0.0, 0.5, 1.0]
    """
    if not (math.isfinite(start) and math.isfinite(end)) or end <= start:
        return []
    step = 10.0 ** math.floor(math.log10((end - start) / 2))
    step *= next((m for m in (5, 2) if (end - start) / (m * step) >= 2), 1)
    first = math.ceil(start / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(end / step + 1e-9) + 1)]


def curves(title: str, xlabel: str, ylabel: str, series: Sequence[Series], log: bool = False) -> Markup:
    """Lines over one axis; what is not finite (or, with ``log``, not positive) is left out."""
    kept = [(name, *_finite(x, y, log)) for name, x, y in series]
    kept = [(name, x, y) for name, x, y in kept if len(x)]
    if not kept:
        return Markup("")
    xs, ys = (np.concatenate([s[i] for s in kept]) for i in (1, 2))
    parts = _axes(title, xlabel, ylabel, (xs.min(), xs.max()), (ys.min(), ys.max()), log)
    place = _scale((xs.min(), xs.max()), (ys.min(), ys.max()))
    for i, (name, x, y) in enumerate(kept):
        points = " ".join(f"{_n(a)},{_n(b)}" for a, b in map(place, x, y))
        parts.append(f'<polyline class="line{i % 4}" points="{points}"/>')
        parts.append(f'<text class="line{i % 4}" x="{WIDTH - 6}" y="{TOP + 12 + 12 * i}">{escape(name)}</text>')
    return _svg(title, parts)


def scatter(title: str, xlabel: str, ylabel: str, points: Sequence[tuple[str, float, float, bool]]) -> Markup:
    """Named points (name, x, y, marked) over a logarithmic x axis."""
    known = [(n, math.log10(x), y, m) for n, x, y, m in points if x > 0 and math.isfinite(x) and math.isfinite(y)]
    if not known:
        return Markup("")
    xs, ys = [p[1] for p in known], [p[2] for p in known]
    span_x, span_y = (min(xs) - 0.2, max(xs) + 0.9), (min(ys) - 0.05, max(ys) + 0.05)
    place = _scale(span_x, span_y)
    parts = _axes(title, xlabel, ylabel, span_x, span_y, False, log_x=True)
    for name, x, y, marked in known:
        a, b = place(x, y)
        parts.append(f'<circle class="{"front" if marked else "point"}" cx="{_n(a)}" cy="{_n(b)}" r="4"/>')
        if name:
            parts.append(f'<text class="name" x="{_n(a + 6)}" y="{_n(b + 4)}">{escape(name)}</text>')
    return _svg(title, parts)


def _finite(x: Sequence[float], y: Sequence[float], log: bool) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    n = min(len(a), len(b))
    a, b = a[:n], b[:n]
    keep = np.isfinite(a) & np.isfinite(b) & (b > 0 if log else True)
    return a[keep], (np.log10(b[keep]) if log else b[keep])


def _scale(span_x: tuple[float, float], span_y: tuple[float, float]) -> Callable[[float, float], tuple[float, float]]:
    wide, tall = (max(span[1] - span[0], 1e-12) for span in (span_x, span_y))

    def place(x: float, y: float) -> tuple[float, float]:
        a = LEFT + (WIDTH - LEFT - 8) * (x - span_x[0]) / wide
        return a, HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (y - span_y[0]) / tall

    return place


def _axes(
    title: str,
    xlabel: str,
    ylabel: str,
    span_x: tuple[float, float],
    span_y: tuple[float, float],
    log: bool,
    log_x: bool = False,
) -> list[str]:
    place, base = _scale(span_x, span_y), HEIGHT - BOTTOM
    parts = [f'<path class="axis" d="M{LEFT} {TOP}V{base}H{WIDTH - 8}"/>']

    def label(value: float, logarithmic: bool) -> str:
        return f"1e{value:g}" if logarithmic else f"{value:g}"

    for x in ticks(*span_x):
        parts.append(f'<text class="tick" x="{_n(place(x, 0)[0])}" y="{base + 13}">{label(x, log_x)}</text>')
    for y in ticks(*span_y):
        parts.append(f'<text class="ytick" x="{LEFT - 4}" y="{_n(place(0, y)[1] + 3)}">{label(y, log)}</text>')
    middle = (LEFT + WIDTH) / 2
    parts.append(f'<text class="label" x="{middle}" y="{HEIGHT - 4}">{escape(xlabel)}</text>')
    parts.append(f'<text class="label" transform="translate(10 {base / 2}) rotate(-90)">{escape(ylabel)}</text>')
    return parts


def _svg(title: str, parts: list[str]) -> Markup:
    box = f"0 0 {_n(WIDTH)} {_n(HEIGHT)}"
    return Markup(f'<svg class="chart" viewBox="{box}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>')


def image(field: Sequence[Sequence[float]], scale: float, middle: float) -> str:
    """A space–time field ``[time][site]`` as a PNG in a data URI, blue below ``middle`` and red above it; time upwards.

    >>> image([[0.0, 1.0]], scale=1.0, middle=0.0)[:22]
    'data:image/png;base64,'
    """
    values = np.nan_to_num((np.asarray(field, dtype=float) - middle) / max(scale, 1e-12), nan=1.0).clip(-1, 1)[::-1]
    strength = np.abs(values)[..., None]
    towards = np.where(values[..., None] > 0, [178, 24, 43], [33, 102, 172])
    pixels = np.round(247 + strength * (towards - 247)).astype("u1")
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 0)
    content = (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(raw, 9)) + _chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
