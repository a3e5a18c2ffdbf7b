"""Allocation: who gets the next exposures, from what is believed of each SKU and how far that may still move.

An exposure is worth most on a SKU that stands close to the border between the `slots` best and the rest, measured by
how much is not known of it: optimal computing budget allocation for the top m (Chen, He, Fu and Lee, "Efficient
simulation budget allocation for selecting an optimal subset", INFORMS Journal on Computing 20, 2008) with the model's
posterior in place of raw rates. Early in a test all beliefs are pulled together and the border is not known either, so
exposures are spread widely; round by round they narrow to the border.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["allocate", "fill", "round_budget", "sharpness"]

Array = npt.NDArray[np.float64]

# How sharply exposures narrow to the border in the first and in the last round. Chosen by replay on past batches, for
# six rounds; between the two the logarithm is interpolated.
FIRST_SHARPNESS = 1.5
LAST_SHARPNESS = 8.0


def allocate(
    belief: Array, doubt: Array, room: Array, exposures: int, slots: int, rounds_left: int, rounds: int
) -> npt.NDArray[np.int64]:
    """Share a round's exposures out among the SKUs of one batch.

    Parameters
    ----------
    belief
        Expected standing of each SKU, on any scale, shape (n,).
    doubt
        Standard deviation of what is not known of it yet and exposures can tell, on the same scale.
    room
        Exposures that each SKU may still get.
    exposures
        What the round may spend.
    slots
        How many SKUs can be scaled in the end.
    rounds_left, rounds
        Rounds left, this one included, of all: late rounds spend more sharply.

    Returns
    -------
    array of int, shape (n,)
        At most `room` each and `exposures` in all. Equal belief, doubt and room get equal exposures, whatever the
        order; a few exposures may stay unspent for that. Only where there is not even one for each of the best do the
        first in order begin.

    Examples
    --------
    >>> belief, doubt, room = np.array([2.0, 1.0, 0.9, -2.0]), np.full(4, 0.5), np.full(4, 1000.0)
    >>> allocate(belief, doubt, room, 100, slots=2, rounds_left=1, rounds=6).tolist()
    [0, 50, 50, 0]
    """
    n = len(belief)
    if n == 0 or exposures <= 0:
        return np.zeros(n, dtype=np.int64)
    if slots >= n or doubt.max() <= 0:
        # There is nothing to decide, or nothing known of what is not known.
        return _begin(np.ones(n), room, exposures)
    best = np.sort(belief)[::-1]
    border = (best[slots - 1] + best[slots]) / 2
    distance = (belief - border) / np.maximum(doubt, 1e-9 * doubt.max())
    # In logs, so that the nearest SKU keeps a share however far all are; weights below a billionth are as good as none.
    log_weight = -0.5 * sharpness(rounds_left, rounds) * distance**2 + np.log(np.maximum(doubt, 1e-12))
    nearest = np.where(room > 0, log_weight, -np.inf).max()
    weight = np.exp(np.minimum(log_weight - nearest, 0.0)) if np.isfinite(nearest) else np.zeros(n)
    return _begin(np.where(weight < 1e-9, 0.0, weight), room, exposures)


def _begin(weight: Array, room: Array, exposures: int) -> npt.NDArray[np.int64]:
    """Fill; where there is not one for each of the equal best, the first in order begin: nothing teaches nothing."""
    shared = fill(weight, room, exposures)
    usable = np.where(room >= 1, weight, 0.0)
    if shared.sum() == 0 and usable.max() > 0:
        shared[np.flatnonzero(usable == usable.max())[:exposures]] = 1
    return shared


def sharpness(rounds_left: int, rounds: int) -> float:
    """Return how sharply a round spends: FIRST_SHARPNESS in the first of several, LAST_SHARPNESS in the last.

    >>> round(sharpness(6, 6), 6), round(sharpness(1, 6), 6), sharpness(1, 1)
    (1.5, 8.0, 1.5)
    """
    if rounds <= 1:
        return FIRST_SHARPNESS
    passed = np.clip(1 - (rounds_left - 1) / (rounds - 1), 0, 1)
    return float(FIRST_SHARPNESS * (LAST_SHARPNESS / FIRST_SHARPNESS) ** passed)


def round_budget(exposures: int, rounds_left: int) -> int:
    """Return what this round may spend of what is left: equal rounds, the rest in the last.

    >>> round_budget(100, 3), round_budget(100, 1)
    (33, 100)
    """
    return int(exposures) // max(rounds_left, 1)


def fill(weight: Array, room: Array, exposures: int) -> npt.NDArray[np.int64]:
    """Share whole exposures out in proportion to `weight`, never past `room`; what some can't take goes to the others.

    >>> fill(np.array([1.0, 1.0, 2.0]), np.array([10.0, 1.0, 10.0]), 10).tolist()
    [3, 1, 6]
    """
    room = np.floor(np.maximum(room, 0))
    usable = (weight > 0) & (room > 0)
    total = min(float(exposures), _sum(room[usable]))
    share = np.zeros(len(weight))
    open_to = usable.copy()
    while open_to.any():
        left = total - _sum(share[usable & ~open_to])
        share[open_to] = left * weight[open_to] / _sum(weight[open_to])
        full = open_to & (share >= room)
        if not full.any():
            break
        share[full] = room[full]
        open_to &= ~full
    whole = np.floor(share + 1e-9)
    # Largest remainders first. Equal ones get one more together or not at all: who comes first in a table is no reason.
    missing = round(total - _sum(whole))
    remainder = np.where(whole < room, np.round(share - whole, 9), 0.0)
    for size in np.unique(remainder[remainder > 0])[::-1]:
        same = remainder == size
        if same.sum() > missing:
            break
        whole[same] += 1
        missing -= int(same.sum())
    return np.asarray(whole, dtype=np.int64)


def _sum(values: Array) -> float:
    """Add up in an order that does not depend on the rows' own."""
    return float(np.sort(values).sum())
