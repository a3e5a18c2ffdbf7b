"""What the budget's split is held against: a conic solver, a bound from duality, and instances drawn at random."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from hitfinder.budget.allotment import Lines, allot, best_return, value_of


def draw_instance(seed, *, negative_margins=False):
    """Return (lines, total, target): some lines alike, some that bring nothing, some held to one figure."""
    rng = np.random.default_rng([seed, 77])
    n = int(rng.integers(2, 41))
    slope, half = rng.gamma(2, 2, n), np.exp(rng.uniform(1, 6, n))
    margin = rng.uniform(0.05, 0.8, n)
    low = np.where(rng.random(n) < 0.4, rng.uniform(0, 60, n), 0.0)
    high = low + np.where(rng.random(n) < 0.1, 0.0, np.exp(rng.uniform(1, 7, n)))
    for values, chance, fixed in ((slope, 0.1, 0.0), (margin, 0.1, 0.0), (margin, 0.3 * negative_margins, -0.4)):
        values[rng.random(n) < chance] = fixed
    alike = rng.random(n) < 0.3
    for values in (slope, half, margin):
        values[alike] = values[0]
    lines = Lines(slope, half, margin, low, high)
    scarce = low.sum() + rng.uniform(0.02, 0.3) * (high - low).sum()
    total = float(rng.choice([low.sum(), rng.uniform(low.sum(), high.sum()), 2 * high.sum(), scarce, scarce]))
    spend = best_return(lines, total)
    best = value_of(lines, spend).sum() / spend.sum() if spend.sum() > 0 else slope.max()
    # Between the return of the most profitable split and that of the one that gets most value for the same money, the
    # total and the target bind both.
    free, valued = allot(lines, total), allot(replace(lines, margin=np.full(n, 1e6)), total)
    both = free.return_on_spend + rng.uniform(0, 1) * (valued.return_on_spend - free.return_on_spend)
    both = both if np.isfinite(both) else best
    return lines, total, float(rng.choice([0.0, rng.uniform(0, 1.1) * best, 0.97 * best, both]))


def by_cvxpy(lines, total, target):
    """Return the profit that a conic solver reaches; no margin may be below 0.

    None where it finds the problem impossible, NaN where it gives up or warns that it is not sure: `upper_bound` tells.
    """
    import cvxpy as cp

    x = cp.Variable(len(lines.slope))
    value = cp.multiply(lines.slope * lines.half, cp.log1p(cp.multiply(1 / lines.half, x)))
    bounds = [x >= lines.low, x <= lines.high, cp.sum(x) <= total]
    if target > 0:
        bounds.append(cp.sum(value) >= target * cp.sum(x))
    problem = cp.Problem(cp.Maximize(lines.margin @ value - cp.sum(x)), bounds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            problem.solve(solver=cp.CLARABEL)
    except cp.error.SolverError:
        return float("nan")
    if "inaccurate" in problem.status:
        return float("nan")
    return float(problem.value) if problem.status == "optimal" else None


def upper_bound(lines, total, target, money, ratio):
    """Return what no split can earn more than, from two prices of 0 or more, whatever the margins (weak duality).

    Each line's best x for the prices is looked for on a fine grid and then between its neighbours: no closed form.
    """
    grid = lines.low[:, None] + np.linspace(0, 1, 4001) ** 2 * (lines.high - lines.low)[:, None]

    def earned(x):
        value = lines.slope[:, None] * lines.half[:, None] * np.log1p(x / lines.half[:, None])
        return (lines.margin[:, None] + ratio) * value - (1 + money + ratio * target) * x

    best = earned(grid).argmax(axis=1)[:, None]
    left = np.take_along_axis(grid, np.maximum(best - 1, 0), axis=1)
    right = np.take_along_axis(grid, np.minimum(best + 1, grid.shape[1] - 1), axis=1)
    fine = left + np.linspace(0, 1, 2001) * (right - left)
    return float(earned(fine).max(axis=1).sum() + money * total)
