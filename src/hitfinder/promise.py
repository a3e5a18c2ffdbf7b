"""What is promised about `stop` and `scale`, learned from past batches, and when a promise is withdrawn.

The batch is the unit: SKUs of one batch share a season and a crowd, so past batches, not past SKUs, are what a new
batch is compared with. All promises rest on one belief: that a new batch is exchangeable with the past ones.
`check_promise` bets against what follows from it and says when it can't be held any longer.

References
----------
.. [1] V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World, Springer, 2005 (2nd edition 2022).
.. [2] A. N. Angelopoulos, S. Bates, A. Fisch, L. Lei, T. Schuster, Conformal Risk Control, ICLR 2024.
.. [3] V. Vovk, On-line confidence machines are well-calibrated, FOCS 2002.
.. [4] G. Shafer, V. Vovk, Game-Theoretic Foundations for Probability and Finance, Wiley, 2019.
.. [5] I. Waudby-Smith, A. Ramdas, Estimating means of bounded random variables by betting, JRSS B 86(1), 2024.
.. [6] J. Shin, A. Ramdas, A. Rinaldo, E-detectors, The New England Journal of Statistics in Data Science, 2023.
.. [7] A. N. Angelopoulos, S. Bates, E. J. Candès, M. I. Jordan, L. Lei, Learn then Test, The Annals of Applied
   Statistics 19(2), 2025 (arXiv:2110.01052).
.. [8] S. Bates, A. Angelopoulos, L. Lei, J. Malik, M. I. Jordan, Distribution-free, risk-controlling prediction sets,
   Journal of the ACM 68(6), 2021.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from math import ceil, floor, fsum, log, log1p
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import bdtr, xlogy

from hitfinder.errors import DataError, ModelError, SettingsError

__all__ = [
    "PromiseCheck",
    "ScalePromise",
    "StopPromise",
    "check_promise",
    "forward_losses",
    "promise_scale",
    "promise_stop",
    "withdraw_promise",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Thresholds tried for `scale`, strictest first. Fixed beforehand: a grid made of the probabilities that are judged
# would choose its own exam questions.
SCALE_GRID = np.arange(99, 0, -1) / 100
# Shares of the wealth staked on "this batch loses too much"; at 90 % best where 19, 28 and 46 % of batches do.
STAKES = np.array([0.1, 0.2, 0.4])
# The bet that trouble begins at batch j gets the share PATIENCE / ((j + PATIENCE - 1) (j + PATIENCE)) of the first
# unit. The shares sum to 1 and fall slowly: a late change is seen nearly as soon as an early one.
PATIENCE = 10
RICH = 1e100  # not counted further: it would overflow, long after the alarm

WORDS = {
    "en": {
        "stop": "At most {share} % of a batch's hits are stopped in {often}; learned from {batches}.",
        "stop_nothing": "Nothing is stopped: past hits came down to a probability of 0; learned from {batches}.",
        "stop_few": "No promise: {batches} had hits, it takes {needed}.",
        "withdrawn": "Withdrawn: {n_lost_too_much} of {n_checked} batches lost more hits than promised.",
        "scale": "On average at most {share} % of the SKUs scaled in a batch turn out not to be hits ({sure} % sure); "
        "learned from {batches}, {n_batches_scaling} of them with SKUs to scale.",
        "scale_few": "No promise: there are only {batches}, it takes {needed}.",
        "scale_none": "No promise: {batches} don't show with {sure} % certainty that at most {share} % of scaled SKUs "
        "turn out not to be hits, whatever the threshold.",
        "often": "{part} of {whole} batches",
        "batches": "{n} past batches",
        "batch": "{n} past batch",
    },
    "zh": {
        "stop": "每 {often}，被停测的爆款不超过该批爆款的 {share}%；依据{batches}得出。",
        "stop_nothing": "不停测任何 SKU：过去有爆款的概率曾降到 0；依据{batches}得出。",
        "stop_few": "暂无承诺：{batches}出过爆款，至少需要 {needed} 批。",
        "withdrawn": "承诺已撤回：{n_checked} 批中有 {n_lost_too_much} 批停掉的爆款多于承诺。",
        "scale": "平均而言，一批中放量的 SKU 最多有 {share}% 不是爆款（把握 {sure}%）；"
        "依据{batches}得出，其中 {n_batches_scaling} 批有可放量的 SKU。",
        "scale_few": "暂无承诺：只有{batches}，至少需要 {needed} 批。",
        "scale_none": "暂无承诺：无论门槛取多少，{batches}都不足以说明放量的 SKU 最多有 {share}% 不是爆款"
        "（把握 {sure}%）。",
        "often": "{whole} 批中有 {part} 批",
        "batches": "过去 {n} 批",
        "batch": "过去 {n} 批",
    },
}


@dataclass(frozen=True, kw_only=True)
class _Promise:
    threshold: float | None
    confidence: float
    n_batches: int
    needed: int

    @property
    def reason(self) -> str | None:
        raise NotImplementedError

    def _saying(self) -> tuple[str, float]:
        """Return the key of what is to be said, and the share that is promised."""
        raise NotImplementedError

    @property
    def holds(self) -> bool:
        """Whether something is promised."""
        return self.reason is None

    def sentence(self, language: str = "en") -> str:
        """Say in plain words, `en` or `zh`, what is promised, or why nothing is.

        Raises
        ------
        SettingsError
            For another language.

        Examples
        --------
        >>> print(StopPromise(threshold=0.03, max_hits_lost=0.1, confidence=0.9, n_batches=24, needed=9).sentence())
        At most 10 % of a batch's hits are stopped in 9 of 10 batches; learned from 24 past batches.
        >>> print(StopPromise(threshold=None, max_hits_lost=0.1, confidence=0.9, n_batches=6, needed=9).sentence("zh"))
        暂无承诺：过去 6 批出过爆款，至少需要 9 批。
        """
        if language not in WORDS:
            raise SettingsError(f"language: expected {' or '.join(WORDS)}, got {language!r}")
        words, odds = WORDS[language], _exact(self.confidence)
        key, share = self._saying()
        # 9325 of 10000 would say less than 93.25 of 100.
        simple = odds.denominator <= 100
        part, whole = (odds.numerator, odds.denominator) if simple else (f"{self.confidence * 100:g}", 100)
        return words[key].format(
            **asdict(self),
            share=f"{share * 100:g}",
            sure=f"{self.confidence * 100:g}",
            often=words["often"].format(part=part, whole=whole),
            batches=words["batch" if self.n_batches == 1 else "batches"].format(n=self.n_batches),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave.

        Raises
        ------
        ModelError
            Where a key is missing or not known.
        """
        expected = [field.name for field in fields(cls)]
        if odd := sorted(set(values) ^ set(expected)):
            raise ModelError(f"{cls.__name__}: expected {', '.join(expected)}; missing or unknown: {', '.join(odd)}")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class StopPromise(_Promise):
    """The threshold of `stop` and what is promised with it; see `promise_stop`.

    `threshold`: stop a SKU whose probability is below it; None where there are too few batches for a promise.
    `n_batches`: past batches that had hits; `needed`: how many it takes. `withdrawn`: see `withdraw_promise`, with the
    batches checked until then and how many of them lost more than was promised. A withdrawn promise keeps its
    threshold for the record; whoever stops by it promises nothing, so ask `holds` first.
    """

    max_hits_lost: float
    withdrawn: bool = False
    n_checked: int = 0
    n_lost_too_much: int = 0

    @property
    def reason(self) -> str | None:
        """Why nothing is promised: `withdrawn`, `few_batches`, or None where something is."""
        return "withdrawn" if self.withdrawn else "few_batches" if self.threshold is None else None

    def _saying(self) -> tuple[str, float]:
        key = {"few_batches": "stop_few", "withdrawn": "withdrawn"}.get(self.reason or "", "stop")
        return "stop_nothing" if key == "stop" and self.threshold == 0 else key, self.max_hits_lost


