"""Has something shifted? One figure per week for many subjects, judged together against its own past.

Each figure is compared with a mean of the weeks before it that forgets, and the difference divided by what such
differences usually are: known sampling noise, the subject's own scatter from week to week (pulled towards that of its
like, since weeks are few), and a floor below which a shift is of no interest. The largest of all subjects of a check is
then held against the largest of each other week, treated in the same way [1]_: how surprising it is, were sizes to fall
off as a power beyond their median, the power being estimated from those other weeks [4]_. The most surprising of all
checks is the week's, and its place among the n past weeks is a conformal p-value [2]_. So one chance of a false alarm
is spent on all checks and subjects together, however they depend on one another.

What is exact and what is not: where weeks are exchangeable, the place is exact, and with 1 / (n + 1) no larger than the
chance allowed nothing else is used. Below that a place says no more, and surprises of past weeks are taken to fall off
exponentially, as they do where sizes fall off as powers. A mean that forgets makes weeks not quite exchangeable, most
where tails are heavy, so the chance is measured, by simulation: see the test of false alarms.

References
----------
.. [1] P. H. Westfall, S. S. Young, Resampling-Based Multiple Testing, Wiley, 1993: the maximum over subjects.
.. [2] V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World, Springer, 2005 (2nd edition 2022).
.. [3] G. K. Smyth, Linear models and empirical Bayes methods, Statistical Applications in Genetics and Molecular
   Biology 3(1), 2004: scatter of few measurements, pulled towards that of its like.
.. [4] B. M. Hill, A simple general approach to inference about the tail of a distribution, Annals of Statistics 3(5),
   1975: logs of the largest over the next largest are exponential where the tail is a power.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

__all__ = ["HALF_LIFE", "MIN_HISTORY", "Judged", "Track", "judge", "judge_together", "usual_up_to"]

Array = npt.NDArray[np.float64]

# Weeks after which a week counts half in the mean that the next is compared with. On simulated markets 3, 6, 12 and
# never gave the same false alarms and the same delay within error; a mean that forgets faster follows seasons, one that
# forgets more slowly keeps an alarm up for longer.
HALF_LIFE = 6.0
# Weeks before a first comparison, and comparisons before anything is promised.
BURN_IN = 4
MIN_HISTORY = 8
# How many weeks a subject's own scatter has to outweigh that of its like.
PRIOR_WEEKS = 6.0
# A largest difference below so many times the usual surprises nobody, and smaller ones of the past are cut off here:
# where they were cut off as high as the former, tails of few subjects looked lighter than they are.
LEAST_TOP = 2.0
LEAST_PAST = 1.0
# Beyond where a tail begins, it is this far on average at least, on the scale of logs.
LEAST_EXCESS = 0.1
# Surprises fall off with a scale of 1 where tails are powers: that counts as much as so many weeks.
PRIOR_SURPRISES = 4
# A past week that raised the alarm by so much is a change of its own, not what a usual week looks like.
CLEAR = 0.1
MEDIAN_OF_SQUARE = float(stats.chi2.ppf(0.5, 1))


@dataclass(frozen=True)
class Track:
    """Figures over the weeks, oldest first.

    Attributes
    ----------
    about
        One row per subject: `kind`, `subject`, `measure`.
    value
        Shape (weeks, subjects), on a scale on which differences add up; NaN where there is none.
    noise
        Known sampling variance of each value, 0 where it is not known.
    floor
        For each subject the size of a shift that is of no interest.
    side
        1 where only a rise counts, -1 where only a fall does, 0 for both.
    moments
        When each week was looked at.
    """

    about: pd.DataFrame
    value: Array
    noise: Array
    floor: Array
    side: Array
    moments: pd.DatetimeIndex

    @staticmethod
    def joined(tracks: list[Track]) -> Track:
        """Put the subjects of tracks over the same weeks side by side."""
        return Track(
            about=pd.concat([t.about for t in tracks], ignore_index=True),
            value=np.concatenate([t.value for t in tracks], axis=1),
            noise=np.concatenate([t.noise for t in tracks], axis=1),
            floor=np.concatenate([t.floor for t in tracks]),
            side=np.concatenate([t.side for t in tracks]),
            moments=tracks[0].moments,
        )


@dataclass(frozen=True)
class Judged:
    """A track's newest week against its past.

    `shift`: standardised differences, shape (weeks, subjects), NaN where nothing could be compared. `expected`: what
    each subject of the newest week was compared with. `top`: the largest of each week. `p`, `p_each`: of the newest
    week, and of each of its subjects, adjusted for all that was judged together. `p_weeks`: what `p` was for each week
    at its time. `threshold`: from which `top` on the alarm is raised; None where history is too short for a promise.
    `n_history`: weeks compared with.
    """

    shift: Array
    expected: Array
    top: Array
    p: float
    p_each: Array
    p_weeks: Array
    threshold: float | None
    n_history: int


def judge(track: Track, allowed: float, *, half_life: float = HALF_LIFE) -> Judged:
    """Compare the newest week of one track with its past; see `judge_together`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> value = rng.normal(size=(30, 5))
    >>> value[-1, 2] += 9
    >>> about = pd.DataFrame({"kind": "feature", "subject": list("abcde"), "measure": "mean"})
    >>> weeks = pd.date_range("2025-01-06", periods=30, freq="7D")
    >>> track = Track(about, value, np.zeros_like(value), np.zeros(5), np.zeros(5), weeks)
    >>> found = judge(track, 0.05)
    >>> found.p < 0.05, int(found.p_each.argmin())
    (True, 2)
    """
    return judge_together({"": track}, allowed, half_life=half_life)[""]


def judge_together(tracks: Mapping[str, Track], allowed: float, *, half_life: float = HALF_LIFE) -> dict[str, Judged]:
    """Compare the newest week of each track with its past.

    Parameters
    ----------
    tracks
        By name. Their weeks are matched from the newest back. One without a week or a subject has nothing to compare,
        and one of few weeks too little history for a promise; neither keeps the others from being judged.
    allowed
        Chance of a false alarm over all tracks and subjects together.
    half_life
        See `HALF_LIFE`.
    """
    parts = {name: _shifts(track, half_life) for name, track in tracks.items()}
    weeks = max((len(track.value) for track in tracks.values()), default=0)
    tops = np.full((weeks, len(tracks)), np.nan)
    for column, (_, _, size) in enumerate(parts.values()):
        tops[weeks - len(size) :, column] = pd.DataFrame(size).max(axis=1)
    p_weeks, past, told, surprises = _through_time(tops, allowed)
    reach = _reach(surprises, allowed, PRIOR_SURPRISES) if told.any() else np.nan
    judged = {}
    for column, (name, (expected, shift, size)) in enumerate(parts.items()):
        (n, subjects), own, enough = size.shape, past[:, column], bool(told[column])
        judged[name] = Judged(
            shift=shift,
            expected=expected[-1] if n else np.full(subjects, np.nan),
            top=tops[weeks - n :, column],
            p=float(p_weeks[-1, column]) if weeks else np.nan,
            p_each=_chance(_surprise(size[-1], own), surprises) if enough else np.full(subjects, np.nan),
            p_weeks=p_weeks[weeks - n :, column],
            threshold=_least_surprising(own, reach) if enough else None,
            n_history=len(surprises) if enough else int(np.isfinite(own).sum()),
        )
    return judged


def _through_time(tops: Array, allowed: float) -> tuple[Array, Array, npt.NDArray[np.bool_], Array]:
    """Judge each week by the usual ones before it.

    Returns
    -------
    (p_weeks, past, told, surprises)
        `p_weeks`: of each week and track, shape of `tops`. The others are what the newest week was judged by: the past
        weeks that were usual, which tracks could be judged, and the past weeks' surprises.
    """
    weeks, tracks = tops.shape
    p_weeks, usual = np.full(tops.shape, np.nan), np.ones(weeks, dtype=bool)
    past, told, surprises = tops[:0], np.zeros(tracks, dtype=bool), np.zeros(0)
    for week in range(weeks):
        past = tops[:week][usual[:week]]
        told, surprises = _past_surprises(past, tops[week])
        for track in map(int, np.flatnonzero(told)):
            p_weeks[week, track] = _chance(_surprise(tops[week, [track]], past[:, track]), surprises)[0]
        usual[week] = not (p_weeks[week] <= CLEAR * allowed).any()
    return p_weeks, past, told, surprises


def _shifts(track: Track, half_life: float) -> tuple[Array, Array, Array]:
    """Return (expected, shift, size); `size`: of the shift, to the side that counts; all of the values' shape."""
    expected, residual, lever, known = _forward(track, half_life)
    variance = known + lever * _scatter(track.about, residual, lever, known)
    shift = np.divide(residual, np.sqrt(variance), out=np.full(residual.shape, np.nan), where=variance > 0)
    side = np.broadcast_to(track.side, shift.shape)
    return expected, shift, np.where(side == 0, np.abs(shift), side * shift)


