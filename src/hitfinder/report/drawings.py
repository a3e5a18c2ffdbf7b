"""Plain pictures as SVG, whose letters show in any language: bars, and a curve with a point on it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd

__all__ = ["BLUE", "GREY", "INK", "LINE", "PALE", "draw_bars", "draw_curve", "svg_of", "text_at"]

INK, GREY, LINE, BLUE, PALE = "#16202b", "#5d6a78", "#dde3e9", "#1f5fa8", "#aab4bf"
WIDTH = 430


def draw_bars(
    bars: Sequence[tuple[str, float, str]], title: str, before: Sequence[float] = (), width: float = WIDTH
) -> str:
    """Draw a bar for each (name, amount, colour), with a thin grey one above it for what it was `before`."""
    top = max([amount for _, amount, _ in bars] + [*before, 1e-9])
    left, high, first = 124, 42 if before else 24, 12 if before else 0
    room = width - left - 64
    parts = []
    for row, (name, amount, colour) in enumerate(bars):
        y, length = 8 + high * row, room * amount / top
        if before:
            old = room * before[row] / top
            parts.append(f'<rect x="{left}" y="{y}" width="{old:.1f}" height="10" fill="{PALE}"/>')
        parts.append(text_at(left - 8, y + first + (8 if before else 13), _cut(name, 18), anchor="end"))
        parts.append(f'<rect x="{left}" y="{y + first}" width="{length:.1f}" height="16" fill="{colour}"/>')
        parts.append(text_at(left + length + 6, y + first + 13, f"{amount:,.0f}", bold=True))
    return svg_of(width, 8 + high * len(bars), parts, title)


def draw_curve(curve: pd.DataFrame, point: tuple[float, float], title: str, below: str, beside: str) -> str:
    """Draw the second column of a table over its first, and a point; nothing where there are no two rows to join."""
    if len(curve) < 2:
        return ""
    height, left, top, right, bottom = 300, 62, 26, WIDTH - 14, 254
    xs, ys = (curve[name].to_numpy(dtype=float) for name in curve.columns[:2])
    x_ends = xs.min() - 0.04 * np.ptp(xs), xs.max()
    y_ends = min(0.0, ys.min()), max(ys.max(), 0.0) + 0.06 * max(np.ptp(ys), 1e-9)

    def x(value: float) -> float:
        return float(left + (right - left) * (value - x_ends[0]) / max(x_ends[1] - x_ends[0], 1e-9))

    def y(value: float) -> float:
        return float(bottom - (bottom - top) * (value - y_ends[0]) / max(y_ends[1] - y_ends[0], 1e-9))

    parts = []
    for tick in _ticks(*y_ends):
        parts.append(f'<line x1="{left}" y1="{y(tick):.1f}" x2="{right}" y2="{y(tick):.1f}" stroke="{LINE}"/>')
        parts.append(text_at(left - 7, y(tick) + 4, f"{tick:,.0f}", anchor="end", size=11, fill=GREY))
    parts += [text_at(x(t), bottom + 17, f"{t:,.0f}", anchor="middle", size=11, fill=GREY) for t in _ticks(*x_ends)]
    told = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs, ys, strict=True))
    parts.append(f'<polyline points="{told}" fill="none" stroke="{BLUE}" stroke-width="2.4"/>')
    parts.append(f'<circle cx="{x(point[0]):.1f}" cy="{y(point[1]):.1f}" r="5" fill="{BLUE}" stroke="#fff"/>')
    parts.append(text_at((left + right) / 2, bottom + 38, below, anchor="middle", fill=GREY))
    parts.append(text_at(left, 14, beside, fill=GREY))
    return svg_of(WIDTH, height, parts, title)


def svg_of(width: float, height: float, parts: Sequence[str], title: str) -> str:
    """Put a drawing together; `title` is what it is called where it can't be seen."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def text_at(
    x: float, y: float, text: str, *, anchor: str = "start", size: float = 12, fill: str = INK, bold: bool = False
) -> str:
    """Write a text at a place."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" fill="{fill}"{weight}>'
        f"{escape(text)}</text>"
    )


def _ticks(low: float, high: float) -> list[float]:
    rough = max(high - low, 1e-9) / 4
    size = 10.0 ** np.floor(np.log10(rough))
    step = next(float(m * size) for m in (1, 2, 5, 10) if m * size >= rough)
    # Adding zero makes -0 a plain 0.
    return [float(t) + 0.0 for t in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
