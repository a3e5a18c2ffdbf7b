"""Below which probability a SKU may be stopped, and how the promise about it fared on each past batch.

Numbers in brackets are references of `hitfinder.promise`.
"""

from __future__ import annotations

from bisect import insort
from fractions import Fraction
from math import ceil, floor

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.errors import DataError
from hitfinder.promise.columns import Floats, Ints, between, rows_of
from hitfinder.promise.sentences import StopPromise

__all__ = ["forward_losses", "promise_needs", "promise_stop"]


def promise_needs(confidence: float) -> int:
    """Return how many past batches with hits a promise takes at least.

    >>> promise_needs(0.9), promise_needs(0.95)
    (9, 19)
    """
    return ceil(1 / (1 - between("confidence", confidence))) - 1


def promise_stop(
    batch: npt.ArrayLike,
    hit: npt.ArrayLike,
    lowest: npt.ArrayLike,
    *,
    max_hits_lost: float,
    confidence: float,
    weight: npt.ArrayLike | None = None,
) -> StopPromise:
    """Learn below which probability a SKU may be stopped.

    Split conformal prediction [1]_ with the batch as the example; the same as conformal risk control [2]_ with the loss
    "this batch lost more than `max_hits_lost` of its hits", 0 or 1. A batch's score is the lowest threshold above which
    it loses too much: of its `h` hits, the (floor(`max_hits_lost` h) + 1)-th smallest `lowest`. The threshold is the
    k-th smallest score of the m batches, k = floor((1 - `confidence`) (m + 1)). A new batch loses too much only if its
    score is among the k smallest of m + 1, of which the chance is at most k / (m + 1) where batches are exchangeable,
    whatever the distribution, however small m, ties or none.

    The chance is over the past batches and the new one together: with few past batches a threshold may be lucky or
    unlucky. A batch with fewer than 1 / `max_hits_lost` hits may lose none. Batches without a hit have none to lose and
    are left out: the promise is for batches that have hits.

    Parameters
    ----------
    batch
        Any labels, one per past SKU.
    hit
        Whether it became a hit; 0 and 1 or booleans.
    lowest
        The lowest probability that it showed at a look at which it could have been stopped, 0 to 1, by a model that had
        not seen its outcome; missing where there was no such look, so that it could not be stopped.
    max_hits_lost
        Share of a batch's hits that may be lost, from 0 to below 1.
    confidence
        Share of batches in which no more are lost, between 0 and 1.
    weight
        How many SKUs each row stands for, where some of a batch were not seen; default: 1. A batch's losses are then
        estimates, and the promise is about what is estimated.

    Returns
    -------
    StopPromise
        Stop where the probability is **below** `threshold`; None where there are fewer than `needed` batches.

    Raises
    ------
    DataError
        For columns of different lengths, missing labels, hits other than 0 and 1, probabilities outside 0 to 1.
    SettingsError
        For a share or confidence outside its range.

    Examples
    --------
    >>> weeks, lowest = list(range(19)), [i / 100 for i in range(19)]
    >>> promise_stop(weeks, [1] * 19, lowest, max_hits_lost=0.1, confidence=0.9).threshold
    0.01
    >>> promise_stop(weeks[:8], [1] * 8, lowest[:8], max_hits_lost=0.1, confidence=0.9).sentence()
    'No promise: 8 past batches had hits, it takes 9.'
    """
    lost, sure = between("max_hits_lost", max_hits_lost, zero=True), between("confidence", confidence)
    codes, _, is_hit, seen = rows_of(batch, hit, lowest, "lowest", missing=1.0)
    scores = np.sort(_batch_scores(codes[is_hit], seen[is_hit], _weights(weight, codes)[is_hit], lost)[1])
    return StopPromise(
        threshold=_kth(list(map(float, scores)), sure),
        max_hits_lost=float(max_hits_lost),
        confidence=float(confidence),
        n_batches=len(scores),
        needed=promise_needs(confidence),
    )


