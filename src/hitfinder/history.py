"""History: what is known at a moment, as examples: tests as they were, and tests as they might have been.

A model that saw only full tests misjudges a SKU with forty impressions whose siblings were stopped. So where exposures
are counted, past tests are also played again under small budgets (see `trial`), and the states that such a test visits
are learned from beside the real ones. Their spending follows the rates alone, fitted on the same history.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.cohorts import block_folds
from hitfinder.costs import unknown_costs
from hitfinder.errors import NotEnoughHistoryError
from hitfinder.features import features, look_back, on_impressions, set_scope
from hitfinder.labels import PROFIT, label
from hitfinder.models.belief import Belief, fit_belief, unseen_mean
from hitfinder.models.content import vectorise
from hitfinder.models.demand import Demand, fit_demand
from hitfinder.models.design import funnel_to, simple_score, split_attributes
from hitfinder.pooling import choose_rates, fit_rates, load_pairs
from hitfinder.selection import Selection, weigh_seen
from hitfinder.settings import Settings
from hitfinder.sold import sold_in_windows
from hitfinder.tables import SKUS
from hitfinder.trial import play
from hitfinder.trial_table import BeliefPolicy, TrialTable, catalog_of, pool_of, repeat_pool

__all__ = [
    "Examples",
    "History",
    "demand_of",
    "examples_of",
    "know",
    "state_features",
    "with_trials",
]

Array = npt.NDArray[np.float64]

MIN_SKUS = 40
MIN_HITS = 4
# With many SKUs, fewer ages of each do: past this, rows cost time and teach nothing.
MAX_ROWS = 20_000
# From this share of its test window on, a SKU is being decided on.
LATE = 0.5
# Budgets of the tests that are played again, as shares of the test in full; their rounds; and after which of them the
# state is learned from. Small budgets, because that is where states differ most from a test in full.
TRIAL_BUDGETS = (0.05, 0.1, 0.2, 0.4)
TRIAL_ROUNDS = 6
TRIAL_STATES = (1, 2, 3, 4, 5, 6)
# Blocks of launches that take turns in not being seen while demand is learned.
DEMAND_FOLDS = 5


@dataclass(frozen=True)
class History:
    """What is known at the call's moment: labels, counted pairs, the SKUs, and how to get features for some rates.

    `trial` holds the states of tests that were played again; `copied`, by its SKUs' ids, of which SKU each is a copy
    (`sku_id`), and under which budget its batch was played (`budget`, a share of the test in full).
    """

    con: Any
    settings: Settings
    labels: pd.DataFrame
    rate_names: list[str]
    pairs: pd.DataFrame
    skus: pd.DataFrame
    vectors: Any
    categories: list[str]
    numbers: list[str]
    trial: TrialTable | None = None
    copied: pd.DataFrame | None = None
    selection: Selection | None = None
    unknown_costs: str = ""

    def close(self) -> None:
        """Let go of the trials' warehouse; the history's own belongs to the caller."""
        if self.trial is not None:
            self.trial.close()


@dataclass(frozen=True)
class Examples:
    """Rows to learn from or to be judged on: one per SKU and moment, or state of a test that was played again.

    `trial` tells which are such states, and of which copy: -1 for what really was.
    """

    table: pd.DataFrame
    hit: Array
    value: Array
    standing: Array
    weight: Array
    copies: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int64]
    lists: npt.NDArray[np.int64]
    trial: npt.NDArray[np.int64]


def know(
    con: Any,
    settings: Settings,
    moment: pd.Timestamp,
    *,
    outcomes_given: bool,
    decisions_given: bool = False,
    relabel: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
) -> tuple[History, dict[str, int]]:
    """Return what was known at a moment of the admitted tables, and how many groups of SKUs had which problem."""
    set_scope(con, settings, moment, max_rows=MAX_ROWS)
    every = label(con, settings, outcomes_given=outcomes_given)
    usable = every[every["problem"].isna()].reset_index(drop=True).assign(weight=1.0)
    selection: Selection | None = None
    if decisions_given:
        usable, selection = weigh_seen(con, usable, settings)
    usable = usable if relabel is None else relabel(usable)
    named = {str(k): int(v) for k, v in every.groupby("problem")["within_group"].nunique().items()}
    n_hits = int(usable["hit"].sum())
    if len(usable) < MIN_SKUS or n_hits < MIN_HITS:
        left_out = f"; groups left out: {named}" if named else ""
        raise NotEnoughHistoryError(
            f"as of {moment}: {len(usable)} SKUs with a closed outcome window, hits among them: {n_hits}; it takes at "
            f"least {MIN_SKUS} and {MIN_HITS}{left_out}. Wait, give more history, or shorten label.outcome_window"
        )
    look_back(con)
    rate_names = choose_rates(con)
    if not rate_names:
        raise NotEnoughHistoryError("signals: nothing was counted in any test window; give signals from the tests")
    frame_of_skus = con.execute("select * from skus order by sku_id").df()
    categories, numbers = split_attributes(frame_of_skus, SKUS.column_names)
    vectors = vectorise(frame_of_skus, categories)
    pairs = load_pairs(con)
    history = History(
        con, settings, usable, rate_names, pairs, frame_of_skus, vectors, categories, numbers, selection=selection,
        unknown_costs=unknown_costs(con) if settings.label.metric == PROFIT and not outcomes_given else "",
    )  # fmt: skip
    return with_trials(history), named


def with_trials(history: History) -> History:
    """Play past tests again under small budgets, where exposures are counted; see the module's text."""
    settings, labels = history.settings, history.labels
    if not on_impressions(history.rate_names):
        return history
    pool = pool_of(history.con, labels, settings)
    if pool is None or pool.by_period:
        return history
    rates = fit_rates(history.pairs, history.rate_names)
    table = features(history.con, rates).assign(copy=-1)
    table = table[table["sku_id"].isin(set(labels["sku_id"]))].reset_index(drop=True)
    belief = belief_of(history, examples_of(history, table, set(labels["sku_id"])))
    affordable = MAX_ROWS // (len(TRIAL_STATES) * len(labels))
    copies = max(n for n in (1, 2, len(TRIAL_BUDGETS)) if n <= max(affordable, 1))
    many = repeat_pool(pool, copies)
    catalog = catalog_of(history.con, pool.sku_id)
    trial = TrialTable(many, pd.concat([catalog] * copies, ignore_index=True), settings)
    # Neighbouring batches, and the copies of one batch, get different budgets; two copies a small and a larger one.
    batches = np.arange(len(many.slots))
    turn = (batches % len(pool.slots) + len(TRIAL_BUDGETS) // copies * (batches // len(pool.slots))) % len(
        TRIAL_BUDGETS
    )
    share = np.asarray(TRIAL_BUDGETS)[turn]
    full = np.bincount(many.batch, weights=many.exposures, minlength=len(many.slots))
    policy = BeliefPolicy(belief, rates, trial)
    rng = np.random.default_rng([settings.seed, 3])
    played = play(many, policy, (share * full).astype(np.int64), TRIAL_ROUNDS, rng)
    trial.look_after([played.views[round_] for round_ in TRIAL_STATES], history.rate_names)
    copied = pd.DataFrame({"sku_id": np.tile(pool.sku_id, copies), "budget": share[many.batch]}, index=many.sku_id)
    return replace(history, trial=trial, copied=copied)


