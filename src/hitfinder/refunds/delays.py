"""How long refunds take: the share of an order's refund money that is known so many days after the order.

Two delays add up: from the order to the refund, and from the refund to the report that tells of it. Both are seen only
as far as the log reaches: young orders' late refunds are cut off (right-censored), and so are late reports of
young days (right-truncated). Neither is given a form.

Refunds of SKU s on day t are read as sum over lags l of rate x f(l) x revenue on day t - l, with one f for all: a
deconvolution. Its maximum likelihood is reached by the multiplicative steps of W. H. Richardson (J. Opt. Soc. Am. 62,
1972) and L. B. Lucy (Astron. J. 79, 1974), which are EM (L. A. Shepp, Y. Vardi, IEEE Trans. Med. Imaging 1, 1982):
hand each refund to the orders that it can be of, in proportion to what the present f says, and count again; f is
smoothed a little after each step (B. W. Silverman et al., J. R. Stat. Soc. B 52, 1990). The reporting delay is a
product of reverse hazards (J. D. Kalbfleisch, J. F. Lawless, JASA 84, 1989).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

__all__ = ["MAX_ENTRIES", "PRIOR_REFUNDS", "delay_shares", "development", "known_shares"]

Array = npt.NDArray[np.float64]

# Refunds beyond these tell little more about one curve; they are thinned evenly.
MAX_ENTRIES = 20_000
# So many refunds' worth of belief in a delay of two weeks: it steadies the first few, and a hundred outvote it.
PRIOR_REFUNDS = 3.0
PRIOR_SHAPE, PRIOR_MEAN_DAYS = 2.0, 13.0
# A lag that less than this share of the orders has lived to see is not asked for.
MIN_LIVED = 0.05
# Sd of the smoothing, as a share of the lag: sharp on the first days, where returns begin, and wide in the tail. On
# halves of SKUs, that predicted the other half about best of 0, 3, 6, 10, 15 and 25 % in three small simulated
# markets; a wholesaler with weekly habits was a little better off without.
SMOOTHING = 0.03
STEPS, CLOSE_ENOUGH = 300, 1e-5
# A day of which less than this is known is left out.
MIN_KNOWN = 0.5


def known_shares(lateness: pd.DataFrame, longest: int) -> Array:
    """Estimate what share of a day's reports is known 0, 1, ... steps after the day began.

    Parameters
    ----------
    lateness
        `delay, room, reports`: counts of reports by how late they came and how late they could have come and be seen.
    longest
        The greatest delay in the answer; what comes later counts as that.

    Returns
    -------
    numpy.ndarray
        Shape `(longest + 1,)`, rising to 1. Without reports all is known after one step.

    Examples
    --------
    >>> known_shares(pd.DataFrame({"delay": [1, 3], "room": [9, 9], "reports": [3, 1]}), 4)
    array([0.  , 0.75, 0.75, 1.  , 1.  ])
    """
    share = np.ones(longest + 1)
    share[0] = 0.0
    if lateness.empty:
        return share
    delay = lateness["delay"].clip(0, longest).to_numpy()
    room, count = lateness["room"].to_numpy(), lateness["reports"].to_numpy(dtype=float)
    for late in range(longest, 0, -1):
        can = room >= late
        came = count[can & (delay <= late)].sum()
        now = count[can & (delay == late)].sum()
        share[late - 1] = share[late] * (1 - now / came if came > 0 else 1.0)
    return share


def delay_shares(daily: pd.DataFrame, known: Array, longest: int, step_days: float) -> tuple[Array, int]:
    """Estimate the distribution of the delay from order to refund.

    Parameters
    ----------
    daily
        `sku_id, category, day, age, orders, refunds`: per SKU and day what was sold and refunded, both in orders; `age`
        counts the whole steps since the day began.
    known
        From `known_shares`.
    longest
        The longest delay looked for, in steps. Shorter where the log is too short to show it.
    step_days
        Days in a step.

    Returns
    -------
    shares, matched
        `shares[l]`: of all refunds, those that come l steps after the order, summing to 1; and the number of refund
        days that an earlier order can explain.
    """
    daily = daily.sort_values(["sku_id", "day"], kind="stable", ignore_index=True)
    last = int((daily["day"] + daily["age"]).max()) if len(daily) else 0
    first = int(daily["day"].min()) if len(daily) else 0
    groups, category = np.unique(daily["category"].to_numpy(dtype=str), return_inverse=True)
    longest = _lived_lags(daily, longest)
    lags = np.arange(longest + 1)
    # Refunds of the log's first days may be of orders from before it.
    begin = first + min(longest, (last - first) // 4)
    told = known[np.clip(last - np.arange(first, last + 1), 0, len(known) - 1)]  # by day: what is known of it
    told = np.where((told >= MIN_KNOWN) & (np.arange(first, last + 1) >= begin), told, 0.0)

    place, gathered = _orders_before(daily, lags, told, first)
    weight = daily["refunds"].to_numpy(dtype=float)[place]
    matched = gathered.sum(axis=1) > 0
    place, gathered, weight = place[matched], gathered[matched], weight[matched]
    n_matched = len(place)
    if n_matched > MAX_ENTRIES:
        keep = np.unique(np.linspace(0, n_matched - 1, MAX_ENTRIES).astype(int))
        place, gathered, weight = place[keep], gathered[keep], weight[keep] * (n_matched / len(keep))
    of = category[place]
    exposed = _exposure(daily, category, len(groups), lags, told, first)
    prior = _prior(longest, step_days)
    return _deconvolve(gathered, weight, of, exposed, prior), n_matched


def _lived_lags(daily: pd.DataFrame, longest: int) -> int:
    """Return the longest lag that enough of the orders have lived to see, at most `longest`."""
    orders = daily["orders"].to_numpy(dtype=float)
    room = daily["age"].to_numpy()
    total = orders.sum()
    lived = [orders[room > lag].sum() >= MIN_LIVED * total for lag in range(longest + 1)]
    return max(int(np.sum(np.cumprod(lived))) - 1, 0) if total > 0 else 0


def _orders_before(
    daily: pd.DataFrame, lags: npt.NDArray[np.int64], told: Array, first: int
) -> tuple[npt.NDArray[np.int64], Array]:
    """For each row with refunds: the orders of its SKU 0, 1, ... steps before. Returns the rows and the table."""
    day = daily["day"].to_numpy()
    sku = pd.factorize(daily["sku_id"])[0].astype(np.int64)
    span = int(day.max() - first + 1) + len(lags) if len(daily) else 1
    key = sku * span + (day - first) + len(lags)
    rows = np.flatnonzero((daily["refunds"].to_numpy(dtype=float) > 0) & (told[day - first] > 0))
    wanted = key[rows][:, None] - lags[None, :]
    at = np.minimum(np.searchsorted(key, wanted), len(key) - 1) if len(key) else wanted
    orders = daily["orders"].to_numpy(dtype=float)
    return rows, np.where(key[at] == wanted, orders[at], 0.0) if len(rows) else np.zeros((0, len(lags)))


def _exposure(
    daily: pd.DataFrame, category: npt.NDArray[np.int64], n: int, lags: npt.NDArray[np.int64], told: Array, first: int
) -> Array:
    """Per category and lag: the orders whose refunds of that lag would be known."""
    sold = np.zeros((n, len(told)))
    np.add.at(sold, (category, daily["day"].to_numpy() - first), daily["orders"].to_numpy(dtype=float))
    lived: Array = np.stack([(sold[:, : len(told) - lag] * told[lag:]).sum(axis=1) for lag in lags], axis=1)
    return lived


def _prior(longest: int, step_days: float) -> Array:
    edges = np.arange(longest + 2) * step_days
    mass = np.diff(stats.gamma.cdf(edges, PRIOR_SHAPE, scale=PRIOR_MEAN_DAYS / PRIOR_SHAPE))
    prior: Array = PRIOR_REFUNDS * (mass + 1e-6) / (mass + 1e-6).sum()
    return prior


def _deconvolve(gathered: Array, weight: Array, of: npt.NDArray[np.int64], exposed: Array, prior: Array) -> Array:
    """Iterate the EM steps from the prior's form."""
    shares = prior / prior.sum()
    smooth = _smoother(len(shares))
    counted = np.bincount(of, weight, minlength=len(exposed)) if len(of) else np.zeros(len(exposed))
    for _ in range(STEPS):
        mixed = gathered * shares
        came = (mixed * (weight / mixed.sum(axis=1))[:, None]).sum(axis=0)
        rates = counted / np.maximum(exposed @ shares, 1e-12)
        # What the orders seen so far will still bring is imputed: the share of lags that were not lived through.
        total = rates @ exposed.max(axis=1)
        hidden = shares * np.maximum(total - rates @ exposed, 0.0)
        new = came + hidden + prior
        new = new @ smooth / new.sum()
        moved = np.abs(new - shares).sum()
        shares = new
        if moved < CLOSE_ENOUGH:
            break
    found: Array = shares
    return found


def _smoother(n: int) -> Array:
    lag = np.arange(n, dtype=float)
    weight = np.exp(-0.5 * ((lag[:, None] - lag[None, :]) / np.maximum(SMOOTHING * lag[:, None], 1e-3)) ** 2)
    smoother: Array = weight / weight.sum(axis=1, keepdims=True)
    return smoother


def development(shares: Array, known: Array) -> Array:
    """Return what share of an order's refunds is known once so many whole steps have gone by since its day began.

    >>> development(np.array([0.5, 0.0, 0.5]), np.array([0.0, 1.0]))
    array([0. , 0.5, 0.5, 1. ])
    """
    told = np.concatenate([known, np.ones(len(shares))])
    total: Array = np.minimum(np.convolve(shares, told)[: len(shares) + len(known) - 1], 1.0)
    return total
