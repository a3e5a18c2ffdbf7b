"""From which probability on a SKU may be scaled.

Numbers in brackets are references of `hitfinder.promise`.
"""

from __future__ import annotations

from math import ceil, fsum, log, log1p

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, xlogy

from hitfinder.promise.columns import Floats, Ints, between, rows_of
from hitfinder.promise.sentences import ScalePromise

__all__ = ["SCALE_GRID", "promise_scale"]

# Thresholds tried for `scale`, strictest first. Fixed beforehand: a grid made of the probabilities that are judged
# would choose its own exam questions.
SCALE_GRID = np.arange(99, 0, -1) / 100
# The share of batches that have to scale at the first threshold that is tested: at one that few reach, a single false
# SKU would end the tests; at one that all reach, only the best of models pass.
LEAST_SCALING = 0.25


def promise_scale(
    batch: npt.ArrayLike,
    hit: npt.ArrayLike,
    probability: npt.ArrayLike,
    *,
    max_false_scaled: float,
    confidence: float,
) -> ScalePromise:
    """Learn from which probability on a SKU may be scaled.

    Learn then test [7]_. The risk of a threshold is the share of the SKUs scaled in a batch that are no hits, averaged
    over the batches in which any is scaled: a batch without one shows nothing. It need not fall as the threshold rises,
    so thresholds are tested one after the other by Hoeffding-Bentkus p-values [8]_, with the batches that scale as
    examples, from the strictest that enough past batches reach, until one is not shown to be safe. Of those before it,
    all safe together, the lowest is taken, or the highest that scales the same past SKUs. Where the tests begin depends
    on the probabilities, not on which SKUs were hits; given those, the chance of a risk above `max_false_scaled` is at
    most 1 - `confidence`.

    Parameters
    ----------
    batch, hit
        As for `promise_stop`.
    probability
        The highest probability that each past SKU showed at a look at which it could have been scaled, 0 to 1, by a
        model that had not seen its outcome; missing where there was no such look.
    max_false_scaled
        Between 0 and 1.
    confidence
        Between 0 and 1.

    Returns
    -------
    ScalePromise
        Scale where the probability is **at least** `threshold`, one of `SCALE_GRID`; None where none is certified.

    Raises
    ------
    DataError, SettingsError
        As for `promise_stop`.

    Examples
    --------
    >>> weeks = [week for week in range(10) for _ in range(2)]
    >>> promise = promise_scale(weeks, [1, 0] * 10, [0.8, 0.1] * 10, max_false_scaled=0.5, confidence=0.9)
    >>> promise.threshold, promise.n_scaled
    (0.8, 10)
    """
    limit = float(between("max_false_scaled", max_false_scaled))
    delta = float(1 - between("confidence", confidence))
    codes, labels, is_hit, seen = rows_of(batch, hit, probability, "probability", missing=-1.0)
    n = len(labels)
    scaled, false = _counts_above(codes, seen, n), _counts_above(codes[~is_hit], seen[~is_hit], n)
    scaling = (scaled > 0).sum(axis=0)
    needed = ceil(log(delta) / log1p(-limit) - 1e-9)
    # fsum: the order of the rows changes nothing, not even the last digit.
    total = np.array([fsum(column) for column in (false / np.maximum(scaled, 1)).T])
    safe = _p_values(total, scaling, limit) <= delta * (1 + 1e-12)
    # More batches scale as the threshold falls.
    first = int((scaling < max(needed, n * LEAST_SCALING)).sum())
    last = first + int(np.append(~safe[first:], True).argmax()) - 1
    n_scaled = int(scaled[:, last].sum()) if last >= first else 0
    # All thresholds down to the last are certified together, so the most careful of the equally useful may be taken.
    last = int((scaled.sum(axis=0) == n_scaled).argmax())
    return ScalePromise(
        threshold=float(SCALE_GRID[last]) if n_scaled else None,
        max_false_scaled=float(max_false_scaled),
        confidence=float(confidence),
        n_batches=n,
        needed=needed,
        n_scaled=n_scaled,
        n_batches_scaling=int(scaling[last]) if n_scaled else 0,
    )


def _counts_above(codes: Ints, probability: Floats, n: int) -> Ints:
    """Count the SKUs at or above each threshold of `SCALE_GRID`, one row per batch."""
    size = len(SCALE_GRID)
    reached = np.searchsorted(SCALE_GRID[::-1], probability, side="right")  # how many thresholds a SKU reaches
    cells = np.bincount(codes * (size + 1) + size - reached, minlength=n * (size + 1)).reshape(n, size + 1)
    return np.asarray(cells.cumsum(axis=1)[:, :size], dtype=np.int64)


def _p_values(total: Floats, n: Ints, limit: float) -> Floats:
    """Return Hoeffding-Bentkus p-values of "the mean of `n` losses between 0 and 1 is above the limit"; 1 of none."""
    mean = np.minimum(total / np.maximum(n, 1), limit)
    hoeffding = np.exp(-n * (xlogy(mean, mean / limit) + xlogy(1 - mean, (1 - mean) / (1 - limit))))
    bentkus = np.where(n > 0, np.e * bdtr(np.ceil(np.round(total, 9)), n, limit), 1.0)
    return np.asarray(np.minimum(hoeffding, bentkus), dtype=np.float64)
