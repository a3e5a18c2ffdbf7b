"""Curves for pictures: precision against recall, calibration, and value captured against the length of the list."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import precision_recall_curve

__all__ = ["calibration_curve", "curves_of", "precision_recall", "value_by_length"]

Array = npt.NDArray[np.float64]

POINTS = 101


def precision_recall(hit: Array, place: Array, weight: Array) -> dict[str, list[float]]:
    """Return precision at recalls 0, 0.01 ... 1 for rows ordered by `place`, their place on their own list."""
    precision, recall, _ = precision_recall_curve(hit, place, sample_weight=weight)
    grid = np.linspace(0, 1, POINTS)
    return {"recall": grid.tolist(), "precision": np.interp(grid, recall[::-1], precision[::-1]).tolist()}


def value_by_length(lists: pd.Series, value: Array, score: Array) -> dict[str, list[float]]:
    """Return the share of a list's value that its first share of SKUs holds, averaged over lists."""
    grid = np.linspace(0, 1, POINTS)
    curves = []
    table = pd.DataFrame({"value": np.maximum(value, 0.0), "score": score})
    for _, group in table.groupby(lists.to_numpy(), sort=True):
        ordered = group.sort_values("score", ascending=False, kind="stable")["value"].to_numpy()
        if len(ordered) > 1 and ordered.sum() > 0:
            captured = np.concatenate([[0.0], np.cumsum(ordered)]) / ordered.sum()
            curves.append(np.interp(grid, np.linspace(0, 1, len(captured)), captured))
    mean = np.mean(curves, axis=0) if curves else np.full(POINTS, np.nan)
    return {"share": grid.tolist(), "value": mean.tolist()}


def calibration_curve(probability: Array, hit: Array, weight: Array, *, bins: int = 10) -> dict[str, list[float]]:
    """Return mean prediction and share of hits over bins of equal weight: `predicted`, `observed`, `weight`."""
    order = np.argsort(probability, kind="stable")
    p, y, w = probability[order], hit[order], weight[order]
    place = np.minimum((bins * (np.cumsum(w) - w / 2) / w.sum()).astype(int), bins - 1)
    out: dict[str, list[float]] = {"predicted": [], "observed": [], "weight": []}
    for number in np.unique(place):
        rows = place == number
        out["predicted"].append(float(np.average(p[rows], weights=w[rows])))
        out["observed"].append(float(np.average(y[rows], weights=w[rows])))
        out["weight"].append(float(w[rows].sum()))
    return out


def curves_of(judged: pd.DataFrame, names: list[str], probability: str) -> dict[str, Any]:
    """Draw up every curve of a report from out-of-time rows.

    Parameters
    ----------
    judged
        `list, hit, value, weight` and `score:<name>` for each name.
    names
        The scores to compare.
    probability
        The column that holds calibrated probabilities.
    """
    hit, value, weight = (judged[c].to_numpy(dtype=float) for c in ("hit", "value", "weight"))
    out: dict[str, Any] = {"precision_recall": {}, "value_by_length": {}}
    for name in names:
        score = judged[f"score:{name}"]
        # Scores of different lists need not be on one scale (a season's orders); places on the list are.
        place = score.groupby(judged["list"]).rank(pct=True).to_numpy()
        out["precision_recall"][name] = precision_recall(hit, place, weight)
        out["value_by_length"][name] = value_by_length(judged["list"], value, score.to_numpy(dtype=float))
    out["calibration"] = calibration_curve(judged[probability].to_numpy(dtype=float), hit, weight)
    return out
