"""Replays: what any policy would have cost and found on past batches that were tested in full.

Training rolls forward in time: for each block of batches a model is fitted as of the launch of its first SKU, just as
`fit` would have been called then. Then every policy plays the block's tests again, buying from what the full tests
counted (see `trial`); a hit is what the outcome, counted after the test, made one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import spearmanr

from hitfinder.admission import admit_signals_and_skus, say_where_ids_differ
from hitfinder.cohorts import forward_folds
from hitfinder.errors import ModelError, NotEnoughHistoryError, SettingsError
from hitfinder.features import set_scope
from hitfinder.history import moment_of_knowledge
from hitfinder.labels import label, parse_metric
from hitfinder.models.belief import Belief
from hitfinder.models.content import vectorise
from hitfinder.models.hit_model import HitModel
from hitfinder.policies import FullTest, peers
from hitfinder.report.replay import OURS, draw_replay, say_replay, summarise_replay
from hitfinder.settings import Settings
from hitfinder.tables import MONEY
from hitfinder.training import MIN_FOLD_HITS, MIN_FOLD_SKUS, fit_admitted
from hitfinder.trial import Played, Policy, Pool, View, play
from hitfinder.trial_table import BeliefPolicy, TrialTable, catalog_of, pool_of, repeat_pool
from hitfinder.warehouse import TableLike, open_warehouse

__all__ = ["BUDGETS", "PRICE", "ROUNDS", "SHUFFLED", "ReplayReport", "replay"]

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

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


class ModelPolicy:
    """hitfinder as it is used: `plan` decides what is bought, `rank` who is scaled; keeps who was told to stop."""

    def __init__(self, model: HitModel, belief: Belief, table: TrialTable, skus: pd.DataFrame, vectors: Any) -> None:
        self.model, self.table, self.skus, self.vectors = model, table, skus, vectors
        self.spending = BeliefPolicy(belief, model.rates, table)
        self.stopped = np.zeros(len(skus), dtype=bool)

    def spend(self, view: View, rng: np.random.Generator) -> IntArray:
        """Return the next round's exposures; SKUs told to stop get none."""
        del rng
        features = self.table.features(view, self.model.rates)
        stop = self.model.stops(self._described(features), view.bought)
        self.stopped |= stop
        return self.spending.share_out(features, replace(view, room=np.where(stop, 0, view.room)))

    def score(self, view: View) -> Array:
        """Return the model's margins."""
        return self.model.margin(self._described(self.table.features(view, self.model.rates)))

    def _described(self, features: pd.DataFrame) -> pd.DataFrame:
        return self.model.describe(features, self.skus, self.vectors)


@dataclass(frozen=True)
class PriceAlone:
    """Buys nothing and scales by the price: dearer SKUs first, or cheaper ones, whichever did better before."""

    price: Array

    def spend(self, view: View, rng: np.random.Generator) -> IntArray:
        """Return zeros."""
        del rng
        return np.zeros(len(view.batch), dtype=np.int64)

    def score(self, view: View) -> Array:
        """Return the price, so signed that more is better."""
        del view
        return self.price


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
    if not budgets or not all(0 < share <= 1 for share in budgets) or len(set(budgets)) < len(budgets):
        raise SettingsError(
            f"budgets: expected different shares of a full test, above 0 and up to 1, got {list(budgets)}"
        )
    for name, number in {"rounds": rounds, "repeats": repeats, "slots": 1 if slots is None else slots}.items():
        if number < 1:
            raise SettingsError(f"{name}: expected 1 or more, got {number}")
    tell = progress or _say_nothing
    con = open_warehouse(threads=settings.model.threads)
    try:
        admissions = admit_signals_and_skus(con, signals, skus, period=settings.signals.period, outcomes=outcomes)
        say_where_ids_differ(con, allowed=0.02)
        moment = moment_of_knowledge(con, as_of)
        given = outcomes is not None
        set_scope(con, settings, moment)
        every = label(con, settings, outcomes_given=given)
        labels = every[every["problem"].isna()].reset_index(drop=True)
        folds = forward_folds(labels, settings.model.folds, min_train=MIN_FOLD_SKUS, min_hits=MIN_FOLD_HITS)
        if not folds:
            raise NotEnoughHistoryError(
                f"as of {moment}: expected a batch with {MIN_FOLD_SKUS} SKUs and {MIN_FOLD_HITS} hits closed before "
                f"its launch, got none among {labels['within_group'].nunique()} batches; give more history"
            )
        prices = dict(con.execute("select sku_id, price from catalog where price is not null").fetchall())
        parts: list[pd.DataFrame] = []
        promises: list[dict[str, Any]] = []
        notes: list[str] = []
        for number, fold in enumerate(folds, start=1):
            tests = labels[labels["sku_id"].isin(fold.test)].sort_values("sku_id").reset_index(drop=True)
            start = tests["launched_at"].min()
            where = f"block {number} of {len(folds)}"
            tell(f"{where}: fitting as of {start:%Y-%m-%d}")
            model = fit_admitted(con, settings, start, admissions, outcomes_given=given)
            # A fit looks at its own moment; what the tests counted is read at the replay's.
            set_scope(con, settings, moment)
            block = block_of(con, settings, tests, tuple(budgets), rounds, repeats, number, slots)
            if block is None:
                notes.append(f"{where} left out: nothing was counted in its test windows")
                continue
            tell(f"{where}: playing {len(tests)} SKUs")
            ours, kept = play_ours(block, OURS, model)
            parts.append(ours)
            promises.extend(kept)
            for name, policy in peers(merit or _merit(settings, block.pool)).items():
                shares = (1.0,) if isinstance(policy, FullTest) else block.budgets
                parts.append(_play(block, name, policy, shares))
            if controls:
                tell(f"{where}: playing the controls")
                price = _signed_price(labels[labels["sku_id"].isin(fold.train)], prices, block)
                if price is not None:
                    parts.append(_play(block, PRICE, PriceAlone(price), block.budgets[:1]))
                blind = fit_admitted(con, settings, start, admissions, outcomes_given=given, relabel=_shuffle(settings))
                set_scope(con, settings, moment)
                dealt = replace(block, tests=_shuffle(settings)(block.tests), repeats=1)
                parts.append(play_ours(dealt, SHUFFLED, blind)[0])
        if not parts:
            raise NotEnoughHistoryError(f"signals: {'; '.join(notes)}; give signals from the tests")
        results = pd.concat(parts, ignore_index=True)
    finally:
        con.close()
    if controls and PRICE not in set(results["policy"]):
        notes.append(f"{PRICE}: not played, prices are not known")
    summary = summarise_replay(results, seed=settings.seed)
    return ReplayReport(results, summary, tuple(notes), pd.DataFrame(promises))


