"""Replays: what any policy would have cost and found on past batches that were tested in full.

Training rolls forward in time: for each block of batches a model is fitted as of the launch of its first SKU, just as
`fit` would have been called then. Then every policy plays the block's tests again, buying from what the full tests
counted (see `trial`); a hit is what the outcome, counted after the test, made one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import spearmanr

from hitfinder.admission import Admission, admit_signals_and_skus, say_where_ids_differ
from hitfinder.blocks import Block, PriceAlone, block_of, play_ours, play_policy
from hitfinder.cohorts import forward_folds
from hitfinder.costs import unknown_costs
from hitfinder.errors import NotEnoughHistoryError, SettingsError
from hitfinder.features import moment_of_knowledge, set_scope
from hitfinder.labels import PROFIT, label, parse_metric
from hitfinder.models.hit_model import HitModel
from hitfinder.policies import FullTest, peers
from hitfinder.report.replay import OURS, draw_replay, say_replay, summarise_replay
from hitfinder.settings import Settings
from hitfinder.training import MIN_FOLD_HITS, MIN_FOLD_SKUS, fit_admitted
from hitfinder.trial import Pool
from hitfinder.warehouse import TableLike, open_warehouse

__all__ = ["BUDGETS", "PRICE", "ROUNDS", "SHUFFLED", "ReplayReport", "replay", "shuffled"]

Array = npt.NDArray[np.float64]

BUDGETS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
ROUNDS = 6
# Controls that must fail: what knows nothing must find nothing.
SHUFFLED = "control: shuffled labels"
PRICE = "control: price alone"


@dataclass(frozen=True)
class ReplayReport:
    """What a replay found.

    Attributes
    ----------
    results
        One row per policy, budget, batch and seed: `policy, budget, batch_id, seed, skus, hits, slots, found, spent,
        pool, value_found, value_best, money_spent, regret`. Exposures as whole numbers; `regret` is the outcome missed
        plus the test's spend, where both are money.
    summary
        One row per policy and budget, with 90 % intervals by bootstrap over batches; see `summarise_replay`.
    notes
        What was left out, and why.
    promises
        For each block, what its model promised about stopping, and how many of the block's batches kept to it.
    """

    results: pd.DataFrame
    summary: pd.DataFrame
    notes: tuple[str, ...]
    promises: pd.DataFrame

    def say(self, language: str = "en") -> str:
        """Return the table and the headline as text, `en` or `zh`."""
        return "\n".join([say_replay(self.summary, language), *self.notes])

    def draw(self, path: Any) -> Any:
        """Write the curve of cost against hits to a .png, .svg or .pdf file."""
        return draw_replay(self.summary, path)


def replay(
    signals: TableLike,
    skus: TableLike,
    settings: Settings,
    outcomes: TableLike | None = None,
    as_of: Any = None,
    *,
    budgets: Sequence[float] = BUDGETS,
    rounds: int = ROUNDS,
    repeats: int = 2,
    slots: int | None = None,
    merit: str | None = None,
    controls: bool = True,
    progress: Callable[[str], None] | None = None,
) -> ReplayReport:
    """Play policies again on past batches that were tested in full.

    Parameters
    ----------
    signals, skus, settings, outcomes, as_of
        As for `fit`.
    budgets
        Shares of a full test's exposures that a policy may spend.
    rounds
        How many times a policy may look and buy.
    repeats
        How many times each test is played, with other chance.
    slots
        How many SKUs of a batch can be scaled; default: as many as it had hits.
    merit
        The count that simple policies go by; default: what the label's metric counts.
    controls
        Also play the controls that must fail.
    progress
        Called with a few words before each longer step.

    Returns
    -------
    ReplayReport

    Raises
    ------
    NotEnoughHistoryError
        No batch has enough closed history before it to learn from.
    SettingsError
        A budget outside (0, 1], or rounds or repeats below 1.
    """
    _check(budgets, rounds, repeats, slots)
    tell = progress or _say_nothing
    con = open_warehouse(threads=settings.model.threads)
    try:
        admissions = admit_signals_and_skus(con, signals, skus, period=settings.signals.period, outcomes=outcomes)
        say_where_ids_differ(con, allowed=0.02)
        moment = moment_of_knowledge(con, as_of)
        given = outcomes is not None
        set_scope(con, settings, moment)
        every = label(con, settings, outcomes_given=given)
        unknown = unknown_costs(con) if settings.label.metric == PROFIT and not given else ""
        labels = every[every["problem"].isna()].reset_index(drop=True)
        folds = forward_folds(labels, settings.model.folds, min_train=MIN_FOLD_SKUS, min_hits=MIN_FOLD_HITS)
        if not folds:
            raise NotEnoughHistoryError(
                f"as of {moment}: expected a batch with {MIN_FOLD_SKUS} SKUs and {MIN_FOLD_HITS} hits closed before "
                f"its launch, got none among {labels['batch'].nunique()} batches; give more history"
            )
        prices = dict(con.execute("select sku_id, price from catalog where price is not null").fetchall())
        parts: list[pd.DataFrame] = []
        promises: list[dict[str, Any]] = []
        notes: list[str] = []
        for number, fold in enumerate(folds, start=1):
            tests = labels[labels["sku_id"].isin(fold.test)].sort_values("sku_id").reset_index(drop=True)
            start = tests["launched_at"].min()
            where = f"block {number} of {len(folds)}"
            fit = partial(_fit_before, con, settings, start, moment, admissions, outcomes_given=given)
            tell(f"{where}: fitting as of {start:%Y-%m-%d}")
            model = fit()
            block = block_of(con, settings, tests, tuple(budgets), rounds, repeats, number, slots)
            if block is None:
                notes.append(f"{where} left out: nothing was counted in its test windows")
                continue
            if block.left_out:
                notes.append(
                    f"left out, since their tests' exposures were not counted: {', '.join(map(str, block.left_out))}"
                )
            tell(f"{where}: playing {len(tests)} SKUs")
            ours, kept = play_ours(block, OURS, model)
            parts.append(ours)
            promises.extend(kept)
            for name, policy in peers(merit or _merit(settings, block.pool)).items():
                shares = (1.0,) if isinstance(policy, FullTest) else block.budgets
                parts.append(play_policy(block, name, policy, shares))
            if controls:
                tell(f"{where}: playing the controls")
                known = labels[labels["sku_id"].isin(fold.train)]
                parts.extend(_play_controls(block, _signed_price(known, prices, block), fit, settings.seed))
        if not parts:
            raise NotEnoughHistoryError(f"signals: {'; '.join(notes)}; give signals from the tests")
        results = pd.concat(parts, ignore_index=True)
    finally:
        con.close()
    played = results.groupby("policy")["batch_id"].nunique()
    if controls and played.get(PRICE, 0) < played[OURS]:
        # On some of the batches it stands beside nothing.
        results = results[results["policy"] != PRICE].reset_index(drop=True)
        notes.append(f"{PRICE}: not played, prices are not known{' in every block' if PRICE in played else ''}")
    if unknown:
        notes.append(f"costs that nobody gave, so not in the profit: {unknown}")
    summary = summarise_replay(results, seed=settings.seed)
    return ReplayReport(results, summary, tuple(notes), pd.DataFrame(promises))


def _check(budgets: Sequence[float], rounds: int, repeats: int, slots: int | None) -> None:
    """Refuse numbers that no test can be played with."""
    if not budgets or not all(0 < share <= 1 for share in budgets) or len(set(budgets)) < len(budgets):
        raise SettingsError(
            f"budgets: expected different shares of a full test, above 0 and up to 1, got {list(budgets)}"
        )
    for name, number in {"rounds": rounds, "repeats": repeats, "slots": 1 if slots is None else slots}.items():
        if number < 1:
            raise SettingsError(f"{name}: expected 1 or more, got {number}")


def _fit_before(
    con: Any, settings: Settings, start: pd.Timestamp, moment: pd.Timestamp, admissions: list[Admission], **how: Any
) -> HitModel:
    """Fit on what was known at `start`, and look at the replay's own moment again: it reads what tests counted."""
    model = fit_admitted(con, settings, start, admissions, **how)
    set_scope(con, settings, moment)
    return model


