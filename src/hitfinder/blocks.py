"""Blocks: past batches that one model plays again, and what each policy bought, scaled and was worth on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.errors import ModelError
from hitfinder.labels import PROFIT, parse_metric
from hitfinder.models.belief import Belief
from hitfinder.models.content import vectorise
from hitfinder.models.hit_model import HitModel
from hitfinder.settings import Settings
from hitfinder.tables import MONEY
from hitfinder.trial import Played, Policy, Pool, View, play
from hitfinder.trial_table import BeliefPolicy, TrialTable, catalog_of, pool_of, repeat_pool

__all__ = ["Block", "ModelPolicy", "PriceAlone", "block_of", "play_ours", "play_policy"]

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class ModelPolicy:
    """hitfinder as it is used: `plan` decides what is bought, `rank` who is scaled; keeps who was told to stop.

    With `by_value` the greatest expected value is scaled first, and what is not expected to be worth anything never.
    """

    def __init__(
        self, model: HitModel, belief: Belief, table: TrialTable, skus: pd.DataFrame, vectors: Any, *, by_value: bool
    ) -> None:
        self.by_value = by_value
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
        """Return the model's margins, or what SKUs are expected to be worth."""
        described = self._described(self.table.features(view, self.model.rates))
        margin = self.model.margin(described)
        if not self.by_value:
            return margin
        value = self.model.expected_value(margin, described)
        return np.where(value > 0, value, -np.inf)

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


@dataclass(frozen=True)
class Block:
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
    left_out: tuple[str, ...] = ()

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
) -> Block | None:
    """Take the tests of labelled SKUs as a block; None where nothing was counted in them.

    Batches in whose tests no exposure was counted, where those of others were, are left out: there is nothing to buy.

    Parameters
    ----------
    con
        After `features.set_scope` at a moment when the outcomes were known.
    settings, budgets, rounds, repeats, slots
        As for `replay`.
    tests
        `sku_id, batch, value, hit`, in order of `sku_id`; see `labels.label`.
    number
        Which block it is: blocks have chances of their own.
    """
    pool = pool_of(con, tests, settings)
    if pool is None:
        return None
    counted = np.bincount(pool.batch, weights=pool.exposures)[pool.batch] > 0
    left_out = tuple(sorted(tests.loc[~counted, "batch"].astype(str).unique()))
    if left_out:
        tests = tests[counted].reset_index(drop=True)
        pool = pool_of(con, tests, settings)
        assert pool is not None  # what was counted in these is what made it
    if slots is not None:
        pool = replace(pool, slots=np.full_like(pool.slots, slots))
    skus = con.execute("select * from skus").df().set_index("sku_id").loc[pool.sku_id].reset_index()
    return Block(settings, tests, pool, catalog_of(con, pool.sku_id), skus, budgets, rounds, repeats, number,
                 left_out)  # fmt: skip


def play_policy(block: Block, name: str, policy: Policy, shares: tuple[float, ...]) -> pd.DataFrame:
    """Play a policy on every budget and repeat at once."""
    many, cells, budget = _copies(block, shares)
    if isinstance(policy, PriceAlone):
        policy = PriceAlone(np.tile(policy.price, len(cells)))
    return _results(block, name, many, cells, play(many, policy, budget, block.rounds, block.chance))


def play_ours(
    block: Block, name: str, model: HitModel, *, by_value: bool = False
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Play hitfinder with a model that was fitted before; also return how its promise about stopping was kept.

    `by_value`: scale by expected value rather than by the chance of a hit.
    """
    if model.belief is None:
        raise ModelError("the model holds nothing to plan a test by; fit it again with this version")
    many, cells, budget = _copies(block, block.budgets)
    copies, n = len(cells), len(block.skus)
    table = TrialTable(many, pd.concat([block.catalog] * copies, ignore_index=True), block.settings)
    # A copy's title and attributes are its SKU's.
    skus = pd.concat([block.skus] * copies, ignore_index=True).assign(sku_id=many.sku_id)
    vectors = vectorise(block.skus, list(model.categories))[np.tile(np.arange(n), copies)]
    policy = ModelPolicy(model, model.belief, table, skus, vectors, by_value=by_value)
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


def _copies(block: Block, shares: tuple[float, ...]) -> tuple[Pool, list[tuple[float, int]], IntArray]:
    """Return the pool once per budget and repeat, which copy is which, and each batch's budget."""
    cells = [(share, repeat) for share in shares for repeat in range(block.repeats)]
    many = repeat_pool(block.pool, len(cells))
    full = np.bincount(block.pool.batch, weights=block.pool.exposures, minlength=len(block.pool.slots))
    budget = np.concatenate([np.floor(share * full + 1e-9) for share, _ in cells]).astype(np.int64)
    return many, cells, budget


def _results(block: Block, name: str, many: Pool, cells: list[tuple[float, int]], played: Played) -> pd.DataFrame:
    """Return one row per budget, repeat and batch: what was scaled, and what that was worth."""
    copies = len(cells)
    rows = pd.DataFrame(
        {
            "copy": np.repeat(np.arange(copies), len(block.tests)),
            "batch": many.batch,
            "batch_id": np.tile(block.tests["batch"].astype(str).to_numpy(), copies),
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
    # A policy that gives no score to a SKU would not scale it at all.
    rows["scaled"] = (place.reindex(rows.index) < rows["slots"]) & (rows["score"] > -np.inf)
    best = rows.groupby("batch")["value"].rank(ascending=False, method="first") <= rows["slots"]
    rows = rows.assign(found=rows["hit"] * rows["scaled"], value_found=rows["value"] * rows["scaled"],
                       value_best=rows["value"] * best, skus=1)  # fmt: skip
    sums = {"skus": "skus", "hit": "hits", "found": "found", "spent": "spent", "pool": "pool",
            "value_found": "value_found", "value_best": "value_best"}  # fmt: skip
    keys = rows.groupby(["copy", "batch"])
    out = keys[list(sums)].sum().rename(columns=sums)
    out["slots"], out["batch_id"] = keys["slots"].first(), keys["batch_id"].first()
    out["money_spent"] = keys["money"].sum() if "money" in rows else np.nan
    in_money = parse_metric(block.settings.label.metric) in {(column, None) for column in (*MONEY, PROFIT)}
    out["regret"] = out["value_best"] - out["value_found"] + out["money_spent"] if in_money else np.nan
    out = out.reset_index()
    out["budget"] = [cells[copy][0] for copy in out["copy"]]
    out["seed"] = [cells[copy][1] for copy in out["copy"]]
    return out.drop(columns=["copy", "batch"]).assign(policy=name)
