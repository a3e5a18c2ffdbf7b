"""Pictures of a fit: how it did out of time, and what it looks at."""

from __future__ import annotations

import io
import warnings
from typing import Any

from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

__all__ = ["COLOURS", "GRID", "INK", "as_png", "canvas", "draw", "finish"]

# The winner in a strong colour, the best rule in a quiet one, all else in between.
COLOURS = ("#1f5fa8", "#c8781e", "#4f8f5b", "#8a5a9e", "#7a7a7a")
INK = "#333333"
GRID = "#e3e3e3"
MOST_COLUMNS = 20
# Fonts that hold Chinese, for a merchant's own column names, on Linux, Windows and macOS.
WIDE_FONTS = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "Microsoft YaHei", "PingFang SC", "SimHei")


def draw(report: dict[str, Any]) -> dict[str, bytes]:
    """Draw what the report holds; a picture whose figures are missing is left out.

    Parameters
    ----------
    report
        `HitModel.report`. Read are `importance` (column to mean absolute contribution) and `curves`:
        `precision_recall` (name to `recall` and `precision`), `calibration` (`predicted`, `observed`, `weight`) and
        `value_by_length` (name to `share` of the list taken and share of the `value` captured), all from 0 to 1.

    Returns
    -------
    dict
        `precision_recall`, `calibration`, `value_by_length` and `importance`, as PNG.
    """
    curves = report.get("curves") or {}
    figures = {
        "precision_recall": _precision_recall(curves.get("precision_recall")),
        "calibration": _calibration(curves.get("calibration")),
        "value_by_length": _value_by_length(curves.get("value_by_length")),
        "importance": _importance(report.get("importance")),
    }
    return {name: as_png(figure) for name, figure in figures.items() if figure is not None}


def _precision_recall(curves: dict[str, dict[str, list[float]]] | None) -> Figure | None:
    if not curves:
        return None
    figure, axes = canvas("Precision and recall, out of time")
    for place, (name, curve) in enumerate(curves.items()):
        axes.step(curve["recall"], curve["precision"], where="post", label=name, **_style(place))
    axes.set(xlabel="Share of the hits found", ylabel="Share of hits among those named", xlim=(0, 1), ylim=(0, 1.02))
    return finish(figure, axes, legend="upper right")


def _calibration(curve: dict[str, list[float]] | None) -> Figure | None:
    if not curve or not curve.get("predicted"):
        return None
    figure, axes = canvas("Calibration, out of time")
    top = min(1.0, 1.15 * max(*curve["predicted"], *curve["observed"], 0.02))
    weight = curve.get("weight") or [1.0] * len(curve["predicted"])
    sizes = [30 + 170 * w / max(weight) for w in weight]
    axes.plot([0, top], [0, top], color=INK, linewidth=1, linestyle=(0, (4, 4)), label="as often as promised")
    axes.plot(curve["predicted"], curve["observed"], color=COLOURS[0], linewidth=1.5, alpha=0.5)
    axes.scatter(
        curve["predicted"],
        curve["observed"],
        s=sizes,
        color=COLOURS[0],
        edgecolor="white",
        zorder=3,
        label="SKUs (larger: more of them)",
    )
    axes.set(
        xlabel="Predicted probability of a hit",
        ylabel="Share that became hits",
        xlim=(-0.02 * top, top),
        ylim=(-0.02 * top, top),
    )
    return finish(figure, axes, legend="upper left")


def _value_by_length(curves: dict[str, dict[str, list[float]]] | None) -> Figure | None:
    if not curves:
        return None
    figure, axes = canvas("Value captured against the length of the list, out of time")
    for place, (name, curve) in enumerate(curves.items()):
        axes.plot(curve["share"], curve["value"], label=name, **_style(place))
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 4)), label="at random")
    axes.set(
        xlabel="Share of the SKUs taken, best first", ylabel="Share of the value captured", xlim=(0, 1), ylim=(0, 1.02)
    )
    return finish(figure, axes, legend="lower right")


def _importance(importance: dict[str, float] | None) -> Figure | None:
    if not importance:
        return None
    largest = sorted(importance.items(), key=lambda item: item[1])[-MOST_COLUMNS:]
    figure, axes = canvas("What the score rests on", height=1.4 + 0.27 * len(largest))
    axes.barh([_short(name) for name, _ in largest], [size for _, size in largest], color=COLOURS[0], height=0.7)
    left_out = len(importance) - len(largest)
    more = f"\n({left_out} smaller ones are not shown)" if left_out else ""
    axes.set(xlabel=f"Mean change of the log odds{more}")
    axes.margins(y=0.02)
    finish(figure, axes, legend=None)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return figure


def canvas(title: str, height: float = 4.4) -> tuple[Figure, Any]:
    """Return a figure of its own: no global state of matplotlib is used or changed."""
    figure = Figure(figsize=(6.4, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    return figure, axes


def _style(place: int) -> dict[str, Any]:
    return {"color": COLOURS[place % len(COLOURS)], "linewidth": 2.2 if place == 0 else 1.6}


def finish(figure: Figure, axes: Any, *, legend: str | None) -> Figure:
    """Draw the grid, leave out what frames nothing, and place the legend."""
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if legend:
        axes.legend(loc=legend, frameon=False, fontsize=9)
    return figure


def as_png(figure: Figure) -> bytes:
    """Return the picture's file."""
    fonts = ["DejaVu Sans", *(font for font in WIDE_FONTS if font in font_manager.get_font_names())]
    for text in figure.findobj(Text):
        text.set_fontfamily(fonts)
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A machine without such a font shows boxes; the figures beside them are still right.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _short(name: str) -> str:
    return name if len(name) <= 40 else name[:39] + "…"
