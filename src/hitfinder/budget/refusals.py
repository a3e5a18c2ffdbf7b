"""What is said where a budget's wishes can't be had together: what clashes, and what can be reached."""

from __future__ import annotations

from typing import NoReturn

import pandas as pd

from hitfinder.budget.allotment import Allotment, Lines, best_return, greatest_spend, value_of
from hitfinder.errors import SettingsError
from hitfinder.settings import BudgetSettings

__all__ = ["refuse"]


def refuse(
    rows: pd.DataFrame,
    lines: Lines,
    total: float,
    target: float,
    settings: BudgetSettings,
    *,
    cautious: float | None = None,
    best: tuple[Allotment, float, float] | None = None,
) -> NoReturn:
    """Raise with what clashes.

    Parameters
    ----------
    rows, lines
        The lines with their bounds.
    total, target, settings
        What was asked for.
    cautious, best
        The chance asked for, and the split of the greatest chance that was found.

    Raises
    ------
    SettingsError
        Always.
    """
    held = _held(rows)
    least = float(lines.low.sum())
    if least > total:
        raise SettingsError(
            f"total {total:,.2f} clashes with what has to be spent, {least:,.2f} ({held}); raise the total to "
            f"{least:,.2f}, or let lines go further down (budget.move_down is {settings.move_down:g})"
        )
    if cautious is not None:
        found = (
            f"the most that was found is {best[2]:.3f}, with {best[0].spend.sum():,.2f} spent at an expected "
            f"{best[0].return_on_spend:.2f}"
            if best is not None
            else "it can't be met on average either"
        )
        raise SettingsError(
            f"target_roi {target:g} can't be met with a chance of {cautious:g}: {found}; lower the target or the chance"
            + (f", or free what has to be spent ({held})" if least > 0 else "")
        )
    if least <= 0:
        raise SettingsError(
            f"target_roi {target:g}: no line's first unit of spend is expected to bring more than "
            f"{lines.slope.max(initial=0.0):.2f}, so nothing would be spent; lower the target"
            if target > lines.slope.max(initial=0.0)
            else "no line is expected to earn more than it costs, so nothing would be spent; check [costs]"
        )
    spend = best_return(lines, total)
    reached = value_of(lines, spend).sum() / spend.sum()
    full = greatest_spend(lines, total, 0.0)
    whole = value_of(lines, full).sum() / full.sum() if full is not None else reached
    most = full.sum() if full is not None else least
    raise SettingsError(
        f"target_roi {target:g} clashes with what has to be spent, {least:,.2f} ({held}): the greatest return that can "
        f"be reached is {_down(reached)}, with {spend.sum():,.2f} spent; {most:,.2f} "
        f"would return {_down(whole)} at best; lower the target, or let lines go further down "
        f"(budget.move_down is {settings.move_down:g})"
    )


def _down(number: float) -> str:
    """Return a ratio with what it can keep: cut, not rounded, so that asking for it works."""
    return f"{int(number * 100) / 100:.2f}"


def _held(rows: pd.DataFrame) -> str:
    sums = rows.groupby("low_from")["low"].sum()
    names = {"move limit": "by the move limit", "floor": "by floors", "explore": "for SKUs not tested yet",
             "cap": "by the move limit up to caps", "stock": "by the move limit up to the stock"}  # fmt: skip
    return ", ".join(f"{amount:,.2f} {names[str(name)]}" for name, amount in sums.items() if amount > 0)
