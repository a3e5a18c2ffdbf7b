"""`diagnose`: one row per SKU, to go with the weekly list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.admission import admit_signals_and_skus, prepare, say_where_ids_differ
from hitfinder.diagnosis.advice import advice, diagnosis_words
from hitfinder.diagnosis.findings import examine
from hitfinder.errors import SettingsError
from hitfinder.features import moment_of_knowledge, set_scope
from hitfinder.labels import parse_metric
from hitfinder.models.hit_model import HitModel, check_model
from hitfinder.ranking import rank
from hitfinder.settings import Settings
from hitfinder.tables import COUNTS, MONEY
from hitfinder.tiers import check_tiers, place_in_tiers, standing_and_growth
from hitfinder.warehouse import TableLike, is_parquet, open_warehouse, scan

__all__ = ["DIAGNOSIS_COLUMNS", "diagnose"]

DIAGNOSIS_COLUMNS = (
    "sku_id", "tier", "weak_step", "weakness", "weakness_low", "weakness_high", "advice", "own_appeal", "picture",
)  # fmt: skip


def diagnose(
    model: HitModel,
    signals: TableLike,
    skus: TableLike,
    as_of: Any = None,
    previous: TableLike | None = None,
    language: str = "en",
    *,
    settings: Settings | None = None,
) -> pd.DataFrame:
    """Give every SKU its tier and its diagnosis, as of a moment.

    Parameters
    ----------
    model
        From `fit` or `load_model`: its hit probabilities make potential SKUs.
    signals, skus
        Tables of the contract. Peers are the other SKUs of the same category, then all: give more than one batch.
    as_of
        The moment of knowledge, UTC; default: when the newest signal was known.
    previous
        Last week's tiers, `sku_id, tier` (what this function returned, for example): a SKU leaves its tier only where
        it is past the threshold by the margin of `[tiers]`.
    language
        `en` or `zh`, for `advice` and `picture`.
    settings
        Whose `[diagnosis]` and `[tiers]` count; default: those that the model was fitted with.

    Returns
    -------
    pandas.DataFrame
        One row per SKU in the order of `rank`: `sku_id`; `tier` (`hot`, `trending`, `potential`, `tail`); `weak_step`
        (`click`, `cart`, `order`, `return`, `nothing`, `too_little`); `weakness, weakness_low, weakness_high`: how far
        the step is below its peers, as a share, with a 90 % interval (for returns: how far above); `advice`;
        `own_appeal`: the clicks that the product itself draws, over those of a typical one (NaN without creatives);
        `picture`: what its pictures add to that, in words (None without creatives).

    Raises
    ------
    DataError
        A table can't be understood.
    SettingsError
        The language is not known.
    """
    diagnosis_words(language)
    check_model(model)
    settings = settings if settings is not None else model.settings
    before = None if previous is None else _read(previous)
    if before is not None:
        check_tiers(before)
    ranked = rank(model, signals, skus, as_of)
    con = open_warehouse(threads=model.settings.model.threads)
    try:
        # What was set aside has been said by `rank`.
        admit_signals_and_skus(con, signals, skus, period=settings.signals.period, warn=False)
        say_where_ids_differ(con, allowed=0.99, refuse=True)
        moment = moment_of_knowledge(con, as_of, needed=True)
        set_scope(con, settings, moment)
        found = examine(con, settings)
        placed = standing_and_growth(con, settings, _value(settings))
    finally:
        con.close()
    chances = ranked[["sku_id", "hit_probability"]]
    table = chances.merge(placed, on="sku_id", how="left", validate="1:1")
    table["tier"] = place_in_tiers(table, settings.tiers, before)
    table = table.merge(
        found.skus[["sku_id", "weak_step", "weakness", "weakness_low", "weakness_high"]], on="sku_id", how="left"
    )
    table["advice"] = table["sku_id"].map(advice(found, language)).astype("str")
    table["own_appeal"], table["picture"] = np.nan, pd.Series(None, index=table.index, dtype="str")
    if found.pictures is not None:
        of_sku = found.pictures.skus.set_index("sku_id")
        table["own_appeal"] = table["sku_id"].map(np.exp(of_sku["appeal"]))
        table["picture"] = table["sku_id"].map(of_sku["picture"].map(diagnosis_words(language))).astype("str")
    table = table[list(DIAGNOSIS_COLUMNS)]
    table.attrs["as_of"] = f"{moment:%Y-%m-%d %H:%M} UTC"  # for the page's head
    return table


def _value(settings: Settings) -> str | None:
    """Name the counted column that the metric is about, None for one that is no sum."""
    if settings.label.metric == "profit":
        return None
    try:
        top, below = parse_metric(settings.label.metric)
    except SettingsError:
        return None
    return top if below is None and top in (*COUNTS, *MONEY) else None


def _read(previous: TableLike) -> pd.DataFrame:
    """Read last week's tiers from any table."""
    if isinstance(previous, pd.DataFrame):
        return previous
    con = open_warehouse()
    try:
        prepare(con)
        scan(con, previous, "previous")
        rows: pd.DataFrame = con.execute("select * from previous").df()
    finally:
        con.close()
    if isinstance(previous, str | Path) and not is_parquet(str(previous)) and "sku_id" in rows:
        # What a spreadsheet would have run as a formula was written with an apostrophe.
        rows["sku_id"] = rows["sku_id"].str.replace(r"^'(?=\s*[=+\-@＝＋－＠])", "", regex=True)
    return rows
