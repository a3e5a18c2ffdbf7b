"""Pictures of a search: how its trials did one after another, and which settings mattered."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hitfinder.registry.pictures import COLOURS, INK, as_png, canvas, finish

__all__ = ["draw_tuning"]


def draw_tuning(trials: pd.DataFrame, report: dict[str, Any]) -> dict[str, bytes]:
    """Draw `tuning_history` and, where there were trials enough, `tuning_importance`, as PNG.

    Parameters
    ----------
    trials, report
        Of `Tuned`.
    """
    figures = {"tuning_history": _history(trials), "tuning_importance": _importance(report.get("importance"))}
    return {name: as_png(figure) for name, figure in figures.items() if figure is not None}


def _history(trials: pd.DataFrame) -> Figure | None:
    shown = trials[trials["gain"].notna()].reset_index(drop=True)
    if shown.empty:
        return None
    figure, axes = canvas("Value captured at k, trial by trial, beside the settings that were given")
    place = shown.index + 1
    complete = shown["state"] == "complete"
    best = shown["gain"].where(complete).cummax().ffill()
    axes.axhline(0, color=INK, linewidth=1, linestyle=(0, (4, 4)), label="as given")
    axes.step(place, best, where="post", color=COLOURS[0], linewidth=1.6, label="best so far")
    axes.scatter(
        place[complete], shown["gain"][complete], s=26, color=COLOURS[0], edgecolor="white", zorder=3, label="trial"
    )
    if not complete.all():
        axes.scatter(
            place[~complete],
            shown["gain"][~complete],
            s=26,
            marker="x",
            color=COLOURS[1],
            zorder=3,
            label="given up early",
        )
    axes.set(xlabel="Trial", ylabel="Gain on the batches that the trial saw")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(figure, axes, legend=None)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _importance(importance: dict[str, float] | None) -> Figure | None:
    if not importance:
        return None
    parts = sorted(importance.items(), key=lambda item: item[1])
    figure, axes = canvas("What the trials' figures depend on", height=1.4 + 0.27 * len(parts))
    axes.barh([name for name, _ in parts], [share for _, share in parts], color=COLOURS[0], height=0.7)
    axes.set(xlabel="Share of the spread between trials (fANOVA)")
    axes.margins(y=0.02)
    finish(figure, axes, legend=None)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return figure
