"""Stock: what will be asked for, how long the stock lasts, and how much to order again.

What a SKU will sell in a stretch as long as the outcome window, from the end of its test on or from now on, whichever
is later, comes from the fitted model (`models.demand`): from its test as it was seen, and from what it sold since.
Nothing is forecast where history did not count units, and no stock is left to tell where none was given: these are
unknown, and the list says why.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.admission import admit_signals_and_skus, say_where_ids_differ
from hitfinder.errors import DataError, SettingsError
from hitfinder.features import count_pairs, features, find_training_moments, moment_of_knowledge, observe, set_scope
from hitfinder.models.demand import Outlook
from hitfinder.models.hit_model import HitModel, check_model
from hitfinder.settings import StockSettings
from hitfinder.sold import sold_lately
from hitfinder.warehouse import TableLike, frame, open_warehouse

__all__ = ["ALERTS", "STOCK_COLUMNS", "of_batch", "stock"]

Array = npt.NDArray[np.float64]

STOCK_COLUMNS = (
    "sku_id", "batch_id", "alert", "reorder", "stock", "units_sold", "stock_left", "demand", "demand_low",
    "demand_high", "cover_days", "unknown", "model_version", "as_of",
)  # fmt: skip
# What a SKU's stock calls for, the most urgent first.
ALERTS = ("sold_out", "low", "reorder", "enough", "unknown")
# Between these quantiles four SKUs in five end.
LOW, HIGH = 0.1, 0.9


def stock(
    model: HitModel,
    signals: TableLike,
    skus: TableLike,
    as_of: Any = None,
    service_level: float = 0.95,
    *,
    settings: StockSettings | None = None,
) -> pd.DataFrame:
    """Say of each SKU how long its stock lasts and how much to order again, the most urgent first.

    Parameters
    ----------
    model
        From `fit` or `load_model`.
    signals, skus
        Tables of the contract; `skus.stock` is the stock at launch, in units.
    as_of
        The moment of knowledge, UTC; default: when the newest signal was known.
    service_level
        The chance with which stock and reorder together shall be enough, above 0 and below 1.
    settings
        When stock is low, and how long goods take to come; default: the model's own.

    Returns
    -------
    pandas.DataFrame
        `sku_id, batch_id`; `alert`: `sold_out`, `low` (less than `alert_share` of the demand is left), `reorder` (more
        than that, but something is to be ordered), `enough` or `unknown`; `reorder`: units to order so that what is
        there lasts for the outcome window and the lead time with that chance; `stock, units_sold, stock_left`;
        `demand, demand_low, demand_high`: units expected in a stretch as long as the outcome window, from the end of
        the test or from now on, and between what they end for four SKUs in five; `cover_days`: how long the stock left
        lasts at that pace; `unknown`: what was missing (`history`: the model's history counted too few units; `units`;
        `stock`; `stock_sold_over`: more was sold than the stock, so it is not that of the launch), joined by ", ";
        `model_version, as_of`. Unknown numbers are NaN.

    Raises
    ------
    DataError
        A table can't be understood.
    SettingsError
        `service_level` is no chance.
    """
    if not 0 < service_level < 1:
        raise SettingsError(f"service_level: expected a chance above 0 and below 1, got {service_level!r}")
    check_model(model)
    rule = settings or model.settings.stock
    con = open_warehouse(threads=model.settings.model.threads)
    try:
        admit_signals_and_skus(con, signals, skus, period=model.settings.signals.period)
        say_where_ids_differ(con, allowed=0.5, refuse=True)
        moment = moment_of_knowledge(con, as_of, needed=True)
        set_scope(con, model.settings, moment)
        told = frame(con, "select sku_id, batch_id from catalog order by sku_id").merge(sold_lately(con), on="sku_id")
        seen = _seen(con, model) if model.demand is not None and model.belief is not None else None
    finally:
        con.close()
    window = model.settings.label.outcome_window
    ahead = _outlook(model, seen, told, 1.0)
    last = _outlook(model, seen, told, 1.0 + rule.lead_time / window)
    sold, given = told["units"].to_numpy(), told["stock"].to_numpy()
    # What sold out within its last period may have been sold beyond its stock; what goes on selling proves it wrong.
    out = told["is_sold_out"].to_numpy(dtype=bool)
    over = (sold > given) & ~out
    left = np.where(out, 0.0, np.where(over, np.nan, given - sold))
    demand = ahead.mean
    with np.errstate(divide="ignore", invalid="ignore"):
        cover = left / demand * (window / pd.Timedelta(days=1))
    reorder = np.maximum(np.ceil(last.quantile(service_level) - left), 0.0)
    table = pd.DataFrame(
        {
            "sku_id": told["sku_id"],
            "batch_id": told["batch_id"],
            "alert": _alerts(left, demand, out, rule.alert_share, reorder),
            "reorder": reorder,
            "stock": given,
            "units_sold": sold,
            "stock_left": left,
            "demand": demand,
            "demand_low": ahead.quantile(LOW),
            "demand_high": ahead.quantile(HIGH),
            "cover_days": cover,
            "unknown": _unknown(model, sold, given, over),
            "model_version": model.version,
            "as_of": moment,
        },
        columns=list(STOCK_COLUMNS),
    )
    _say_unknown(model, table)
    urgency = table["alert"].map({name: place for place, name in enumerate(ALERTS)})
    order = np.lexsort((table["sku_id"].to_numpy(dtype=str), -table["demand"].fillna(-1), cover, urgency))
    return table.iloc[order].reset_index(drop=True)


def of_batch(table: pd.DataFrame, batch: str) -> pd.DataFrame:
    """Keep one batch of a stock list.

    Raises
    ------
    DataError
        No SKU on the list is of that batch.
    """
    kept = table[table["batch_id"] == batch].reset_index(drop=True)
    if kept.empty:
        known = ", ".join(sorted(table["batch_id"].unique())[-10:]) or "no batch at all"
        raise DataError(f"batch: expected one of {known}, got {batch!r}")
    return kept


def _seen(con: Any, model: HitModel) -> pd.DataFrame:
    """Return the features of each SKU as the model learned demand from them: at the moment, or as its test ended.

    What it sold after its test is looked at apart. All SKUs that were on test then are looked at beside it, since a
    SKU's rates are pulled towards theirs.
    """
    find_training_moments(con)
    con.execute(
        """
        create or replace temp table own_moments as
        select
            catalog.sku_id,
            case
                when
                    epoch(catalog.launched_at) + scope.test_seconds <= epoch(scope.as_of)
                    then coalesce(max(training_moments.as_of), scope.as_of)
                else scope.as_of
            end as as_of
        from catalog
        cross join scope
        left join training_moments on catalog.sku_id = training_moments.sku_id
        group by catalog.sku_id, catalog.launched_at, scope.test_seconds, scope.as_of
        """
    )
    con.execute(
        """
        create or replace temp table moments as
        select as_of, sku_id from training_moments where as_of in (select as_of from own_moments)
        union
        select as_of, sku_id from own_moments
        """
    )
    observe(con)
    count_pairs(con, list(model.rates["rate"]))
    own = frame(con, "select as_of, sku_id from own_moments")
    return features(con, model.rates).merge(own, on=["as_of", "sku_id"]).sort_values("sku_id").reset_index(drop=True)


def _outlook(model: HitModel, seen: pd.DataFrame | None, told: pd.DataFrame, windows: float) -> Outlook:
    if seen is None or model.demand is None or model.belief is None:
        nothing = np.full(len(told), np.nan)
        return Outlook(nothing, nothing)
    sold, time = (told[name].to_numpy(dtype=float) for name in ("stretch_units", "in_stock"))
    return model.demand.outlook(seen, model.belief.mean(seen), sold, time, windows)


def _alerts(
    left: Array, demand: Array, sold_out: npt.NDArray[np.bool_], share: float, reorder: Array
) -> npt.NDArray[np.object_]:
    alert = np.full(len(left), "unknown", dtype=object)
    told = np.isfinite(left) & np.isfinite(demand)
    alert[told] = np.where(reorder[told] > 0, "reorder", "enough")
    alert[told & (left < share * demand)] = "low"
    alert[sold_out | (left == 0)] = "sold_out"
    return alert


def _unknown(model: HitModel, sold: Array, given: Array, over: npt.NDArray[np.bool_]) -> list[str]:
    reasons = {
        "history": np.full(len(sold), model.demand is None or model.belief is None),
        "units": np.isnan(sold),
        "stock": np.isnan(given),
        "stock_sold_over": over,
    }
    return [", ".join(name for name, holds in reasons.items() if holds[row]) for row in range(len(sold))]


def _say_unknown(model: HitModel, table: pd.DataFrame) -> None:
    if model.demand is None and len(table):
        warnings.warn(
            "the model's history counted too few units sold to forecast demand: it is unknown; give signals.units and "
            "fit again",
            stacklevel=3,
        )
    missing = int(table["stock"].isna().sum())
    if missing:
        warnings.warn(
            f"skus.stock: not given for {missing} of {len(table)} SKUs; what they have left is unknown", stacklevel=3
        )