def _forward(track: Track, half_life: float) -> tuple[Array, Array, Array, Array]:
    """Compare each week with the mean of those before it.

    Returns
    -------
    (expected, residual, lever, known)
        `lever`: how many times a week's scatter is in its residual, from its own and the mean's; `known`: the known
        variance of the residual, the floor included.
    """
    weeks, subjects = track.value.shape
    expected, lever, known = (np.full((weeks, subjects), np.nan) for _ in range(3))
    seen = np.isfinite(track.value)
    value, noise = np.where(seen, track.value, 0.0), np.where(seen, track.noise, 0.0)
    for week in range(1, weeks):
        weight = 0.5 ** ((week - np.arange(week)) / half_life)
        w = weight[:, None] * seen[:week]
        total = w.sum(axis=0)
        ready = (seen[:week].sum(axis=0) >= BURN_IN) & seen[week]
        total = np.where(ready, total, 1.0)
        share = w / total
        expected[week] = np.where(ready, (share * value[:week]).sum(axis=0), np.nan)
        lever[week] = 1 + (share**2).sum(axis=0)
        known[week] = noise[week] + (share**2 * noise[:week]).sum(axis=0) + track.floor**2
    return expected, np.where(seen, track.value, np.nan) - expected, lever, known


def _scatter(about: pd.DataFrame, residual: Array, lever: Array, known: Array) -> Array:
    """Return each subject's variance from week to week beyond what is known, shape (subjects,)."""
    n = np.isfinite(residual).sum(axis=0)
    with np.errstate(invalid="ignore"):
        beyond = (residual**2 / MEDIAN_OF_SQUARE - known) / lever
    own = np.zeros(residual.shape[1])
    some = n > 0
    # The median: the newest week is among them, and what shifted must not hide itself.
    own[some] = np.maximum(np.nanmedian(beyond[:, some], axis=0), 0.0)
    like = pd.Series(np.where(some, own, np.nan)).groupby([about["kind"], about["measure"]]).transform("mean")
    return np.asarray((n * own + PRIOR_WEEKS * like.fillna(0.0).to_numpy()) / (n + PRIOR_WEEKS))