def belief_of(history: History, train: Examples) -> Belief:
    """Fit what a test plan spends by."""
    return fit_belief(
        train.table,
        train.table["sku_id"].to_numpy(),
        train.standing,
        train.weight,
        train.folds,
        train.lists,
        history.rate_names,
        *_simple_levels(history),
    )


def _simple_levels(history: History) -> tuple[dict[str, float], list[str]]:
    """Return the weights of the levels in one sum that a belief departs from, and the levels of the other."""
    metric, rates = history.settings.label.metric, history.rate_names
    return simple_score(metric, rates), [f"{rate}.level" for rate in funnel_to(metric, rates)]


def demand_of(history: History, train: Examples, belief: Belief) -> Demand | None:
    """Fit how many units SKUs sell in their outcome windows; None where units were not counted, or too few."""
    rate = next((name for name in ("units_per_impression", "units_per_day") if name in history.rate_names), None)
    if rate is None:
        return None
    labels = history.labels[history.labels["sku_id"].isin(set(train.table["sku_id"]))].reset_index(drop=True)
    blocks = pd.Series(block_folds(labels, DEMAND_FOLDS), index=labels["sku_id"])
    folds = blocks.reindex(train.table["sku_id"]).to_numpy(dtype=np.int64)
    unseen = unseen_mean(
        belief, train.table, train.standing, train.weight, folds, train.lists, *_simple_levels(history)
    )
    # Tests as they were: what is asked for is what the SKUs on trial now will sell.
    real = train.trial < 0
    rows = train.table[real].reset_index(drop=True)
    sold = sold_in_windows(history.con).set_index("sku_id").reindex(rows["sku_id"])
    weight = pd.Series(train.weight).groupby(train.table["sku_id"].to_numpy()).sum().reindex(rows["sku_id"])
    return fit_demand(
        rows,
        rate,
        unseen[real],
        sold["stretch_units"].to_numpy(dtype=float),
        sold["in_stock"].to_numpy(dtype=float),
        (weight / rows.groupby("sku_id")["sku_id"].transform("size").to_numpy()).to_numpy(dtype=float),
        folds[real],
    )


