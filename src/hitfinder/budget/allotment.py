"""The exact split of one budget over lines with diminishing returns, with one target for the return on all of it.

A line that is given x brings the value ``slope * half * log(1 + x / half)``: `slope` for the first unit of money, half
of it at x = `half`. Of each unit of value, `margin` is left before the money spent. Wanted is the most of
``sum(margin * value - x)`` where ``sum(x) <= total``, ``sum(value) >= target * sum(x)``, and each x within its bounds.

With a multiplier on either constraint the best x of every line is known in closed form and moves continuously with the
multipliers, also where a margin is below 0 (and the problem not concave): so what meets both constraints is the
optimum, not just a good point. For a given weight on the target, the sum of all x is piecewise linear in one number,
and solved exactly; the weight itself is found between 0 and 1, since the slack of the target only grows with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

__all__ = ["Allotment", "Lines", "allot", "best_return", "greatest_spend", "spend_for_value", "value_of"]

Array = npt.NDArray[np.float64]

# Halvings of an interval of width 1 or less: enough to come down to neighbouring floating-point numbers.
STEPS = 64
# What counts as met: far below any cent, far above what sums of doubles lose.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Lines:
    """What is known of each line; arrays of shape (n,).

    `slope` >= 0: value of the first unit of money. `half` > 0: where a further unit brings half of that. `margin`: what
    is left of a unit of value. `low` <= x <= `high`: bounds of what it is given, 0 or more.
    """

    slope: Array
    half: Array
    margin: Array
    low: Array
    high: Array

    def __post_init__(self) -> None:
        for name in ("slope", "half", "margin", "low", "high"):
            values = np.array(getattr(self, name), dtype=float)
            if not np.isfinite(values).all():
                raise ValueError(f"{name}: expected finite numbers")
            object.__setattr__(self, name, values)
        for wrong, what in (
            ((self.slope < 0).any(), "slope: expected 0 or more"),
            ((self.half <= 0).any(), "half: expected more than 0"),
            ((self.low < 0).any(), "low: expected 0 or more"),
            ((self.low > self.high).any(), "low: expected high or less"),
        ):
            if wrong:
                raise ValueError(what)


@dataclass(frozen=True)
class Allotment:
    """A split, and what it is expected to bring.

    `spend`, `value`: of each line, shape (n,). `profit`: of all. `met`: whether the constraints can be met at all;
    where not, `spend` is the split of the greatest return (or the lower bounds, where these alone are above the total).
    `price_of_money`: what one more unit of the total would earn, `price_of_target`: what one unit less of value asked
    for would; 0 where the constraint does not bind, infinite where it leaves no choice.
    """

    spend: Array
    value: Array
    profit: float
    met: bool
    price_of_money: float = 0.0
    price_of_target: float = 0.0

    @property
    def return_on_spend(self) -> float:
        """Value for each unit of money; NaN where nothing is spent."""
        spent = float(self.spend.sum())
        return float(self.value.sum()) / spent if spent > 0 else float("nan")


def value_of(lines: Lines, spend: Array) -> Array:
    """Return the value that each line brings for `spend`, shape (n,)."""
    return np.asarray(lines.slope * lines.half * np.log1p(spend / lines.half), dtype=float)


def spend_for_value(slope: Array, half: Array, value: Array) -> Array:
    """Return the spend that brings `value`; infinite where no spend does.

    >>> line = np.array([4.0]), np.array([100.0])
    >>> spend_for_value(*line, np.array([400 * np.log(2)])).round(6).tolist()
    [100.0]
    """
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        spend = half * np.expm1(value / (slope * half))
    return np.asarray(np.where(value <= 0, 0.0, np.where(slope > 0, spend, np.inf)), dtype=float)


def allot(lines: Lines, total: float, target: float = 0.0) -> Allotment:
    """Split `total` over lines to the greatest expected profit with the return on it at `target` or above.

    Parameters
    ----------
    lines
        The lines.
    total
        The most that may be spent, 0 or more.
    target
        The least of value for each unit of money, over all lines together, 0 or more; 0 asks for nothing.

    Returns
    -------
    Allotment
        `met` is False where the lowest bounds are above the total, or no split meets the target.

    Raises
    ------
    ValueError
        The total or the target is negative or no number.

    Examples
    --------
    Both lines earn the same, but the second at a lower return: the target holds it back further.

    >>> lines = Lines(np.array([6.0, 4.0]), np.array([50.0, 50.0]), np.array([0.4, 0.6]), np.zeros(2), np.full(2, 500))
    >>> allot(lines, 200.0).spend.round(1).tolist()
    [70.0, 70.0]
    >>> allot(lines, 200.0, target=4.0).spend.round(1).tolist()
    [39.8, 23.1]
    """
    for name, number in (("total", total), ("target", target)):
        if not (np.isfinite(number) and number >= 0):
            raise ValueError(f"{name}: expected 0 or more, got {number!r}")
    if lines.low.sum() > total * (1 + TOLERANCE):
        return _split(lines, lines.low, met=False)

    free = _at(lines, 0.0, target, total)
    if _slack(lines, free[0], target) >= 0:
        return _split(lines, free[0], price_of_money=free[1])
    most = _at(lines, 1.0, target, total)
    room = _slack(lines, most[0], target)
    if room < -TOLERANCE * (1 + target * most[0].sum()):
        return _split(lines, best_return(lines, total), met=False)
    if room <= 0:  # the target leaves no choice
        return _split(lines, most[0], price_of_money=np.inf, price_of_target=np.inf)

    under, over = _bracket(lambda weight: _slack(lines, _at(lines, weight, target, total)[0], target))
    (below, _), (above, price) = _at(lines, under, target, total), _at(lines, over, target, total)
    # Where lines are all but straight, neighbouring weights may be far apart in money: then some of either is best.
    # The slack is concave, so it is met wherever it is met in the mean.
    share = _bisect(lambda t: _slack(lines, (1 - t) * below + t * above, target) >= 0, 0.0, 1.0)[1]
    spend = (1 - share) * below + share * above
    left = 1 - over
    prices = (price / left, over / left) if left > 0 else (np.inf, np.inf)
    return _split(lines, spend, price_of_money=prices[0], price_of_target=prices[1])


def best_return(lines: Lines, total: float) -> Array:
    """Return the split with the greatest return on spend that the bounds allow, shape (n,).

    By Dinkelbach's iteration (Management Science 13, 1967). Where nothing has to be spent, the greatest return is that
    of the first unit on the steepest line, and none is spent.
    """
    spend = lines.low
    if spend.sum() <= 0:
        return spend
    reached = value_of(lines, spend).sum() / spend.sum()
    for _ in range(100):
        trial = _at(lines, 1.0, reached, total)[0]
        better = value_of(lines, trial).sum() / trial.sum() if trial.sum() > 0 else 0.0
        if better <= reached * (1 + 1e-13):
            break
        spend, reached = trial, better
    return spend


def greatest_spend(lines: Lines, total: float, target: float) -> Array | None:
    """Return the split that spends most, within the total, at a return of `target` or more; None where none does."""
    if lines.low.sum() > total * (1 + TOLERANCE):
        return None
    # Most value for the money: whether the target is met at some sum of money is then decided.
    most = min(total, float(lines.high.sum()))

    def split(money: float) -> Array:
        return _at(lines, 1.0, 0.0, money)[0]

    def misses(money: float) -> bool:
        return bool(_slack(lines, split(money), target) < -TOLERANCE * (1 + target * money))

    if not misses(most):
        return split(most)
    # The slack is concave in the money, from the lowest bounds on: above its top it only falls.
    start = float(_at(lines, 1.0, target, total)[0].sum())
    if misses(start):
        return None
    return split(_bisect(misses, start, most)[0])


def _at(lines: Lines, weight: float, target: float, total: float) -> tuple[Array, float]:
    """Return the best split where the target's weight is given (1: nothing else counts), and the price of money."""
    gain = lines.slope * ((1 - weight) * lines.margin + weight)
    cost = (1 - weight) + weight * target
    steep = lines.half * np.maximum(gain, 0.0)

    def spend(inverse: float) -> Array:
        with np.errstate(invalid="ignore", over="ignore"):
            wanted = steep * inverse - lines.half
        return np.asarray(np.clip(np.where(steep > 0, wanted, lines.low), lines.low, lines.high), dtype=float)

    start = 1 / cost if cost > 0 else np.inf
    free = spend(start)
    if free.sum() <= total:
        return free, 0.0
    # The sum is piecewise linear in the inverse of what a unit must bring: find the piece, then the point on it.
    moving = steep > 0
    with np.errstate(over="ignore"):
        turns = np.concatenate([(lines.low + lines.half)[moving], (lines.high + lines.half)[moving]]) / np.tile(
            steep[moving], 2
        )
    turns = np.unique(np.concatenate([[0.0], turns[turns < start], [start] if np.isfinite(start) else []]))
    first, last = 0, len(turns) - 1
    if spend(turns[last]).sum() <= total:  # only where nothing but the total holds the money back
        return spend(turns[last]), 0.0
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (middle, last) if spend(turns[middle]).sum() <= total else (first, middle)
    below, above = spend(turns[first]), spend(turns[last])
    share = (total - below.sum()) / (above.sum() - below.sum())
    mixed = below + min(max(share, 0.0), 1.0) * (above - below)
    over = mixed.sum() - total
    if over > 0:  # a rounding error's worth
        room = mixed - lines.low
        mixed = mixed - room * min(over / room.sum() * (1 + 1e-12), 1.0) if room.sum() > 0 else mixed
    inverse = turns[first] + share * (turns[last] - turns[first])
    return mixed, max(1 / inverse - cost, 0.0) if inverse > 0 else np.inf


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Return neighbours between which `holds` turns true; it is taken to be false at `low` and true at `high`."""
    for _ in range(STEPS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low, high


def _bracket(slack: Callable[[float], float]) -> tuple[float, float]:
    """Return two weights from 0 to 1, all but neighbours, between which the slack turns from below 0 to 0 or more."""
    root = float(brentq(slack, 0.0, 1.0, xtol=1e-16, rtol=4 * np.finfo(float).eps, maxiter=500))
    step = float(np.spacing(root))
    low = high = root
    while low > 0 and slack(low) >= 0:
        low, step = max(low - step, 0.0), 2 * step
    step = float(np.spacing(root))
    while high < 1 and slack(high) < 0:
        high, step = min(high + step, 1.0), 2 * step
    return low, high


def _slack(lines: Lines, spend: Array, target: float) -> float:
    return float(value_of(lines, spend).sum() - target * spend.sum())


def _split(
    lines: Lines, spend: Array, *, met: bool = True, price_of_money: float = 0.0, price_of_target: float = 0.0
) -> Allotment:
    value = value_of(lines, spend)
    profit = float((lines.margin * value - spend).sum())
    return Allotment(spend, value, profit, met, float(price_of_money), float(price_of_target))
