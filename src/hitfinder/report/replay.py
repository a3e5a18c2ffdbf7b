"""What replayed tests cost and found: a summary with intervals, what is saved at equal hits, a table for a terminal."""

from __future__ import annotations

import unicodedata
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.errors import DataError
from hitfinder.report.break_even import FULL, OURS, draw_replay, isotonic
from hitfinder.report.content import percent
from hitfinder.report.words import check_language

__all__ = ["FULL", "OURS", "EqualHits", "draw_replay", "saved_at_equal_hits", "say_replay", "summarise_replay"]

Array = npt.NDArray[np.float64]
Key = tuple[str, float]  # policy and budget

KEYS = ("policy", "budget", "batch_id", "seed")
KNOWN = ("hits", "found", "spent", "pool", "value_found", "value_best")  # in every row
MONEY = ("money_spent", "regret")  # where money is known
MEASURES = ("saved", "found", "hits_share", "value_captured", "money_spent", "regret", "hits_vs_full")
EQUAL = ("equal_saved", "equal_saved_low", "equal_saved_high", "equal_measured", "equal_reached")
QUANTILES = (0.05, 0.95)
FEW_BATCHES = 10
COLUMN_OF = {"vs_full": "hits_vs_full", "value": "value_captured", "money": "money_spent", "regret": "regret"}

WORDS = {
    "en": {
        "policy": "Policy",
        "cost": "Cost",
        "saved": "Saved",
        "found": "Hits found",
        "vs_full": "Of the full test's",
        "value": "Value captured",
        "money": "Test cost",
        "regret": "Regret",
        "of": "{found} of {hits}",
        "interval": "{value} ({low} to {high})",
        "none": "-",
        "equal": "{policy} finds the full test's hits and saves {saved} of its exposures.\n",
        "least": "{policy} finds the full test's hits at the smallest budget played and saves {value} of its "
        "exposures or more (90% interval: from {low} up).\n",
        "never": "{policy} never finds as many hits as the full test; at its best it finds {share} of them, "
        "for {cost} of the cost.\n",
        "no_full": "There is no full test to compare with, so nothing can be said of savings at the same hits.\n",
        "basis": "Measured on {batches} past batches with {hits} hits; in brackets 90% intervals.",
        "few": " These are few batches: the truth may well lie outside.",
        FULL: FULL,
        "shorter test": "shorter test",
        "rule of thumb": "rule of thumb",
        "sequential halving": "sequential halving",
        "top-k Thompson": "top-k Thompson",
        "control: shuffled labels": "control: shuffled labels",
        "control: price alone": "control: price alone",
    },
    "zh": {
        "policy": "策略",
        "cost": "成本",
        "saved": "节省",
        "found": "找到的爆款",
        "vs_full": "相对完整测试",
        "value": "价值捕获率",
        "money": "测试花费",
        "regret": "遗憾值",
        "of": "{found} / {hits}",
        "interval": "{value} ({low} ~ {high})",
        "none": "-",
        "equal": "{policy} 找到与完整测试同样多的爆款，可节省 {saved} 的曝光。\n",
        "least": "{policy} 在最小的预算下已找到与完整测试同样多的爆款，可节省 {value} 或更多的曝光"
        "（90% 区间下限为 {low}）。\n",
        "never": "{policy} 在所有预算下都没有找到与完整测试同样多的爆款；最好时以其 {cost} 的成本找到其 {share}。\n",
        "no_full": "没有完整测试可供比较，无法说明在爆款数相同时能节省多少。\n",
        "basis": "基于 {batches} 个历史批次、{hits} 个爆款；括号内为 90% 区间。",
        "few": "批次较少，真实值可能落在区间之外。",
        FULL: "完整测试",
        "shorter test": "缩短测试",
        "rule of thumb": "经验法则",
        "sequential halving": "逐轮淘汰",
        "top-k Thompson": "汤普森采样 (top-k)",
        "control: shuffled labels": "对照：打乱标签",
        "control: price alone": "对照：仅按价格",
    },
}


