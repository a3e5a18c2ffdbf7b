"""Overrides: what people decided against, or beside, a list; read from a table, a CSV file or a workbook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from hitfinder.admission import admit, rejected_rows
from hitfinder.errors import DataError
from hitfinder.report.words import LANGUAGES, load_words
from hitfinder.tables import Column, Table
from hitfinder.warehouse import TableLike, open_warehouse

__all__ = ["OVERRIDES", "read_overrides"]

ACTIONS = ("scale", "test", "stop")
OVERRIDES = Table(
    name="overrides",
    grain=("sku_id",),
    columns=(
        Column("sku_id", "text", required=True),
        Column("action", "text", required=True),
        Column("decided_by", "text", required=True),
        Column("reason", "text"),
    ),
)


def read_overrides(source: TableLike, known: set[str] | None) -> dict[str, dict[str, Any]]:
    """Read what people decided.

    Parameters
    ----------
    source
        Any table of the contract's kinds, or the path of an ``.xlsx`` workbook (its first sheet): `sku_id`, `action`
        (`scale`, `test`, `stop`, or as a list writes them in either language), `decided_by` (who), `reason`.
    known
        The SKUs of the list; None where they are not known yet, and not checked.

    Returns
    -------
    dict
        By SKU: `action`, `decided_by` and `note`, which is the reason.

    Raises
    ------
    DataError
        A column or a value is missing, a SKU is not on the list or comes twice with two actions, or an action is
        unknown. All of it is refused: half of what was decided would be worse than nothing.

    Examples
    --------
    >>> told = pd.DataFrame({"sku_id": ["a"], "action": ["停测"], "decided_by": ["Li"], "reason": ["too dear"]})
    >>> read_overrides(told, {"a", "b"})
    {'a': {'action': 'stop', 'decided_by': 'Li', 'note': 'too dear'}}
    """
    rows = _admitted(source)
    rows["action"] = [_action(text) for text in rows["action"]]
    strange = rows[~rows["action"].isin(ACTIONS)]
    if len(strange):
        raise DataError(
            f"overrides: expected the actions {', '.join(ACTIONS)}, got {_some(strange, 'action')} for "
            f"{_some(strange, 'sku_id')}"
        )
    unknown = rows[~rows["sku_id"].isin(known)] if known is not None else rows.iloc[:0]
    if len(unknown):
        raise DataError(
            f"overrides: expected SKUs of the list, {len(unknown)} are not on it: {_some(unknown, 'sku_id')}; check "
            "the batch and how the ids are spelt"
        )
    return {
        row["sku_id"]: {
            "action": row["action"],
            "decided_by": row["decided_by"],
            "note": row["reason"] if isinstance(row["reason"], str) else "",
        }
        for row in rows.to_dict("records")
    }


def _admitted(source: TableLike) -> pd.DataFrame:
    con = open_warehouse(threads=1)
    try:
        admission = admit(con, OVERRIDES, _workbook(source))
        if admission.rejects:
            first = rejected_rows(con).iloc[0]
            raise DataError(
                f"overrides: expected sku_id, action and decided_by in every row and each SKU once, got {admission}; "
                f"the first: {first['content']}"
            )
        rows: pd.DataFrame = con.execute("select * from overrides order by sku_id").df()
        return rows
    finally:
        con.close()


def _workbook(source: TableLike) -> TableLike:
    """Return the first sheet of a workbook; anything else as it is."""
    if not isinstance(source, str | Path) or Path(source).suffix.lower() != ".xlsx":
        return source
    try:
        # As objects: an id that is text in its cell keeps its zeros in front.
        sheet = pd.read_excel(source, dtype=object)
    except ImportError:
        raise DataError(
            f"{source}: to read a workbook takes the package openpyxl; install it, or save the sheet as CSV"
        ) from None
    except Exception as error:  # a workbook can be broken in many ways, each with an exception of its own
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{source}: can't be read as a workbook ({reason}); save the sheet as CSV") from None
    return sheet.dropna(how="all").map(lambda cell: None if pd.isna(cell) else str(cell))


def _action(text: Any) -> str:
    """Return the action that a text names, in the words of the record or of a list; else the text.

    >>> _action(" Keep testing "), _action("放量"), _action("STOP"), _action("sell")
    ('test', 'scale', 'stop', 'sell')
    """
    plain = str(text).strip().casefold()
    names = {load_words(language)[f"action_{a}"].casefold(): a for language in LANGUAGES for a in ACTIONS}
    return plain if plain in ACTIONS else names.get(plain, str(text))


def _some(rows: pd.DataFrame, column: str) -> str:
    names = list(dict.fromkeys(repr(name) for name in rows[column]))
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
