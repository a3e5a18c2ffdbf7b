"""The pictures of the health page, as SVG: text keeps its letters in any language, and nothing has to be loaded."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.monitor import Health
from hitfinder.monitor.sentences import name_of_measure, name_of_subject
from hitfinder.report.drawings import BLUE, GREY, INK, LINE, PALE, svg_of, text_at

__all__ = ["draw_bets", "draw_delays", "draw_hits", "draw_reliability", "draw_shifts", "draw_weeks"]

Array = npt.NDArray[np.float64]

RED = "#b23a0c"
COLOURS = ("#1f5fa8", "#b0805a", "#4f8a5b", "#9784a6", "#c0603f", "#6b6b6b")
# So many subjects and weeks fit a screen.
MAX_ROWS, MAX_WEEKS = 16, 30


def draw_shifts(health: Health, language: str, words: dict[str, str]) -> str:
    """Draw the subjects that stand farthest out this week, over the weeks: red is up, blue is down."""
    kept = health.shifts[health.shifts["check"].isin(["batch_drift", "same_skus"])]
    if kept["shift"].notna().sum() == 0:
        return ""
    keys = ["check", "kind", "subject", "measure"]
    wide = []
    for check, part in kept.groupby("check", sort=False):
        weeks = sorted(part["moment"].unique())[-MAX_WEEKS:]
        place = {moment: MAX_WEEKS - len(weeks) + i for i, moment in enumerate(weeks)}
        limit = health.checks.loc[health.checks["check"] == check, "threshold"].max()
        seen = part[part["moment"].isin(weeks)]
        grid = seen.assign(column=seen["moment"].map(place)).pivot_table(index=keys, columns="column", values="shift")
        wide.append(grid.div(limit if limit and np.isfinite(limit) else 4.0))
    table = pd.concat(wide)
    newest = table[MAX_WEEKS - 1].abs().sort_values(ascending=False, kind="stable")
    table = table.loc[newest.dropna().index[:MAX_ROWS]].reindex(columns=range(MAX_WEEKS))
    left, cell, high = 390, 19, 21
    width, height = left + cell * MAX_WEEKS + 12, high * len(table) + 50
    parts = []
    for row, (key, values) in enumerate(table.iterrows()):
        named = dict(zip(keys, key, strict=True))  # type: ignore[call-overload]  # the index has four levels
        said = f"{name_of_subject(named, language)}: {name_of_measure(str(named['measure']), language)}"
        said += f" · {words['short_' + named['check']]}"
        y = 26 + high * row
        parts.append(text_at(left - 8, y + 14, _cut(said, 60), anchor="end", size=12))
        for column, value in enumerate(values.to_numpy(dtype=float)):
            fill = "#f4f6f8" if not np.isfinite(value) else _shade(value)
            title = "" if not np.isfinite(value) else f"<title>{value:+.2f}</title>"
            x = left + cell * column
            parts.append(f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{high - 1}" fill="{fill}">{title}</rect>')
            if np.isfinite(value) and abs(value) > 1:
                parts.append(f'<circle cx="{x + (cell - 1) / 2}" cy="{y + (high - 1) / 2}" r="3" fill="#fff"/>')
    bottom = 26 + high * len(table) + 16
    parts.append(text_at(left, bottom, words["weeks_before"].format(n=MAX_WEEKS - 1), size=11, fill=GREY))
    parts.append(text_at(left + cell * MAX_WEEKS, bottom, words["newest"], anchor="end", size=11, fill=GREY))
    parts.append(text_at(left, 16, words["shifts_key"], size=11, fill=GREY))
    return svg_of(width, height, parts, words["shifts"])


def draw_weeks(health: Health, words: dict[str, str]) -> str:
    """Draw each check's largest shift of each week beside the threshold of today."""
    names = [
        name
        for name in health.weeks["check"].unique()
        if health.weeks.loc[health.weeks["check"] == name, "top"].notna().any()
    ]
    if not names:
        return ""
    wide, high, left = 900, 74, 160
    parts = []
    for row, name in enumerate(names):
        mine = health.weeks[health.weeks["check"] == name].tail(MAX_WEEKS)
        limit = float(health.checks.loc[health.checks["check"] == name, "threshold"].iloc[0])
        top = mine["top"].to_numpy(dtype=float)
        ceiling = 1.15 * np.nanmax([np.nanmax(top), limit if np.isfinite(limit) else 0.0, 1.0])
        ceiling = min(ceiling, 3 * limit) if np.isfinite(limit) else ceiling
        base, step = 12 + high * (row + 1), (wide - left - 20) / MAX_WEEKS
        parts.append(text_at(left - 12, base - 26, words[f"check_{name}"], anchor="end", size=12.5))
        parts.append(f'<line x1="{left}" y1="{base}" x2="{wide - 20}" y2="{base}" stroke="{LINE}"/>')
        offset = MAX_WEEKS - len(mine)
        for i, value in enumerate(top):
            if not np.isfinite(value):
                continue
            tall = max((high - 22) * min(value, ceiling) / ceiling, 1.0)
            out = np.isfinite(limit) and value > limit
            fill = RED if out else BLUE if i + 1 == len(top) else PALE
            x = left + step * (offset + i)
            parts.append(
                f'<rect x="{x:.1f}" y="{base - tall:.1f}" width="{step - 3:.1f}" height="{tall:.1f}" fill="{fill}">'
                f"<title>{mine['moment'].iloc[i]:%Y-%m-%d}: {value:.2f}</title></rect>"
            )
        if np.isfinite(limit):
            y = base - (high - 22) * limit / ceiling
            parts.append(
                f'<line x1="{left}" y1="{y:.1f}" x2="{wide - 20}" y2="{y:.1f}" stroke="{INK}" stroke-dasharray="5 3"/>'
            )
    bottom = 12 + high * len(names) + 16
    parts.append(text_at(left, bottom, words["weeks_before"].format(n=MAX_WEEKS - 1), size=11, fill=GREY))
    parts.append(text_at(wide - 20, bottom, words["newest"], anchor="end", size=11, fill=GREY))
    return svg_of(wide, bottom + 10, parts, words["weeks"])


