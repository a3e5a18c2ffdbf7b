"""A decided round of a live test, and its form as rows of the `decisions` table.

The table has no column for a test or its round, so the `reason` of each row says both, and all that is needed to write
the round's files again: `test=2025-W09;round=3/6;skus=200;budget=20000;...;hit_probability=0.0312`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa

from hitfinder.errors import DataError, ModelError, SettingsError
from hitfinder.promise import StopPromise
from hitfinder.tables import DECISIONS, MAX_AMOUNT

__all__ = ["SCHEMA", "Round", "check_numbers", "decisions_of", "in_order", "round_of"]

DECIDED_BY = "hitfinder plan"
# The plan is a function of the model, the signals and the budget: the same call would have decided the same.
PROPENSITY = 1.0

TYPES = {"text": pa.string(), "moment": pa.timestamp("us"), "count": pa.int64(), "share": pa.float64()}
SCHEMA = pa.schema([(column.name, TYPES[column.kind]) for column in DECISIONS.columns])


@dataclass(frozen=True)
class Round:
    """One decided round of a test.

    Attributes
    ----------
    test
        The test's name: its batch.
    number, rounds
        The round, from 1, and how many the test was to have when it was decided.
    budget
        Exposures for the whole test.
    decided, seen
        Exposures before this round: what earlier rounds decided, and what the signals showed at `as_of`.
    slots, exposure_cap
        As for `hitfinder.plan`.
    as_of, decided_at
        The moment of knowledge and the moment of the decision, naive UTC.
    model_version
        The model that planned.
    table
        `sku_id, exposures, action, hit_probability`: most exposures first, then the most probable.
    promise
        What the model promised about stopping in a running test; None where that isn't known.
    """

    test: str
    number: int
    rounds: int
    budget: int
    decided: int
    seen: int
    slots: int
    exposure_cap: int
    as_of: pd.Timestamp
    decided_at: pd.Timestamp
    model_version: str
    table: pd.DataFrame
    promise: StopPromise | None = None

    @property
    def spent(self) -> int:
        """Exposures bought before this round, the larger of the two counts."""
        return max(self.decided, self.seen)

    @property
    def exposures(self) -> int:
        """Exposures of this round."""
        return int(self.table["exposures"].sum())

    @property
    def left(self) -> int:
        """Exposures that later rounds may still spend."""
        return max(self.budget - self.spent - self.exposures, 0)

    def __str__(self) -> str:
        some = int((self.table["exposures"] > 0).sum())
        return (
            f"round {self.number} of {self.rounds}: {self.exposures:,} exposures for {some:,} of {len(self.table):,} "
            f"SKUs; {self.left:,} of {self.budget:,} left"
        )


def check_numbers(number: int, rounds: int, **least_one: int) -> None:
    """Refuse numbers that no round can have.

    Raises
    ------
    SettingsError
        One is no whole number from 1 to `tables.MAX_AMOUNT`, or there is no such round.
    """
    values = {"rounds": rounds, "round": number, **least_one}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise SettingsError(f"{name}: expected a whole number of 1 or more, got {value!r}")
        if value > MAX_AMOUNT:
            raise SettingsError(f"{name}: expected at most {MAX_AMOUNT:,}, got more; give a number that can be bought")
    if number > rounds:
        raise SettingsError(f"round: expected one from 1 to {rounds}, got {number}")


def decisions_of(this: Round) -> pa.Table:
    """Return a round as rows of the `decisions` table, one for each SKU of the test, also those that get none."""
    n = len(this.table)
    head = (
        f"test={_escaped(this.test)};round={this.number}/{this.rounds};skus={n};budget={this.budget};"
        f"decided={this.decided};seen={this.seen};slots={this.slots};cap={this.exposure_cap};"
        f"as_of={this.as_of.isoformat()}"
    )
    if this.promise is not None:
        head += f";promise={_escaped(json.dumps(this.promise.to_dict(), separators=(',', ':')))}"
    columns = {
        "sku_id": this.table["sku_id"].tolist(),
        "decided_at": [this.decided_at.to_pydatetime()] * n,
        "action": this.table["action"].tolist(),
        "exposures": this.table["exposures"].tolist(),
        "propensity": [PROPENSITY] * n,
        "model_version": [this.model_version] * n,
        "decided_by": [DECIDED_BY] * n,
        # repr keeps every digit: the files that are made of it are the same to the last.
        "reason": [f"{head};hit_probability={float(p)!r}" for p in this.table["hit_probability"]],
    }
    return pa.table(columns, schema=SCHEMA)


def round_of(rows: pd.DataFrame) -> Round:
    """Undo `decisions_of`.

    Raises
    ------
    DataError
        The rows were not written by `decisions_of`, or not all of them are there.
    """
    fields = [_fields(reason) for reason in rows["reason"]]
    try:
        first = fields[0]
        number, _, rounds = first["round"].partition("/")
        table = pd.DataFrame(
            {
                "sku_id": rows["sku_id"].to_numpy(),
                "exposures": rows["exposures"].astype("int64").to_numpy(),
                "action": rows["action"].to_numpy(),
                "hit_probability": [float(f["hit_probability"]) for f in fields],
            }
        )
        return Round(
            test=unquote(first["test"]),
            number=int(number),
            rounds=int(rounds),
            budget=int(first["budget"]),
            decided=int(first["decided"]),
            seen=int(first["seen"]),
            slots=int(first["slots"]),
            exposure_cap=int(first["cap"]),
            as_of=pd.Timestamp(first["as_of"]),
            decided_at=pd.Timestamp(rows["decided_at"].iloc[0]),
            model_version=rows["model_version"].iloc[0],
            promise=StopPromise.from_dict(json.loads(unquote(first["promise"]))) if "promise" in first else None,
            table=in_order(table),
        )
    except (KeyError, TypeError, ValueError, ModelError):
        raise DataError(
            f"decisions: expected rows that `{DECIDED_BY}` wrote, got the reason {rows['reason'].iloc[0]!r}; a round "
            "that was decided elsewhere has no files to write again"
        ) from None


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Put SKUs with most exposures first, then the most probable, then by id."""
    keys = ["exposures", "hit_probability", "sku_id"]
    return table.sort_values(keys, ascending=[False, False, True], kind="stable").reset_index(drop=True)


def _fields(reason: Any) -> dict[str, str]:
    parts = (part.partition("=") for part in str(reason).split(";"))
    return {name: value for name, _, value in parts}


def _escaped(name: str) -> str:
    """Write a name so that it ends at the next semicolon.

    >>> _escaped("上新;3=4"), unquote(_escaped("上新;3=4"))
    ('上新%3B3%3D4', '上新;3=4')
    """
    return re.sub(r"[%;=\x00-\x1f\x7f]", lambda found: f"%{ord(found[0]):02X}", name)
