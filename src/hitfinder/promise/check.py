"""Betting against a promise, batch by batch, and withdrawing it when the bets have won too much.

Numbers in brackets are references of `hitfinder.promise`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.promise.columns import between, flags
from hitfinder.promise.sentences import StopPromise

__all__ = ["PATIENCE", "STAKES", "PromiseCheck", "check_promise", "count_kept", "withdraw_promise"]

# Shares of the wealth staked on "this batch loses too much"; at 90 % best where 19, 28 and 46 % of batches do.
STAKES = np.array([0.1, 0.2, 0.4])
# The bet that trouble begins at batch j gets the share PATIENCE / ((j + PATIENCE - 1) (j + PATIENCE)) of the first
# unit. The shares sum to 1 and fall slowly: a late change is seen nearly as soon as an early one.
PATIENCE = 10
RICH = 1e100  # not counted further: it would overflow, long after the alarm


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
    chance = float(1 - between("confidence", confidence))
    between("false_alarm", false_alarm)
    losses = flags(lost_too_much, "lost_too_much")
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


def count_kept(played: pd.DataFrame) -> tuple[int, int]:
    """Count the tests played again under a promise about stopping, and those of them that kept it.

    Parameters
    ----------
    played
        Rows of `promised` (whether something was), `batches` (with hits) and `broken` (of them); may be empty.

    Returns
    -------
    (tests, kept)

    Examples
    --------
    >>> rows = pd.DataFrame({"promised": [True, True, False], "batches": [3, 2, 4], "broken": [1, 0, 0]})
    >>> count_kept(rows), count_kept(rows.head(0)), count_kept(pd.DataFrame())
    ((5, 4), (0, 0), (0, 0))
    """
    if played.empty:
        return 0, 0
    under = played[played["promised"].astype(bool)]
    return int(under["batches"].sum()), int(under["batches"].sum() - under["broken"].sum())
