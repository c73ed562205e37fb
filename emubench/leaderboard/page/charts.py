"""Charts of the page as inline SVG, written by hand so that equal numbers give equal bytes, and fields as PNG."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike
from PIL import Image

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 360.0, 210.0, 50.0, 36.0, 24.0
WIDE, TALL = 1000.0, 460.0
"""Of a chart that is as wide as the page."""
LINE, LETTER = 12.0, 6.2
"""Height of a line of text, and about the width of a letter."""
MAX_NAME = 24
"""Letters of a name that are shown."""
MAX_DECADES = 16
"""A logarithmic axis has no more: what lies farther below the largest is round-off, and drawn at the bottom."""
MAX_NUMBER = 1e100
"""What is larger is as good as infinite, and not drawn."""
Series = tuple[str, Sequence[float], Sequence[float]]
"""The name of a curve, and its points across and up."""
Band = tuple[Sequence[float], Sequence[float], Sequence[float]]
"""Points across, and the lower and upper ends of an area there."""


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def interval(value: float | None, low: float | None, high: float | None, start: float, end: float) -> Markup:
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
    axis = '<line class="zero" x1="2" x2="98" y1="6" y2="6"/>'
    dot = f'<circle class="dot" cx="{_n(place(value))}" cy="6" r="2.5"/>'
    return Markup(f'<svg class="bar" viewBox="0 0 100 12" aria-hidden="true">{axis}{zero}{whiskers}{dot}</svg>')


def ticks(start: float, end: float, whole: bool = False) -> list[float]:
    """Round numbers between ``start`` and ``end``; with ``whole``, integers, where there are two of them or more.

    >>> ticks(0.0, 1.0), ticks(1.8, 4.3, whole=True), ticks(1.2, 1.7, whole=True)
    ([0.0, 0.5, 1.0], [2.0, 3.0, 4.0], [1.2, 1.4, 1.6])
    """
    if end <= start:
        return []
    step = 10.0 ** math.floor(math.log10((end - start) / 2))
    step *= next((m for m in (5, 2) if (end - start) / (m * step) >= 2), 1)
    if whole and math.floor(end) > math.ceil(start):
        step = max(1.0, step)
    first = math.ceil(start / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(end / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Frame:
    """The rectangle of a chart that data are drawn into, and the ends of its axes; logarithmic ones are in decades."""

    x: tuple[float, float]
    y: tuple[float, float]
    log_x: bool = False
    log_y: bool = False
    right: float = WIDTH - 14
    height: float = HEIGHT
    width: float = WIDTH

    @property
    def base(self) -> float:
        """Where the horizontal axis lies."""
        return self.height - BOTTOM

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies on the picture."""
        wide, tall = (max(span[1] - span[0], 1e-12) for span in (self.x, self.y))
        across = LEFT + (self.right - LEFT) * (x - self.x[0]) / wide
        return across, self.base - (self.base - TOP) * (y - self.y[0]) / tall

    def axes(self, xlabel: str, ylabel: str) -> list[str]:
        """Axes, ticks and labels."""
        parts = [f'<path class="axis" d="M{LEFT} {TOP}V{_n(self.base)}H{_n(self.right)}"/>']
        for x in ticks(*self.x, whole=self.log_x):
            at = _n(self.place(x, 0)[0])
            parts.append(f'<text class="tick" x="{at}" y="{_n(self.base + 14)}">{_label(x, self.log_x)}</text>')
        for y in ticks(*self.y, whole=self.log_y):
            at = _n(self.place(0, y)[1] + 4)
            parts.append(f'<text class="ytick" x="{LEFT - 4}" y="{at}">{_label(y, self.log_y)}</text>')
        below = f'x="{_n((LEFT + self.right) / 2)}" y="{_n(self.height - 4)}"'
        beside = f'transform="translate(11 {_n((TOP + self.base) / 2)}) rotate(-90)"'
        for at, text in ((below, xlabel), (beside, ylabel)):
            parts.append(f'<text class="label" {at}>{escape(text)}</text>')
        return parts

    def svg(self, title: str, parts: list[str]) -> Markup:
        """The picture, named for those who can't see it."""
        box = f"0 0 {_n(self.width)} {_n(self.height)}"
        said, kind = escape(title), "chart" if self.width == WIDTH else "chart wide"
        return Markup(f'<svg class="{kind}" viewBox="{box}" role="img" aria-label="{said}">{"".join(parts)}</svg>')


def _label(value: float, logarithmic: bool) -> str:
    return f"{10**value:.0e}".replace("e+0", "e").replace("e-0", "e-") if logarithmic else f"{value:g}"


