"""A week's budget as a page or workbook: what there is to say, where the money goes, and every line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hitfinder.budget import Budget
from hitfinder.report.cost_names import name_costs
from hitfinder.report.drawings import BLUE, draw_bars, draw_curve
from hitfinder.report.paper import Column, Paper, Part, Picture, Sheet
from hitfinder.report.words import agreeing, load_words

__all__ = ["budget_paper"]

# So many lines fit a page that still opens at once.
MAX_ROWS = 1000
UNKNOWN = "–"
KINDS = {
    **dict.fromkeys(("last_spend", "spend", "value", "profit", "next_profit", "low", "high"), "money"),
    **dict.fromkeys(("roi", "slope", "half", "margin"), "number"),
}
WIDTHS = {"sku_id": 20, "channel": 16, "title": 34, "bound_by": 18, "unknown_costs": 60}
PAGE = ("sku_id", "channel", "last_spend", "spend", "value", "roi", "profit", "next_profit", "bound_by")


def budget_paper(budget: Budget, language: str = "en") -> Paper:
    """Put a budget into the form of a paper.

    Parameters
    ----------
    budget
        From `split_budget`.
    language
        `en` or `zh`.

    Raises
    ------
    SettingsError
        The language is not known.
    """
    words, told, plan = load_words(language, "budget_words.toml"), budget.told, budget.plan
    names = {
        "sku_id": words["sku_id"], "channel": words["channel"], "title": words["title_column"],
        "last_spend": words["last_spend"], "spend": words["new_spend"], "value": words["short_value"],
        "roi": words["short_roi"], "profit": words["short_profit"], "next_profit": words["next_profit"],
        "bound_by": words["bound_by"], "low": words["low"], "high": words["high"], "slope": words["slope"],
        "half": words["half"], "margin": words["margin"], "unknown_costs": words["unknown_costs"],
    }  # fmt: skip
    totals = {**names, "total": words["total"], "spend": words["spend"]}
    rest = len(plan) - MAX_ROWS
    return Paper(
        title=words["title"],
        table=plan.assign(
            channel=[_named(channel, words) for channel in plan["channel"]],
            bound_by=[words["bound_" + str(by).replace(" ", "_")] for by in plan["bound_by"]],
            unknown_costs=[name_costs(costs, language) if costs else "" for costs in plan["unknown_costs"]],
        ),
        columns={
            name: Column(heading, KINDS.get(name, "text"), width=WIDTHS.get(name, 14))
            for name, heading in names.items()
        },
        says=_say(budget, words, language),
        facts=_facts(told, words),
        pictures=_draw(budget, words),
        language=language,
        parts=[
            Part(
                words["table_title"],
                words["table_note"] + (" " + words["table_rest"].format(n=f"{rest:,}") if rest > 0 else ""),
                rows=range(min(len(plan), MAX_ROWS)),
                columns=PAGE,
            )
        ],
        data=plan,
        sheet=words["sheet_plan"],
        about=words["sheet_notes"],
        sheets=[
            Sheet(
                words["sheet_curve"],
                budget.curve,
                {name: Column(totals[name], KINDS.get(name, "money")) for name in budget.curve.columns},
            )
        ],
    )


def _say(budget: Budget, words: dict[str, str], language: str) -> list[str]:
    told = budget.told
    said = [words["said_plan"].format(**_sums(told), lines=f"{told['lines']:,}", tests=f"{told['explore']['skus']:,}")]
    said.append(words["said_last"].format(last_spend=_money(told["last_spend"])))
    if told["target_roi"] is None:
        said.append(words["said_no_target"])
    elif told["cautious"] is None:
        said.append(
            words["said_target"].format(target=f"{told['target_roi']:g}", chance=_chance(told["chance"], words))
        )
    else:
        said.append(
            words["said_cautious"].format(
                target=f"{told['target_roi']:g}",
                chance=_chance(told["chance"], words, 1),
                cautious=f"{told['cautious']:.4g}",
                made_for=f"{told['made_for']:.2f}",
            )
        )
    if _is_unspent(told):
        said.append(words["said_unspent"].format(unspent=_money(told["unspent"])))
    else:
        if _money(told["spend"]) != _money(told["total"]):
            said.append(words["said_rounding"].format(unspent=f"{told['unspent']:,.2f}"))
        said.append(words["said_next"].format(next_profit=f"{told['next_total_profit']:,.2f}"))
    said += [_explore(told, words), _bought(told, words)]
    if told["unknown_costs"]:
        said.append(words["said_unknown"].format(names=name_costs(", ".join(told["unknown_costs"]), language)))
    for name, count in (("said_unprofitable", told["unprofitable_lines"]), ("said_paused", told["paused"])):
        if count:
            said.append(words[f"{name}_one" if count == 1 else name].format(n=f"{count:,}"))
    # Channels that were learned together are told together.
    alike = budget.channels.assign(half_at=[f"{half:.2g}" for half in budget.channels["half_at"]])
    for (half, curve), rows in alike.groupby(["half_at", "curve"], sort=False):
        channels = words["and"].join(_named(channel, words) for channel in rows["channel"])
        said.append(words["said_curve"].format(channel=channels, half_at=half, curve=words[f"curve_{curve}"]))
    return [agreeing(text) for text in said]


def _is_unspent(told: dict[str, Any]) -> bool:
    """Tell whether more than what is lost by cutting each spend down to the cent stays unspent."""
    return bool(told["unspent"] >= 1 + 0.01 * (told["lines"] + told["explore"]["skus"]))


def _chance(chance: float, words: dict[str, str], decimals: int = 0) -> str:
    """Write a chance; it was drawn, so it is never certain."""
    if chance > 0.999:
        return words["chance_over"]
    if chance < 0.001:
        return words["chance_under"]
    return f"{chance:.{1 if not 0.01 <= chance < 0.99 else decimals}%}"


def _sums(told: dict[str, Any]) -> dict[str, str]:
    sums = {name: _money(told[name]) for name in ("spend", "total", "value", "profit", "unspent")}
    return {**sums, "roi": _ratio(told["roi"])}


def _explore(told: dict[str, Any], words: dict[str, str]) -> str:
    explore = told["explore"]
    each = UNKNOWN if explore["each"] is None else f"{explore['each']:,.2f}"
    if explore["skus"]:
        return words["said_explore"].format(
            given=_money(explore["given"]),
            skus=f"{explore['skus']:,}",
            waiting=f"{explore['waiting']:,}",
            channel=explore["channel"] or words["unnamed"],
            each=each,
            orders=f"{explore['orders']:g}",
            by=words[f"by_{explore['by']}"],
        )
    why = "why_nobody" if not explore["waiting"] else "why_share" if not explore["share"] else "why_little"
    return words["said_explore_none"].format(why=words[why].format(money=f"{explore['money']:,.2f}", each=each))


def _bought(told: dict[str, Any], words: dict[str, str]) -> str:
    bought = told["explore_last_week"]
    if not bought["skus"]:
        return words["said_bought_none"]
    said = [words["said_bought"].format(
        spend=_money(bought["spend"]), skus=f"{bought['skus']:,}", value=_money(bought["value"]),
        orders=f"{bought['orders']:,.0f}", roi=_ratio(bought["roi"]),
    )]  # fmt: skip
    if bought["above_target"] is not None:
        said.append(words["said_bought_target"].format(above=f"{bought['above_target']:,}"))
    if bought["best"]:
        best = (
            words["one_best"].format(
                sku=one["sku_id"],
                roi=_ratio(one["value"] / one["spend"] if one["spend"] > 0 else None),
                spend=_money(one["spend"]),
                value=_money(one["value"]),
            )
            for one in bought["best"]
        )
        said.append(words["said_bought_best"].format(best=words["and"].join(best)))
    return (" " if words["lang"] == "en" else "").join(said)


def _draw(budget: Budget, words: dict[str, str]) -> list[Picture]:
    told, lines = budget.told, budget.plan[budget.plan["kind"] == "line"]
    # Name, last week, coming week.
    bars = [
        (_named(name, words), float(rows["last_spend"].sum()), float(rows["spend"].sum()))
        for name, rows in lines.groupby("channel", sort=True)
    ]
    bars.sort(key=lambda bar: -bar[2])
    # What was first spent last week is in its channel's bar already.
    bars.append((words["explore"], 0.0, float(told["explore"]["given"])))
    if _is_unspent(told):
        bars.append((words["unspent"], 0.0, told["unspent"]))
    money = draw_bars([(name, new, BLUE) for name, _, new in bars], words["money_title"], [old for _, old, _ in bars])
    # From the lowest spend possible, since a split of nothing is none.
    curve = draw_curve(
        budget.curve[["total", "profit"]],
        (told["spend"], told["profit"]),
        words["curve_title"],
        words["curve_below"],
        words["curve_beside"],
    )
    pictures = [Picture(money, words["money_title"], words["money_note"])]
    return pictures + ([Picture(curve, words["curve_title"], words["curve_note"])] if curve else [])


def _facts(told: dict[str, Any], words: dict[str, str]) -> list[tuple[str, str]]:
    target = words["none"] if told["target_roi"] is None else f"{told['target_roi']:g}"
    facts = [
        (words["as_of"], f"{pd.Timestamp(told['as_of']):%Y-%m-%d %H:%M} UTC"),
        (words["total"], _money(told["total"])),
        (words["target"], target),
        (words["spend"], _money(told["spend"])),
        (words["value"], _money(told["value"])),
        (words["roi"], _ratio(told["roi"])),
        (words["profit"], _money(told["profit"])),
    ]
    return facts + ([] if told["chance"] is None else [(words["chance"], _chance(told["chance"], words))])


def _named(channel: Any, words: dict[str, str]) -> str:
    return str(channel) or words["unnamed"]


def _money(amount: float) -> str:
    return f"{amount:,.0f}"


def _ratio(number: float | None) -> str:
    return UNKNOWN if number is None or not np.isfinite(number) else f"{number:.2f}"
