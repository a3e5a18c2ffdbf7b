"""The picture of a backtest: what the lists were worth week by week, and what happened meanwhile."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd

__all__ = ["draw_walk"]

COLOURS = {"champion": "#1f6f8b", "never retrained": "#e08e0b", "best rule": "#8a8f98"}
SMOOTH = 4


def draw_walk(
    weeks: pd.DataFrame,
    lists: pd.DataFrame,
    retrainings: pd.DataFrame,
    *,
    change: Any = None,
    figure: str = "value_at_k",
) -> bytes:
    """Draw a backtest as PNG.

    Parameters
    ----------
    weeks, lists, retrainings
        Of a `Backtest`.
    change
        When the market changed, where that is known.
    figure
        Of the lists: `value_at_k`, `hits_at_k` or `average_precision`.

    Returns
    -------
    bytes
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(10, 5.2), layout="constrained")
    FigureCanvasAgg(drawing)
    above, below = drawing.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    # The champion last: where others do as well, it is what one sees.
    for ranker, rows in sorted(lists.groupby("ranker", sort=False), key=lambda pair: pair[0] == "champion"):
        by_week = rows.set_index("moment")[figure].sort_index()
        colour = COLOURS.get(str(ranker), "#555555")
        above.plot(by_week.index, by_week, ".", color=colour, alpha=0.35, markersize=4)
        smooth = by_week.rolling(SMOOTH, min_periods=1).mean()
        above.plot(smooth.index, smooth, color=colour, linewidth=2, label=f"{ranker} (mean of {SMOOTH} weeks)")
    above.set_ylabel(figure.replace("_", " "))
    above.set_ylim(0, 1.03)
    above.set_title("What the weekly lists were worth, of what was there to find", loc="left", fontsize=11)
    for _, row in retrainings.iterrows():
        if row["kind"] == "own" and row["outcome"] in ("promoted", "first"):
            above.axvline(row["moment"], color="#1f6f8b", linewidth=0.8, linestyle=":", zorder=0)
    if change is not None:
        for axes in (above, below):
            axes.axvline(pd.Timestamp(change), color="#b3261e", linewidth=1.5)
        above.annotate("the market changes", (pd.Timestamp(change), 1.0), color="#b3261e", fontsize=9,
                       xytext=(4, -4), textcoords="offset points", va="top")  # fmt: skip
    above.legend(loc="lower left", fontsize=9, frameon=False)
    looked = weeks[weeks["alarm"].notna()]
    raised = looked["alarm"].astype(bool)
    below.plot(looked.loc[~raised, "moment"], [0] * int((~raised).sum()), "|", color="#8a8f98", markersize=12)
    below.plot(looked.loc[raised, "moment"], [0] * int(raised.sum()), "v", color="#b3261e", markersize=8)
    tried = retrainings[(retrainings["kind"] == "sabotaged") & (retrainings["outcome"] != "waiting")]
    for outcome, marker, colour in (("refused", "x", "#333333"), ("promoted", "*", "#b3261e")):
        rows = tried[tried["outcome"] == outcome]
        below.plot(rows["moment"], [1] * len(rows), marker, color=colour, markersize=7)
    below.set_yticks([0, 1], ["monitor: | quiet, ▼ alarm", "sabotage: × refused"])
    below.set_ylim(-0.6, 1.6)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    below.set_xlabel("end of the batch's test; dotted: a retrained model took over")
    content = io.BytesIO()
    drawing.savefig(content, format="png", dpi=110)
    return content.getvalue()
