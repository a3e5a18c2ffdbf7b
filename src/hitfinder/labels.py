"""Labels: what each SKU was worth in its closed outcome window, and which were hits."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from hitfinder.costs import set_unit_economics
from hitfinder.errors import DataError, SettingsError
from hitfinder.features import stock_outs_at
from hitfinder.refunds import fit_refunds
from hitfinder.settings import Settings
from hitfinder.tables import COUNTS, MONEY
from hitfinder.warehouse import build, frame, load_sql, quoted

__all__ = ["MAX_COMPLETION", "MIN_GROUP", "PROFIT", "label", "parse_metric"]

# In a smaller group, being first says little.
MIN_GROUP = 5
# What a SKU sold while it was in stock is completed to no more than this many times: less than a tenth of a window
# tells too little.
MAX_COMPLETION = 10.0
NAMED_METRICS = {"click_rate": "clicks / impressions"}
PROFIT = "profit"


def parse_metric(metric: str) -> tuple[str, str | None]:
    """Split a metric into a counted column and, for a rate, the column it is divided by.

    Raises
    ------
    SettingsError
        Not a counted column, `click_rate`, `profit`, or one column over another.

    Examples
    --------
    >>> parse_metric("revenue")
    ('revenue', None)
    >>> parse_metric("click_rate")
    ('clicks', 'impressions')
    """
    found = re.fullmatch(r"\s*(\w+)\s*(?:/\s*(\w+)\s*)?", NAMED_METRICS.get(metric, metric))
    known = (*COUNTS, *MONEY)
    if metric.strip() == PROFIT:
        return PROFIT, None
    if not found or found[1] not in known or (found[2] is not None and found[2] not in known):
        raise SettingsError(
            f"label.metric: expected one of {', '.join(known)}, click_rate, profit, or a rate such as 'revenue / "
            "impressions', "
            f"got {metric!r}"
        )
    return found[1], found[2]


def label(con: Any, settings: Settings, *, outcomes_given: bool) -> pd.DataFrame:
    """Label every SKU whose outcome window had closed at the scope's moment.

    Parameters
    ----------
    con
        After `features.set_scope`; with `outcomes_given` also with the admitted table `outcomes`.
    settings
        The rule in `settings.label`.
    outcomes_given
        Take the values from `outcomes` rather than from the signals.

    Returns
    -------
    pandas.DataFrame
        `sku_id, within_group, launched_at, value, known_at, group_skus, standing, hit, problem, is_completed,
        seen_value, batch`, ordered by launch and SKU. `within_group` is where `hit` and `standing` are taken;
        `batch`, the `batch_id` of the SKUs tested together, is the unit of all that is ordered in time. `standing` is
        the share of the group worth less, in (0, 1). `problem` is NULL, `too_small` or `all_equal`; rows with a problem
        have no usable `hit`. `is_completed` tells whose `value` was completed because it had sold out (see
        sql/labels.sql); `seen_value` is what was really counted.

    Raises
    ------
    DataError
        `label.within` names no column of skus, or the metric was never measured.
    """
    rule = settings.label
    numerator, denominator = parse_metric(rule.metric)
    con.execute(
        """
        create or replace temp table scope as
        select
            scope.as_of, scope.period_seconds, scope.test_seconds, scope.outcome_seconds, scope.step_seconds,
            cast($rate as boolean) as metric_is_rate,
            cast($given as boolean) as outcomes_given,
            cast($share as double) as top_share,
            cast($value as double) as min_value,
            cast($group as bigint) as min_group,
            cast($most as double) as max_completion
        from scope
        """,
        {
            "rate": denominator is not None,
            "given": outcomes_given,
            "share": rule.top_share,
            "value": rule.min_value,
            "group": MIN_GROUP,
            "most": MAX_COMPLETION,
        },
    )
    stock_outs_at(con, "last_stock_outs", "select scope.as_of, catalog.sku_id from catalog cross join scope")
    build(con, "reports_in_stock")
    _set_groups(con, rule.within)
    if outcomes_given:
        con.execute("create or replace temp view given_outcomes as select sku_id, value, known_at from outcomes")
    else:
        _require_measured(con, *(("revenue",) if numerator == PROFIT else (numerator, denominator)))
        con.execute("create or replace temp table given_outcomes (sku_id varchar, value double, known_at timestamp)")
    reports = "reports_in_stock"
    if numerator == PROFIT and not outcomes_given:
        set_unit_economics(con, settings.costs)
        _set_return_shares(con, settings)
        build(con, "profit_reports")
        reports = "profit_reports"
    sql = load_sql("labels").format(
        numerator="null::double" if outcomes_given else numerator,
        denominator=denominator or "null::bigint",
        reports=reports,
    )
    return frame(
        con,
        f"select labels.*, catalog.batch_id as batch from ({sql}) as labels "
        "inner join catalog on labels.sku_id = catalog.sku_id order by labels.launched_at, labels.sku_id",
    )


def _set_groups(con: Any, within: str) -> None:
    columns = [row[0] for row in con.execute("describe skus").fetchall()]
    if within in ("batch_id", "style_id", "category"):
        con.execute(f"create or replace temp view groups as select sku_id, {within} as within_group from catalog")
        return
    if within not in columns:
        raise DataError(f"label.within: expected a column of skus ({', '.join(columns)}), got {within!r}")
    con.execute(
        "create or replace temp view groups as "
        f"select sku_id, coalesce(cast({quoted(within)} as varchar), '(none)') as within_group from skus"
    )


def _set_return_shares(con: Any, settings: Settings) -> None:
    """Make the table `return_shares`: what part of each SKU's revenue will be refunded, by what its window had shown.

    A window closes weeks before the last of its orders has come back. How refunds are delayed, and what is usual in a
    category, is pooled over all that was known; a SKU's own refunds count only up to the close of its window.
    """
    rule = settings.label
    refunds = fit_refunds(con)
    closes = frame(con, "select sku_id, launched_at as moment from catalog order by sku_id")
    closes["moment"] += rule.test_window + rule.outcome_window
    moment = pd.Timestamp(con.execute("select as_of from scope").fetchone()[0])
    closed = closes[closes["moment"] <= moment]
    shares = refunds.share_at(con, closed)[["sku_id", "return_share"]].astype({"return_share": float})
    con.register("shares_source", shares)
    con.execute("create or replace temp table return_shares as select * from shares_source")
    con.unregister("shares_source")


def _require_measured(con: Any, *columns: str | None) -> None:
    for column in columns:
        if column and con.execute(f"select count({column}) from reports").fetchone()[0] == 0:
            raise DataError(
                f"signals.{column}: label.metric needs it, but it was never measured before the moment asked for; "
                "choose another metric, a later moment, or give outcomes"
            )