@dataclass(frozen=True)
class _Block:
    """Batches that one model plays, with what is known of their SKUs, all in order of `sku_id`."""

    settings: Settings
    tests: pd.DataFrame
    pool: Pool
    catalog: pd.DataFrame
    skus: pd.DataFrame
    budgets: tuple[float, ...]
    rounds: int
    repeats: int
    number: int

    @property
    def chance(self) -> np.random.Generator:
        """The same chance for every policy."""
        return np.random.default_rng([self.settings.seed, 7, self.number])


def block_of(
    con: Any,
    settings: Settings,
    tests: pd.DataFrame,
    budgets: tuple[float, ...],
    rounds: int,
    repeats: int,
    number: int,
    slots: int | None,
) -> _Block | None:
    pool = pool_of(con, tests, settings)
    if pool is None:
        return None
    if slots is not None:
        pool = replace(pool, slots=np.full_like(pool.slots, slots))
    skus = con.execute("select * from skus").df().set_index("sku_id").loc[pool.sku_id].reset_index()
    return _Block(settings, tests, pool, catalog_of(con, pool.sku_id), skus, budgets, rounds, repeats, number)


def _play(block: _Block, name: str, policy: Policy, shares: tuple[float, ...]) -> pd.DataFrame:
    """Play a policy on every budget and repeat at once."""
    many, cells, budget = _copies(block, shares)
    if isinstance(policy, PriceAlone):
        policy = PriceAlone(np.tile(policy.price, len(cells)))
    return _results(block, name, many, cells, play(many, policy, budget, block.rounds, block.chance))


def play_ours(block: _Block, name: str, model: HitModel) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Play hitfinder with a model that was fitted before; also return how its promise about stopping was kept."""
    if model.belief is None:
        raise ModelError("the model holds nothing to plan a test by; fit it again with this version")
    many, cells, budget = _copies(block, block.budgets)
    copies, n = len(cells), len(block.skus)
    table = TrialTable(many, pd.concat([block.catalog] * copies, ignore_index=True), block.settings)
    # A copy's title and attributes are its SKU's.
    skus = pd.concat([block.skus] * copies, ignore_index=True).assign(sku_id=many.sku_id)
    vectors = vectorise(block.skus, list(model.categories))[np.tile(np.arange(n), copies)]
    policy = ModelPolicy(model, model.belief, table, skus, vectors)
    try:
        played = play(many, policy, budget, block.rounds, block.chance)
    finally:
        table.close()
    promise = model.promises["plan_stop"]
    hit = np.tile(block.tests["hit"].to_numpy(dtype=float), copies)
    hits = np.bincount(many.batch, weights=hit, minlength=len(many.slots))
    lost = np.bincount(many.batch, weights=hit * policy.stopped, minlength=len(many.slots))
    stopped = np.bincount(many.batch, weights=policy.stopped, minlength=len(many.slots))
    size = np.bincount(many.batch, minlength=len(many.slots))
    kept = []
    for copy, (share, repeat) in enumerate(cells):
        of = slice(copy * len(block.pool.slots), (copy + 1) * len(block.pool.slots))
        with_hits = hits[of] > 0
        kept.append(
            {
                "block": block.number,
                "budget": share,
                "seed": repeat,
                "promise": promise.sentence(),
                "promised": promise.holds,
                "batches": int(with_hits.sum()),
                "broken": int((lost[of] > block.settings.policy.max_hits_lost * hits[of] + 1e-9)[with_hits].sum()),
                "stopped_share": float(stopped[of].sum() / size[of].sum()),
            }
        )
    return _results(block, name, many, cells, played), kept


def _copies(block: _Block, shares: tuple[float, ...]) -> tuple[Pool, list[tuple[float, int]], IntArray]:
    """Return the pool once per budget and repeat, which copy is which, and each batch's budget."""
    cells = [(share, repeat) for share in shares for repeat in range(block.repeats)]
    many = repeat_pool(block.pool, len(cells))
    full = np.bincount(block.pool.batch, weights=block.pool.exposures, minlength=len(block.pool.slots))
    budget = np.concatenate([np.floor(share * full + 1e-9) for share, _ in cells]).astype(np.int64)
    return many, cells, budget


