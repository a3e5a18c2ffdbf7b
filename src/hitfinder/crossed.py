"""Counts with several crossed causes, each pulled towards 0 as far as such causes are alike.

    count ~ Poisson(expected * exp(fixed + one effect of each group)),    effect ~ Normal(0, sd of its group)

The sds are those under which the counts are likeliest, the effects and the fixed part integrated out by Laplace's
approximation (Tierney and Kadane 1986; Breslow and Clayton 1993). All matrices are sparse: ten thousand SKUs and
creatives take seconds.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import minimize
from scipy.sparse.linalg import splu

__all__ = ["Crossed", "fit_crossed"]

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

LEAST, MOST = 0.01, 3.0  # sds looked at
STEPS = 50
WHOLE = 2000  # parts of up to this many effects are solved as a whole
COLUMNS_AT_ONCE = 512


@dataclass(frozen=True)
class Crossed:
    """What was fitted: `fixed` effects, `effects` and `sds` of each group in the order given, and how sure they are."""

    fixed: Array
    effects: list[Array]
    sds: list[float]
    log_likelihood: float
    _curvature: Any

    def contrast_sds(self, weights: list[Any | None]) -> Array:
        """Return the sd of sums of effects, given the counts.

        Parameters
        ----------
        weights
            For each group a sparse matrix of shape (sums, effects of the group), or None for no part in it.
        """
        n_sums = next(w.shape[0] for w in weights if w is not None)
        blocks = [
            sparse.csr_matrix((n_sums, len(effects))) if part is None else part
            for effects, part in zip(self.effects, weights, strict=True)
        ]
        asked = sparse.hstack(blocks, format="csr")
        n_fixed = len(self.fixed)
        inner = self._curvature[n_fixed:, n_fixed:].tocsc()
        border = self._curvature[n_fixed:, :n_fixed].toarray()
        # The groups alone fall apart into parts that share no cell, most of them small; the fixed part ties them.
        behind = splu(inner, permc_spec="MMD_AT_PLUS_A").solve(border)
        outer = np.linalg.inv(self._curvature[:n_fixed, :n_fixed].toarray() - border.T @ behind)
        through = asked @ behind
        variances = (through @ outer * through).sum(axis=1) + _quadratic(inner, asked)
        return np.asarray(np.sqrt(np.maximum(variances, 0.0)))


def _quadratic(inner: Any, asked: Any) -> Array:
    """Return w' inner^-1 w for each row w of `asked`, part by part of `inner`."""
    n_parts, part = sparse.csgraph.connected_components(inner, directed=False)
    order = np.argsort(part, kind="stable")
    ends = np.cumsum(np.bincount(part, minlength=n_parts))
    out = np.zeros(asked.shape[0])
    by_part = asked[:, order].tocsc()
    sorted_inner = inner[order][:, order].tocsr()
    for low, high in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True):
        columns = by_part[:, low:high]
        rows = np.unique(columns.indices)
        some = columns.tocsr()[rows]
        block = sorted_inner[low:high, low:high]
        if high - low <= WHOLE:
            dense = some.toarray()
            out[rows] += (dense * np.linalg.solve(block.toarray(), dense.T).T).sum(axis=1)
            continue
        factor = splu(block.tocsc(), permc_spec="MMD_AT_PLUS_A")
        for start in range(0, len(rows), COLUMNS_AT_ONCE):
            dense = some[start : start + COLUMNS_AT_ONCE].toarray()
            out[rows[start : start + COLUMNS_AT_ONCE]] += (dense * factor.solve(dense.T).T).sum(axis=1)
    return out


