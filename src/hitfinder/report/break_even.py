"""The break-even curve as a picture: hits found over what the test costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.errors import DataError
from hitfinder.report.content import percent
from hitfinder.report.whole import replacing

__all__ = ["FULL", "OURS", "draw_replay", "isotonic"]

Array = npt.NDArray[np.float64]

# Policies by the names that results give them.
FULL = "full test"
OURS = "hitfinder"

INK, GREY, BLUE = "#333333", "#6b6b6b", "#1f5fa8"
MUTED = ("#b0805a", "#7d9a83", "#9784a6", "#8c8c8c", "#6f94a8", "#b08f8f")
PICTURES: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


def draw_replay(summary: pd.DataFrame, path: str | Path) -> Path:
    """Draw the break-even curve: hits found, as a share of the full test's, over the cost of the test.

    Dots are what was played, bands their 90 % intervals, lines the closest curves that never fall.

    Parameters
    ----------
    summary
        What `summarise_replay` returns.
    path
        Where to; the suffix says in which form: .png, .svg or .pdf. Written whole or not at all.

    Raises
    ------
    DataError
        The full test is not in the summary or found nothing, or the suffix is another one.
    HitfinderError
        The file can't be written.
    """
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix.lower() not in PICTURES:
        raise DataError(f"{path}: expected a name that ends in {', '.join(PICTURES)}, got {path.suffix or 'none'!r}")
    if summary.empty or summary["hits_vs_full"].isna().any():
        raise DataError(f"break-even curve: expected hits found by a policy named {FULL!r}, got none; replay it too")
    figure = Figure(figsize=(8.4, 4.9), dpi=160, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    others = summary.loc[summary["policy"] != FULL].sort_values("saved", ascending=False, kind="stable")
    names = [name for name in summary["policy"].unique() if name not in (FULL, OURS)]
    colours = {name: MUTED[place % len(MUTED)] for place, name in enumerate(names)} | {OURS: BLUE}
    ends = []
    for name in [*names, *others["policy"][others["policy"] == OURS].unique()]:
        rows, strong = others.loc[others["policy"] == name], name == OURS
        cost, share = (1 - rows["saved"]).to_numpy(), rows["hits_vs_full"].to_numpy()
        fine = np.linspace(cost[0], cost[-1], 400)
        line = np.interp(fine, cost, isotonic(share[None, :])[0])
        low, high = rows["hits_vs_full_low"], rows["hits_vs_full_high"]
        look: dict[str, Any] = {"color": colours[name], "zorder": 4 if strong else 3}
        axes.fill_between(cost, low, high, alpha=0.18 if strong else 0.07, linewidth=0, **look)
        axes.plot(fine, line, linewidth=2.6 if strong else 1.3, **look)
        axes.plot(cost, share, "o", ms=5.5 if strong else 3.4, mec="white", mew=0.6, **look)
        ends.append((fine[-1], line[-1], name, colours[name]))
    _frame(axes, others)
    _label_ends(axes, ends)
    reached = summary.loc[(summary["policy"] == OURS) & summary["equal_saved"].notna()].head(1)
    title = "Hits found for what a test costs"
    for row in reached.to_dict("records"):
        # No smaller budget was played: it might have done as well.
        at_most = bool(row["equal_saved"] >= others.loc[others["policy"] == OURS, "saved"].max() - 1e-9)
        if row["equal_saved_low"] > 0:  # else it may as well be that nothing is saved
            cost_said = f"{'at most ' if at_most else ''}{percent(1 - row['equal_saved'])}"
            title = f"{OURS} finds the full test's hits for {cost_said} of its cost"
        marked = (1 - row[name] for name in ("equal_saved", "equal_saved_high", "equal_saved_low"))
        _mark_equal(axes, *marked, at_most=at_most)
    axes.set_title(f"{title}\n", loc="left", fontsize=13, fontweight="bold", color=INK)
    batches, hits = summary["batches"].iloc[0], summary["hits"].iloc[0]
    said = f"Replay of {batches:,} past batches with {hits:,.0f} hits. Bands and brackets: 90% intervals over batches."
    axes.text(0, 1.03, said, transform=axes.transAxes, fontsize=9.5, color=GREY)
    _save(figure, path)
    return path


def _frame(axes: Any, others: pd.DataFrame) -> None:
    """Scale and label the axes, and draw the full test's hits across."""
    # The root spreads small costs out, where policies differ most, and still knows a cost of nothing.
    axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    cheapest = float((1 - others["saved"]).min()) if len(others) else 0.05
    ticks = [t for t in (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0) if t >= cheapest * 0.75 or t >= 0.05]
    low = float(others["hits_vs_full_low"].min()) if len(others) else 0.5
    high = max(float(others["hits_vs_full_high"].max()) if len(others) else 1.0, 1.0)
    axes.set_xticks(ticks, [f"{t:.0%}" for t in ticks])
    axes.set_xlim(min(0.72 * cheapest, 0.04), 1.02)
    axes.set_ylim(max(low - 0.04, 0), high + 0.06)
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
    axes.set_xlabel("Cost: exposures, as a share of a full test", color=INK)
    axes.set_ylabel("Hits found, as a share of the full test's", color=INK)
    axes.axhline(1, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), zorder=2)
    axes.plot([1], [1], "D", color=INK, ms=5.5, mec="white", mew=0.6, zorder=5, clip_on=False)
    axes.grid(visible=True, color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.minorticks_off()
    axes.tick_params(colors=GREY, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color("#bbbbbb")


def _label_ends(axes: Any, ends: list[tuple[float, float, str, str]]) -> None:
    """Name each line in a column right of the last end, pushed apart where names would overlap."""
    low, high = axes.get_ylim()
    last = max((cost for cost, *_ in ends), default=1.0)
    # Names stand outside of the axes where a line goes that far, else beside the lines' ends; the full test's own
    # height is kept free for its line.
    outside = last > 0.72
    labels = sorted([(1.0, 1.0, FULL if outside else "", INK), *ends], key=lambda end: (end[1], end[2]))
    left = axes.transAxes.inverted().transform(axes.transData.transform((1.0 if outside else last, low)))[0] + 0.04
    gap = (high - low) * 0.05
    heights, steps = np.array([height for _, height, _, _ in labels]), gap * np.arange(len(labels))
    # As near to the ends as a gap between names allows.
    spread = np.minimum(isotonic((heights - steps)[None, :])[0], high - gap / 2 - steps[-1]) + steps
    across = axes.get_yaxis_transform()
    for (cost, height, name, colour), at in zip(labels, spread, strict=True):
        if not name:
            continue
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.55, "shrinkA": 0, "shrinkB": 4}
        axes.annotate("", (cost, height), (left, at), textcoords=across, annotation_clip=False, arrowprops=leader)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85}
        axes.text(left + 0.005, at, name, transform=across, va="center", fontsize=9.5, color=colour, zorder=6,
                  fontweight="bold" if name == OURS else "normal", bbox=box)  # fmt: skip
    if not outside:
        axes.annotate(FULL, (1, 1), (0, 8), textcoords="offset points", ha="right", fontsize=9.5, color=INK)