def _results(block: _Block, name: str, many: Pool, cells: list[tuple[float, int]], played: Played) -> pd.DataFrame:
    """Return one row per budget, repeat and batch: what was scaled, and what that was worth."""
    copies = len(cells)
    rows = pd.DataFrame(
        {
            "copy": np.repeat(np.arange(copies), len(block.tests)),
            "batch": many.batch,
            "batch_id": np.tile(block.tests["within_group"].astype(str).to_numpy(), copies),
            "hit": np.tile(block.tests["hit"].to_numpy(dtype=float), copies),
            "value": np.tile(block.tests["value"].to_numpy(dtype=float), copies),
            "spent": played.bought,
            "pool": many.exposures,
            "slots": many.slots[many.batch],
            "score": played.score,
            # Who comes first in a table is no reason to be scaled.
            "tie": block.chance.permutation(len(many.batch)),
        }
    )
    if "spend" in played.counts:
        rows["money"] = played.counts["spend"]
    place = rows.sort_values(["score", "tie"], ascending=[False, True]).groupby("batch").cumcount()
    rows["scaled"] = place.reindex(rows.index) < rows["slots"]
    best = rows.groupby("batch")["value"].rank(ascending=False, method="first") <= rows["slots"]
    rows = rows.assign(found=rows["hit"] * rows["scaled"], value_found=rows["value"] * rows["scaled"],
                       value_best=rows["value"] * best, skus=1)  # fmt: skip
    sums = {"skus": "skus", "hit": "hits", "found": "found", "spent": "spent", "pool": "pool",
            "value_found": "value_found", "value_best": "value_best"}  # fmt: skip
    keys = rows.groupby(["copy", "batch"])
    out = keys[list(sums)].sum().rename(columns=sums)
    out["slots"], out["batch_id"] = keys["slots"].first(), keys["batch_id"].first()
    out["money_spent"] = keys["money"].sum() if "money" in rows else np.nan
    in_money = parse_metric(block.settings.label.metric) in {(column, None) for column in MONEY}
    out["regret"] = out["value_best"] - out["value_found"] + out["money_spent"] if in_money else np.nan
    out = out.reset_index()
    out["budget"] = [cells[copy][0] for copy in out["copy"]]
    out["seed"] = [cells[copy][1] for copy in out["copy"]]
    return out.drop(columns=["copy", "batch"]).assign(policy=name)


def _say_nothing(words: str) -> None:
    del words


def _merit(settings: Settings, pool: Pool) -> str:
    """Return the count that simple policies go by: the label's own, else the last of the funnel that was counted."""
    column, _ = parse_metric(settings.label.metric)
    funnel = (column, "orders", "revenue", "carts", "favorites", "clicks", "visitors")
    return next((name for name in funnel if name in pool.counts), next(iter(pool.counts)))


def _signed_price(known: pd.DataFrame, prices: dict[str, float], block: _Block) -> Array | None:
    """Return prices of the block's SKUs, so signed that more was better before; None where none is known."""
    price = block.catalog["price"].to_numpy(dtype=float)
    if np.isnan(price).all():
        return None
    before = known["sku_id"].map(prices).to_numpy(dtype=float)
    there = ~np.isnan(before)
    up = there.sum() < 3 or spearmanr(before[there], known["standing"].to_numpy()[there]).statistic >= 0
    signed: Array = np.where(np.isnan(price), -np.inf, price if up else -price)
    return signed


def _shuffle(settings: Settings) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return a function that deals the outcomes out anew within each group."""

    def deal(labels: pd.DataFrame) -> pd.DataFrame:
        rng = np.random.default_rng([settings.seed, 11])
        outcome = ["value", "standing", "hit"]
        dealt = labels.copy()
        for _, places in sorted(labels.groupby("within_group").indices.items()):
            dealt.loc[labels.index[places], outcome] = labels.loc[
                labels.index[rng.permutation(places)], outcome
            ].to_numpy()
        return dealt.astype({"value": float, "standing": float, "hit": bool})

    return deal