def _play_controls(block: Block, price: Array | None, fit: Callable[..., HitModel], seed: int) -> list[pd.DataFrame]:
    """Play what must fail: prices alone where they are known, and a model of outcomes dealt out anew."""
    parts = [] if price is None else [play_policy(block, PRICE, PriceAlone(price), block.budgets[:1])]
    blind = fit(relabel=shuffled(seed))
    dealt = replace(block, tests=shuffled(seed)(block.tests), repeats=1)
    return [*parts, play_ours(dealt, SHUFFLED, blind)[0]]


def _say_nothing(words: str) -> None:
    del words


def _merit(settings: Settings, pool: Pool) -> str:
    """Return the count that simple policies go by: the label's own, else the last of the funnel that was counted."""
    column, _ = parse_metric(settings.label.metric)
    funnel = (column, "orders", "revenue", "carts", "favorites", "clicks", "visitors")
    return next((name for name in funnel if name in pool.counts), next(iter(pool.counts)))


def _signed_price(known: pd.DataFrame, prices: dict[str, float], block: Block) -> Array | None:
    """Return prices of the block's SKUs, so signed that more was better before; None where none is known."""
    price = block.catalog["price"].to_numpy(dtype=float)
    if np.isnan(price).all():
        return None
    before = known["sku_id"].map(prices).to_numpy(dtype=float)
    there = ~np.isnan(before)
    up = there.sum() < 3 or spearmanr(before[there], known["standing"].to_numpy()[there]).statistic >= 0
    signed: Array = np.where(np.isnan(price), -np.inf, price if up else -price)
    return signed


def shuffled(seed: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return what deals the outcomes out anew within each group: a model that learns from that has learned nothing.

    Examples
    --------
    >>> labels = pd.DataFrame({"within_group": ["a"] * 3, "value": [1.0, 2.0, 3.0], "standing": [0.2, 0.5, 0.8],
    ...                        "hit": [False, False, True], "weight": 1.0})
    >>> dealt = shuffled(1)(labels)
    >>> sorted(dealt["value"]), bool((dealt["hit"] == (dealt["value"] == 3)).all())
    ([1.0, 2.0, 3.0], True)
    """

    def deal(labels: pd.DataFrame) -> pd.DataFrame:
        rng = np.random.default_rng([seed, 11])
        kinds = {"value": float, "standing": float, "hit": bool, "weight": float}
        outcome = [name for name in kinds if name in labels]
        dealt = labels.copy()
        for _, places in sorted(labels.groupby("within_group").indices.items()):
            dealt.loc[labels.index[places], outcome] = labels.loc[
                labels.index[rng.permutation(places)], outcome
            ].to_numpy()
        return dealt.astype({name: kinds[name] for name in outcome})

    return deal
