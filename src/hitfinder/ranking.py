"""Ranking: the weekly list, from what is known at a moment."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.admission import admit, admit_signals_and_skus, say_where_ids_differ
from hitfinder.errors import DataError, SettingsError
from hitfinder.features import count_pairs, counts_of, features, look_at, moment_of_knowledge, set_scope
from hitfinder.models.hit_model import HitModel, check_model
from hitfinder.reasons import reasons
from hitfinder.tables import SKUS
from hitfinder.warehouse import TableLike, execute, open_warehouse

__all__ = [
    "BY_LAUNCH",
    "RANKED_COLUMNS",
    "batches_by_launch",
    "describe_admitted",
    "described",
    "newest_batch",
    "only_batch",
    "rank",
    "score",
    "sku_columns",
]

RANKED_COLUMNS = (
    "rank", "sku_id", "batch_id", "hit_probability", "hit_probability_low", "hit_probability_high", "expected_value",
    "action", "reason_1", "reason_2", "reason_3", "model_version", "as_of",
)  # fmt: skip

# Where a list remembers its batches in order of launch: a launch may be known from signals only, which no column of it
# shows.
BY_LAUNCH = "batches_by_launch"


def rank(
    model: HitModel,
    signals: TableLike,
    skus: TableLike,
    as_of: Any = None,
    *,
    language: str = "en",
    by: str = "hit_probability",
    intervals: bool = False,
) -> pd.DataFrame:
    """Rank SKUs by what was known at a moment, best first.

    Parameters
    ----------
    model
        From `fit` or `load_model`.
    signals, skus
        Tables of the contract. Every SKU of `skus` comes back once, also those without a signal.
    as_of
        The moment of knowledge, UTC; default: when the newest signal was known.
    language
        `en` or `zh`, for the reasons.
    by
        `hit_probability`, or `expected_value`: what is best first.
    intervals
        Also return `expected_value_low` and `expected_value_high`: between them lay the outcomes of four in five past
        SKUs of such an expected value.

    Returns
    -------
    pandas.DataFrame
        `rank, sku_id, batch_id, hit_probability, hit_probability_low, hit_probability_high, expected_value, action,
        reason_1, reason_2, reason_3, model_version, as_of`.

    Raises
    ------
    DataError
        A table can't be understood.
    SettingsError
        `by` is neither.
    """
    check_model(model)
    if by not in ("hit_probability", "expected_value"):
        raise SettingsError(f"by: expected hit_probability or expected_value, got {by!r}")
    table, margin, added = score(model, signals, skus, as_of)
    probability, low, high = model.estimator.calibration_.interval(margin)
    value = model.expected_value(margin, table)
    best = value if by == "expected_value" else margin
    # Ties are rare; the batch's own order must not decide them, so the id does.
    order = np.lexsort((table["sku_id"].to_numpy(dtype=str), -margin, -best))
    said = reasons(model, table, added, language)
    ranked = pd.DataFrame(
        {
            "sku_id": table["sku_id"],
            "batch_id": table["batch_id"],
            "hit_probability": probability,
            "hit_probability_low": low,
            "hit_probability_high": high,
            "expected_value": value,
            "action": np.where(table["age_days"] > 0, action(model, margin), "test"),
            "reason_1": said[0],
            "reason_2": said[1],
            "reason_3": said[2],
            "model_version": model.version,
            "as_of": table["as_of"],
        }
    )
    if intervals:
        ranked["expected_value_low"], ranked["expected_value_high"] = model.value_interval(value)
    ranked = ranked.iloc[order]
    ranked.insert(0, "rank", np.arange(1, len(ranked) + 1))
    ranked = ranked.reset_index(drop=True)
    ranked.attrs[BY_LAUNCH] = table.attrs[BY_LAUNCH]
    return ranked


def only_batch(ranked: pd.DataFrame, skus: TableLike, batch: str) -> pd.DataFrame:
    """Keep one batch of a list and number it anew; `newest` means the one launched last.

    Nothing else changes for its SKUs: what a SKU is compared with is its own batch.

    Raises
    ------
    DataError
        No SKU on the list is of that batch.
    """
    name = newest_batch(ranked, skus) if batch == "newest" and len(ranked) else batch
    kept = ranked[ranked["batch_id"] == name].reset_index(drop=True)
    if kept.empty:
        every = sorted(ranked["batch_id"].unique())
        known = ", ".join([*(["..."] if len(every) > 10 else []), *every[-10:]]) or "no batch at all"
        raise DataError(f"batch: expected one of {known}, got {batch!r}")
    return kept.assign(rank=np.arange(1, len(kept) + 1))


def newest_batch(ranked: pd.DataFrame, skus: TableLike) -> str:
    """Name the batch that was launched last by the list's moment, of those on it; without launches, the last by name.

    A list of `rank` knows its launches, also those that only signals show; for another one `skus` tells them. On a list
    with `as_of`, a launch that was only planned then is none yet, unless there are no others.
    """
    here = set(ranked["batch_id"])
    if known := [name for name in ranked.attrs.get(BY_LAUNCH, ()) if name in here]:
        return str(known[-1])
    launches = sku_columns(skus).set_index("sku_id")["launched_at"].reindex(ranked["sku_id"]).to_numpy()
    rows = ranked.assign(launched_at=launches)
    begun = rows.loc[~(rows["launched_at"] > rows["as_of"])] if "as_of" in rows else rows
    newest = (begun if len(begun) else rows).groupby("batch_id")["launched_at"].max()
    return str(newest.idxmax() if newest.notna().any() else max(newest.index))


def batches_by_launch(con: Any, *, planned: bool) -> list[str]:
    """Return the batches of the catalog in order of their launch, the newest last.

    Parameters
    ----------
    con
        After `features.set_scope`.
    planned
        Whether a launch after the moment of knowledge counts; otherwise batches with no other come first.

    Returns
    -------
    list of str
        Without batches of which neither a launch nor a signal is known: to the catalog they are launched now, which
        says nothing of when they will be.
    """
    begun = "null" if planned else "max(catalog.launched_at) filter (where catalog.launched_at <= scope.as_of)"
    rows = execute(
        con,
        f"""
        select catalog.batch_id, {begun} as begun, max(catalog.launched_at) as launched
        from catalog
        cross join scope
        where
            catalog.sku_id in (select sku_id from skus where launched_at is not null)
            or catalog.sku_id in (select sku_id from reports)
        group by catalog.batch_id
        order by begun asc nulls first, launched asc, catalog.batch_id desc
        """,
    ).fetchall()
    return [str(row[0]) for row in rows]


def sku_columns(skus: TableLike) -> pd.DataFrame:
    """Return the SKUs as admitted: one row each, the declared columns and the merchant's own."""
    con = open_warehouse()
    try:
        admit(con, SKUS, skus)
        rows: pd.DataFrame = con.execute("select * from skus order by sku_id").df()
        return rows
    finally:
        con.close()


