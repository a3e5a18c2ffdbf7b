"""What the signals say of every SKU's funnel and pictures at a moment, in figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.creatives import Separation, separate
from hitfinder.funnel import Peers, Step, count_steps, find_weak, fit_peers, measured_steps
from hitfinder.settings import Settings
from hitfinder.warehouse import frame

__all__ = ["Findings", "examine"]


@dataclass(frozen=True)
class Findings:
    """What was found.

    `skus`: one row per SKU of the catalog, by `sku_id`: `weak_step` (`click`, `cart`, `order`, `return`, `nothing` or
    `too_little`), `weakness, weakness_low, weakness_high` (how far below its peers that step is, as a share; for
    returns how far above), `also` (other weak steps), `held` (steps that were seen enough and are not weak),
    `open_step` (the first that was not), `more` (exposures that it would take, NaN where no amount would do), `unit`
    (what an exposure is), `price_ratio` (price over the category's median). `steps`: see `funnel.find_weak`.
    `pictures`: see `creatives.separate`; None without creatives. `fitted`: each step with its peers.
    """

    skus: pd.DataFrame
    steps: pd.DataFrame
    pictures: Separation | None
    fitted: list[tuple[Step, Peers]]


def examine(con: Any, settings: Settings) -> Findings:
    """Look at every step of every SKU's funnel.

    Parameters
    ----------
    con
        After `features.set_scope`.
    settings
        `signals.period` and `[diagnosis]`.
    """
    fitted = []
    for step in measured_steps(con):
        cells, _ = count_steps(con, settings, step)
        if cells["num"].sum() > 0 and (cells["den"] > 0).any():
            fitted.append((step, fit_peers(cells, by_week=not step.more_is_worse)))
    catalog = frame(
        con,
        "select sku_id, style_id, category, price / nullif(median(price) over (partition by category), 0) "
        "as price_ratio from catalog order by sku_id",
    )
    steps = find_weak(fitted, settings.diagnosis) if fitted else _no_steps()
    clicks = next((peers for step, peers in fitted if step.name == "click"), None)
    pictures = None
    if clicks is not None:
        cells = clicks.cells.merge(catalog[["sku_id", "style_id"]], on="sku_id", validate="m:1")
        pictures = separate(cells, dispersion=clicks.dispersion, sure=settings.diagnosis.sure)
    return Findings(_by_sku(catalog, steps, fitted, settings), steps, pictures, fitted)


def _no_steps() -> pd.DataFrame:
    texts = ("sku_id", "category", "step")
    numbers = ("num", "den", "typical", "ratio", "ratio_low", "ratio_high", "p_value", "adjusted", "power", "needed")
    empty = {**{c: pd.Series(dtype="str") for c in texts}, **{c: pd.Series(dtype=float) for c in numbers}}
    return pd.DataFrame({**empty, "weak": pd.Series(dtype=bool)})


def _by_sku(
    catalog: pd.DataFrame, steps: pd.DataFrame, fitted: list[tuple[Step, Peers]], settings: Settings
) -> pd.DataFrame:
    """Take the step that costs each SKU most; where none is weak, tell what holds up from what was not seen enough."""
    asked = settings.diagnosis
    table = catalog[["sku_id", "price_ratio"]].set_index("sku_id")
    wide = {str(name): part.set_index("sku_id").reindex(table.index) for name, part in steps.groupby("step")}
    lost = pd.DataFrame(
        {name: _lost(part, of_returns=name == "return") for name, part in wide.items()}, index=table.index
    )
    any_weak = lost.notna().any(axis=1)
    table["weak_step"] = "too_little"
    if any_weak.any():
        table.loc[any_weak, "weak_step"] = lost[any_weak].fillna(-np.inf).idxmax(axis=1)
    table["weakness"], table["weakness_low"], table["weakness_high"] = np.nan, np.nan, np.nan
    for name, part in wide.items():
        here = table["weak_step"] == name
        low, high = ("ratio_low", "ratio_high") if name == "return" else ("ratio_high", "ratio_low")
        sign = 1.0 if name == "return" else -1.0
        for column, ratio in (("weakness", "ratio"), ("weakness_low", low), ("weakness_high", high)):
            table.loc[here, column] = sign * (part.loc[here, ratio] - 1)
    others = [
        [name for name in lost.columns if pd.notna(row[name]) and name != step]
        for step, row in zip(table["weak_step"], lost.to_dict("records"), strict=True)
    ]
    table["also"] = pd.Series(others, index=table.index, dtype=object)
    selling = [step for step, _ in fitted if not step.more_is_worse]
    held = pd.DataFrame(index=table.index)
    for step in selling:
        part = wide[step.name]
        # Seen enough to notice a bad weakness, or surely better than one.
        enough = (part["power"] >= asked.power) | (part["ratio_low"] >= 1 - asked.tolerance)
        held[step.name] = enough.fillna(False).astype(bool) & lost[step.name].isna()
    held_lists = [[name for name in held.columns if row[name]] for row in held.to_dict("records")]
    table["held"] = pd.Series(held_lists, index=table.index, dtype=object)
    settled = held | lost[list(held.columns)].notna()
    fine = settled.all(axis=1) if selling else pd.Series(False, index=table.index)
    table.loc[fine & ~any_weak, "weak_step"] = "nothing"
    table["open_step"] = [next((n for n in settled.columns if not row[n]), None) for row in settled.to_dict("records")]
    table["unit"] = selling[0].below if selling else ""
    table["more"] = _more(table["open_step"], wide, selling)
    return table.reset_index()


def _lost(part: pd.DataFrame, *, of_returns: bool) -> pd.Series:
    """Return the share of what is sold and kept that a weak step costs; NaN where it is not weak."""
    lost = 1 - part["ratio"]
    if of_returns:
        usual = (part["typical"] / part["den"]).clip(upper=0.9)
        lost = (part["ratio"] - 1) * usual / (1 - usual)
    return lost.where(part["weak"].eq(True))


def _more(open_step: pd.Series, wide: dict[str, pd.DataFrame], selling: list[Step]) -> pd.Series:
    """Return how many more exposures it would take to judge the step that is open."""
    more = pd.Series(np.nan, index=open_step.index)
    if not selling:
        return more
    exposures = wide[selling[0].name]["den"].fillna(0.0)
    for step in selling:
        part, here = wide[step.name], open_step == step.name
        typical = part["typical"].fillna(0.0)
        # What an exposure yields to a typical peer at this step: the SKU's own way there where it has one, pulled
        # towards everybody's where it is short.
        usual = typical.sum() / max(float(exposures.sum()), 1e-12)
        lent = 1.0 / max(usual, 1e-12)
        each = (typical + usual * lent) / (exposures + lent)
        wanted = part["needed"].fillna(part["needed"].dropna().min() if part["needed"].notna().any() else np.nan)
        missing = ((wanted - typical) / each).clip(lower=1.0)
        more = more.mask(here, missing.where(np.isfinite(missing)))
    return more