def fit_crossed(
    counts: Array, expected: Array, fixed: Array, groups: list[Codes], *, dispersion: float = 1.0
) -> Crossed:
    """Fit the sds, the effects and the fixed part.

    Parameters
    ----------
    counts, expected
        Shape (cells,): what was counted, and what would be expected without effects; above 0.
    fixed
        Shape (cells, columns) of full column rank: what is estimated without being pulled.
    groups
        For each group the code of each cell, from 0 up without gaps.
    dispersion
        Variance of a count over its mean: both are divided by it.

    Examples
    --------
    Two goods, two pictures; the first of each draws twice as many clicks:

    >>> clicks = np.array([400.0, 200.0, 200.0, 100.0])
    >>> good, picture = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    >>> fit = fit_crossed(clicks, np.full(4, 200.0), np.ones((4, 1)), [good, picture])
    >>> [(effects[0] - effects[1]).round(1).item() for effects in fit.effects]
    [0.7, 0.7]
    """
    counts, expected = counts / dispersion, expected / dispersion
    sizes = [int(codes.max()) + 1 for codes in groups]
    cells = np.arange(len(counts))
    blocks = [sparse.csr_matrix(fixed)]
    for codes, size in zip(groups, sizes, strict=True):
        blocks.append(sparse.csr_matrix((np.ones(len(cells)), (cells, codes)), shape=(len(cells), size)))
    design = sparse.hstack(blocks, format="csr")
    n_fixed = fixed.shape[1]
    starts = np.concatenate([[n_fixed], n_fixed + np.cumsum(sizes)]).astype(int)
    at = np.zeros(design.shape[1])
    at[:n_fixed] = np.linalg.lstsq(fixed, np.log((counts + 0.5) / (expected + 0.5)), rcond=None)[0]
    last: dict[str, Any] = {"at": at}

    def look(log_sds: Array) -> tuple[float, Array, Any]:
        sds = np.exp(log_sds)
        pull = np.concatenate([np.full(n_fixed, 1e-9), np.repeat(1 / sds**2, sizes)])
        theta, value, curvature, log_determinant = _mode(design, counts, expected, pull, last["at"])
        last["at"] = theta
        return value - 0.5 * log_determinant - float(np.dot(sizes, log_sds)), theta, curvature

    bounds = [(np.log(LEAST), np.log(MOST))] * len(groups)
    found = minimize(
        lambda log_sds: -look(log_sds)[0], np.log(np.full(len(groups), 0.25)), method="Nelder-Mead", bounds=bounds,
        options={"xatol": 0.02, "fatol": 0.01, "maxfev": 60 * len(groups)},
    )  # fmt: skip
    likelihood, theta, curvature = look(found.x)
    return Crossed(
        fixed=theta[:n_fixed],
        effects=[theta[low:high] for low, high in itertools.pairwise(starts)],
        sds=[float(sd) for sd in np.exp(found.x)],
        log_likelihood=float(likelihood),
        _curvature=curvature.tocsr(),
    )


def _mode(design: Any, counts: Array, expected: Array, pull: Array, at: Array) -> tuple[Array, float, Any, float]:
    """Climb to the likeliest effects by Newton's method.

    Returns them, the log posterior there, its curvature, and the log determinant of that.
    """
    turned = design.T.tocsr()

    def height(theta: Array) -> tuple[float, Array]:
        log_rate = np.clip(design @ theta, -30, 30)
        mean = expected * np.exp(log_rate)
        return float((counts * log_rate - mean).sum() - 0.5 * (pull * theta**2).sum()), mean

    value, mean = height(at)
    for _ in range(STEPS):
        slope = turned @ (counts - mean) - pull * at
        curvature = (turned @ sparse.diags(mean) @ design + sparse.diags(pull)).tocsc()
        factor = splu(curvature, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        step = factor.solve(slope)
        gain = float(slope @ step)  # twice what the step would gain on a parabola
        if gain < 1e-5:
            break
        size = 1.0
        while size > 1e-4:
            new_value, new_mean = height(at + size * step)
            if new_value >= value - 1e-9 * abs(value):
                break
            size /= 2
        at, value, mean = at + size * step, new_value, new_mean
    return at, value, curvature, float(np.log(np.abs(factor.U.diagonal())).sum())
