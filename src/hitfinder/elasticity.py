"""How demand answers to the price: learned where prices varied, a stated default where they did not.

Each SKU is compared with itself: given how many units it sold in all, in which weeks did it sell them, at which prices?
(Conditional Poisson regression: Hausman, Hall and Griliches, "Econometric Models for Count Data", Econometrica 1984.)
What a week's sale moved beside the price, such as the season or a banner, is taken for the price's doing: where prices
were only ever cut together with a campaign, what is learned is the answer to both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar

from hitfinder.warehouse import build, frame

__all__ = ["DEFAULT", "DEFAULT_SD", "Elasticity", "learn_elasticity"]

Array = npt.NDArray[np.float64]

# Mean of 1,851 price elasticities of sales in 81 studies: Bijmolt, van Heerde and Pieters, "New Empirical
# Generalizations on the Determinants of Price Elasticity", Journal of Marketing Research 42 (2005).
DEFAULT = -2.62
# How far single shops lie from that; what was seen of the shop counts by it.
DEFAULT_SD = 1.0
# Weeks whose prices differ by less are one price.
LEAST_SPREAD = 0.02
# A quotient of sums of pennies and rounding wobbles; a SKU whose price moved has moved by more than this at least once.
MIN_SKUS = 3
LOWEST, HIGHEST = -8.0, 0.0


@dataclass(frozen=True)
class Elasticity:
    """Change of the share of visitors that buy, in per cent, for one per cent more of price.

    `value`, `sd`: what is believed. `learned_share`: how much of it is the shop's own, 0 to 1; the rest is DEFAULT.
    `n_skus`, `n_weeks`: with how many prices that varied it was learned.
    """

    value: float
    sd: float
    learned_share: float
    n_skus: int
    n_weeks: int

    @property
    def source(self) -> str:
        """`default`, `learned`, or `both` where neither outweighs the other by far."""
        return "default" if self.learned_share < 0.1 else "learned" if self.learned_share > 0.9 else "both"


def learn_elasticity(con: Any) -> Elasticity:
    """Learn from all SKUs whose price varied; `con` is after `features.set_scope`."""
    build(con, "price_weeks")
    weeks = frame(con, "select * from price_weeks order by sku_id, week")
    paid = weeks["revenue"] / weeks["units"].where(weeks["units"] > 0)
    # A week that sold nothing has the price of the last one that did: nobody has to buy for a price to be asked.
    weeks["price"] = paid.groupby(weeks["sku_id"]).ffill()
    return fit_elasticity(weeks[(weeks["traffic"] > 0) & (weeks["price"] > 0)])


def fit_elasticity(weeks: pd.DataFrame) -> Elasticity:
    """Fit on weeks of SKUs.

    Parameters
    ----------
    weeks
        `sku_id, week, units, traffic, price`; traffic and price above 0.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> weeks = pd.DataFrame({"sku_id": np.repeat(range(40), 10), "traffic": 500.0,
    ...                       "price": rng.choice([80.0, 100.0], 400)})
    >>> weeks["units"] = rng.poisson(500 * 0.05 * (weeks["price"] / 100) ** -1.5)
    >>> found = fit_elasticity(weeks)
    >>> bool(abs(found.value + 1.5) < 0.3), found.source
    (True, 'learned')
    >>> fit_elasticity(weeks.assign(price=100.0)).source
    'default'
    """
    lead = np.log(weeks["price"]) - np.log(weeks["price"]).groupby(weeks["sku_id"]).transform("mean")
    sold = weeks.groupby("sku_id")["units"].transform("sum")
    spread = lead.abs().groupby(weeks["sku_id"]).transform("max")
    kept = (spread > LEAST_SPREAD) & (sold > 0)
    rows = weeks[kept].assign(lead=lead[kept])
    if rows["sku_id"].nunique() < MIN_SKUS:
        return Elasticity(DEFAULT, DEFAULT_SD, 0.0, 0, 0)
    sku, _ = pd.factorize(rows["sku_id"])
    units, traffic, x = (rows[name].to_numpy(dtype=float) for name in ("units", "traffic", "lead"))
    total = np.bincount(sku, units)

    def chances(slope: float) -> Array:
        weight = traffic * np.exp(slope * x)
        return np.asarray(weight / np.bincount(sku, weight)[sku])

    def loss(slope: float) -> float:
        return float(-(units * np.log(chances(slope))).sum())

    own = float(minimize_scalar(loss, bounds=(LOWEST, -LOWEST), method="bounded").x)
    share = chances(own)
    expected = total[sku] * share
    # Weeks differ by more than chance; the information counts for that much less.
    free = max(len(units) - len(total) - 1, 1)
    dispersion = max(float(((units - expected) ** 2 / np.maximum(expected, 1e-9)).sum()) / free, 1.0)
    mean = np.bincount(sku, share * x)
    information = float((total * (np.bincount(sku, share * x**2) - mean**2)).sum()) / dispersion
    if information <= 0:
        return Elasticity(DEFAULT, DEFAULT_SD, 0.0, 0, 0)
    learned = information / (information + DEFAULT_SD**-2)
    value = learned * own + (1 - learned) * DEFAULT
    return Elasticity(
        value=float(np.clip(value, LOWEST, HIGHEST)),
        sd=float((information + DEFAULT_SD**-2) ** -0.5),
        learned_share=learned,
        n_skus=len(total),
        n_weeks=len(rows),
    )