def curves(
    title: str, xlabel: str, ylabel: str, series: Sequence[Series], log: bool = False, band: Band | None = None
) -> Markup:
    """Lines over one axis; what is not finite (or, with ``log``, not positive) is left out.

    ``band`` is an area in the first line's colour; the axes are those of the lines.
    """
    kept = [(name, *_finite(x, y, log)) for name, x, y in series]
    kept = [(name, x, y) for name, x, y in kept if len(x)]
    if not kept:
        return Markup("")
    xs, ys = (np.concatenate([s[i] for s in kept]) for i in (1, 2))
    low, high = float(ys.min()), float(ys.max())
    low = max(low, high - MAX_DECADES) if log else low
    span = (low, max(high, low + 1e-3)) if log else (min(low, 0.0), high if high > 0 or low < 0 else 1.0)
    frame, at = Frame((float(xs.min()), float(xs.max())), span, log_y=log), LEFT
    parts = frame.axes(xlabel, ylabel)
    if band is not None:
        parts.append(_area(frame, *band, log))
    for i, (name, x, y) in enumerate(kept):
        points = " ".join(f"{_n(a)},{_n(b)}" for a, b in map(frame.place, x, np.maximum(y, frame.y[0])))
        parts.append(f'<polyline class="line{i % 4}" points="{points}"/>')
        if len(kept) > 1:
            parts.append(f'<text class="line{i % 4}" x="{_n(at)}" y="{LINE}">{escape(name)}</text>')
            at += LETTER * (len(name) + 2)
    return frame.svg(title, parts)


def _area(frame: Frame, x: Sequence[float], low: Sequence[float], high: Sequence[float], log: bool) -> str:
    """What lies between two curves, cut at the ends of the vertical axis."""
    below, above = (list(zip(*_finite(x, y, log), strict=True)) for y in (low, high))
    outline = [frame.place(a, min(max(b, frame.y[0]), frame.y[1])) for a, b in [*below, *reversed(above)]]
    points = " ".join(f"{_n(a)},{_n(b)}" for a, b in outline)
    return f'<polygon class="band" points="{points}"/>'


def scatter(title: str, xlabel: str, ylabel: str, points: Sequence[tuple[str, float, float, bool]]) -> Markup:
    """Points (name, x, y, marked) over a logarithmic x axis; the names stand in the margin, one below the other."""
    known = [(n, math.log10(x), y, m) for n, x, y, m in points if 0 < x < MAX_NUMBER and abs(y) < MAX_NUMBER]
    if not known:
        return Markup("")
    known.sort(key=lambda p: (-p[2], p[0]))
    xs, ys, names = [p[1] for p in known], [p[2] for p in known], [p[0] for p in known if p[0]]
    margin = 0.05 * (max(ys) - min(ys)) + 0.02
    right = WIDTH - 24 - LETTER * max([min(len(name), MAX_NAME) for name in names], default=0)
    height = max(HEIGHT, TOP + BOTTOM + LINE * (len(names) + 1))
    span_x, span_y = (min(xs) - 0.2, max(xs) + 0.2), (min(ys) - margin, max(ys) + margin)
    frame, at = Frame(span_x, span_y, log_x=True, right=right, height=height), TOP
    parts = frame.axes(xlabel, ylabel)
    for i, (name, x, y, marked) in enumerate(known):
        a, b = frame.place(x, y)
        parts.append(f'<circle class="{"front" if marked else "point"}" cx="{_n(a)}" cy="{_n(b)}" r="4"/>')
        if name:
            shown = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
            left = sum(1 for p in known[i:] if p[0])  # names still to come, which need their lines
            at = min(max(at, b), frame.base - LINE * (left - 1))
            parts.append(f'<path class="leader" d="M{_n(a + 4)} {_n(b)}L{_n(right + 4)} {_n(at)}"/>')
            parts.append(f'<text class="name" x="{_n(right + 7)}" y="{_n(at + 4)}">{escape(shown)}</text>')
            at += LINE
    return frame.svg(title, parts)


@dataclass(frozen=True)
class Mark:
    """A point of :func:`plane` with the ends of its intervals, which may be unknown."""

    name: str
    x: tuple[float, float | None, float | None]
    y: tuple[float, float | None, float | None]
    on_front: bool

    @property
    def drawn(self) -> bool:
        """Whether it has a place on a logarithmic axis."""
        return 0 < self.x[0] < MAX_NUMBER and abs(self.y[0]) < MAX_NUMBER


def plane(title: str, xlabel: str, ylabel: str, marks: Sequence[Mark]) -> Markup:
    """Named points with intervals over a logarithmic x axis, as wide as the page; no name covers another or a point."""
    known = sorted((mark for mark in marks if mark.drawn), key=lambda mark: (-mark.y[0], mark.name))
    if not known:
        return Markup("")
    ys = [end for mark in known for end in mark.y if end is not None]
    decades = [math.log10(mark.x[0]) for mark in known]
    span_x, span_y = (min(decades) - 0.3, max(decades) + 0.3), (min(ys) - 0.05, max(ys) + 0.05)
    frame = Frame(span_x, span_y, log_x=True, right=WIDE - 14, height=TALL, width=WIDE)
    at = [frame.place(decade, mark.y[0]) for decade, mark in zip(decades, known, strict=True)]
    taken, parts = [(a - 6, b - 6, a + 6, b + 6) for a, b in at], frame.axes(xlabel, ylabel)
    for mark, (a, _) in zip(known, at, strict=True):
        low, high = (frame.place(0, mark.y[0] if end is None else end)[1] for end in mark.y[1:])
        taken.append((a - 1, high, a + 1, low))
    for mark, (a, b) in zip(known, at, strict=True):
        parts += _whiskers(frame, mark, a, b)
        parts.append(f'<circle class="{"front" if mark.on_front else "point"}" cx="{_n(a)}" cy="{_n(b)}" r="5"/>')
        parts += _named(mark.name if len(mark.name) <= MAX_NAME else f"{mark.name[: MAX_NAME - 1]}…", a, b, taken)
    return frame.svg(title, parts)


STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#5d636b}.name{fill:#1b1b1b}.tick,.label{text-anchor:middle}"
    ".ytick{text-anchor:end}.axis,.leader,.whisker{fill:none;stroke:#c9ccd1}.whisker{stroke:#1f5fa8;opacity:.55}"
    ".point{fill:#fff;stroke:#1f5fa8}.front{fill:#1f5fa8}@media(prefers-color-scheme:dark)"
    "{text,.name{fill:#e8e8e8}.point{fill:#15171a;stroke:#7db7f5}.front{fill:#7db7f5}.whisker{stroke:#7db7f5}}"
)


def alone(chart: Markup) -> str:
    """A chart as a file of its own, which brings its colours.

    >>> alone(Markup('<svg class="chart"><text>a &lt; b</text></svg>'))[:62]
    '<svg xmlns="http://www.w3.org/2000/svg" class="chart"><style>t'
    """
    text = str(chart)  # whose own replace would escape what it is given
    text = text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return text.replace("><", f"><style>{STYLE}</style><", 1) + "\n"


def _whiskers(frame: Frame, mark: Mark, a: float, b: float) -> list[str]:
    """Its intervals as lines."""
    parts, (_, left, right), (_, low, high) = [], mark.x, mark.y
    if low is not None and high is not None:
        first, last = (_n(frame.place(0, end)[1]) for end in (low, high))
        parts.append(f'<path class="whisker" d="M{_n(a)} {first}V{last}"/>')
    if left is not None and right is not None and 0 < left <= right < MAX_NUMBER:
        first, last = (_n(frame.place(math.log10(end), 0)[0]) for end in (left, right))
        parts.append(f'<path class="whisker" d="M{first} {_n(b)}H{last}"/>')
    return parts


def _named(name: str, a: float, b: float, taken: list[tuple[float, float, float, float]]) -> list[str]:
    """The name at the nearest free place around a point, with a line where that is not beside it."""
    wide = LETTER * len(name) + 4
    for far in (9, 22, 38, 56, 76):
        for across, up in ((1, 0), (-1, 0), (1, -1), (1, 1), (-1, -1), (-1, 1)):
            x = a + across * (9 if up else far) - (wide if across < 0 else 0)
            y = b + up * far
            box = (x, y - LINE / 2, x + wide, y + LINE / 2)
            inside = box[0] > LEFT and box[2] < WIDE and box[1] > TOP - 8 and box[3] < TALL - BOTTOM
            apart = all(box[2] < t[0] or t[2] < box[0] or box[3] < t[1] or t[3] < box[1] for t in taken)
            if inside and apart:
                taken.append(box)
                end = x + (wide if across < 0 else 0)
                line = [] if far == 9 else [f'<path class="leader" d="M{_n(a)} {_n(b)}L{_n(end)} {_n(y)}"/>']
                return [*line, f'<text class="name" x="{_n(x + 2)}" y="{_n(y + 4)}">{escape(name)}</text>']
    return []


def _finite(x: Sequence[float], y: Sequence[float], log: bool) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    n = min(len(a), len(b))
    a, b = a[:n], b[:n]
    keep = (np.abs(a) < MAX_NUMBER) & (np.abs(b) < MAX_NUMBER) & (b > 0 if log else True)
    return a[keep], (np.log10(b[keep]) if log else b[keep])


def image(field: ArrayLike, scale: float, middle: float, before: int = 0) -> str:
    """A space–time field ``[time][site]`` as a PNG in a data URI, blue below ``middle`` and red above it; time upwards.

    What is not known is grey; a black line stands between the first ``before`` times and the others.

    >>> image([[0.0, 1.0]], scale=1.0, middle=0.0)[:22]
    'data:image/png;base64,'
    """
    values = ((np.asarray(field, dtype=float) - middle) / max(scale, 1e-12)).clip(-1, 1)[::-1]
    unknown, values = np.isnan(values), np.nan_to_num(values)
    strength = np.abs(values)[..., None]
    towards = np.where(values[..., None] > 0, [178, 24, 43], [33, 102, 172])
    pixels = np.round(247 + strength * (towards - 247)).astype("u1")
    pixels[unknown] = 140
    if before:
        pixels = np.insert(pixels, len(pixels) - before, 0, axis=0)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode("ascii")
