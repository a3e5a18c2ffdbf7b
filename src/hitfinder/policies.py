"""Peers: what tests are run like without hitfinder, as policies that a replay can play on every batch at once.

Each knows the `merit` it goes by, a count such as clicks, orders or revenue, and keeps no state: who is still in the
race is read off what was bought. What equal shares leave over goes out one by one, so that budgets are spent in full
where there is room, even where a round has fewer exposures than SKUs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hitfinder.allocation import fill
from hitfinder.errors import DataError, SettingsError
from hitfinder.trial import Policy, View

__all__ = ["FullTest", "RuleOfThumb", "SequentialHalving", "ShorterTest", "TopKThompson", "peers"]

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MONEY = ("revenue", "refunds", "spend", "profit")


def peers(merit: str) -> dict[str, Policy]:
    """Return the peers under the names that reports use.

    >>> list(peers("clicks"))
    ['full test', 'shorter test', 'rule of thumb', 'sequential halving', 'top-k Thompson']
    """
    return {
        "full test": FullTest(merit),
        "shorter test": ShorterTest(merit),
        "rule of thumb": RuleOfThumb(merit),
        "sequential halving": SequentialHalving(merit),
        "top-k Thompson": TopKThompson(merit),
    }


@dataclass(frozen=True)
class FullTest:
    """Buys all there is in the first round, as a test of fixed length does; the best rates are scaled.

    With less budget than that, all SKUs get the same.
    """

    merit: str

    def spend(self, view: View, rng: np.random.Generator) -> IntArray:
        """Return exposures for each SKU."""
        return _evenly(view, np.ones(len(view.batch), dtype=bool), view.left, rng)

    def score(self, view: View) -> Array:
        """Return `merit` per exposure; a SKU without exposures counts as its batch does on the whole."""
        return _rate(view, self.merit)


@dataclass(frozen=True)
class ShorterTest:
    """Spends the budget evenly over SKUs and rounds: the same test, made shorter."""

    merit: str

    def spend(self, view: View, rng: np.random.Generator) -> IntArray:
        """Return exposures for each SKU."""
        return _evenly(view, np.ones(len(view.batch), dtype=bool), view.left // view.rounds_left, rng)

    def score(self, view: View) -> Array:
        """Return `merit` per exposure; a SKU without exposures counts as its batch does on the whole."""
        return _rate(view, self.merit)


@dataclass(frozen=True)
class RuleOfThumb:
    """What merchants do: a first look with half the budget, then the lower half by rate is dropped.

    The rest of the budget goes to the survivors, all in the second round. With one round there is no second look, and
    all is spent on the first.
    """

    merit: str

    def spend(self, view: View, rng: np.random.Generator) -> IntArray:
        """Return exposures for each SKU."""
        if view.round == 0:
            first = view.left if view.rounds_left == 1 else view.left // 2
            return _evenly(view, np.ones(len(view.batch), dtype=bool), first, rng)
        if view.round > 1:
            return np.zeros(len(view.batch), dtype=np.int64)
        keep = np.maximum(-(-_sizes(view) // 2), view.slots)
        alive = _place(view, _rate(view, self.merit), rng) < keep[view.batch]
        return _evenly(view, alive, view.left, rng)

    def score(self, view: View) -> Array:
        """Return `merit` per exposure, those dropped below those that were not."""
        return _survivors_first(view, _rate(view, self.merit))


@dataclass(frozen=True)
class SequentialHalving:
    """Sequential halving, stopped at `slots` SKUs: equal rounds, the worst dropped after each, exposures kept.

    Karnin, Koren and Somekh, "Almost optimal exploration in multi-armed bandits" (ICML 2013). Theirs halves down to
    one; here each round keeps the same share, so that the view's rounds lead from all SKUs to `slots`.
    """

    merit: str

    def spend(self, view: View, rng: np.random.Generator) -> IntArray:
        """Return exposures for each SKU."""
        sizes = np.maximum(_sizes(view), 1)
        kept = np.clip(view.slots / sizes, 1 / sizes, 1.0) ** (view.round / view.rounds)
        # Whole numbers must not be rounded up for the last digit of a power.
        keep = np.ceil(np.round(sizes * kept, 9))
        rate = np.where(_standing(view), _rate(view, self.merit), -np.inf)
        alive = _place(view, rate, rng) < keep[view.batch]
        return _evenly(view, alive, view.left // view.rounds_left, rng)

    def score(self, view: View) -> Array:
        """Return `merit` per exposure, those dropped below those that were not."""
        return _survivors_first(view, _rate(view, self.merit))


@dataclass(frozen=True)
class TopKThompson:
    """Thompson sampling for the `slots` best: exposures go to those that a posterior draw puts on top.

    Russo, "Simple Bayesian algorithms for best-arm identification" (Operations Research 68, 2020), samples the two
    best of a draw; here they are the best `2 * slots`. Rounds are given, so each one is split by how often a SKU is
    among them in `draws` draws. The prior is a Beta around the batch's own rate, worth `prior` exposures. Where a
    merit is money, comes more than once per exposure, or a whole test is no longer than the prior (exposures are
    periods then), it is a Gamma worth one event, which is what 60 impressions are at a usual click rate.

    Attributes
    ----------
    merit
        The count to go by.
    prior
        Exposures that the Beta prior is worth.
    draws
        Posterior draws per round.
    """

    merit: str
    prior: float = 60.0
    draws: int = 64

    def __post_init__(self) -> None:
        """Refuse a prior or a number of draws that can't be.

        Raises
        ------
        SettingsError
            `prior` is not above 0, or there are no draws.
        """
        if not (self.prior > 0 and self.draws > 0):
            raise SettingsError(
                f"top-k Thompson: expected prior and draws above 0, got prior={self.prior}, draws={self.draws}"
            )

    def spend(self, view: View, rng: np.random.Generator) -> IntArray:
        """Return exposures for each SKU."""
        weight = np.zeros(len(view.batch))
        posterior = _Posterior.of(view, self.merit, self.prior)
        for _ in range(self.draws):
            draw = np.where(view.room > 0, posterior.draw(rng), -np.inf)
            weight += _place(view, draw, rng) < 2 * view.slots[view.batch]
        # Before the first exposure all beliefs are alike, and chance would only make shares uneven.
        weight[_total(view, view.bought)[view.batch] == 0] = 1.0
        prefer = np.log(np.maximum(weight, 1e-9)) + rng.gumbel(size=len(weight))
        return _spread(view, weight, view.left // view.rounds_left, prefer)

    def score(self, view: View) -> Array:
        """Return the posterior mean of `merit` per exposure."""
        return _Posterior.of(view, self.merit, self.prior).mean


@dataclass(frozen=True)
class _Posterior:
    """What is believed of each SKU's rate: Beta(a, b), or a Gamma of shape a and rate b times the size of an event."""

    a: Array
    b: Array
    size: Array | None

    @classmethod
    def of(cls, view: View, merit: str, prior: float) -> _Posterior:
        counts, bought = np.maximum(_counts(view, merit), 0), view.bought.astype(float)
        short = bool(np.median(view.bought + view.room) <= prior) if len(bought) else False
        whole = bool((counts <= bought).all() and (counts == np.floor(counts)).all())
        if whole and not short and merit not in MONEY:
            # Half an event more keeps the rate of a batch without any above zero.
            mean = ((_total(view, counts) + 0.5) / (_total(view, bought) + 1))[view.batch]
            return cls(counts + mean * prior, bought - counts + (1 - mean) * prior, None)
        size = _event_size(view, merit)[view.batch]
        events = counts / size
        mean = ((_total(view, events) + 0.5) / (_total(view, bought) + 1))[view.batch]
        return cls(1 + events, 1 / mean + bought, size)

    def draw(self, rng: np.random.Generator) -> Array:
        return rng.beta(self.a, self.b) if self.size is None else rng.gamma(self.a) / self.b * self.size

    @property
    def mean(self) -> Array:
        return self.a / (self.a + self.b) if self.size is None else self.a / self.b * self.size


