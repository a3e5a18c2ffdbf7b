"""What is looked at: each batch at the age of the newest one, and each week at the distance of the newest one.

The newest batch and the newest week are compared with earlier ones as those were known at the same age: no report
counts that had not come by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.features import count_pairs, features, find_training_moments, observe
from hitfinder.models.hit_model import HitModel
from hitfinder.settings import Settings
from hitfinder.warehouse import frame, load_sql

__all__ = ["WEEK", "Looks", "look", "measured_rates", "sums_of"]

WEEK = pd.Timedelta(days=7)
# Older weeks are of another season, and cost time.
MAX_LOOKS = 40
# A batch of fewer SKUs says little about its like.
MIN_BATCH = 10
# A batch is looked at from this share of its test on; before that the one before it is the newest.
MIN_AGE = 0.5

# What is counted on what, from the top of the funnel down.
STEPS = (
    ("clicks", "impressions"), ("favorites", "clicks"), ("carts", "clicks"), ("orders", "clicks"),
    ("revenue", "orders"),
)  # fmt: skip


@dataclass(frozen=True)
class Looks:
    """What was seen.

    `batches`: `batch_id, first_launch, n_skus, moment`, oldest first, those of the same look as the newest. `weeks`:
    `week` (0 is the newest), `moment`. `table`: the model's inputs, one row per SKU of each batch at its batch's
    moment. `later`: the same for SKUs of `closed` at every moment of their tests. `cells`: counts per batch, style,
    category and channel; `sku_channels`: per SKU and channel, the first of `rates` alone. `pairs_of_weeks`: counts of
    SKUs that have both a week and the one before it, per week, style, category and channel. `reports`: what came per
    week and channel.
    """

    batches: pd.DataFrame
    weeks: pd.DataFrame
    table: pd.DataFrame
    later: pd.DataFrame
    cells: pd.DataFrame
    sku_channels: pd.DataFrame
    pairs_of_weeks: pd.DataFrame
    reports: pd.DataFrame
    rates: tuple[tuple[str, str], ...]


def look(con: Any, model: HitModel, moment: pd.Timestamp, closed: list[str]) -> Looks:
    """Look at the batches and weeks of the admitted tables, as of a moment.

    Parameters
    ----------
    con
        After `features.set_scope` of the same moment.
    model
        Its pooling and design say what its inputs are.
    moment
        Of knowledge.
    closed
        Ids of SKUs that are looked at at every moment of their tests as well.
    """
    settings = model.settings
    batches = _batches(con, settings, moment)
    weeks = _weeks(con, moment)
    con.register("look_batches_source", batches)
    con.execute("create or replace temp table look_batches as select * from look_batches_source")
    con.unregister("look_batches_source")
    con.register("closed_source", pd.DataFrame({"sku_id": pd.Series(closed, dtype="str")}))
    find_training_moments(con)
    con.execute(
        """
        create or replace temp table moments as
        select look_batches.moment as as_of, catalog.sku_id from catalog
        inner join look_batches on catalog.batch_id = look_batches.batch_id
        where catalog.launched_at <= look_batches.moment
        union
        select as_of, sku_id from training_moments where sku_id in (select sku_id from closed_source)
        """
    )
    con.unregister("closed_source")
    observe(con)
    count_pairs(con, list(model.rates["rate"]))
    rows = con.execute("select * from skus order by sku_id").df()
    table = model.describe(features(con, model.rates), rows)
    rates = measured_rates(con)
    _set_parts(con, weeks)
    sums = sums_of(rates)
    moments = batches[["batch_id", "moment"]]
    at_look = table.merge(moments, left_on=["batch_id", "as_of"], right_on=["batch_id", "moment"])
    return Looks(
        batches=batches,
        weeks=weeks,
        table=at_look.drop(columns="moment"),
        later=table[table["sku_id"].isin(set(closed))].reset_index(drop=True),
        cells=frame(con, load_sql("monitor/cells").format(sums=sums)),
        sku_channels=frame(con, load_sql("monitor/sku_channels").format(sums=sums_of(rates[:1]))),
        pairs_of_weeks=frame(con, load_sql("monitor/same_skus").format(sums=sums)),
        reports=frame(con, load_sql("monitor/reports_by_week")),
        rates=rates,
    )


def measured_rates(con: Any) -> tuple[tuple[str, str], ...]:
    """Name what is counted on what; where a denominator was never measured, the SKU stands in."""
    names = sorted({name for step in STEPS for name in step})
    counts = ", ".join(f"count({name})" for name in names)
    there = dict(zip(names, con.execute(f"select {counts} from reports").fetchall()[0], strict=True))
    return tuple((num, den if there[den] else "skus") for num, den in STEPS if there[num])


def sums_of(rates: tuple[tuple[str, str], ...]) -> str:
    """Return the SQL that sums both sides of each rate over the reports in which both were measured."""
    parts = []
    for num, den in rates:
        both = f"{num} is not null" + ("" if den == "skus" else f" and {den} is not null")
        top = f"cast(sum(case when {both} then {num} end) as double)"
        below = "cast(count(distinct sku_id) as double)" if den == "skus" else (
            f"cast(sum(case when {both} then {den} end) as double)"
        )  # fmt: skip
        parts.append(f"{top} as {num}_num, {below} as {num}_den")
    return ",\n    ".join(parts) or "0 as nothing"


def _batches(con: Any, settings: Settings, moment: pd.Timestamp) -> pd.DataFrame:
    found: pd.DataFrame = con.execute(
        "select batch_id, min(launched_at) as first_launch, count(*) as n_skus from catalog "
        "group by batch_id having count(*) >= $least order by first_launch, batch_id",
        {"least": MIN_BATCH},
    ).df()
    found = found[found["first_launch"] <= moment - MIN_AGE * settings.label.test_window]
    if found.empty:
        return found.assign(moment=pd.Series(dtype="datetime64[us]"))
    age = min(moment - found["first_launch"].iloc[-1], settings.label.test_window)
    found = found.tail(MAX_LOOKS).reset_index(drop=True)
    return found.assign(moment=found["first_launch"] + age)


def _weeks(con: Any, moment: pd.Timestamp) -> pd.DataFrame:
    [(first,)] = con.execute("select min(period_start) from reports").fetchall()
    n = 0 if first is None else int(np.clip((moment - pd.Timestamp(first)) // WEEK, 0, MAX_LOOKS))
    back = np.arange(n)[::-1]
    return pd.DataFrame({"week": back, "moment": pd.DatetimeIndex([moment - int(k) * WEEK for k in back])})


def _set_parts(con: Any, weeks: pd.DataFrame) -> None:
    """Make `look_parts`: each week looked at with its own reports, and those of the week before as known then."""
    now = weeks.assign(is_last=0, part=weeks["week"], upper_end=weeks["moment"])
    last = weeks.assign(is_last=1, part=weeks["week"] + 1, upper_end=weeks["moment"] - WEEK)
    con.register("look_parts_source", pd.concat([now, last], ignore_index=True))
    con.execute("create or replace temp table look_parts as select * from look_parts_source")
    con.unregister("look_parts_source")
