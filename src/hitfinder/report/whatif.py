"""The answer to a what-if question, in words and as a table."""

from __future__ import annotations

import math

from hitfinder.report.ledger import unknown_sentence
from hitfinder.report.paper import Column, Paper
from hitfinder.whatif import Answer

__all__ = ["answer_paper"]

WORDS = {
    "en": {
        "title": "What if: {change}",
        "nothing": "nothing changed",
        "commission": "commission {:+.1f} points",
        "coupons": "coupons {:+.1f} points",
        "price": "prices {:+.1f}%",
        "traffic": "traffic {:+.1f}%",
        "spend": "ad spend {:+,.0f}",
        "profit": "Profit of {days} days: {now} now, {then} then ({difference}).",
        "falls": "The deal is as good as today's even if traffic falls by {share}.",
        "grows": "The deal is as good as today's only if traffic grows by {share}.",
        "as_it_is": "The deal is as good as today's with the same traffic.",
        "any": "The deal is better than today's with any traffic.",
        "never": "No traffic makes up for it: an order leaves nothing then.",
        "loses": "It is better than today, but every order still loses money: more traffic makes it worse.",
        "both": "Both sides gain with a commission from {low} to {high} on the whole ({now} now).",
        "neither": "There is no commission with which both sides gain (it is {now} now).",
        "given": "Demand for the price: elasticity {value:.2f}, as given.",
        "default": "Demand for the price: elasticity {value:.2f}, a default from studies; prices here varied "
        "too little to learn it.",
        "learned": "Demand for the price: elasticity {value:.2f} (+-{sd:.2f}), learned from {n} SKUs whose "
        "price varied.",
        "partly": "Demand for the price: elasticity {value:.2f} (+-{sd:.2f}), {share} of it learned from {n} SKUs "
        "whose price varied, the rest a default from studies.",
        "sku_id": "SKU", "revenue": "Revenue now", "profit_now": "Profit now", "new_revenue": "Revenue then",
        "new_profit": "Profit then", "difference": "Difference", "break_even_traffic": "Traffic for today's profit",
        "break_even_meaning": "The change of traffic with which profit stays what it is today. Empty: none would do.",
    },
    "zh": {
        "title": "假设：{change}",
        "nothing": "不作改变",
        "commission": "佣金 {:+.1f} 个百分点",
        "coupons": "优惠 {:+.1f} 个百分点",
        "price": "价格 {:+.1f}%",
        "traffic": "流量 {:+.1f}%",
        "spend": "投放 {:+,.0f}",
        "profit": "{days} 天的利润：现在 {now}，改变后 {then}（{difference}）。",
        "falls": "即使流量下降 {share}，改变后仍与现在一样好。",
        "grows": "流量需增长 {share}，改变后才与现在一样好。",
        "as_it_is": "流量不变时，改变后与现在一样好。",
        "any": "无论流量多少，改变后都比现在好。",
        "never": "多少流量都无法弥补：改变后每单没有剩余。",
        "loses": "比现在好，但每单仍然亏损：流量越多亏得越多。",
        "both": "整体佣金在 {low} 到 {high} 之间，双方都获益（现为 {now}）。",
        "neither": "没有让双方都获益的佣金（现为 {now}）。",
        "given": "价格弹性 {value:.2f}，由您给定。",
        "default": "价格弹性 {value:.2f}，取自研究的默认值；此处价格变动太少，无法学习。",
        "learned": "价格弹性 {value:.2f}（±{sd:.2f}），从 {n} 个价格有变动的 SKU 学得。",
        "partly": "价格弹性 {value:.2f}（±{sd:.2f}），其中 {share} 从 {n} 个价格有变动的 SKU 学得，其余为研究默认值。",
        "sku_id": "SKU", "revenue": "现销售额", "profit_now": "现利润", "new_revenue": "改变后销售额",
        "new_profit": "改变后利润", "difference": "差额", "break_even_traffic": "持平所需流量变化",
        "break_even_meaning": "利润不变所需的流量变化。为空：多少都不够。",
    },
}  # fmt: skip


def answer_paper(answer: Answer, language: str = "en") -> Paper:
    """Put an answer into the form of a paper; its `says` are the answer in a few sentences."""
    words, total, change = WORDS[language], answer.total, answer.change
    parts = [words[name].format(100 * getattr(change, name)) for name in ("commission", "coupons", "price", "traffic")
             if getattr(change, name)]  # fmt: skip
    parts += [words["spend"].format(change.spend)] if change.spend else []
    says = [
        words["profit"].format(
            days=answer.stretch.days,
            now=f"{total['profit']:,.2f}",
            then=f"{total['new_profit']:,.2f}",
            difference=f"{total['difference']:+,.2f}",
        )
    ]
    if change.commission or change.coupons or change.price or change.spend:
        says.append(_as_good(total["break_even_traffic"], total["difference"], words))
    if answer.commission_now is not None and (change.commission or change.traffic or change.spend):
        now = f"{100 * answer.commission_now:.1f}%"
        both = answer.commission_range
        says.append(
            words["neither"].format(now=now)
            if both is None
            else words["both"].format(low=f"{100 * both[0]:.1f}%", high=f"{100 * both[1]:.1f}%", now=now)
        )
    if change.price or change.coupons:
        says.append(_elasticity(answer, words))
    if answer.unknown_costs:
        says.append(unknown_sentence(answer.unknown_costs, language))
    heads = {"sku_id": "text", "revenue": "money", "profit": "money", "new_revenue": "money", "new_profit": "money",
             "difference": "money", "break_even_traffic": "share"}  # fmt: skip
    columns = {
        name: Column(
            words["profit_now" if name == "profit" else name],
            kind,
            words["break_even_meaning"] if name == "break_even_traffic" else "",
        )
        for name, kind in heads.items()
    }
    table = answer.skus.sort_values("difference", ascending=False, kind="stable", ignore_index=True)
    told = (", " if language == "en" else "，").join(parts) or words["nothing"]
    return Paper(
        title=words["title"].format(change=told),
        table=table,
        columns=columns,
        says=says,
        language=language,
        marks=["red" if value < 0 else "green" if value > 0 else "" for value in table["difference"]],
    )


def _as_good(needed: float, difference: float, words: dict[str, str]) -> str:
    """Say with which traffic the changed deal leaves what today's does."""
    if math.isnan(needed):
        return words["loses" if difference > 0 else "never"]
    if needed <= -1:
        return words["any"]
    share = f"{100 * abs(needed):,.1f}%"
    return words["as_it_is" if share == "0.0%" else "grows" if needed > 0 else "falls"].format(share=share)


def _elasticity(answer: Answer, words: dict[str, str]) -> str:
    if answer.given:
        return words["given"].format(value=answer.change.elasticity)
    found = answer.elasticity
    kind = {"default": "default", "learned": "learned", "both": "partly"}[found.source]
    return words[kind].format(value=found.value, sd=found.sd, n=found.n_skus, share=f"{100 * found.learned_share:.0f}%")
