"""Test plans: one round of a running test, from what its signals say so far."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.allocation import allocate, round_budget
from hitfinder.errors import DataError, ModelError
from hitfinder.features import on_impressions
from hitfinder.models.hit_model import HitModel, check_model
from hitfinder.ranking import described
from hitfinder.tables import MAX_AMOUNT
from hitfinder.warehouse import TableLike

__all__ = ["PLANNED_COLUMNS", "plan"]

PLANNED_COLUMNS = ("sku_id", "exposures", "action", "hit_probability")


def plan(
    model: HitModel,
    signals: TableLike,
    skus: TableLike,
    as_of: Any = None,
    *,
    exposures: int = 20_000,
    rounds_left: int = 5,
    slots: int = 10,
    exposure_cap: int = 1_000,
    stopped: Collection[str] = (),
    kept: Collection[str] = (),
) -> pd.DataFrame:
    """Plan the next round of a running test.

    One call is one round, and all state is in the signals: what has been shown of each SKU so far, and what came of it.

    Parameters
    ----------
    model
        From `fit` or `load_model`.
    signals, skus
        Tables of the contract; `skus` are those on trial together.
    as_of
        The moment of knowledge, UTC; default: when the newest signal was known.
    exposures
        What is left of the test's budget: impressions where the model's history counts them, else days on trial.
    rounds_left
        Rounds left, this one included. With 1, what is worth spending is spent in one go.
    slots
        How many SKUs can be scaled in the end.
    exposure_cap
        The most exposures that a SKU may have in all, those so far included.
    stopped
        SKUs that were stopped elsewhere, such as by a list: they get nothing, and none of the slots is theirs.
    kept
        SKUs that are kept on trial elsewhere, such as by a coin: the plan does not stop them.

    Returns
    -------
    pandas.DataFrame
        `sku_id, exposures, action, hit_probability`, one row per SKU in the order of `sku_id`. `exposures` are whole
        and sum to at most `exposures`; a SKU to `stop` gets none, nor does one that has sold out (`skus.stock`). What
        is promised about stopping is in `model.promises["plan_stop"]`: learned from tests of six rounds at 5 to 40 %
        of a full test's cost.

    Raises
    ------
    DataError
        A table can't be understood, or a number is out of its range.
    ModelError
        The model knows no test plan, or is none.
    """
    check_model(model)
    limits = {"exposures": (exposures, 0), "rounds_left": (rounds_left, 1), "slots": (slots, 1),
              "exposure_cap": (exposure_cap, 0)}  # fmt: skip
    for name, (value, least) in limits.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise DataError(f"{name}: expected a whole number of {least} or more, got {value!r}")
        if value > MAX_AMOUNT:
            raise DataError(f"{name}: expected at most {MAX_AMOUNT:,}, got more; give a number that can be bought")
    if model.belief is None:
        raise ModelError("the model holds nothing to plan a test by; fit it again with this version")
    table = described(model, signals, skus, as_of, stacklevel=4, small=True)
    if table.empty:
        kinds = {"sku_id": object, "exposures": np.int64, "action": object, "hit_probability": float}
        return pd.DataFrame({name: pd.Series(dtype=kinds[name]) for name in PLANNED_COLUMNS})
    bought = _bought(model, table)
    margin, stops = model.margin_and_stops(table, bought)
    # By what it has shown: what a SKU is called changes nobody's exposures.
    halted = table["sku_id"].isin(list(stopped)).to_numpy(dtype=bool)
    stop = halted | (stops & ~table["sku_id"].isin(list(kept)).to_numpy(dtype=bool))
    rounds = _rounds(bought, int(exposures), int(rounds_left))
    scale = (margin >= model.thresholds["scale"]) & (bought > 0)
    shut = stop | _unknown(model, table) | _sold_out(table)
    room = np.where(shut, 0.0, np.maximum(exposure_cap - bought, 0.0))
    wanted = np.zeros(len(table), dtype=np.int64)
    # Without those stopped elsewhere: the border is drawn between those that can still be scaled.
    wanted[~halted] = allocate(
        model.belief.mean(table)[~halted],
        model.belief.doubt(table)[~halted],
        room[~halted],
        round_budget(int(exposures), int(rounds_left)),
        int(slots),
        int(rounds_left),
        rounds,
    )
    return pd.DataFrame(
        {
            "sku_id": table["sku_id"],
            "exposures": wanted,
            "action": np.where(stop, "stop", np.where(scale, "scale", "test")),
            "hit_probability": model.estimator.calibration_.interval(margin)[0],
        }
    )


def _unknown(model: HitModel, table: pd.DataFrame) -> Any:
    """Tell which SKUs have signals without impressions, where these are what a test buys; and say so.

    What they were shown is not known, so no more can be bought for them without passing a cap.
    """
    if not on_impressions(model.rates["rate"]):
        return np.zeros(len(table), dtype=bool)
    unknown = ((table["active_periods"] > 0) & table["impressions"].isna()).to_numpy(dtype=bool)
    if unknown.any():
        warnings.warn(
            f"signals.impressions: not measured for {unknown.sum()} SKUs that have signals (such as "
            f"{table['sku_id'][unknown].iloc[0]!r}); they get no exposures, since what they had is not known",
            UserWarning,
            stacklevel=3,
        )
    return unknown


def _sold_out(table: pd.DataFrame) -> Any:
    """Tell which SKUs have nothing left to sell, and say so: exposures of an empty page teach nothing."""
    gone = table["is_sold_out"].to_numpy(dtype=bool)
    if gone.any():
        warnings.warn(
            f"skus.stock: sold out: {gone.sum()} (such as {table['sku_id'][gone].iloc[0]!r}); they get no "
            "exposures; where they were stocked up again, raise their stock by what was added",
            UserWarning,
            stacklevel=3,
        )
    return gone


def _bought(model: HitModel, table: pd.DataFrame) -> Any:
    """Return the exposures that each SKU had so far: impressions where history counts them, else days on trial."""
    if on_impressions(model.rates["rate"]):
        return table["impressions"].to_numpy(dtype=float, na_value=0.0)
    return np.ceil(table["age_days"].to_numpy(dtype=float))


def _rounds(bought: Any, exposures: int, rounds_left: int) -> int:
    """Return how many rounds the test seems to have: rounds spend alike, so the spending tells how many passed."""
    spent = float(np.sum(bought))
    passed = round(spent * rounds_left / exposures) if exposures > 0 else 0
    return rounds_left + passed