def _event_size(view: View, merit: str) -> Array:
    """Return what one event is worth in each batch: 1 for a count, for money the mean order or a typical amount."""
    size = np.ones(len(view.left))
    if merit not in MONEY:
        return size
    counts = _counts(view, merit)
    if "orders" in view.counts:
        orders, money = _total(view, view.counts["orders"]), _total(view, counts)
        return np.asarray(np.divide(money, orders, out=size, where=(orders > 0) & (money > 0)))
    for batch, rows in enumerate(_members(view)):
        paid = counts[rows][counts[rows] > 0]
        size[batch] = np.median(paid) if len(paid) else 1.0
    return size


def _counts(view: View, merit: str) -> Array:
    if merit not in view.counts:
        raise DataError(f"merit: expected one of {', '.join(sorted(view.counts)) or 'no counts'}, got {merit!r}")
    return view.counts[merit]


def _total(view: View, values: npt.NDArray[np.generic]) -> Array:
    return np.asarray(np.bincount(view.batch, weights=values, minlength=len(view.left)), dtype=float)


def _sizes(view: View) -> IntArray:
    return np.bincount(view.batch, minlength=len(view.left))


def _members(view: View) -> list[IntArray]:
    order = np.argsort(view.batch, kind="stable")
    return np.split(order, np.cumsum(_sizes(view))[:-1])