def state_features(history: History, rates: pd.DataFrame, states: tuple[int, ...] = TRIAL_STATES) -> pd.DataFrame:
    """Return the features of every SKU at every moment, and in the states of tests played again after some rounds.

    `copy` tells them apart: -1 for what really was, without a `budget`; `sku_id` is always the real one's.
    """
    real = features(history.con, rates).assign(copy=-1, budget=np.nan)
    if history.trial is None or history.copied is None:
        return real
    played = history.trial.features_looked_at(rates, states)
    copy = played["sku_id"].str.partition(":")[0].astype("int64")
    # A copy's batch is a list of its own.
    batch = "\x1f" + played["batch_id"]
    of = history.copied.reindex(played["sku_id"])
    played = played.assign(copy=copy, sku_id=of["sku_id"].to_numpy(), budget=of["budget"].to_numpy(), batch_id=batch)
    return pd.concat([real, played], ignore_index=True)


def examples_of(history: History, table: pd.DataFrame, skus: set[str]) -> Examples:
    """Return the rows of `table` (see `state_features`) that are of `skus`, with what became of them."""
    labels = history.labels[history.labels["sku_id"].isin(skus)].reset_index(drop=True)
    folds = pd.Series(block_folds(labels, history.settings.model.folds), index=labels["sku_id"])
    rows = table[table["sku_id"].isin(skus)].reset_index(drop=True)
    truth = labels.set_index("sku_id").reindex(rows["sku_id"])
    size = rows.groupby("sku_id")["sku_id"].transform("size").to_numpy()
    trial = rows["copy"].to_numpy(dtype=np.int64)
    # Probabilities are made for the time of decision: the later half of the test.
    late = (rows["age_share"].to_numpy(dtype=float) >= LATE) & (trial < 0)
    real = rows.index.to_series().groupby(rows["sku_id"]).cumcount().to_numpy()
    copies = np.where(late, _count_late(rows["sku_id"], late), -1) if late.any() else np.where(trial < 0, real, -1)
    return Examples(
        table=rows,
        hit=truth["hit"].to_numpy(dtype=float),
        value=truth["value"].to_numpy(dtype=float),
        standing=truth["standing"].to_numpy(dtype=float),
        weight=truth["weight"].to_numpy(dtype=float) / size,
        copies=np.asarray(copies, dtype=np.int64),
        folds=folds.reindex(rows["sku_id"]).to_numpy(dtype=np.int64),
        lists=np.asarray(rows.groupby(["as_of", "batch_id"], dropna=False).ngroup(), dtype=np.int64),
        trial=trial,
    )


def _count_late(sku_id: pd.Series, late: npt.NDArray[np.bool_]) -> Array:
    """Count the late rows of each SKU from 0; the counts of the others mean nothing."""
    return np.asarray(pd.Series(late.astype(int)).groupby(sku_id.to_numpy()).cumsum() - 1, dtype=float)
