"""The two pictures of a budget, as SVG: where the money goes, and what other totals would earn."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd

__all__ = ["draw_curve", "draw_money"]

INK, GREY, LINE, BLUE, PALE = "#16202b", "#5d6a78", "#dde3e9", "#1f5fa8", "#aab4bf"
WIDTH = 430


def draw_money(bars: list[tuple[str, float, float]], title: str) -> str:
    """Draw a pair of bars for each (name, last week, coming week)."""
    top = max([max(last, new) for _, last, new in bars] + [1e-9])
    left, high, room = 110, 42, WIDTH - 110 - 78
    parts = []
    for row, (name, last, new) in enumerate(bars):
        y = 8 + high * row
        parts.append(_text(left - 8, y + 20, _cut(name, 16), anchor="end"))
        for shift, amount, colour, thick in ((0, last, PALE, 10), (12, new, BLUE, 16)):
            width = room * amount / top
            parts.append(f'<rect x="{left}" y="{y + shift}" width="{width:.1f}" height="{thick}" fill="{colour}"/>')
        parts.append(_text(left + room * new / top + 6, y + 25, f"{new:,.0f}", bold=True))
    return _svg(8 + high * len(bars), parts, title)


def draw_curve(curve: pd.DataFrame, spent: float, profit: float, words: dict[str, str]) -> str:
    """Draw expected profit over the total, and the plan on it; nothing where there are no two totals to join."""
    if len(curve) < 2:
        return ""
    height, left, top, right, bottom = 300, 62, 26, WIDTH - 14, 254
    xs, ys = curve["total"].to_numpy(dtype=float), curve["profit"].to_numpy(dtype=float)
    # From the lowest spend possible, since a split of nothing is none.
    x_ends = xs.min() - 0.04 * np.ptp(xs), xs.max()
    y_ends = min(0.0, ys.min()), max(ys.max(), 0.0) + 0.06 * max(np.ptp(ys), 1e-9)

    def x(value: float) -> float:
        return float(left + (right - left) * (value - x_ends[0]) / max(x_ends[1] - x_ends[0], 1e-9))

    def y(value: float) -> float:
        return float(bottom - (bottom - top) * (value - y_ends[0]) / max(y_ends[1] - y_ends[0], 1e-9))

    parts = []
    for tick in _ticks(*y_ends):
        parts.append(f'<line x1="{left}" y1="{y(tick):.1f}" x2="{right}" y2="{y(tick):.1f}" stroke="{LINE}"/>')
        parts.append(_text(left - 7, y(tick) + 4, f"{tick:,.0f}", anchor="end", size=11, fill=GREY))
    parts += [_text(x(t), bottom + 17, f"{t:,.0f}", anchor="middle", size=11, fill=GREY) for t in _ticks(*x_ends)]
    told = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs, ys, strict=True))
    parts.append(f'<polyline points="{told}" fill="none" stroke="{BLUE}" stroke-width="2.4"/>')
    parts.append(f'<circle cx="{x(spent):.1f}" cy="{y(profit):.1f}" r="5" fill="{BLUE}" stroke="#fff"/>')
    parts.append(_text((left + right) / 2, bottom + 38, words["curve_below"], anchor="middle", fill=GREY))
    parts.append(_text(left, 14, words["curve_beside"], fill=GREY))
    return _svg(height, parts, words["curve_title"])


def _ticks(low: float, high: float) -> list[float]:
    rough = max(high - low, 1e-9) / 4
    size = 10.0 ** np.floor(np.log10(rough))
    step = next(float(m * size) for m in (1, 2, 5, 10) if m * size >= rough)
    return [float(t) for t in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]


def _svg(height: float, parts: list[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: float = 12, fill: str = INK, bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" fill="{fill}"{weight}>'
        f"{escape(text)}</text>"
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
