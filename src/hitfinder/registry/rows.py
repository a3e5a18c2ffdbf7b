"""One table instead of two: signals rows with the SKU's columns beside them, as a service gets them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hitfinder.errors import DataError
from hitfinder.models.hit_model import HitModel
from hitfinder.ranking import rank
from hitfinder.tables import COUNTS, MONEY, SIGNALS, SKUS

__all__ = ["SKU_PREFIX", "rank_rows", "row_columns", "split_rows"]

# An attribute of a SKU that has the name of a column of signals goes by this prefix in the rows.
SKU_PREFIX = "sku."


def rank_rows(model: HitModel, rows: pd.DataFrame, as_of: Any = None, *, language: str = "en") -> pd.DataFrame:
    """Rank the SKUs of `rows`: the same as `rank` on the two tables, in values that JSON can hold.

    Parameters
    ----------
    model
        From `fit` or `load_model`.
    rows
        See `split_rows`.
    as_of
        The moment of knowledge, UTC; None or an empty text: when the newest signal among the rows was known.
    language
        `en` or `zh`, for the reasons.

    Returns
    -------
    pandas.DataFrame
        What `rank` returns; `as_of` is a text such as `2025-01-06T00:00:00`, and a reason that is not there is None.

    Raises
    ------
    DataError
        The rows or the moment can't be understood.
    """
    signals, skus = split_rows(rows)
    ranked = rank(model, signals, skus, _moment(as_of), language=language)
    ranked["as_of"] = [moment.isoformat() for moment in ranked["as_of"]]
    for name in ("batch_id", "reason_1", "reason_2", "reason_3"):
        ranked[name] = ranked[name].astype(object).where(ranked[name].notna(), None)
    return ranked


def split_rows(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Take signals rows with the SKU's columns beside them apart.

    Parameters
    ----------
    rows
        `sku_id`, the columns of signals, and those of skus: each value of a SKU in any of its rows, NULL in the others
        or in none. A row without any count stands for the SKU alone, which has no signal yet. A column that both tables
        could hold belongs to signals; an attribute of that name is called `sku.<name>`.

    Returns
    -------
    (signals, skus)
        `rank` reads them. No row is judged here: that is admission's work.

    Raises
    ------
    DataError
        `sku_id` is missing, or a SKU has two values in one column.

    Examples
    --------
    >>> rows = pd.DataFrame({"sku_id": ["a", "a", "b"], "orders": [1, 2, None], "price": [9.5, None, 7.0]})
    >>> signals, skus = split_rows(rows)
    >>> signals["sku_id"].tolist(), skus["price"].tolist()
    (['a', 'a'], [9.5, 7.0])
    """
    plain = {name: str(name).strip().lstrip("\ufeff").lower() for name in rows.columns}
    ids = [name for name, word in plain.items() if word == "sku_id"]
    if len(ids) != 1:
        shown = ", ".join(map(str, rows.columns)) or "no columns"
        raise DataError(f"rows: expected one column sku_id, got {shown}; name the column that holds the SKU's id so")
    of_signals = [name for name, word in plain.items() if word in SIGNALS.column_names]
    of_skus = [name for name in rows.columns if name not in of_signals]
    counted = [name for name, word in plain.items() if word in COUNTS + MONEY]
    signals = rows.loc[rows[counted].notna().any(axis=1), of_signals].rename(columns=plain)
    if not counted:  # SKUs alone: a table of signals that holds none
        signals = signals.assign(orders=pd.Series(dtype="float64"))
    if "period_start" not in signals and signals.empty:
        signals = signals.assign(period_start=pd.Series(dtype="datetime64[us]"))
    return signals.reset_index(drop=True), _one_row_each(rows, ids[0], of_skus)


def row_columns(skus: list[str]) -> dict[str, bool]:
    """Name the columns of rows for a table of SKUs with the columns `skus`: whether each must be there.

    >>> [name for name, must in row_columns(["sku_id", "units"]).items() if must or name.endswith("units")]
    ['sku_id', 'period_start', 'units', 'sku.units']
    """
    own = [name for name in skus if name not in SKUS.column_names]
    beside = [f"{SKU_PREFIX}{name}" if name.strip().lower() in SIGNALS.column_names else name for name in own]
    names = dict.fromkeys([*SIGNALS.column_names, *SKUS.column_names, *beside])
    return {name: name in SIGNALS.required for name in names}


def _one_row_each(rows: pd.DataFrame, id_column: str, names: list[str]) -> pd.DataFrame:
    known = rows[rows[id_column].notna()]
    key = known[id_column].astype(str).str.strip()
    beside = known[names].groupby(key, sort=False)
    values = beside.first()
    several = {}
    for name in names:
        # A SKU's values are looked at one by one only where some row differs from the SKU's first value.
        first = key.map(values[name])
        odd = known[name].notna() & (known[name] != first)
        if odd.any():
            several[name] = key[odd].iloc[0]
    if several:
        name, sku = next(iter(several.items()))
        shown = ", ".join(map(repr, known.loc[key == sku, name].dropna().drop_duplicates().head(3).tolist()))
        raise DataError(
            f"rows.{name}: expected one value for each SKU, got {shown} for SKU {sku!r}; send the same in all its rows"
        )
    ids = known[id_column].groupby(key, sort=False).first().to_numpy()
    skus = values.rename(columns={name: str(name).removeprefix(SKU_PREFIX) for name in names})
    skus.insert(0, "sku_id", ids)
    return skus.reset_index(drop=True)


def _moment(as_of: Any) -> pd.Timestamp | None:
    if as_of is None or as_of == "":
        return None
    try:
        return pd.Timestamp(as_of)
    except (ValueError, TypeError):
        raise DataError(
            f"as_of: expected a moment such as 2025-01-06 or 2025-01-06T10:00:00Z, got {as_of!r}; write it so"
        ) from None