@dataclass(frozen=True)
class EqualHits:
    """What a policy saves while it finds the full test's hits.

    Attributes
    ----------
    saved
        Share of a full test's exposures saved where its curve reaches the full test's hits; None where it never does.
    low, high
        90 % bootstrap interval of `saved`; a draw in which the curve stays below counts as nothing saved.
    measured
        The largest saving among the budgets that were played with at least as many hits; None where there is none.
        It can be luck: the largest of many noisy figures.
    reached
        Share of the draws in which the curve reaches the full test's hits.
    """

    saved: float | None
    low: float | None
    high: float | None
    measured: float | None
    reached: float


def summarise_replay(results: pd.DataFrame, *, seed: int, draws: int = 2000) -> pd.DataFrame:
    """Add up what each policy cost and found at each budget, with 90 % bootstrap intervals over batches.

    Every policy is resampled with the same batches, so that intervals of comparisons are paired.

    Parameters
    ----------
    results
        One row per policy, budget, batch and seed: `policy`, `budget` (share of a full test), `batch_id`, `seed`,
        `hits` (there are), `found`, `spent` and `pool` (exposures, the latter of a full test), `value_found` and
        `value_best` (value of what was scaled, and of the best that could have been), and where money is known
        `money_spent` and `regret`: what the hits that were missed would have been worth plus what the test cost, in
        money. Other columns are ignored. Seeds are averaged first, batch by batch.
    seed, draws
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        One row per policy, in the order of `results`, and budget, ascending: `policy`, `budget`, `batches`, `seeds`
        (the fewest), `hits` and, each with `_low` and `_high`: `saved` (1 - spent / pool), `found` (hits, over all
        batches), `hits_share`, `value_captured`, `money_spent`, `regret` (sums; NaN unless known in every row) and
        `hits_vs_full` (hits over those of the policy named "full test"; NaN where there is none). The columns of
        `saved_at_equal_hits`, one value per policy, follow: `equal_saved`, `equal_saved_low`, `equal_saved_high`,
        `equal_measured`, `equal_reached`.

    Raises
    ------
    DataError
        A column or a figure is missing, a row comes twice, or policies were not played on the same batches.
    """
    n_batches, seeds, resampled = _resample(results, seed, draws)
    full = _found_by_full(resampled)
    rows = []
    for (policy, budget), sums in resampled.items():
        drawn = {
            "saved": 1 - _ratio(sums["spent"], sums["pool"]),
            "found": sums["found"],
            "hits_share": _ratio(sums["found"], sums["hits"]),
            "value_captured": _ratio(sums["value_found"], sums["value_best"]),
            "money_spent": sums["money_spent"],
            "regret": sums["regret"],
            "hits_vs_full": np.full(draws + 1, np.nan) if full is None else _ratio(sums["found"], full),
        }
        row = {"policy": policy, "budget": budget, "batches": n_batches, "seeds": seeds[(policy, budget)]}
        row["hits"] = sums["hits"][0]
        for name in MEASURES:
            row[name], row[f"{name}_low"], row[f"{name}_high"] = drawn[name][0], *_interval(drawn[name][1:])
        rows.append(row)
    summary = pd.DataFrame(rows)
    equal = _equal_hits(resampled)
    for place, name in enumerate(EQUAL):
        values = {policy: astuple(figures)[place] for policy, figures in equal.items()}
        summary[name] = summary["policy"].map(values).astype(float)
    return summary


def saved_at_equal_hits(results: pd.DataFrame, *, seed: int, draws: int = 2000) -> dict[str, EqualHits]:
    """Find what each policy saves while it finds at least as many hits as the full test.

    A policy's hits over its cost are made monotone first (isotonic regression), so that one lucky budget doesn't set
    the figure, and joined by straight lines; the saving is read off where they first reach the full test's hits. What
    was not played is not guessed: left of the smallest budget there is no curve.

    Parameters
    ----------
    results, seed, draws
        As for `summarise_replay`.

    Raises
    ------
    DataError
        As for `summarise_replay`.
    """
    return _equal_hits(_resample(results, seed, draws)[2])