def draw_reliability(health: Health, words: dict[str, str]) -> str:
    """Draw predicted against observed shares: of the fit out of time, and on batches that closed since."""
    lines = [
        (health.fit_curve, PALE, words["at_fit"]), (health.outcomes.curve, BLUE, words["since_fit"])
    ]  # fmt: skip
    drawn = [(c["predicted"], c["observed"], colour, name) for c, colour, name in lines if c and c.get("predicted")]
    if not health.outcomes.curve:
        return ""
    top = max(max(*map(max, (p, o))) for p, o, _, _ in drawn)
    top = float(np.clip(1.1 * top, 0.02, 1.0))
    frame = _Frame(430, 330, (0.0, top), (0.0, top), root=True)
    ticks = [t for t in (0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if t <= top]
    parts = frame.axes(ticks, ticks, "{:.0%}", words["predicted"], words["observed"])
    parts.append(frame.line([0, top], [0, top], GREY, dash=True))
    for place, (predicted, observed, colour, name) in enumerate(drawn):
        parts.append(frame.line(predicted, observed, colour, dots=True))
        parts.append(
            text_at(
                frame.left + 12, frame.top + 16 + 17 * place, name, fill=colour if colour != PALE else GREY, bold=True
            )
        )
    return svg_of(430, 330, parts, words["reliability"])


def draw_hits(health: Health, words: dict[str, str]) -> str:
    """Draw hits and the sum of probabilities for each batch closed since the fit."""
    batches = health.outcomes.batches.tail(MAX_WEEKS)
    if batches.empty:
        return ""
    hits, expected = batches["hits"].to_numpy(dtype=float), batches["expected"].to_numpy(dtype=float)
    top = 1.15 * max(hits.max(), expected.max(), 1.0)
    frame = _Frame(430, 330, (-0.5, len(batches) - 0.5), (0.0, top))
    ticks = _round_ticks(top)
    parts = frame.axes([], ticks, "{:g}", words["closed_batches"], words["hits"])
    for i, (name, became, said) in enumerate(zip(batches["batch_id"], hits, expected, strict=True)):
        x, y = frame.x(i), frame.y(became)
        tip = f"<title>{escape(str(name))}: {became:.0f} / {said:.1f}</title>"
        wide = min(0.6 * (frame.x(1) - frame.x(0)), 24.0)
        size = f'width="{wide:.1f}" height="{frame.y(0) - y:.1f}"'
        parts.append(f'<rect x="{x - wide / 2:.1f}" y="{y:.1f}" {size} fill="{PALE}">{tip}</rect>')
        parts.append(f'<circle cx="{x:.1f}" cy="{frame.y(said):.1f}" r="4.5" fill="{BLUE}">{tip}</circle>')
    parts.append(text_at(frame.left + 12, frame.top + 8, words["expected_dots"], fill=BLUE, bold=True))
    return svg_of(430, 330, parts, words["hits_by_batch"])


def draw_delays(health: Health, words: dict[str, str]) -> str:
    """Draw how long after its period a report came on average, week by week and channel by channel."""
    rows = health.delays[health.delays["n_before"] > 0]
    if rows.empty:
        return ""
    weeks = sorted(rows["moment"].unique())[-MAX_WEEKS:]
    rows = rows[rows["moment"].isin(weeks)]
    rows = rows.assign(hours=rows["delay_sum"] / rows["n_before"])
    channels = (
        rows.groupby("channel")["n_before"].sum().sort_values(ascending=False, kind="stable").index[: len(COLOURS)]
    )
    top = 1.35 * max(float(rows["hours"].max()), 1.0)
    frame = _Frame(430, 330, (0.0, max(len(weeks) - 1, 1)), (min(0.0, float(rows["hours"].min())), top))
    parts = frame.axes([], _round_ticks(top), "{:g}", words["weeks_axis"], words["delay_axis"])
    place = {moment: i for i, moment in enumerate(weeks)}
    for row, channel in enumerate(channels):
        mine = rows[rows["channel"] == channel].sort_values("moment")
        parts.append(frame.line(mine["moment"].map(place).tolist(), mine["hours"].tolist(), COLOURS[row]))
        parts.append(
            text_at(
                frame.left + 12 + 104 * (row % 3),
                frame.top + 14 + 17 * (row // 3),
                _cut(str(channel), 14),
                fill=COLOURS[row],
                bold=True,
            )
        )
    return svg_of(430, 330, parts, words["delays"])


def draw_bets(health: Health, words: dict[str, str]) -> str:
    """Draw what betting against the promise has won so far, on a log scale."""
    if health.bets.empty:
        return ""
    allowed = health.checks.loc[health.checks["check"].isin(["promise", "decisions"]), "threshold"].max()
    limit = float(np.log10(allowed))
    wealth = np.log10(health.bets["wealth"].to_numpy(dtype=float))
    longest = int(health.bets.groupby("check").size().max())
    frame = _Frame(
        430, 330, (0.0, max(longest, 2)), (min(-1.0, float(wealth.min())), 1.15 * max(limit, float(wealth.max())))
    )
    ticks = [float(t) for t in range(int(np.ceil(frame.ys[0])), int(frame.ys[1]) + 1)]
    parts = frame.axes([], ticks, "10^{:g}", words["closed_batches"], words["wealth"])
    parts.append(frame.line([0, max(longest, 2)], [limit, limit], INK, dash=True))
    parts.append(text_at(frame.left + 12, frame.y(limit) - 6, words["alarm_line"], size=11))
    for row, (check, mine) in enumerate(health.bets.groupby("check", sort=False)):
        won = np.log10(np.append(1.0, mine["wealth"].to_numpy(dtype=float)))
        parts.append(frame.line(list(range(len(won))), won.tolist(), COLOURS[row], dots=True))
        parts.append(
            text_at(
                frame.left + 12, frame.y(limit) + 20 + 17 * row, words[f"bet_{check}"], fill=COLOURS[row], bold=True
            )
        )
    return svg_of(430, 330, parts, words["bets"])


class _Frame:
    """The place of a plot within its picture, and the way from figures to points."""

    def __init__(
        self, width: int, height: int, xs: tuple[float, float], ys: tuple[float, float], *, root: bool = False
    ) -> None:
        self.left, self.top, self.right, self.bottom = 58, 22, width - 14, height - 46
        self.xs, self.ys, self.root = xs, ys, root

    def _share(self, value: float, ends: tuple[float, float]) -> float:
        if self.root:
            return float(np.sqrt(max(value, 0.0) / ends[1]))
        return (value - ends[0]) / (ends[1] - ends[0])

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * self._share(value, self.xs)

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * self._share(value, self.ys)

    def axes(self, xticks: Sequence[float], yticks: Sequence[float], form: str, below: str, beside: str) -> list[str]:
        parts = [f'<line x1="{self.left}" y1="{self.bottom}" x2="{self.right}" y2="{self.bottom}" stroke="{GREY}"/>']
        parts += [
            text_at(self.x(tick), self.bottom + 16, form.format(tick), anchor="middle", size=11, fill=GREY)
            for tick in xticks
        ]
        for tick in yticks:
            y = self.y(tick)
            parts.append(f'<line x1="{self.left}" y1="{y:.1f}" x2="{self.right}" y2="{y:.1f}" stroke="{LINE}"/>')
            said = form.format(tick)
            if said.startswith("10^"):
                said = f"{10.0**tick:g}"
            parts.append(text_at(self.left - 7, y + 4, said, anchor="end", size=11, fill=GREY))
        parts.append(
            text_at((self.left + self.right) / 2, self.bottom + 36, below, anchor="middle", size=12, fill=GREY)
        )
        parts.append(text_at(self.left, 12, beside, size=12, fill=GREY))
        return parts

    def line(
        self, xs: Sequence[float], ys: Sequence[float], colour: str, *, dots: bool = False, dash: bool = False
    ) -> str:
        points = [(self.x(x), self.y(y)) for x, y in zip(xs, ys, strict=True) if np.isfinite(x) and np.isfinite(y)]
        told = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashed = ' stroke-dasharray="4 3"' if dash else ""
        width = 1.2 if dash else 2.2
        out = f'<polyline points="{told}" fill="none" stroke="{colour}" stroke-width="{width}"{dashed}/>'
        return out + "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" fill="{colour}"/>' for x, y in points if dots)


def _shade(value: float) -> str:
    """Return a colour from blue (far below) over white to red (far above); 1 is the threshold."""
    strength = float(np.clip(abs(value), 0, 1)) ** 1.3
    end = (178, 58, 12) if value > 0 else (31, 95, 168)
    return "#" + "".join(f"{round(255 + strength * (c - 255)):02x}" for c in end)


def _round_ticks(top: float) -> list[float]:
    step = 10.0 ** np.floor(np.log10(max(top, 1e-9)))
    step = next(float(s) for s in (step / 5, step / 2, step, 2 * step) if top / s <= 6)
    return [float(step * i) for i in range(int(top / step) + 1)]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
