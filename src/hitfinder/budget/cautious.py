"""The chance that a split meets its target, and the split that meets it with a stated chance.

What may come is drawn: each line's slope from what is believed of it, all of a channel's lines together up or down, and
the week's own luck. The same draws judge every split, so that two can be compared. To be more certain, the target that
the split is made for is raised until the draws say that the target asked for is met as often as wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hitfinder.budget.allotment import Allotment, Lines, allot

__all__ = ["Draws", "chance_of", "draw", "tighten"]

Array = npt.NDArray[np.float64]

# Targets tried between the one asked for and the highest that can be met, before the best is narrowed down.
STEPS, HALVINGS = 24, 12
# So many numbers are kept at most: with very many lines, fewer draws do.
MAX_NUMBERS = 8_000_000


@dataclass(frozen=True)
class Draws:
    """Ways things may go: value as a multiple of what is expected, shape (draws, lines), and the luck of a week.

    `spread`: variance of a week's value for each unit expected, shape (lines,). `luck`: standard normal, (draws,).
    """

    multiple: npt.NDArray[np.float32]
    spread: Array
    luck: Array

    def totals(self, value: Array) -> Array:
        """Return what all lines bring together in each draw, where `value` is expected of them, shape (draws,)."""
        expected = self.multiple @ value
        chance = np.sqrt(self.multiple @ (self.spread * value))
        return np.asarray(np.maximum(expected + self.luck * chance, 0.0), dtype=float)


def draw(
    slope: Array,
    slope_sd: Array,
    channel: npt.NDArray[np.int64],
    common_sd: Array,
    dispersion: Array,
    n_draws: int,
    rng: np.random.Generator,
) -> Draws:
    """Draw ways things may go.

    Parameters
    ----------
    slope, slope_sd
        Of each line: a gamma distribution, shape (lines,).
    channel
        Each line's channel, a place in the next two.
    common_sd, dispersion
        Of each channel, see `Responses.channels`.
    n_draws
        How many; fewer where there are very many lines.
    rng
        Where the chance comes from.
    """
    n_draws = max(min(n_draws, MAX_NUMBERS // max(len(slope), 1)), 100)
    known = slope > 0
    shape = np.where(known, (slope / np.where(slope_sd > 0, slope_sd, 1.0)) ** 2, 1.0)
    sure = ~known | (slope_sd <= 0)
    own = np.where(sure, 1.0, rng.standard_gamma(np.where(sure, 1.0, shape), size=(n_draws, len(slope))) / shape)
    common = np.exp(common_sd * rng.standard_normal((n_draws, len(common_sd))) - common_sd**2 / 2)
    return Draws((own * common[:, channel]).astype(np.float32), dispersion[channel], rng.standard_normal(n_draws))


def chance_of(draws: Draws, split: Allotment, target: float) -> float:
    """Return the share of the draws in which a split's return on spend is at the target or above; 1 without spend."""
    spent = float(split.spend.sum())
    if spent <= 0:
        return 1.0
    return float((draws.totals(split.value) >= target * spent).mean())


def tighten(
    lines: Lines, draws: Draws, total: float, target: float, wanted: float
) -> tuple[Allotment, float, float] | None:
    """Find the split of greatest profit that meets the target in a share `wanted` of the draws.

    Returns
    -------
    (split, made_for, chance)
        `made_for` is the target that the split was made for, the least that suffices. Where none suffices, the split of
        the greatest chance that was found, its chance below `wanted`. None where no split meets the target on average.
    """

    def at(made_for: float) -> tuple[Allotment, float] | None:
        split = allot(lines, total, made_for)
        return (split, chance_of(draws, split, target)) if split.met and split.spend.sum() > 0 else None

    tried: list[tuple[float, tuple[Allotment, float]]] = []
    # No line's first unit brings more than the steepest slope.
    highest = max(target, float(lines.slope.max(initial=0.0)))
    under = target
    for made_for in np.geomspace(target, max(highest, target * 1.0001), STEPS) if target > 0 else [0.0]:
        found = at(float(made_for))
        if found is None:
            break
        tried.append((float(made_for), found))
        if found[1] >= wanted:
            break
        under = float(made_for)
    if not tried:
        return None
    best, (split, chance) = max(tried, key=lambda one: one[1][1])
    if chance < wanted or best <= target:
        return split, best, chance
    over = best
    for _ in range(HALVINGS):
        middle = (under + over) / 2
        found = at(middle)
        if found is not None and found[1] >= wanted:
            over, (split, chance) = middle, found
        else:
            under = middle
    return split, over, chance
