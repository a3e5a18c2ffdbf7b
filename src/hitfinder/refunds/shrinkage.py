"""From refunds so far to a return share: what is expected of a SKU like this, and how far its own numbers move that.

all SKUs -> category and price -> the style's other SKUs -> the SKU itself. The first step is a ridge logistic
regression of orders that came back; the others add pseudo-orders, as the pooling of rates does (see `pooling`,
sql/shrunk.sql): each share is (returned + strength x the share above) / (orders + strength). Strengths are those under
which the refunds seen so far are most likely, each SKU's given only its style's other SKUs: a beta-binomial, stretched
by a dispersion.

Evidence is counted in effective orders: revenue whose refunds should have come by now, over the money-weighted mean
order, sum v^2 / sum v (L. Kish, Survey Sampling, 1965, 11.7): one bulk order of a thousand units is one order.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import betaln, expit, gammaln
from sklearn.linear_model import LogisticRegression

__all__ = ["Prior", "Shares", "effective", "fit_prior", "share_of"]

Array = npt.NDArray[np.float64]

# Dispersions and strengths tried. A strength k says that SKUs' shares stand apart with a variance of mean^2 / k: from
# "twice the mean is common" to "no difference that could be seen".
DISPERSIONS = np.array([1.0, 1.15, 1.3, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.5, 8.0, 11.0, 15.0])
STRENGTHS = np.array([0.15, 0.25, 0.4, 0.6, 1.0, 1.6, 2.5, 4.0, 6.5, 10.0, 16.0, 25.0, 40.0, 80.0, 200.0, 1000.0])
GRIDS = (DISPERSIONS, STRENGTHS, STRENGTHS)
# Places on the grids from which the likeliest is sought: no difference that could be seen, and much of both kinds.
STARTS: tuple[tuple[int, ...], ...] = ((0, 15, 15), (0, 8, 7))
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)  # variance of categories and of price on the log odds
FOLDS = 5
# SKUs of which less than this share of the refunds should be in tell little of how SKUs differ.
MIN_DEVELOPED = 0.3
MAX_PRICE_LEAD, PRICE_STEP = 1.5, 0.05
MAX_CATEGORIES = 200
# More SKUs tell the strengths no better; they are thinned evenly.
MAX_SKUS = 10_000
LEAST, MOST = 1e-5, 0.98


@dataclass(frozen=True)
class Prior:
    """What is expected of a SKU before its own refunds.

    `intercept`, `category_effects` and `price_effect` are on the log odds; the price counts as the log of its ratio to
    `category_prices`, within +-MAX_PRICE_LEAD. `category_orders`: effective orders that each category's effect rests
    on. `ridge`: variance of the effects. `style_strength`, `sku_strength`, `dispersion`: see the module.
    """

    intercept: float
    category_effects: dict[str, float]
    category_orders: dict[str, float]
    category_prices: dict[str, float]
    price_effect: float
    ridge: float
    style_strength: float
    sku_strength: float
    dispersion: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def mean(self, rows: pd.DataFrame) -> Array:
        """Return the expected share of SKUs with `category` and `price`."""
        effect = rows["category"].map(self.category_effects).fillna(0.0).to_numpy(dtype=float)
        lead = _price_lead(rows, self.category_prices)
        share: Array = np.clip(expit(self.intercept + effect + self.price_effect * lead), LEAST, MOST)
        return share


@dataclass(frozen=True)
class Shares:
    """Posterior of each SKU's return share: a beta with `mean` and `concentration`, in orders of size `order_value`."""

    mean: Array
    concentration: Array
    order_value: Array


def effective(rows: pd.DataFrame) -> pd.DataFrame:
    """Turn sums of money into effective orders: `value` of one, `developed`, `returned` and `left` to develop."""
    revenue = rows["measured_revenue"].to_numpy(dtype=float)
    value = np.divide(rows["squares"].to_numpy(dtype=float), revenue, out=np.zeros(len(rows)), where=revenue > 0)
    fallback = float(np.median(value[value > 0])) if (value > 0).any() else 1.0
    value = np.where(value > 0, value, fallback)
    return pd.DataFrame(
        {
            "value": value,
            "developed": rows["developed"].to_numpy(dtype=float) / value,
            "returned": rows["refunds"].to_numpy(dtype=float) / value,
            "left": np.maximum(revenue - rows["developed"].to_numpy(dtype=float), 0) / value,
        },
        index=rows.index,
    )


