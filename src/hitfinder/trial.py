"""Trials: past tests bought again, exposure by exposure, so that nothing unbought can be seen.

A SKU's test in full is a pool of exposures. A policy buys some of them; which ones is chance, without replacement, so
what it sees is what a smaller test would have shown. Totals are thinned: an exposure's hour inside the test carries no
information here. Where exposures are not counted, whole periods are bought in the order in which they came.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Played", "Policy", "Pool", "View", "play", "thin"]

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# What each count is drawn among, if that is there; else among the exposures. In which order they are drawn.
PARENT = {
    "favorites": "clicks",
    "carts": "clicks",
    "orders": "clicks",
    "units": "orders",
    "revenue": "orders",
    "refunds": "orders",
}
ORDER = ("visitors", "clicks", "favorites", "carts", "orders", "units", "revenue", "refunds")
MONEY = ("revenue", "refunds")
# The urn of numpy's hypergeometric draws holds fewer.
MAX_DRAWN = 1_000_000_000


@dataclass(frozen=True)
class Pool:
    """Tests in full: what each SKU's pool holds.

    Attributes
    ----------
    sku_id : array of str, shape (n,)
    batch : array of int, shape (n,)
        Number of each SKU's batch, 0 to batches - 1.
    exposures : array of int, shape (n,)
        How many the pool holds.
    counts : dict of name to array, shape (n,) or (n, periods)
        What came of them. One column per SKU where exposures are thinned; one per period, in order, where they are
        periods.
    slots : array of int, shape (batches,)
        How many SKUs of each batch can be scaled.
    measured : dict of name to array of bool, shape (n,)
        Of which SKUs a count was measured at all; a name that is not there was measured of all.
    """

    sku_id: npt.NDArray[np.object_]
    batch: IntArray
    exposures: IntArray
    counts: dict[str, Array]
    slots: IntArray
    measured: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def by_period(self) -> bool:
        """Whether an exposure is a whole period."""
        return any(values.ndim == 2 for values in self.counts.values())


@dataclass(frozen=True)
class View:
    """What a policy may know before it buys a round. Arrays over SKUs have shape (n,), over batches (batches,)."""

    sku_id: npt.NDArray[np.object_]
    batch: IntArray
    bought: IntArray
    counts: dict[str, Array]
    room: IntArray
    left: IntArray
    slots: IntArray
    round: int
    rounds: int

    @property
    def rounds_left(self) -> int:
        """Rounds left, this one included."""
        return self.rounds - self.round


class Policy(Protocol):
    """Decides what to buy and, in the end, whom to scale."""

    def spend(self, view: View, rng: np.random.Generator) -> IntArray:
        """Return exposures for each SKU; more than the room or the batch's rest is cut."""

    def score(self, view: View) -> Array:
        """Return a score for each SKU, higher is better: the best of each batch are scaled."""


@dataclass(frozen=True)
class Played:
    """A test that was played: exposures and scores in the end, one per SKU; views before each round and the last."""

    bought: IntArray
    counts: dict[str, Array]
    score: Array
    views: list[View]


def play(
    pool: Pool,
    policy: Policy,
    budget: IntArray,
    rounds: int,
    rng: np.random.Generator,
) -> Played:
    """Play a policy on every batch of a pool at once.

    Parameters
    ----------
    pool
        The tests in full.
    policy
        Who decides.
    budget : array of int, shape (batches,)
        Exposures that each batch may cost.
    rounds
        How many times the policy may look and buy.
    rng
        The chance of thinning, and the policy's own.
    """
    remaining = {name: np.asarray(values, dtype=float).copy() for name, values in pool.counts.items()}
    empty = np.zeros(len(pool.batch), dtype=np.int64)
    view = View(
        sku_id=pool.sku_id,
        batch=pool.batch,
        bought=empty,
        counts={name: np.zeros(len(empty)) for name in pool.counts},
        room=pool.exposures.copy(),
        left=np.asarray(budget, dtype=np.int64),
        slots=pool.slots,
        round=0,
        rounds=rounds,
    )
    views = []
    for _ in range(rounds):
        views.append(view)
        want = _within(np.asarray(policy.spend(view, rng), dtype=np.int64), view)
        if pool.by_period:
            got = {name: _periods(values, view.bought, want) for name, values in remaining.items()}
        else:
            got = thin(remaining, view.room, want, rng)
            for name, values in got.items():
                remaining[name] -= values
        view = replace(
            view,
            bought=view.bought + want,
            counts={name: view.counts[name] + got[name] for name in got},
            room=view.room - want,
            left=view.left - np.bincount(view.batch, weights=want, minlength=len(view.left)).astype(np.int64),
            round=view.round + 1,
        )
    return Played(view.bought, view.counts, np.asarray(policy.score(view), dtype=float), [*views, view])


