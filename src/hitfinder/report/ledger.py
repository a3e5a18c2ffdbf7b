"""The ledger as a page or workbook: where the money went, as a picture of steps down from revenue, and as a table."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hitfinder.ledger import BY, COSTS, MONEY_LINES
from hitfinder.report.cost_names import name_costs
from hitfinder.report.drawings import svg_of, text_at
from hitfinder.report.paper import Column, Paper, Part, Picture

__all__ = ["draw_steps", "ledger_paper", "unknown_sentence"]

WORDS: dict[str, dict[str, Any]] = {
    "en": {
        "title": "Ledger: where the money went",
        "names": {
            "sku_id": "SKU", "batch_id": "Batch", "style_id": "Style", "category": "Category", "channel": "Channel",
            "creative_id": "Creative", "period_start": "From", "impressions": "Impressions", "orders": "Orders",
            "units": "Units", "revenue": "Revenue", "refunds": "Refunds", "net_revenue": "Net revenue",
            "platform_fee": "Platform fee", "commission": "Commission", "payment_fee": "Payment fee",
            "coupons": "Coupons", "shipping": "Shipping", "freight_insurance": "Freight insurance",
            "return_handling": "Return handling", "cost_of_goods": "Cost of goods", "ad_spend": "Ad spend",
            "contribution": "Left over", "contribution_per_order": "Left per order",
            "contribution_per_1000_impressions": "Left per 1,000 impressions",
            "net_return_on_spend": "Return on spend", "break_even_return_on_spend": "Break-even return",
            "unknown_costs": "Costs not known",
        },
        "meanings": {
            "refunds": "What came back within the time shown, whenever it was sold.",
            "contribution": "Net revenue less all costs that are known.",
            "net_return_on_spend": "Net revenue for each unit of ad spend.",
            "break_even_return_on_spend": "What that must be so that nothing is lost. Empty: no return would do.",
            "unknown_costs": "Nobody gave these, so they are not in the sum: what is really left is less.",
        },
        "left": "Of {revenue} revenue, {left} is left ({share}).",
        "nothing": "There is no revenue; {left} is left.",
        "unknown": "Not known, and therefore not taken off: {names}. What is really left is less.",
        "losing": "{n} of {all} lines lose money; together they lose {lost}.",
        "losing_one": "1 of {all} lines loses money: {lost}.",
        "picture": "Steps from revenue down to what is left",
    },
    "zh": {
        "title": "账本：钱去了哪里",
        "names": {
            "sku_id": "SKU", "batch_id": "批次", "style_id": "款式", "category": "类目", "channel": "渠道",
            "creative_id": "素材", "period_start": "起始", "impressions": "曝光", "orders": "订单", "units": "件数",
            "revenue": "销售额", "refunds": "退款", "net_revenue": "净销售额", "platform_fee": "平台扣点",
            "commission": "达人佣金", "payment_fee": "支付手续费", "coupons": "优惠与补贴", "shipping": "运费",
            "freight_insurance": "运费险", "return_handling": "退货处理", "cost_of_goods": "货品成本",
            "ad_spend": "投放费用", "contribution": "净利", "contribution_per_order": "单均净利",
            "contribution_per_1000_impressions": "千次曝光净利", "net_return_on_spend": "净投产比",
            "break_even_return_on_spend": "保本投产比", "unknown_costs": "未知成本",
        },
        "meanings": {
            "refunds": "所示时间内发生的退款，不论何时售出。",
            "contribution": "净销售额减去所有已知成本。",
            "net_return_on_spend": "每一元投放费用带来的净销售额。",
            "break_even_return_on_spend": "不亏损所需的净投产比。为空：多少都不够。",
            "unknown_costs": "未提供，因此未扣除：实际所剩更少。",
        },
        "left": "销售额 {revenue}，最终剩下 {left}（{share}）。",
        "nothing": "没有销售额；最终剩下 {left}。",
        "unknown": "以下成本未知，因此未扣除：{names}。实际所剩更少。",
        "losing": "{all} 行中有 {n} 行亏损，合计亏损 {lost}。",
        "losing_one": "{all} 行中有 1 行亏损，亏损 {lost}。",
        "picture": "从销售额逐步减到净利",
    },
}  # fmt: skip
KINDS = {
    **dict.fromkeys(("impressions", "orders", "units"), "count"),
    "period_start": "moment",
    **dict.fromkeys(("net_return_on_spend", "break_even_return_on_spend"), "number"),
    **dict.fromkeys((*BY[:-1], "unknown_costs"), "text"),
}
# What is read before the single costs.
FIRST = ("contribution", "revenue", "net_revenue", "contribution_per_order", "net_return_on_spend",
         "break_even_return_on_spend", "unknown_costs")  # fmt: skip
# Of the picture: room for names, length of the longest bar, height of a line.
TEXT, WIDE, HIGH = 150, 440, 26


def ledger_paper(table: pd.DataFrame, total: pd.DataFrame, language: str = "en") -> Paper:
    """Put a ledger into the form of a paper.

    Parameters
    ----------
    table
        From `ledger`, by anything; the greatest contribution is shown first, unless it is told by time.
    total
        The same, over all: one row.
    language
        `en` or `zh`.
    """
    words = WORDS[language]
    names = words["names"]
    row = total.iloc[0]
    left, revenue = (0.0 if pd.isna(row[name]) else float(row[name]) for name in ("contribution", "revenue"))
    share = f"{100 * left / revenue:.1f}%" if revenue > 0 else ""
    says = [words["left" if share else "nothing"].format(revenue=f"{revenue:,.2f}", left=f"{left:,.2f}", share=share)]
    losses = pd.Series([0.0 if pd.isna(value) else float(value) for value in table["contribution"]])
    if len(table) > 1 and (losses < 0).any():
        lost = f"{-losses[losses < 0].sum():,.2f}"
        some = int((losses < 0).sum())
        says.append(
            words["losing_one" if some == 1 else "losing"].format(n=f"{some:,}", all=f"{len(table):,}", lost=lost)
        )
    if row["unknown_costs"]:
        says.append(unknown_sentence(row["unknown_costs"], language))
    if "period_start" not in table:
        order = (-losses).argsort(kind="stable")
        table, losses = table.iloc[order].reset_index(drop=True), losses.iloc[order]
    columns = {
        name: Column(names[name], KINDS.get(name, "money"), words["meanings"].get(name, ""))
        for name in dict.fromkeys((*BY, *FIRST, *names))
        if name in table and not (name == "unknown_costs" and (table[name] == "").all())
    }
    # Where every line lacks the same, the sentence above the table says it.
    alike = len(set(table["unknown_costs"])) <= 1
    return Paper(
        title=words["title"],
        table=table.assign(
            unknown_costs=[name_costs(text, language) if text else "" for text in table["unknown_costs"]]
        ),
        columns=columns,
        says=says,
        pictures=[Picture(draw_steps(total, language), words["picture"])],
        language=language,
        marks=["red" if value < 0 else "" for value in losses],
        parts=[Part(columns=[name for name in columns if name != "unknown_costs" or not alike])],
        data=table,
    )


def unknown_sentence(unknown_costs: str, language: str) -> str:
    """Say which costs are not in a sum; `unknown_costs` are their names, joined by ", "."""
    return str(WORDS[language]["unknown"].format(names=name_costs(unknown_costs, language)))


def draw_steps(total: pd.DataFrame, language: str = "en") -> str:
    """Draw the steps from revenue down to what is left, as SVG."""
    names = WORDS[language]["names"]
    row = {name: float(total.iloc[0][name]) for name in MONEY_LINES if pd.notna(total.iloc[0][name])}
    revenue, left = row.get("revenue", 0.0), row.get("contribution", 0.0)
    # Name, where the bar begins, where it ends, and the amount that is told.
    bars = [("revenue", 0.0, revenue, revenue)]
    at = revenue
    for name in ("refunds", *COSTS):
        if amount := row.get(name, 0.0):
            bars.append((name, at - amount, at, -amount))
            at -= amount
    bars.append(("contribution", min(left, 0.0), max(left, 0.0), left))
    lowest, highest = min(bar[1] for bar in bars), max(max(bar[2] for bar in bars), 1e-9)
    unit = WIDE / (highest - lowest)
    parts = []
    for place, (name, begin, end, amount) in enumerate(bars):
        fill = {"revenue": "#0b57a4", "refunds": "#c98b6b", "contribution": "#0b5d4b" if left >= 0 else "#b23a0c"}
        x, y = TEXT + (begin - lowest) * unit, 10 + HIGH * place
        bold = name in ("revenue", "contribution")
        parts.append(
            text_at(TEXT - 10, y + 15, names[name], anchor="end", size=13, bold=bold)
            + f'<rect x="{x:.1f}" y="{y}" width="{max((end - begin) * unit, 1):.1f}" height="{HIGH - 7}" rx="2" '
            f'fill="{fill.get(name, "#aab4bf")}"/>'
            + text_at(TEXT + WIDE + 10, y + 15, f"{amount:,.0f}", size=13, bold=bold)
        )
    zero = TEXT - lowest * unit
    bottom = 10 + HIGH * len(bars)
    parts.append(f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="6" y2="{bottom - 3}" stroke="#16202b" stroke-width="1"/>')
    return svg_of(TEXT + WIDE + 120, bottom + 6, parts, WORDS[language]["picture"])