def fit_prior(own: pd.DataFrame, siblings: pd.DataFrame) -> Prior:
    """Fit the prior on all SKUs with developed orders; see the module.

    Parameters
    ----------
    own, siblings
        From `evidence.gather`; at least one SKU with developed revenue and some refunds among them.
    """
    sold = (own["developed"] > 0).to_numpy()
    own, siblings = own[sold].reset_index(drop=True), siblings[sold].reset_index(drop=True)
    told, family = effective(own), effective(siblings)
    middle = own[own["price"] > 0].groupby("category")["price"].median()
    prices = {str(name): float(price) for name, price in middle.items()}
    prior = Prior(0.0, {}, {}, prices, 0.0, 1.0, float(STRENGTHS[-1]), 10.0, 1.0)
    # What counts as how much evidence depends on the strengths, and they on what is expected.
    for ridges in (RIDGES, ()):
        prior = _fit_mean(own, told, prior, ridges or (prior.ridge,))
        prior = _fit_strengths(own, told, family, prior)
    return prior


def share_of(prior: Prior, own: pd.DataFrame, siblings: pd.DataFrame) -> Shares:
    """Return what is believed of each SKU's return share, from its own and its siblings' evidence."""
    told, family = effective(own), effective(siblings)
    expected = prior.mean(own)
    returned, orders = (told[name].to_numpy() / prior.dispersion for name in ("returned", "developed"))
    family_returned, family_orders = (family[name].to_numpy() / prior.dispersion for name in ("returned", "developed"))
    above, strength = _above(expected, family_returned, family_orders, prior.style_strength, prior.sku_strength)
    # Neither is a category's level known for certain: least of all one that history never had.
    known = own["category"].map(prior.category_orders).fillna(0.0).to_numpy(dtype=float)
    known = known + 1 / (prior.ridge * expected * (1 - expected))
    strength = 1 / (1 / strength + 1 / known)
    total = strength + orders
    mean = np.clip((returned + strength * above) / total, LEAST, MOST)
    return Shares(mean, total, told["value"].to_numpy() * prior.dispersion)


def _above(expected: Array, returned: Array, orders: Array, style: float, sku: float) -> tuple[Array, Array]:
    """Return the share expected of a SKU given its siblings' evidence, and how strongly, in effective orders."""
    pull = np.maximum(style * (1 - expected) / expected, 0.5)
    above = np.clip((returned + pull * expected) / (orders + pull), LEAST, MOST)
    own = np.maximum(sku * (1 - above) / above, 0.5)
    return above, 1 / (1 / own + 1 / (orders + pull))