def _rate(view: View, merit: str) -> Array:
    """Return `merit` per exposure; a SKU without exposures has its batch's own rate, and 0 in a batch without any."""
    counts = _counts(view, merit)
    bought = _total(view, view.bought)
    own = np.divide(_total(view, counts), bought, out=np.zeros(len(bought)), where=bought > 0)
    return np.asarray(np.divide(counts, view.bought, out=own[view.batch].copy(), where=view.bought > 0))


def _place(view: View, key: Array, rng: np.random.Generator) -> IntArray:
    """Return each SKU's place in its batch by `key`, 0 for the highest, ties broken by chance."""
    order = np.lexsort((rng.random(len(key)), -key, view.batch))
    sizes = _sizes(view)
    place = np.empty(len(key), dtype=np.int64)
    place[order] = np.arange(len(key)) - (np.cumsum(sizes) - sizes)[view.batch[order]]
    return place


def _standing(view: View) -> Mask:
    """Tell who was never dropped: who was bought as often as any in the batch, give or take one, or in full.

    Survivors of a round get equal shares, so they stand level until their pool is empty. One that was dropped after
    its pool was empty counts as standing: nothing more could be learned of it, and nothing more is spent on it.
    """
    most = np.zeros(len(view.left), dtype=np.int64)
    np.maximum.at(most, view.batch, view.bought)
    return np.asarray((view.room == 0) | (view.bought >= most[view.batch] - 1))


def _survivors_first(view: View, rate: Array) -> Array:
    return np.where(_standing(view), rate, rate - (1 + np.ptp(rate) if len(rate) else 0))


def _evenly(view: View, among: Mask, budget: IntArray, rng: np.random.Generator) -> IntArray:
    """Share each batch's budget out equally; what is left over goes to those bought least, ties broken by chance."""
    return _spread(view, among.astype(float), budget, rng.random(len(among)) - view.bought)


def _spread(view: View, weight: Array, budget: IntArray, prefer: Array) -> IntArray:
    """Share each batch's budget out by weight; what is left over goes one by one to the highest in `prefer`."""
    want = np.zeros(len(weight), dtype=np.int64)
    for batch, rows in enumerate(_members(view)):
        share = fill(weight[rows], view.room[rows].astype(float), int(budget[batch]))
        open_to = rows[(weight[rows] > 0) & (share < view.room[rows])]
        left_over = max(int(budget[batch]) - int(share.sum()), 0)
        want[rows] = share
        want[open_to[np.argsort(-prefer[open_to])[:left_over]]] += 1
    return want
