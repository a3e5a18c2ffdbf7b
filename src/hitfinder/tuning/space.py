"""What is searched: bounds of the trees' settings, and settings that did well before."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from hitfinder.settings import TreeSettings

__all__ = ["SPACE", "known_good", "space_around"]

# Lowest, highest, and whether a factor counts rather than a difference.
SPACE: dict[str, tuple[float, float, bool]] = {
    "rounds": (1, 400, True),
    "learning_rate": (0.005, 0.3, True),
    "num_leaves": (2, 31, True),
    "lambda_l2": (0.01, 300.0, True),
    "feature_fraction": (0.1, 1.0, False),
    "bagging_fraction": (0.3, 1.0, False),
    "min_skus_in_leaf": (1, 60, True),
}
# Tried before anything is drawn, so that a short search has seen the corners that a shop's data may call for.
KNOWN_GOOD: tuple[dict[str, Any], ...] = (
    {},
    {"rounds": 1, "learning_rate": 0.01},  # next to nothing but the prior
    {"rounds": 25},
    {"rounds": 250, "learning_rate": 0.02},
    {"num_leaves": 3, "rounds": 120, "min_skus_in_leaf": 20},
    {"num_leaves": 12, "min_skus_in_leaf": 20, "lambda_l2": 20.0},
    {"lambda_l2": 100.0, "rounds": 160},
)


def space_around(given: TreeSettings) -> dict[str, BaseDistribution]:
    """Return what to search, wide enough to hold the settings that are given.

    >>> space_around(TreeSettings(rounds=900))["rounds"].high
    900
    """
    space: dict[str, BaseDistribution] = {}
    for name, (low, high, factor) in SPACE.items():
        value = getattr(given, name)
        low, high = min(low, value), max(high, value)
        if isinstance(value, int):
            space[name] = IntDistribution(int(low), int(high), log=factor)
        else:
            # Nothing is a factor away from 0.
            space[name] = FloatDistribution(float(low), float(high), log=factor and low > 0)
    return space


def known_good(given: TreeSettings) -> list[TreeSettings]:
    """Return what is tried first: the settings that are given, the defaults, and others that did well before."""
    others = [TreeSettings(**changed) for changed in KNOWN_GOOD]
    return list(dict.fromkeys([given, *others]))