def _resample(results: pd.DataFrame, seed: int, draws: int) -> tuple[int, dict[Key, int], dict[Key, dict[str, Array]]]:
    """Average seeds and resample batches, the same ones for all.

    Returns how many batches there are; the fewest seeds of each policy and budget; and for each of these the sums of
    every column, over all batches (first) and over those of each draw.
    """
    missing = [name for name in (*KEYS, *KNOWN) if name not in results.columns]
    if missing or results.empty:
        what = f"no column {', '.join(missing)}" if missing else "no rows"
        raise DataError(f"replay results: expected rows with {', '.join((*KEYS, *KNOWN))}, got {what}")
    try:
        table = results.reindex(columns=[*KEYS, *KNOWN, *MONEY]).astype(dict.fromkeys((*KNOWN, *MONEY), float))
    except (ValueError, TypeError) as error:
        raise DataError(f"replay results: expected numbers in {', '.join((*KNOWN, *MONEY))}, got {error}") from None
    for name in KNOWN:
        if not np.isfinite(table[name]).all():
            raise DataError(f"replay results: expected a number in every row of {name}, got an empty or infinite one")
    if table[[*KEYS]].isna().any(axis=None):
        raise DataError(f"replay results: expected {', '.join(KEYS)} in every row, got an empty one")
    if table.duplicated(list(KEYS)).any():
        raise DataError("replay results: expected one row per policy, budget, batch and seed, got some twice")
    order = {policy: place for place, policy in enumerate(table["policy"].unique())}
    table = table.assign(order=table["policy"].map(order)).sort_values(["order", "budget", "batch_id"])
    groups = table.groupby(["policy", "budget", "batch_id"], sort=False)
    # A mean over the seeds whose money happens to be known would pass for the whole.
    means = groups[[*KNOWN, *MONEY]].mean(skipna=False)
    means["seeds"] = groups.size()
    batches = means.index.get_level_values("batch_id").unique().sort_values()
    rng = np.random.default_rng(seed)
    n = len(batches)
    weights = np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), size=draws)]).astype(float)
    seeds, resampled = {}, {}
    for _, rows in means.groupby(level=["policy", "budget"], sort=False):
        policy, budget, _ = rows.index[0]
        one = rows.droplevel(["policy", "budget"])
        if len(one) != n:
            raise DataError(
                f"replay results: expected every policy on the same {n} batches, got {len(one)} for {policy!r} at "
                f"budget {budget:g}; play all policies on all batches"
            )
        key = (str(policy), float(budget))
        seeds[key] = int(one["seeds"].min())
        # Column by column: the same column must give the same sums, to the last bit.
        resampled[key] = {name: weights @ one[name].reindex(batches).to_numpy() for name in (*KNOWN, *MONEY)}
    return n, seeds, resampled


def _found_by_full(resampled: dict[Key, dict[str, Array]]) -> Array | None:
    """Hits that the full test found, at its largest budget."""
    budgets = [budget for policy, budget in resampled if policy == FULL]
    return resampled[(FULL, max(budgets))]["found"] if budgets else None


def _equal_hits(resampled: dict[Key, dict[str, Array]]) -> dict[str, EqualHits]:
    full = _found_by_full(resampled)
    out = {}
    for policy in dict.fromkeys(policy for policy, _ in resampled):
        if full is None:
            out[policy] = EqualHits(None, None, None, None, 0.0)
            continue
        own = [sums for (name, _), sums in resampled.items() if name == policy]
        cost = np.column_stack([_ratio(sums["spent"], sums["pool"]) for sums in own])
        found = np.column_stack([sums["found"] for sums in own])
        order = np.argsort(cost[0], kind="stable")
        saved = 1 - _first_reach(cost[:, order], isotonic(found[:, order]), full)
        enough = (found[0] >= full[0]) & (full[0] > 0)
        reached = float(np.isfinite(saved[1:]).mean())
        measured = float(1 - cost[0][enough].min()) if enough.any() else None
        if np.isnan(saved[0]):
            out[policy] = EqualHits(None, None, None, measured, reached)
        else:
            low, high = _interval(np.nan_to_num(saved[1:], nan=0.0))
            out[policy] = EqualHits(float(saved[0]), low, high, measured, reached)
    return out


def _first_reach(cost: Array, found: Array, goal: Array) -> Array:
    """Cost at which each row's curve, joined by straight lines, first reaches its goal; NaN where it never does."""
    there = (found >= goal[:, None] * (1 - 1e-9)) & (goal > 0)[:, None]
    at = there.argmax(axis=1)
    before, row = np.maximum(at - 1, 0), np.arange(len(cost))
    rise = found[row, at] - found[row, before]
    part = np.divide(goal - found[row, before], rise, out=np.ones(len(row)), where=rise > 0)
    reach = cost[row, before] + np.clip(part, 0, 1) * (cost[row, at] - cost[row, before])
    return np.where(there.any(axis=1), reach, np.nan)