def _tail(logs: Array, least: float = LEAST_EXCESS) -> tuple[Array, Array, int]:
    """Return where the tail of each row begins, the sum of what lies beyond that, and of how many.

    Where the tail is a power, logs beyond the (k + 1)-th largest of n are exponential, those of the past and a new one
    alike. A new one is beyond it with a chance of (k + 1) / (n + 1), and then its excess, divided by the sum of the
    others', is above r with a chance of (1 + r) ** -k, whatever the power.
    """
    k = (logs.shape[-1] + 1) // 2
    largest = np.flip(np.sort(logs, axis=-1), axis=-1)[..., : k + 1]
    begin = largest[..., k]
    return begin, np.maximum((largest[..., :k] - begin[..., None]).sum(axis=-1), least * k), k


def _surprise(size: Array, others: Array) -> Array:
    """Return minus the log of the chance of each size, in the tail of other weeks' sizes; NaN where there is none.

    `others`: shape (weeks,), or (sizes, weeks) where each size has its own; NaN is left out.
    """
    if others.ndim == 1:
        others = others[np.isfinite(others)]
    begin, total, k = _tail(np.log(np.maximum(others, LEAST_PAST)))
    excess = np.log(np.maximum(size, LEAST_PAST)) - np.maximum(begin, np.log(LEAST_TOP))
    return np.asarray(k * np.log1p(np.maximum(excess, 0.0) / total))