def _price_lead(rows: pd.DataFrame, prices: dict[str, float]) -> Array:
    price = rows["price"].to_numpy(dtype=float)
    middle = rows["category"].map(prices).to_numpy(dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        lead = np.log(price / middle)
    return np.clip(np.where(np.isfinite(lead), lead, 0.0), -MAX_PRICE_LEAD, MAX_PRICE_LEAD)


def _fit_mean(own: pd.DataFrame, told: pd.DataFrame, prior: Prior, ridges: tuple[float, ...]) -> Prior:
    orders, returned = told["developed"].to_numpy(), told["returned"].to_numpy()
    # A SKU of a thousand orders is still one SKU: its weight ends where its own difference outweighs its chance.
    overall = np.clip(returned.sum() / orders.sum(), LEAST, MOST)
    cap = prior.dispersion * prior.sku_strength * (1 - overall) / overall
    weight = orders / (prior.dispersion * (1 + orders / cap))
    share = np.clip(returned / orders, 0, 1)
    sums = pd.Series(weight).groupby(own["category"].to_numpy()).sum().sort_index()
    # Beyond the largest, categories have no effect of their own: they take the level of all.
    names = sorted(sums.sort_values(ascending=False, kind="stable").index[:MAX_CATEGORIES])
    cells = pd.DataFrame(
        {
            "place": pd.Categorical(own["category"], categories=names).codes,
            "lead": np.round(_price_lead(own, prior.category_prices) / PRICE_STEP) * PRICE_STEP,
            "fold": pd.factorize(own["style_id"])[0] % FOLDS,
            "weight": weight,
            "back": weight * share,
        }
    )
    cells = cells.groupby(["place", "lead", "fold"], as_index=False).sum()
    place, folds, weight = (cells[name].to_numpy() for name in ("place", "fold", "weight"))
    share = cells["back"].to_numpy() / weight
    X = np.zeros((len(cells), len(names) + 1))
    X[np.flatnonzero(place >= 0), place[place >= 0]] = 1
    X[:, -1] = cells["lead"]
    ridge = ridges[0]
    if len(ridges) > 1:
        ridge = min(ridges, key=lambda ridge: _out_of_fold_loss(X, share, weight, folds, ridge))
    model = _regress(X, share, weight, ridge)
    return Prior(
        intercept=float(model.intercept_[0]),
        category_effects=dict(zip(names, model.coef_[0][:-1].tolist(), strict=True)),
        category_orders={name: float(sums[name]) for name in names},
        category_prices=prior.category_prices,
        price_effect=float(model.coef_[0][-1]),
        ridge=ridge,
        style_strength=prior.style_strength,
        sku_strength=prior.sku_strength,
        dispersion=prior.dispersion,
    )


def _regress(X: Array, share: Array, weight: Array, ridge: float) -> Any:
    """Fit shares by logistic regression: every row twice, as what came back and what did not."""
    n = len(X)
    # Half a returned order for all SKUs together: without one the odds have no logarithm.
    back = weight * share + 0.5 / n
    model = LogisticRegression(C=ridge, solver="newton-cholesky", tol=1e-8)
    return model.fit(
        np.vstack([X, X]), np.repeat([1, 0], n), np.concatenate([back, np.maximum(weight * (1 - share), 1e-9)])
    )


def _out_of_fold_loss(X: Array, share: Array, weight: Array, folds: npt.NDArray[np.int64], ridge: float) -> float:
    loss = 0.0
    for fold in np.unique(folds):
        held = folds == fold
        if held.all():
            return ridge  # one style: nothing to compare by, the firmest is as good as any
        said = np.clip(_regress(X[~held], share[~held], weight[~held], ridge).predict_proba(X[held])[:, 1], LEAST, MOST)
        loss -= float((weight[held] * (share[held] * np.log(said) + (1 - share[held]) * np.log(1 - said))).sum())
    return loss


def _fit_strengths(own: pd.DataFrame, told: pd.DataFrame, family: pd.DataFrame, prior: Prior) -> Prior:
    """Take the dispersion and the two strengths under which each SKU's refunds, given its siblings', are likeliest."""
    enough = (told["developed"] >= MIN_DEVELOPED * (told["developed"] + told["left"])).to_numpy(copy=True)
    if enough.sum() < FOLDS:
        enough[:] = True
    if enough.sum() > MAX_SKUS:
        places = np.flatnonzero(enough)
        enough[:] = False
        enough[places[np.unique(np.linspace(0, len(places) - 1, MAX_SKUS).astype(int))]] = True
    expected = prior.mean(own[enough])
    back, orders = (told.loc[enough, name].to_numpy() for name in ("returned", "developed"))
    family_back, family_orders = (family.loc[enough, name].to_numpy() for name in ("returned", "developed"))

    @cache
    def loss(place: tuple[int, ...]) -> float:
        dispersion, style, sku = (float(grid[at]) for grid, at in zip(GRIDS, place, strict=True))
        above, strength = _above(expected, family_back / dispersion, family_orders / dispersion, style, sku)
        return -_likelihood(back, orders, above, strength, dispersion)

    ends = []
    for start in STARTS:
        best = start
        for stride in (4, 2, 1):
            while (found := min(_around(best, stride), key=loss)) and loss(found) < loss(best) - 1e-9:
                best = found
        ends.append(best)
    best = min(ends, key=loss)
    dispersion, style, sku = (float(grid[at]) for grid, at in zip(GRIDS, best, strict=True))
    return replace(prior, dispersion=dispersion, style_strength=style, sku_strength=sku)


def _around(place: tuple[int, ...], stride: int) -> list[tuple[int, ...]]:
    """Return the places on the grids that are a stride away in any of the three."""
    moves = product((-stride, 0, stride), repeat=len(place))
    ends = [len(grid) - 1 for grid in GRIDS]
    return [tuple(min(max(at + by, 0), end) for at, by, end in zip(place, move, ends, strict=True)) for move in moves]


def _likelihood(back: Array, orders: Array, mean: Array, strength: Array, dispersion: float) -> float:
    """Log likelihood of the returned orders: beta-binomial at returned / dispersion, between whole counts too."""
    back = back / dispersion
    orders = np.maximum(orders / dispersion, back + 1e-9)
    a, b = strength * mean, strength * (1 - mean)
    level = betaln(a, b)
    none = betaln(a, orders + b) - level
    chosen = gammaln(orders + 1) - gammaln(back + 1) - gammaln(orders - back + 1)
    fitted = chosen + betaln(back + a, orders - back + b) - level
    # Over counts that are 1 / dispersion apart, what lies above 0 no longer sums to 1 - P(0): what is cut off below the
    # first count is P(0) / 2 (1 + 1 / dispersion) instead of P(0). Unmended, that speaks for large dispersions.
    zero = np.minimum(np.exp(none), 1 - 1e-9)
    above = np.log1p(-zero) - np.log(1 - 0.5 * zero * (1 + 1 / dispersion)) - np.log(dispersion)
    return float((fitted + np.where(back > 0, above, 0.0)).sum())