def _mark_equal(axes: Any, cost: float, low: float, high: float, *, at_most: bool) -> None:
    """Mark where our curve reaches the full test's hits, and the interval of that cost."""
    floor = axes.get_ylim()[0]
    axes.plot([cost, cost], [floor, 1], color=BLUE, linewidth=1, linestyle=(0, (2, 2)), zorder=3)
    axes.plot([cost], [1], "o", ms=9, mfc="white", mec=BLUE, mew=2, zorder=6)
    left = cost < 0.5
    said = f"{percent(cost)} ({percent(low)} to {percent(high)})"
    if at_most:
        said = f"{percent(cost)} or less (90% interval: up to {percent(high)})"
    axes.annotate(said, (cost, floor), (6 if left else -6, 7),
                  textcoords="offset points", ha="left" if left else "right", va="bottom", fontsize=9.5, color=BLUE,
                  zorder=7)  # fmt: skip


def _save(figure: Any, path: Path) -> None:
    from matplotlib import rc_context

    kind = path.suffix.lower().removeprefix(".")
    with replacing(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        # No date, no version and no random ids inside: the same summary gives the same file.
        with rc_context({"svg.hashsalt": path.suffix}):
            figure.savefig(partial, format=kind, metadata=PICTURES[path.suffix.lower()])


def isotonic(values: Array) -> Array:
    """Fit the closest curve that never falls to each row, shape (rows, points), by the min-max formula.

    >>> isotonic(np.array([[1.0, 3.0, 2.0, 4.0]])).tolist()
    [[1.0, 2.5, 2.5, 4.0]]
    """
    n = values.shape[1]
    sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
    best = np.full(values.shape, -np.inf)
    for start in range(n):
        means = (sums[:, start + 1 :] - sums[:, [start]]) / np.arange(1, n - start + 1)
        # The lowest mean of those that end at each point or later.
        lowest = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
        best[:, start:] = np.maximum(best[:, start:], lowest)
    return best
