"""Deciding: what is done with every SKU of a list, with which chance, and why; written down once.

A list says `stop` of many SKUs, and what is stopped never shows what it was worth. So a coin keeps a share of them on
trial. It is thrown once in a SKU's life, and each decision's propensity is the chance of that decision given those
before it: the product over a SKU's decisions is the chance of its whole path. What was stopped stays stopped, whatever
later lists say: those drawn stand for those passed over, who must not come back beside them. Only a person calls a SKU
back.

As in a test's rounds (`livetest.rounds`), the `reason` of a row says what the table has no column for:
`list=2025-W09;as_of=2025-03-10T00:00:00;model=stop;because=kept on trial to learn;hit_probability=0.0123;...`. A
round's reason begins with `test=`, so the two are never confused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import pandas as pd

from hitfinder.errors import DataError
from hitfinder.overrides import read_overrides
from hitfinder.settings import Settings
from hitfinder.tables import DECISIONS, MAX_TEXT
from hitfinder.warehouse import TableLike

__all__ = [
    "DECIDED_BY",
    "DRAWN",
    "MODEL",
    "PASSED",
    "PERSON",
    "STAYS",
    "STILL",
    "check_list",
    "coin",
    "decide",
    "lists_of",
    "moment_of",
    "row_of",
    "standing",
    "table_of",
]

DECIDED_BY = "hitfinder decide"
# Why a SKU got its action, as the record says it.
MODEL = "the model"
DRAWN, PASSED = "kept on trial to learn", "not drawn to stay on trial"
STILL, STAYS = "still on trial to learn", "stopped before"
PERSON = "a person"

# What would end a part of a reason too early, or break a line of a CSV file.
HELD = {ord(sign): f"%{ord(sign):02X}" for sign in "%;=\x7f" + "".join(map(chr, range(32)))}
PARTS = (
    r"^list=(?P<list>[^;]*);as_of=(?P<as_of>[^;]*);model=(?P<model_action>scale|test|stop);because=(?P<because>[^;]*);"
    r"hit_probability=(?P<hit_probability>[^;]*);expected_value=(?P<expected_value>[^;]*)(?:;note=(?P<note>[^;]*))?$"
)
# Clocks differ by some hours.
GRACE = pd.Timedelta(days=1)
NEEDED = ("sku_id", "batch_id", "hit_probability", "expected_value", "action", "model_version", "as_of")


def coin(seed: int, batch: str, sku_id: str) -> float:
    """Return a SKU's number, uniform in [0, 1): it stays on trial where that is below `explore_share`.

    The same call gives the same number anywhere, whatever else is on the list.

    Examples
    --------
    >>> coin(0, "2025-W09", "a") == coin(0, "2025-W09", "a"), coin(0, "2025-W09", "a") == coin(1, "2025-W09", "a")
    (True, False)
    """
    text = json.dumps(["hitfinder exploration", seed, batch, sku_id])
    # 53 bits: what a double holds exactly.
    return (int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 11) / 2.0**53


def decide(
    ranked: pd.DataFrame,
    earlier: pd.DataFrame | None,
    settings: Settings,
    *,
    decided_at: Any,
    overrides: TableLike | None = None,
) -> pd.DataFrame:
    """Decide what is done with every SKU of a list. Nothing is written.

    Parameters
    ----------
    ranked
        What `rank` returns; every SKU once.
    earlier
        The decisions so far (the contract's table), or None. Only those of lists as of an earlier moment count.
    settings
        `policy.explore_share` and `seed`.
    decided_at
        The moment of the decision, UTC; at most a day from now.
    overrides
        What people decided: `sku_id, action, decided_by, reason`; see `overrides.read_overrides`.

    Returns
    -------
    pandas.DataFrame
        The contract's `decisions`, in the list's order. The list's own `scale` and `test` have the propensity 1. Of the
        SKUs told to stop, each stays on trial with the chance `explore_share`, by a coin that is thrown once; later
        decisions that follow from it have the propensity 1. Who was stopped stays stopped, with the propensity 1,
        whatever a later list says, until a person calls it back. A person's decision has no propensity: it was chosen,
        not drawn. `exposures` is NULL.

    Raises
    ------
    DataError
        The list is none of `rank`, it was made after `decided_at`, that is still to come, or an override names a SKU
        that is not on the list.
    """
    check_list(ranked)
    moment = moment_of(decided_at)
    if len(ranked) and ranked["as_of"].max() > moment + GRACE:
        raise DataError(
            f"decided_at: expected a moment after that of the list's knowledge ({ranked['as_of'].max()}), got {moment}"
        )
    before = _before(lists_of(earlier) if earlier is not None else _NO_LISTS, ranked)
    told = read_overrides(overrides, set(ranked["sku_id"])) if overrides is not None else {}
    share = settings.policy.explore_share
    rows = []
    for row in ranked.to_dict("records"):
        if row["sku_id"] in told:
            rows.append(row_of(row, moment, because=PERSON, **told[row["sku_id"]]))
            continue
        held = before.get(row["sku_id"])
        action, propensity, because = row["action"], 1.0, MODEL
        if held is not None and held["action"] == "stop":
            action, because = "stop", STAYS
        elif action == "stop":
            action, propensity, because = _of_stopped(row, held, share, settings.seed)
        rows.append(row_of(row, moment, action=action, propensity=propensity, because=because))
    return table_of(rows)


def lists_of(decisions: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that decided a list, oldest first, with the parts of their reason; leave out those of others.

    Parameters
    ----------
    decisions
        The contract's table.

    Returns
    -------
    pandas.DataFrame
        The table's columns without `reason`, then `list, as_of, model_action, because, hit_probability,
        expected_value, note`.

    Raises
    ------
    DataError
        A reason begins as these do and can't be read.
    """
    reasons = decisions["reason"].astype("str") if "reason" in decisions else pd.Series("", index=decisions.index)
    rows = decisions[reasons.str.startswith("list=").fillna(False)].reindex(columns=list(DECISIONS.column_names))
    parts = rows["reason"].astype("str").str.extract(PARTS)
    torn = parts["list"].isna() | pd.to_datetime(parts["as_of"], errors="coerce").isna()
    if torn.any():
        raise DataError(
            f"decisions: expected reasons as `{DECIDED_BY}` writes them, got {rows.loc[torn, 'reason'].iloc[0]!r}; "
            "restore the file"
        )
    parts["as_of"] = pd.to_datetime(parts["as_of"]).astype("datetime64[us]")
    for name in ("hit_probability", "expected_value"):
        parts[name] = pd.to_numeric(parts[name], errors="coerce").astype(float)
    for name in ("list", "note"):
        texts = [unquote(text) if isinstance(text, str) else "" for text in parts[name]]
        parts[name] = pd.Series(texts, index=parts.index, dtype="str")
    found = pd.concat([rows.drop(columns="reason"), parts], axis=1)
    found["decided_at"] = pd.to_datetime(found["decided_at"]).astype("datetime64[us]")
    return found.sort_values(["decided_at", "sku_id"], kind="stable", ignore_index=True)


_NO_LISTS = pd.DataFrame({"sku_id": [], "as_of": pd.to_datetime([]), "action": [], "because": []})


def _of_stopped(row: dict[Any, Any], before: dict[str, Any] | None, share: float, seed: int) -> tuple[str, float, str]:
    """Return action, propensity and why, of a SKU that the list tells to stop."""
    if before is not None:
        if before["passed"]:  # and called back by a person since
            return "stop", 1.0, STAYS
        if before["drawn"]:
            return "test", 1.0, STILL
    if share == 0:  # nothing is drawn, so nothing is said of a draw
        return "stop", 1.0, MODEL
    if coin(seed, str(row["batch_id"]), row["sku_id"]) < share:
        return "test", share, DRAWN
    return "stop", 1.0 - share, PASSED


def _before(held: pd.DataFrame, ranked: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return for each SKU with an earlier list: its last action, and how its coin fell."""
    this = ranked.drop_duplicates("sku_id").set_index("sku_id")["as_of"]
    mine = held[held["sku_id"].isin(this.index)]
    return standing(mine[mine["as_of"].to_numpy() < this.reindex(mine["sku_id"]).to_numpy()])


def standing(lists: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return for each SKU of decided lists how it stands: its last `action`, and whether a coin `drawn` or `passed` it.

    `lists` is what `lists_of` returns.
    """
    return {
        str(sku_id): {
            "action": rows["action"].iloc[-1],
            "drawn": bool((rows["because"] == DRAWN).any()),
            "passed": bool((rows["because"] == PASSED).any()),
        }
        for sku_id, rows in lists.groupby("sku_id", sort=False)
    }


def row_of(
    row: dict[Any, Any],
    moment: pd.Timestamp,
    *,
    action: str,
    because: str,
    propensity: float | None = None,
    decided_by: str = DECIDED_BY,
    note: str = "",
) -> dict[str, Any]:
    """Return a decision as a row of the record; `row` is the list's, with the action of the model."""
    reason = (
        f"list={str(row['batch_id']).translate(HELD)};as_of={row['as_of'].isoformat()};model={row['action']};"
        f"because={because};hit_probability={float(row['hit_probability'])!r};"
        f"expected_value={float(row['expected_value'])!r}"
    ) + (f";note={note.translate(HELD)}" if note else "")
    if len(reason) > MAX_TEXT["reason"]:
        raise DataError(f"overrides: expected a reason of at most 3000 characters for {row['sku_id']}, got {len(note)}")
    return {"sku_id": row["sku_id"], "decided_at": moment, "action": action, "exposures": None,
            "propensity": propensity, "model_version": row["model_version"], "decided_by": decided_by,
            "reason": reason}  # fmt: skip


def table_of(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as the contract's table, each column of its type."""
    table = pd.DataFrame(list(rows), columns=list(DECISIONS.column_names))
    return table.astype({"decided_at": "datetime64[us]", "exposures": "Int64", "propensity": "float64"})


def check_list(ranked: pd.DataFrame) -> None:
    """Refuse what is no list of `rank`.

    Raises
    ------
    DataError
        A column is missing, or a SKU comes twice.
    """
    missing = [name for name in NEEDED if name not in ranked.columns]
    if missing:
        raise DataError(f"ranked list: expected the columns of `rank`, missing: {', '.join(missing)}")
    twice = ranked.loc[ranked["sku_id"].duplicated(), "sku_id"]
    if len(twice):
        raise DataError(f"ranked list: expected each sku_id once, {len(twice)} came again, such as {twice.iloc[0]!r}")


def moment_of(given: Any) -> pd.Timestamp:
    """Return a moment of decision as naive UTC.

    Raises
    ------
    DataError
        It is none, or still to come: what is decided before it would be hidden behind it.
    """
    moment = pd.to_datetime(given, errors="coerce")
    if not isinstance(moment, pd.Timestamp):
        raise DataError(f"decided_at: expected a moment such as 2025-01-06 or 2025-01-06T10:00, got {given!r}")
    moment = moment.tz_convert("UTC").tz_localize(None) if moment.tz is not None else moment
    if moment > pd.Timestamp.now(tz="UTC").tz_localize(None) + GRACE:
        raise DataError(
            f"decided_at: expected a moment that has come, got {moment}; give when it was decided, or mend the record "
            "where that holds such a moment"
        )
    return moment