def thin(counts: dict[str, Array], exposures: IntArray, want: IntArray, rng: np.random.Generator) -> dict[str, Array]:
    """Draw `want` of each SKU's `exposures` without replacement and return what came of those drawn.

    Parameters
    ----------
    counts
        What came of all exposures, shape (n,) each. Clicks are drawn among the exposures, later steps of the funnel
        among the clicks that were drawn, units among the orders: no order is seen without its click. Revenue and
        refunds come in lumps of equal size, one per order; a SKU without an order has them in one. Spend is a price
        and comes with the exposures.
    exposures, want
        Whole numbers, `want <= exposures`.
    rng
        The chance.
    """
    got: dict[str, Array] = {}
    shown, seen = exposures.astype(float), want.astype(float)
    for name in sorted(counts, key=lambda name: (ORDER.index(name) if name in ORDER else 0, name)):
        values = counts[name]
        if name == "spend":
            got[name] = values * np.divide(seen, shown, out=np.zeros(len(seen)), where=shown > 0)
            continue
        parent = PARENT.get(name)
        among, drawn = shown, seen
        if parent in got:
            there = counts[parent] > 0
            among, drawn = np.where(there, counts[parent], shown), np.where(there, got[parent], seen)
        if name in MONEY:
            lumps = np.where(values > 0, np.maximum(counts.get("orders", np.zeros(len(values))), 1), 0)
            taken = _draw(lumps, among, drawn, rng)
            got[name] = values * np.divide(taken, lumps, out=np.zeros(len(values)), where=lumps > 0)
        else:
            got[name] = _draw(values, among, drawn, rng)
    return got


def _within(want: IntArray, view: View) -> IntArray:
    """Cut what a policy asks for to the room of each SKU and to what is left of its batch's budget."""
    want = np.minimum(np.maximum(want, 0), view.room)
    asked = np.bincount(view.batch, weights=want, minlength=len(view.left))
    for batch in np.flatnonzero(asked > view.left):
        members = np.flatnonzero(view.batch == batch)
        before = np.cumsum(want[members]) - want[members]
        want[members] = np.clip(view.left[batch] - before, 0, want[members])
    return want


def _periods(values: Array, bought: IntArray, want: IntArray) -> Array:
    places = np.arange(values.shape[1])[None, :]
    taken = (places >= bought[:, None]) & (places < (bought + want)[:, None])
    return np.asarray((values * taken).sum(axis=1))


def _draw(values: Array, among: Array, want: Array, rng: np.random.Generator) -> Array:
    """Draw `want` of `among`, of which `values` are marked, and count the marks; above one mark each, all have some."""
    each, rest = np.divmod(values, np.maximum(among, 1))
    some = np.where(among > 0, rest, 0).astype(np.int64)
    whole, drawn = among.astype(np.int64), np.minimum(want, among).astype(np.int64)
    # numpy draws from fewer than MAX_DRAWN. Of so many, to draw with replacement is the same but for the ends.
    many = whole >= MAX_DRAWN
    taken = rng.hypergeometric(np.where(many, 0, some), np.where(many, 1, whole - some), np.where(many, 0, drawn))
    if many.any():
        share = np.divide(some, whole, out=np.zeros(len(whole)), where=whole > 0)
        there = np.clip(rng.binomial(drawn[many], share[many]), drawn[many] - (whole - some)[many], some[many])
        taken[many] = np.minimum(there, drawn[many])
    return each * want + taken