@dataclass(frozen=True, kw_only=True)
class ScalePromise(_Promise):
    """The threshold of `scale` and what is promised with it; see `promise_scale`.

    `threshold`: scale a SKU whose probability is at least it; None where none is certified. `n_batches`: past batches;
    `needed`: how many it takes where none of them scales a false SKU. `n_scaled`, `n_batches_scaling`: past SKUs at or
    above the threshold, and the batches that they are from.
    """

    max_false_scaled: float
    n_scaled: int
    n_batches_scaling: int

    @property
    def reason(self) -> str | None:
        """Why nothing is promised: `few_batches`, `none_certified`, or None where something is."""
        if self.threshold is not None:
            return None
        return "few_batches" if self.n_batches < self.needed else "none_certified"

    def _saying(self) -> tuple[str, float]:
        key = {"few_batches": "scale_few", "none_certified": "scale_none"}.get(self.reason or "", "scale")
        return key, self.max_false_scaled


@dataclass(frozen=True, kw_only=True)
class PromiseCheck:
    """What betting against a promise has won; see `check_promise`.

    `wealth`: after each batch, starting from 1. `alarm`: position of the batch at which it first reached
    1 / `false_alarm`, or None. `n_checked`, `n_lost_too_much`: batches up to the alarm (all, where there was none), and
    how many of them lost more than promised.
    """

    wealth: tuple[float, ...]
    alarm: int | None
    false_alarm: float
    n_checked: int
    n_lost_too_much: int

    @property
    def withdrawn(self) -> bool:
        """Whether the promise is to be withdrawn: an alarm stays, whatever came after it."""
        return self.alarm is not None