def _least_surprising(others: Array, surprise: float) -> float:
    """Return the size that is so surprising: the inverse of `_surprise`."""
    begin, total, k = _tail(np.log(np.maximum(others[np.isfinite(others)], LEAST_PAST)))
    return float(np.exp(np.maximum(begin, np.log(LEAST_TOP)) + total * np.expm1(surprise / k)))


def _past_surprises(past: Array, newest: Array) -> tuple[npt.NDArray[np.bool_], Array]:
    """Return which tracks can be judged, and the largest surprise of each past week, beside all other weeks.

    The newest is among those other weeks, as past weeks are among the newest's: all are treated alike. Weeks from
    before the shortest of the judged histories are left out.
    """
    seen = np.isfinite(past)
    told = np.isfinite(newest) & (seen.sum(axis=0) >= MIN_HISTORY)
    if not told.any():
        return told, np.zeros(0)
    first = int(np.argmax(seen[:, told], axis=0).max())
    surprises = np.zeros(len(past))
    for column in np.flatnonzero(told):
        rows = np.flatnonzero(seen[:, column])
        every = np.append(past[rows, column], newest[column])
        others = np.stack([np.delete(every, row) for row in range(len(rows))])
        surprises[rows] = np.maximum(surprises[rows], _surprise(every[:-1], others))
    return told, surprises[first:]


def _chance(surprise: Array, past: Array) -> Array:
    """Return the p-value of each surprise by its place among the past ones, or their tail; NaN where it is none."""
    n = len(past)
    place = (1 + (past[None, :] >= surprise[:, None]).sum(axis=1)) / (n + 1)
    begin, total, k = _tail(past)
    excess = np.maximum(surprise - begin, 0.0) / (total + PRIOR_SURPRISES)
    tail = (k + 1) / (n + 1) * (1 + excess) ** -(k + PRIOR_SURPRISES)
    p = np.where(place <= 1 / (n + 1) + 1e-12, np.minimum(place, tail), place)
    return np.where(np.isnan(surprise), np.nan, p)


def _reach(past: Array, allowed: float, prior: float, least: float = LEAST_EXCESS) -> float:
    """Return what one more of the past ones' like is above with a chance of at most `allowed`."""
    n = len(past)
    places = int(np.floor(allowed * (n + 1) + 1e-9))
    if places >= 1:
        return float(np.sort(past)[-places])
    begin, total, k = _tail(past, least)
    reach = (total + prior) * (((k + 1) / (n + 1) / allowed) ** (1 / (k + prior)) - 1)
    return max(float(past.max()), float(begin + reach))


def usual_up_to(past: Array, allowed: float) -> float:
    """Return the size that one more like the past ones is above with a chance of at most `allowed`.

    From `allowed` of 1 / (n + 1) on, by its place among the n past ones; below that by their tail, taken for a power.

    Examples
    --------
    >>> gaps = np.array([1.0, 1.0, 1.1, 0.9, 1.0, 1.3, 1.0, 0.8, 1.0, 1.1, 2.0, 1.0])
    >>> [round(usual_up_to(gaps, allowed), 1) for allowed in (0.2, 0.1, 0.01)]
    [1.3, 2.0, 2.9]
    """
    return float(np.exp(_reach(np.log(past), allowed, prior=0.0, least=0.0)))
