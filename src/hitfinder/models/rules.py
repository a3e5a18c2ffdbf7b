"""The simple rules that a model has to beat, scored from the same features."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression

from hitfinder.models.linear import LinearPrior
from hitfinder.tables import COUNTS

__all__ = ["LOGISTIC", "THUMB", "counted_names", "fit_logistic_rule", "plain_counts", "rule_name", "rule_scores"]

Array = npt.NDArray[np.float64]

# Pseudo-impressions of the shrunk click rate: what a merchant's spreadsheet would take.
PRIOR_IMPRESSIONS = 60.0
# The merchants' rule of thumb.
THUMB = {
    "min_clicks": 300,
    "click_rate_lead": 1.2,
    "saves_per_click": 0.12,
    "good_saves_per_click": 0.15,
    "conversion_lead": 0.8,
    "stop_impressions": 3000,
}
LOGISTIC = "logistic regression"
# What the rules are called in Chinese; in English each has its own name.
IN_CHINESE = {
    "logistic regression": "逻辑回归",
    "shrunk click rate": "收缩点击率",
    "rule of thumb": "经验法则",
    "revenue so far": "累计销售额",
    "orders a day": "日均订单",
    "orders so far": "累计订单",
    "clicks a day": "日均点击",
    "clicks so far": "累计点击",
    "visitors a day": "日均访客",
    "visitors so far": "累计访客",
}


def rule_name(name: str, language: str) -> str:
    """Name a rule in a language, `en` or one of Chinese; what is none of them keeps its name.

    >>> rule_name("orders a day", "zh"), rule_name("orders a day", "en")
    ('日均订单', 'orders a day')
    """
    return IN_CHINESE.get(name, name) if language.startswith("zh") else name


def rule_scores(table: pd.DataFrame) -> dict[str, Array]:
    """Score every rule that what was measured allows.

    Parameters
    ----------
    table
        Features, see `features.features`.

    Returns
    -------
    dict
        Rule -> one score per row, higher is better.
    """
    days = table["age_days"].to_numpy(dtype=float)
    scores: dict[str, Array] = {}
    for name in ("orders", "clicks", "visitors"):
        counts = _counted(table, name)
        if counts is not None:
            scores[f"{name} a day"] = (counts + 1) / (days + 2)
            scores[f"{name} so far"] = counts
    revenue, clicks, impressions = (_counted(table, name) for name in ("revenue", "clicks", "impressions"))
    if revenue is not None:
        scores["revenue so far"] = revenue
    if clicks is not None and impressions is not None:
        keys = [table["as_of"].to_numpy(), table["batch_id"].to_numpy()]
        mean = _pooled(clicks, keys) / np.maximum(_pooled(impressions, keys), 1.0)
        scores["shrunk click rate"] = (clicks + PRIOR_IMPRESSIONS * mean) / (impressions + PRIOR_IMPRESSIONS)
        saved = _counted(table, "favorites") is not None or _counted(table, "carts") is not None
        if saved and _counted(table, "orders") is not None:
            scores["rule of thumb"] = _rule_of_thumb(table)
    return scores


def plain_counts(table: pd.DataFrame, names: list[str]) -> Array:
    """Return the logs of plain counts and the age, one row per row of `table`: what the textbook would regress on."""
    columns = [np.log1p(table[name].fillna(0).to_numpy(dtype=float)) for name in names]
    return np.column_stack([*columns, table["age_days"].to_numpy(dtype=float)])


def counted_names(table: pd.DataFrame) -> list[str]:
    """Name the counts that somebody measured, revenue included."""
    return [name for name in (*COUNTS, "revenue") if _counted(table, name) is not None]


def fit_logistic_rule(X: Array, hit: Array, weight: Array) -> LinearPrior:
    """Fit a logistic regression on `plain_counts`: the simplest learned rule."""
    mean, scale = X.mean(axis=0), np.where(X.std(axis=0) > 0, X.std(axis=0), np.inf)
    if hit.min() == hit.max():
        return LinearPrior(mean, scale, np.zeros(X.shape[1]), 0.0)
    blank = LinearPrior(mean, scale, np.zeros(X.shape[1]), 0.0)
    model = LogisticRegression(C=0.1, max_iter=1000).fit(blank.standardised(X), hit, sample_weight=weight)
    return LinearPrior(mean, scale, np.asarray(model.coef_[0], dtype=float), float(model.intercept_[0]))


def _counted(table: pd.DataFrame, name: str) -> Array | None:
    """Return counts so far, 0 for a SKU not seen; None where nobody measured them."""
    values = table[name]
    return None if values.isna().all() else values.fillna(0).to_numpy(dtype=float)


def _filled(table: pd.DataFrame, name: str) -> Array:
    return np.asarray(table[name].fillna(0).to_numpy(dtype=float))


def _pooled(values: Array, keys: list[Any]) -> Array:
    """Sum over the rows that share all keys."""
    return np.asarray(pd.Series(values).groupby(keys).transform("sum").to_numpy(dtype=float))


def _rule_of_thumb(table: pd.DataFrame) -> Array:
    """Score by how many of the rule's conditions hold, ties by the favourite-and-cart rate, then by clicks."""
    clicks, impressions, orders = (_filled(table, name) for name in ("clicks", "impressions", "orders"))
    saves = _filled(table, "favorites") + _filled(table, "carts")
    keys = [table[name].to_numpy() for name in ("as_of", "batch_id", "category")]

    def against_category(num: Array, den: Array) -> Array:
        pooled = _pooled(num, keys) / np.maximum(_pooled(den, keys), 1.0)
        return num / np.maximum(den, 1.0) / np.maximum(pooled, 1e-12)

    save_rate = saves / np.maximum(clicks, 1.0)
    points = (
        (clicks >= THUMB["min_clicks"]).astype(float)
        + (against_category(clicks, impressions) >= THUMB["click_rate_lead"])
        + (save_rate >= THUMB["saves_per_click"])
        + 0.5 * (save_rate >= THUMB["good_saves_per_click"])
        + (against_category(orders, clicks) >= THUMB["conversion_lead"])
    )
    points = np.where((impressions > THUMB["stop_impressions"]) & (clicks == 0), -1.0, points)
    shrunk_saves = (saves + 2.0) / (clicks + 20.0)
    return np.asarray(points + 0.2 * np.minimum(shrunk_saves, 1.0) + 0.01 * clicks / (clicks + 1000.0))