def promise_stop(
    batch: npt.ArrayLike,
    hit: npt.ArrayLike,
    lowest: npt.ArrayLike,
    *,
    max_hits_lost: float,
    confidence: float,
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
    lost, sure = _between("max_hits_lost", max_hits_lost, zero=True), _between("confidence", confidence)
    codes, _, is_hit, seen = _rows(batch, hit, lowest, "lowest", missing=1.0)
    scores = np.sort(_batch_scores(codes[is_hit], seen[is_hit], lost)[1])
    return StopPromise(
        threshold=_kth(list(map(float, scores)), sure),
        max_hits_lost=float(max_hits_lost),
        confidence=float(confidence),
        n_batches=len(scores),
        needed=ceil(1 / (1 - sure)) - 1,
    )


def forward_losses(
    batch: npt.ArrayLike,
    launched: npt.ArrayLike,
    hit: npt.ArrayLike,
    lowest: npt.ArrayLike,
    *,
    max_hits_lost: float,
    confidence: float,
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
    batch, hit, lowest, max_hits_lost, confidence
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
    share, sure = _between("max_hits_lost", max_hits_lost, zero=True), _between("confidence", confidence)
    codes, labels, is_hit, seen = _rows(batch, hit, lowest, "lowest", missing=1.0)
    moments = pd.Series(np.asarray(launched))
    if len(moments) != len(codes) or moments.isna().any():
        raise DataError(f"launched: expected a moment for each of {len(codes)} rows, got {moments.notna().sum()}")
    order = pd.DataFrame({"launched": moments.groupby(codes).min(), "label": [str(label) for label in labels]})
    order = order.sort_values(["launched", "label"], kind="stable")
    found, scores, n_hits, n_allowed = _batch_scores(codes[is_hit], seen[is_hit], share)
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


def check_promise(lost_too_much: npt.ArrayLike, *, confidence: float, false_alarm: float = 0.05) -> PromiseCheck:
    """Bet against a promise, batch by batch, and raise the alarm when the bets have won too much.

    While the promise holds, a batch loses too much with a chance of at most a = 1 - `confidence`, given the losses
    before it. Who stakes the share s of a wealth on that, at odds of 1 / a, has 1 - s + s / a of it after a loss and
    1 - s otherwise: on average no more than before. Here each possible start of trouble gets a part of the first
    unit, kept in cash till then, and stakes the shares `STAKES` from there on. The sum is a test supermartingale
    [4]_ [5]_: by Ville's inequality it **ever** reaches 1 / `false_alarm` with a chance of at most `false_alarm`,
    however long and often one looks. (A Shiryaev-Roberts sum, with a whole new unit for every start [6]_, sees late
    changes sooner, but it promises only how long a false alarm takes on average, and one comes for certain.)

    An alarm is never taken back: after retraining, begin anew with the batches that came since.

    Parameters
    ----------
    lost_too_much
        1 where a batch lost more than promised, 0 elsewhere, oldest first; see `forward_losses`.
    confidence
        As promised.
    false_alarm
        Chance of ever raising an alarm while the promise holds, between 0 and 1.

    Returns
    -------
    PromiseCheck

    Raises
    ------
    DataError
        For losses other than 0 and 1.
    SettingsError
        For a confidence or chance outside its range.

    Examples
    --------
    >>> check_promise([0] * 9 + [1], confidence=0.9).withdrawn
    False
    >>> check_promise([0, 1, 0, 1, 1, 0, 1, 1, 0, 1], confidence=0.9).alarm
    7
    """
    chance = float(1 - _between("confidence", confidence))
    _between("false_alarm", false_alarm)
    losses = _flags(lost_too_much, "lost_too_much")
    pots = np.zeros(len(STAKES))
    wealth = []
    for t, lost in enumerate(losses.tolist(), start=1):
        pots = pots + PATIENCE / ((t + PATIENCE - 1) * (t + PATIENCE)) / len(STAKES)
        pots = np.minimum(pots * (1 - STAKES + STAKES * lost / chance), RICH)
        wealth.append(float(pots.sum() + PATIENCE / (t + PATIENCE)))
    alarm = next((t for t, value in enumerate(wealth) if value >= 1 / false_alarm), None)
    checked = losses if alarm is None else losses[: alarm + 1]
    return PromiseCheck(
        wealth=tuple(wealth),
        alarm=alarm,
        false_alarm=float(false_alarm),
        n_checked=len(checked),
        n_lost_too_much=int(checked.sum()),
    )


def withdraw_promise(promise: StopPromise, check: PromiseCheck) -> StopPromise:
    """Return the promise, withdrawn where the check raised an alarm; where nothing was promised it stays as it is.

    Examples
    --------
    >>> check = check_promise([0, 1, 0, 1, 1, 0, 1, 1, 0, 1], confidence=0.9)
    >>> promise = StopPromise(threshold=0.03, max_hits_lost=0.1, confidence=0.9, n_batches=24, needed=9)
    >>> print(withdraw_promise(promise, check).sentence())
    Withdrawn: 5 of 8 batches lost more hits than promised.
    """
    counts = {"n_checked": check.n_checked, "n_lost_too_much": check.n_lost_too_much}
    return promise if promise.threshold is None else replace(promise, withdrawn=check.withdrawn, **counts)


def promise_scale(
    batch: npt.ArrayLike,
    hit: npt.ArrayLike,
    probability: npt.ArrayLike,
    *,
    max_false_scaled: float,
    confidence: float,
) -> ScalePromise:
    """Learn from which probability on a SKU may be scaled.

    Learn then test [7]_. The risk of a threshold is the share of the SKUs scaled in a batch that are no hits, 0 where
    none is scaled, averaged over batches. It need not fall as the threshold rises, so thresholds are tested one after
    the other, strictest first, by Hoeffding-Bentkus p-values [8]_ with the batches as examples, until one is not shown
    to be safe. Of those before it, all safe together, the lowest is taken, or the highest that scales the same past
    SKUs. The chance, over the past batches, of a risk above `max_false_scaled` is at most 1 - `confidence`.

    Mind that a batch in which nothing is scaled counts as 0: read the threshold with `n_batches_scaling`. A threshold
    that no past SKU reached is safe for want of anything to scale, and is not given.

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
    limit = float(_between("max_false_scaled", max_false_scaled))
    delta = float(1 - _between("confidence", confidence))
    codes, labels, is_hit, seen = _rows(batch, hit, probability, "probability", missing=-1.0)
    n = len(labels)
    scaled = _counts_above(codes, seen, n)
    false = _counts_above(codes[~is_hit], seen[~is_hit], n)
    shares = false / np.maximum(scaled, 1)
    # fsum: the order of the rows changes nothing, not even the last digit.
    total = np.array([fsum(column) for column in shares.T])
    failed = _p_values(total, n, limit) > delta * (1 + 1e-12)
    last = int(failed.argmax() if failed.any() else len(failed)) - 1
    n_scaled = int(scaled[:, last].sum()) if last >= 0 else 0
    # All thresholds down to the last are certified together, so the most careful of the equally useful may be taken.
    last = int((scaled.sum(axis=0) == n_scaled).argmax())
    return ScalePromise(
        threshold=float(SCALE_GRID[last]) if n_scaled else None,
        max_false_scaled=float(max_false_scaled),
        confidence=float(confidence),
        n_batches=n,
        needed=ceil(log(delta) / log1p(-limit) - 1e-9),
        n_scaled=n_scaled,
        n_batches_scaling=int((scaled[:, last] > 0).sum()) if n_scaled else 0,
    )


def _batch_scores(codes: Ints, lowest: Floats, share: Fraction) -> tuple[Ints, Floats, Ints, Ints]:
    """Return the batches of these hits, their scores, their hits, and how many of them may be lost."""
    order = np.lexsort((lowest, codes))
    found, start, n_hits = np.unique(codes[order], return_index=True, return_counts=True)
    allowed = np.array([floor(share * n) for n in n_hits.tolist()], dtype=np.int64)
    return found, lowest[order][start + allowed], n_hits, allowed


def _kth(scores: list[float], confidence: Fraction) -> float | None:
    """Return the threshold for sorted scores, None where there are too few."""
    k = floor((1 - confidence) * (len(scores) + 1))
    return scores[k - 1] if k else None


def _counts_above(codes: Ints, probability: Floats, n: int) -> Ints:
    """Count the SKUs at or above each threshold of `SCALE_GRID`, one row per batch."""
    size = len(SCALE_GRID)
    reached = np.searchsorted(SCALE_GRID[::-1], probability, side="right")  # how many thresholds a SKU reaches
    cells = np.bincount(codes * (size + 1) + size - reached, minlength=n * (size + 1)).reshape(n, size + 1)
    return np.asarray(cells.cumsum(axis=1)[:, :size], dtype=np.int64)


def _p_values(total: Floats, n: int, limit: float) -> Floats:
    """Return Hoeffding-Bentkus p-values of "the mean of a loss between 0 and 1 is above the limit"."""
    if n == 0:
        return np.ones(len(total))
    mean = np.minimum(total / n, limit)
    hoeffding = np.exp(-n * (xlogy(mean, mean / limit) + xlogy(1 - mean, (1 - mean) / (1 - limit))))
    bentkus = np.e * bdtr(np.ceil(np.round(total, 9)), n, limit)
    return np.asarray(np.minimum(hoeffding, bentkus), dtype=np.float64)


def _rows(
    batch: npt.ArrayLike, hit: npt.ArrayLike, seen: npt.ArrayLike, name: str, *, missing: float
) -> tuple[Ints, npt.NDArray[np.object_], npt.NDArray[np.bool_], Floats]:
    """Return codes of the batches, their labels, hits and probabilities; refuse what can't be understood."""
    labels = np.empty(np.shape(batch)[:1], dtype=object)
    labels[:] = np.asarray(batch, dtype=object)
    codes, found = pd.factorize(labels)
    is_hit = _flags(hit, "hit").astype(bool)
    values = _numbers(seen, name)
    if not len(codes) == len(is_hit) == len(values):
        sizes = f"{len(codes)}, {len(is_hit)} and {len(values)}"
        raise DataError(f"batch, hit and {name}: expected one of each per SKU, got {sizes} rows")
    if (codes < 0).any():
        raise DataError(f"batch: expected a label in every row, {int((codes < 0).sum())} are empty")
    wrong = values[(values < 0) | (values > 1)]
    if len(wrong):
        raise DataError(f"{name}: expected probabilities from 0 to 1, got {wrong[0]:g} ({len(wrong)} such rows)")
    return codes.astype(np.int64), found, is_hit, np.where(np.isnan(values), missing, values)


def _numbers(values: npt.ArrayLike, name: str) -> Floats:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: expected numbers, got something else ({error})") from None
    if numbers.ndim != 1:
        raise DataError(f"{name}: expected one column, got {numbers.ndim} dimensions")
    return numbers


def _flags(values: npt.ArrayLike, name: str) -> Ints:
    numbers = _numbers(values, name)
    wrong = numbers[~np.isin(numbers, (0, 1))]
    if len(wrong):
        raise DataError(f"{name}: expected 0 or 1 in every row, got {wrong[0]:g} ({len(wrong)} such rows)")
    return numbers.astype(np.int64)


def _between(name: str, value: float, *, zero: bool = False) -> Fraction:
    if not (0 < value < 1 or (zero and value == 0)):
        raise SettingsError(
            f"{name}: expected a number {'from 0 to below 1' if zero else 'between 0 and 1'}, got {value}"
        )
    return _exact(value)


def _exact(value: float) -> Fraction:
    """Read a share as it is written: 0.9 is nine tenths, so a tenth of 10 batches is 1, not 0.99."""
    return Fraction(repr(float(value)))