def action(model: HitModel, margin: Any) -> Any:
    """Return `scale`, `test` or `stop` for each margin."""
    stop, scale = model.thresholds["stop"], model.thresholds["scale"]
    return np.where(margin >= scale, "scale", np.where(margin < stop, "stop", "test"))


def described(
    model: HitModel,
    signals: TableLike,
    skus: TableLike,
    as_of: Any,
    *,
    stacklevel: int,
    small: bool = False,
    for_list: bool = False,
) -> pd.DataFrame:
    """Return what the model reads of every SKU at the moment, in order of `sku_id`; see `HitModel.describe`.

    `small`: in a warehouse for small tables. `for_list`: with the batches by launch in its `attrs[BY_LAUNCH]`, and a
    warning where nothing was counted of what the model reads and a column was not used.
    """
    con = open_warehouse(threads=model.settings.model.threads, small=small)
    try:
        period = model.settings.signals.period
        done = admit_signals_and_skus(con, signals, skus, period=period, stacklevel=stacklevel)
        say_where_ids_differ(con, allowed=0.5)
        if for_list:
            _say_what_is_missing(con, model, done[0].ignored_columns, stacklevel + 1)
        table = describe_admitted(con, model, moment_of_knowledge(con, as_of))
        if for_list:
            table.attrs[BY_LAUNCH] = batches_by_launch(con, planned=False)
        return table
    finally:
        con.close()


def _say_what_is_missing(con: Any, model: HitModel, unused: tuple[str, ...], stacklevel: int) -> None:
    """Warn where the model reads a count that no signal holds, while a column is not used: it may be a misspelt one."""
    if not unused:
        return
    counts = counts_of(model.rates["rate"])
    rows, *known = execute(con, f"select count(*), {', '.join(f'count({c})' for c in counts)} from signals").fetchone()
    gone = [name for name, n in zip(counts, known, strict=True) if n == 0]
    if rows and gone:
        warnings.warn(
            f"signals: the model reads {', '.join(gone)}, of which nothing was counted here; it goes by the rest. If a "
            f"column has another name, rename it (columns not used: {', '.join(unused)})",
            UserWarning,
            stacklevel=stacklevel,
        )


def describe_admitted(con: Any, model: HitModel, moment: pd.Timestamp) -> pd.DataFrame:
    """Return what the model reads of every SKU of the tables that stand admitted in `con`; see `described`."""
    set_scope(con, model.settings, moment)
    look_at(con)
    count_pairs(con, list(model.rates["rate"]))
    rows = execute(con, "select * from skus order by sku_id").df()
    return model.describe(features(con, model.rates), rows)


def score(model: HitModel, signals: TableLike, skus: TableLike, as_of: Any) -> tuple[pd.DataFrame, Any, Any]:
    """Return the features of every SKU at the moment, their margins, and each column's contribution."""
    table = described(model, signals, skus, as_of, stacklevel=5, for_list=True)
    if table.empty:
        return table, np.zeros(0), np.zeros((0, len(model.design.columns)))
    X = model.matrix(table)
    added = np.zeros((len(table), len(model.design.columns)))
    if model.estimator.kind != "rule":
        added = model.estimator.contributions(X)
    return table, model.estimator.margin(X), added
