"""Reports that are missing, late or revised, and rows that are set aside."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.monitor.looks import MAX_LOOKS, WEEK, Looks
from hitfinder.monitor.shift import MIN_HISTORY, Track, usual_up_to
from hitfinder.tables import COUNTS, MONEY

__all__ = [
    "MAX_UNDATED",
    "Silence",
    "Undated",
    "late_track",
    "missing_track",
    "rejects_track",
    "silence",
    "silent_skus",
    "undated_rejects",
]

Array = npt.NDArray[np.float64]

# Shifts of a share below these are of no interest, nor a delay that changes by less than three hours.
FLOOR_SHARE, FLOOR_REJECTS, FLOOR_HOURS = 0.02, 0.003, 3.0
# A channel with fewer reports in a usual week is not looked at by itself.
MIN_REPORTS = 20
MAX_CHANNELS = 12
# More undated rejects than this above the share at the fit raise the alarm: they belong to no week that others could be
# compared with.
MAX_UNDATED = 0.01
# The period that a rejected row of signals names: by its column, or second in a list of a repeated row's values.
PERIOD_OF_REJECT = (
    r"""try_cast(coalesce(nullif(regexp_extract(content, '(?i)"\s*period_start\s*"\s*:\s*"([^"]+)"', 1), ''), """
    r"""nullif(regexp_extract(content, '^\["[^"]*","([^"]+)"', 1), '')) as timestamp)"""
)


@dataclass(frozen=True)
class Undated:
    """Shares of rows that were set aside and name no period: now, and of all rows set aside at the fit."""

    now: float
    then: float | None


@dataclass(frozen=True)
class Silence:
    """How long no signal has come, in days; NaN where none ever did.

    `longest`: the longest gap between arrivals so far. `limit`: from which on a gap is none of the usual ones; NaN
    where too few gaps were seen to say. `n_gaps`: how many were.
    """

    days: float
    longest: float
    limit: float
    n_gaps: int


def silence(con: Any, moment: pd.Timestamp, period: pd.Timedelta, allowed: float) -> Silence:
    """Measure for how long no signal has come, and what gaps there were in the weeks before that.

    `allowed`: the chance with which a gap like those before may be longer than the limit.
    """
    arrivals = con.execute(
        "with came as (select distinct known_at from signals where known_at <= $moment) "
        "select known_at from came where known_at >= (select max(known_at) from came) - $back order by known_at",
        {"moment": moment.to_pydatetime(), "back": (MAX_LOOKS * WEEK).to_pytimedelta()},
    ).df()["known_at"]
    if arrivals.empty:
        return Silence(np.nan, np.nan, np.nan, 0)
    day = pd.Timedelta(days=1)
    gaps = (arrivals.diff().dropna() / day).to_numpy(dtype=float)
    longest = float(gaps.max()) if len(gaps) else np.nan
    limit = np.nan
    if len(gaps) >= MIN_HISTORY:
        # A period more than the longest: an export that is made a little later than last time is not silent.
        limit = max(2 * period / day, longest + period / day)
        # Reports may come in bursts, a hundred small gaps a day: it is the longest of each week that are alike.
        of_week = pd.Series(gaps).groupby(((arrivals.iloc[-1] - arrivals) // WEEK).to_numpy()[1:]).max().to_numpy()
        limit = max(limit, usual_up_to(of_week, allowed)) if len(of_week) >= MIN_HISTORY else limit
    return Silence(float((moment - arrivals.iloc[-1]) / day), longest, limit, len(gaps))


def silent_skus(con: Any, looks: Looks) -> Array:
    """Return, for each week, the share of SKUs launched in the week before it of which nothing was known by its end."""
    counts = con.execute(
        """
        select look_parts.week, count(distinct catalog.sku_id), count(distinct reports.sku_id)
        from look_parts
        inner join catalog
            on catalog.launched_at <= look_parts.moment - interval '2' day
            and catalog.launched_at >= look_parts.moment - interval '9' day
        left join reports
            on catalog.sku_id = reports.sku_id and reports.known_at <= look_parts.moment
        where look_parts.is_last = 0
        group by look_parts.week
        """
    ).fetchall()
    share = {week: 1 - seen / n for week, n, seen in counts}
    return np.array([share.get(week, np.nan) for week in looks.weeks["week"].tolist()], dtype=float)


def missing_track(looks: Looks, silent: Array, period: pd.Timedelta) -> Track:
    """Describe each week by what should be there: periods and SKUs of each channel, counts in its rows."""
    n = len(looks.weeks)
    rows: list[tuple[str, str, str]] = []
    values: list[Array] = []
    sides: list[float] = []

    def add(kind: str, subject: str, measure: str, value: Array, side: float) -> None:
        rows.append((kind, subject, measure))
        values.append(value)
        sides.append(side)

    if n:
        add("skus", "", "share without any signal", silent, 1.0)
        whole = looks.reports.groupby("week").sum(numeric_only=True).reindex(looks.weeks["week"])
        total = whole["n_rows"].to_numpy(dtype=float)
        for channel, mine in _by_channel(looks).items():
            periods = mine["n_periods"].to_numpy(dtype=float)
            add("channel", channel, "share of periods with a report", periods / (WEEK / period), -1.0)
        for column in (*COUNTS, *MONEY):
            counted = whole[column].to_numpy(dtype=float)
            if np.nansum(counted) > 0:
                empty = 1 - np.divide(counted, total, out=np.full(n, np.nan), where=total > 0)
                add("column", column, "share of rows without it", empty, 1.0)
    return _track(rows, values, [FLOOR_SHARE] * len(rows), sides, looks)


def late_track(looks: Looks) -> Track:
    """Describe each week by how late the reports of the week before came, and how many were revised since."""
    n = len(looks.weeks)
    rows: list[tuple[str, str, str]] = []
    values: list[Array] = []
    noises: list[Array] = []
    floors: list[float] = []
    for channel, mine in _by_channel(looks).items() if n else ():
        before = mine["n_before"].to_numpy(dtype=float)
        told = before >= MIN_REPORTS
        for name, measure in (
            ("n_day_late", "share a day late"), ("n_two_days_late", "share two days late"),
            ("n_revised", "share revised"),
        ):  # fmt: skip
            share = np.divide(mine[name].to_numpy(dtype=float), before, out=np.full(n, np.nan), where=told)
            rows.append(("channel", channel, measure))
            values.append(share)
            noises.append(np.where(told, np.nan_to_num(share * (1 - share)) / np.maximum(before, 1), 0.0))
            floors.append(FLOOR_SHARE)
        hours = np.divide(mine["delay_sum"].to_numpy(dtype=float), before, out=np.full(n, np.nan), where=told)
        rows.append(("channel", channel, "mean delay in hours"))
        values.append(hours)
        noises.append(np.zeros(n))
        floors.append(FLOOR_HOURS)
    return _track(rows, values, floors, [1.0] * len(rows), looks, noises)


def rejects_track(con: Any, looks: Looks) -> Track:
    """Describe each week by the share of its rows of signals that were set aside, where they name their period."""
    dated = con.execute(
        f"select moment, count(*) as n from (select {PERIOD_OF_REJECT} as moment from rejects "
        "where table_name = 'signals') where moment is not null group by moment"
    ).df()
    rows = looks.reports.groupby("week")["n_rows"].sum().reindex(looks.weeks["week"], fill_value=0)
    kept = rows.to_numpy(dtype=float)
    ends = pd.DatetimeIndex(looks.weeks["moment"])
    bad = np.array(
        [float(dated.loc[(dated["moment"] < end) & (dated["moment"] >= end - WEEK), "n"].sum()) for end in ends]
    )
    total = kept + bad
    share = np.divide(bad, total, out=np.full(len(total), np.nan), where=total > 0)
    noise = np.divide(share * (1 - share), total, out=np.zeros(len(total)), where=total > 0)
    return _track([("rejects", "signals", "share set aside")], [share], [FLOOR_REJECTS], [1.0], looks, [noise])


def undated_rejects(con: Any, admissions: list[str], kept: int) -> Undated:
    """Compare the share of rejects that name no period with the share of all rejects at the fit.

    Parameters
    ----------
    con
        With signals and SKUs admitted.
    admissions
        What the model's report says of its tables.
    kept
        Rows of signals and SKUs that were kept.
    """
    [(n,)] = con.execute(
        f"select count(*) from rejects where table_name <> 'signals' or {PERIOD_OF_REJECT} is null"
    ).fetchall()
    found = [re.search(r"(\d+) of (\d+) rows kept", text) for text in admissions]
    kept_then = sum(int(m[1]) for m in found if m)
    rows_then = sum(int(m[2]) for m in found if m)
    return Undated(n / max(n + kept, 1), 1 - kept_then / rows_then if rows_then else None)


def _by_channel(looks: Looks) -> dict[str, pd.DataFrame]:
    """Return each larger channel's weeks, those without any report included."""
    weeks = looks.weeks["week"]
    usual = looks.reports.groupby("channel")["n_rows"].sum().sort_values(ascending=False, kind="stable")
    names = [str(name) for name, rows in usual.items() if rows >= MIN_REPORTS * max(len(weeks), 1) / 2]
    return {
        name: looks.reports[looks.reports["channel"] == name].set_index("week").reindex(weeks).fillna(
            {"n_rows": 0, "n_periods": 0, "n_skus": 0, "n_before": 0}
        )
        for name in names[:MAX_CHANNELS]
    }  # fmt: skip


def _track(
    rows: list[tuple[str, str, str]], values: list[Array], floors: list[float], sides: list[float], looks: Looks,
    noises: list[Array] | None = None,
) -> Track:  # fmt: skip
    moments = pd.DatetimeIndex(looks.weeks["moment"])
    value = np.column_stack(values) if values else np.zeros((len(moments), 0))
    noise = np.column_stack(noises) if noises else np.zeros_like(value)
    about = pd.DataFrame(rows, columns=["kind", "subject", "measure"])
    return Track(about, value, noise, np.asarray(floors), np.asarray(sides), moments)