def forward_losses(
    batch: npt.ArrayLike,
    launched: npt.ArrayLike,
    hit: npt.ArrayLike,
    lowest: npt.ArrayLike,
    *,
    max_hits_lost: float,
    confidence: float,
    weight: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Judge each past batch by the threshold learned from all batches before it: what `check_promise` reads.

    Every earlier batch counts, also those whose outcome was still open at the launch: where batches are exchangeable,
    the ranks of each score among those before it are then independent [3]_, so the losses are too, and the check's
    chance of a false alarm is kept. One threshold kept for many batches would be lucky or unlucky for all of them:
    learned from 9 batches, it raised a false alarm in 19 % of simulated markets, where 5 % were allowed.

    The thresholds follow the market. One that keeps sinking breaks the promise again and again. After a single step it
    is broken for a while and then mended, and that is seen reliably only where 50 or so batches came before.

    Parameters
    ----------
    batch, hit, lowest, max_hits_lost, confidence, weight
        As for `promise_stop`.
    launched
        When each SKU was launched: timestamps or numbers. A batch is as old as its first SKU; of two that began
        together the one with the lesser label counts as earlier.

    Returns
    -------
    pandas.DataFrame
        One row per batch that has hits and for which a threshold had been learned, oldest first: `batch, launched,
        n_before` (earlier batches with hits), `threshold, n_hits, n_allowed, n_lost, lost_too_much` (0 or 1).

    Raises
    ------
    DataError, SettingsError
        As for `promise_stop`; DataError also for a missing `launched`.

    Examples
    --------
    >>> weeks, lowest = list(range(11)), [0.3] * 9 + [0.4, 0.2]
    >>> losses = forward_losses(weeks, weeks, [1] * 11, lowest, max_hits_lost=0.1, confidence=0.9)
    >>> losses[["batch", "n_before", "threshold", "lost_too_much"]].to_dict("records")
    [{'batch': 9, 'n_before': 9, 'threshold': 0.3, 'lost_too_much': 0},
     {'batch': 10, 'n_before': 10, 'threshold': 0.3, 'lost_too_much': 1}]
    """
    share, sure = between("max_hits_lost", max_hits_lost, zero=True), between("confidence", confidence)
    codes, labels, is_hit, seen = rows_of(batch, hit, lowest, "lowest", missing=1.0)
    moments = pd.Series(np.asarray(launched))
    if len(moments) != len(codes) or moments.isna().any():
        raise DataError(f"launched: expected a moment for each of {len(codes)} rows, got {moments.notna().sum()}")
    order = pd.DataFrame({"launched": moments.groupby(codes).min(), "label": [str(label) for label in labels]})
    order = order.sort_values(["launched", "label"], kind="stable")
    found, scores, n_hits, n_allowed = _batch_scores(
        codes[is_hit], seen[is_hit], _weights(weight, codes)[is_hit], share
    )
    place = {code: i for i, code in enumerate(found.tolist())}
    before: list[float] = []
    rows = []
    for code, first in zip(order.index.tolist(), order["launched"], strict=True):
        if code not in place:
            continue
        i = place[code]
        threshold = _kth(before, sure)
        if threshold is not None:
            n_lost = int((seen[is_hit & (codes == code)] < threshold).sum())
            rows.append((labels[code], first, len(before), threshold, int(n_hits[i]), int(n_allowed[i]), n_lost))
        insort(before, float(scores[i]))
    columns = ["batch", "launched", "n_before", "threshold", "n_hits", "n_allowed", "n_lost"]
    losses = pd.DataFrame(rows, columns=columns)
    return losses.assign(lost_too_much=(losses["n_lost"] > losses["n_allowed"]).astype("int64"))


def _weights(weight: npt.ArrayLike | None, codes: Ints) -> Floats:
    """Return one weight per row; refuse what is no weight."""
    if weight is None:
        return np.ones(len(codes))
    values = np.asarray(weight, dtype=np.float64)
    if values.shape != codes.shape or not (np.isfinite(values) & (values > 0)).all():
        raise DataError(f"weight: expected a number above 0 for each of {len(codes)} rows, got something else")
    return values


def _batch_scores(codes: Ints, lowest: Floats, weight: Floats, share: Fraction) -> tuple[Ints, Floats, Ints, Ints]:
    """Return the batches of these hits, their scores, their hits, and how many of them may be lost."""
    order = np.lexsort((lowest, codes))
    found, start, n_hits = np.unique(codes[order], return_index=True, return_counts=True)
    allowed = np.zeros(len(found), dtype=np.int64)
    for place, (first, n) in enumerate(zip(start.tolist(), n_hits.tolist(), strict=True)):
        own = weight[order][first : first + n]
        if (own == own[0]).all():
            allowed[place] = floor(share * n)
        else:
            # As many as may be lost from below before they weigh more than the share.
            allowed[place] = int((np.cumsum(own) <= float(share) * own.sum() + 1e-9).sum())
    return found, lowest[order][start + allowed], n_hits, allowed


def _kth(scores: list[float], confidence: Fraction) -> float | None:
    """Return the threshold for sorted scores, None where there are too few."""
    k = floor((1 - confidence) * (len(scores) + 1))
    return scores[k - 1] if k else None