def _ratio(a: Array, b: Array) -> Array:
    return np.asarray(np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0))


def _interval(drawn: Array) -> tuple[float, float]:
    """Return the 90 % interval; a draw in which nothing can be said, such as one without hits, is left out."""
    known = drawn[np.isfinite(drawn)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, QUANTILES)
    return float(low), float(high)


def say_replay(summary: pd.DataFrame, language: str = "en") -> str:
    """Put the summary into a plain table for a terminal, and below it in one sentence what is saved at the same hits.

    Parameters
    ----------
    summary
        What `summarise_replay` returns.
    language
        ``"en"`` or ``"zh"``.

    Returns
    -------
    str
        Lines of text without an end of line after the last.

    Raises
    ------
    SettingsError
        The language is not known.
    """
    check_language(language)
    words = WORDS[language]
    shown = [name for name in ("vs_full", "value", "money", "regret") if summary[COLUMN_OF[name]].notna().any()]
    lines = [[words[name] for name in ("policy", "cost", "saved", "found", *shown)]]
    last = None
    for row in summary.to_dict("records"):
        name = words.get(row["policy"], row["policy"])
        cells = ["" if row["policy"] == last else name, percent(1 - row["saved"]), percent(row["saved"])]
        cells.append(words["of"].format(found=f"{row['found']:,.1f}", hits=f"{row['hits']:,.0f}"))
        for column in (COLUMN_OF[name] for name in shown):
            if pd.isna(row[column]):
                cells.append(words["none"])
            elif column == "hits_vs_full":  # one interval a line: with more, the line would be too long to read
                cells.append(_said(row, column, words))
            else:
                cells.append(f"{row[column]:,.0f}" if column in MONEY else percent(row[column]))
        lines.append(cells)
        last = row["policy"]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    table = [
        "  ".join(
            _pad(cell, width, left=place == 0) for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([table[0].rstrip(), rule, *(line.rstrip() for line in table[1:]), "", _headline(summary, words)])


def _headline(summary: pd.DataFrame, words: dict[str, str]) -> str:
    """Say what is saved at the full test's hits by us or, where we did not play, by the policy that saves most."""
    others = summary.loc[summary["policy"] != FULL]
    ours = others.loc[others["policy"] == OURS]
    if ours.empty and len(others):
        most = others["equal_saved"].fillna(-1).to_numpy().argmax()
        ours = others.loc[others["policy"] == others["policy"].iloc[most]]
    batches, hits = summary["batches"].iloc[0], summary["hits"].iloc[0]
    basis = words["basis"].format(batches=f"{batches:,}", hits=f"{hits:,.0f}")
    if batches < FEW_BATCHES:
        basis += words["few"]
    if ours.empty or ours["hits_vs_full"].isna().all():
        return words["no_full"] + basis
    row = ours.iloc[0].to_dict()
    said = {"policy": words.get(row["policy"], row["policy"])}
    if pd.isna(row["equal_saved"]):
        best = ours.iloc[ours["hits_vs_full"].to_numpy().argmax()].to_dict()
        said |= {"share": _said(best, "hits_vs_full", words), "cost": percent(1 - best["saved"])}
        return words["never"].format(**said) + basis
    if row["equal_saved"] >= ours["saved"].max() - 1e-9:
        # No smaller budget was played: how much more could be saved isn't known, so there is no upper end.
        low = percent(float(row["equal_saved_low"]))
        return words["least"].format(**said, value=percent(float(row["equal_saved"])), low=low) + basis
    return words["equal"].format(**said, saved=_said(row, "equal_saved", words)) + basis


def _said(row: dict[Any, Any], name: str, words: dict[str, str]) -> str:
    """Write a share and its interval."""
    shares = {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
    return words["interval"].format(**{key: percent(float(share)) for key, share in shares.items()})


def _width(text: str) -> int:
    """Columns that a text takes in a terminal: a Chinese sign takes two."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def _pad(text: str, width: int, *, left: bool) -> str:
    room = " " * (width - _width(text))
    return text + room if left else room + text
