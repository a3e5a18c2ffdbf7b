"""Has something shifted? One figure per week for many subjects, judged together against its own past.

Each figure is compared with a mean of the weeks before it that forgets, and the difference divided by what such
differences usually are: known sampling noise, the subject's own scatter from week to week (pulled towards that of its
like, since weeks are few), and a floor below which a shift is of no interest. The largest of all subjects is then
compared with the largest of each past week, treated in the same way [1]_. So the chance of a false alarm holds over
all subjects together, however they depend on one another. Where weeks are exchangeable, the place of the newest among
the n past ones is a conformal p-value [2]_; below 1 / (n + 1), where a place says no more, Student's t on the log scale
stands in.

References
----------
.. [1] P. H. Westfall, S. S. Young, Resampling-Based Multiple Testing, Wiley, 1993: the maximum over subjects.
.. [2] V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World, Springer, 2005 (2nd edition 2022).
.. [3] G. K. Smyth, Linear models and empirical Bayes methods, Statistical Applications in Genetics and Molecular
   Biology 3(1), 2004: scatter of few measurements, pulled towards that of its like.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

__all__ = ["HALF_LIFE", "MIN_HISTORY", "Judged", "Track", "judge"]

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
# A largest difference below this many times the usual is none, and the log of the largest scatters at least so much.
LEAST_TOP = 2.0
LEAST_SD = 0.2
# A past week so far out is a change of its own, not what a usual week looks like.
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
    week, and adjusted for each of its subjects. `p_weeks`: what `p` was for each week at its time. `threshold`: from
    which `top` on the alarm is raised; None where history is too short for a promise. `n_history`: weeks compared with.
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
    """Compare the newest week of a track with its past.

    Parameters
    ----------
    track
        Without a week or a subject there is nothing to compare, and too little history for a promise.
    allowed
        Chance of a false alarm over all subjects together.
    half_life
        See `HALF_LIFE`.

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
    weeks, subjects = track.value.shape
    if not weeks or not subjects:
        nothing, unknown = np.full(weeks, np.nan), np.full(subjects, np.nan)
        return Judged(
            shift=np.full((weeks, subjects), np.nan), expected=unknown, top=nothing, p=float("nan"), p_each=unknown,
            p_weeks=nothing, threshold=None, n_history=0,
        )  # fmt: skip
    expected, residual, lever, known = _forward(track, half_life)
    variance = known + lever * _scatter(track.about, residual, lever, known)
    shift = np.divide(residual, np.sqrt(variance), out=np.full(residual.shape, np.nan), where=variance > 0)
    side = np.broadcast_to(track.side, shift.shape)
    size = np.where(side == 0, np.abs(shift), side * shift)
    some = np.isfinite(size).any(axis=1)
    top = np.full(weeks, np.nan)
    top[some] = np.nanmax(np.where(np.isfinite(size[some]), size[some], -np.inf), axis=1)
    p_weeks, usual = np.full(weeks, np.nan), np.zeros(weeks, dtype=bool)
    for week in range(weeks):
        past = top[:week][usual[:week]]
        if not np.isfinite(top[week]):
            continue
        p_weeks[week] = _p_value(top[[week]], past)[0]
        usual[week] = not p_weeks[week] <= CLEAR * allowed
    past = top[:-1][usual[:-1]]
    enough = len(past) >= MIN_HISTORY
    return Judged(
        shift=shift,
        expected=expected[-1],
        top=top,
        p=float(p_weeks[-1]) if enough else float("nan"),
        p_each=_p_value(size[-1], past) if enough else np.full(subjects, np.nan),
        p_weeks=p_weeks,
        threshold=_threshold(past, allowed) if enough else None,
        n_history=len(past),
    )


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


def _logs(top: Array) -> Array:
    return np.log(np.maximum(top, LEAST_TOP))


def _spread(past: Array) -> tuple[float, float]:
    logs = _logs(past)
    return float(logs.mean()), max(float(logs.std(ddof=1)), LEAST_SD) * np.sqrt(1 + 1 / len(past))


def _p_value(top: Array, past: Array) -> Array:
    """Return the p-value of each size against the largest of past weeks; NaN where nothing can be told."""
    out = np.full(len(top), np.nan)
    told = np.isfinite(top)
    if len(past) < MIN_HISTORY:
        return out
    place = (1 + (past[None, :] >= top[told][:, None]).sum(axis=1)) / (len(past) + 1)
    centre, spread = _spread(past)
    tail = stats.t.sf((_logs(top[told]) - centre) / spread, len(past) - 1)
    beyond = place <= 1 / (len(past) + 1) + 1e-12
    out[told] = np.where(beyond, np.minimum(place, tail), place)
    return out


def _threshold(past: Array, allowed: float) -> float:
    """Return the size above which the p-value is at most `allowed`."""
    places = int(np.floor(allowed * (len(past) + 1) + 1e-9))
    if places >= 1:
        return float(np.sort(past)[-places])
    centre, spread = _spread(past)
    return max(float(past.max()), float(np.exp(centre + spread * stats.t.isf(allowed, len(past) - 1))))
