"""The stock as a page or workbook: what to order again, the most urgent first."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hitfinder.report.paper import Column, Paper, Part
from hitfinder.report.words import agreeing, check_language

__all__ = ["stock_paper"]

WORDS: dict[str, dict[str, Any]] = {
    "en": {
        "title": "Stock: what to order again",
        "names": {
            "sku_id": "SKU", "title": "Title", "category": "Category", "batch_id": "Batch", "alert": "Stock",
            "reorder": "Order again", "stock_left": "Left", "demand": "Expected demand", "demand_low": "at least",
            "demand_high": "at most", "cover_days": "Lasts for days", "units_sold": "Sold so far", "stock": "At launch",
            "unknown": "Not known",
        },
        "meanings": {
            "reorder": "Units to order so that stock and order are enough for {window} and {lead} of delivery, with a "
            "chance of {level}.",
            "demand": "Units expected within {window}: from the end of the test, or from now on.",
            "demand_low": "Four SKUs in five end between this and the next number.",
            "cover_days": "At the expected pace.",
            "stock_left": "Stock at launch less units sold.",
        },
        "alerts": {
            "sold_out": "sold out", "low": "low", "reorder": "reorder", "enough": "enough", "unknown": "unknown",
        },
        "why": {
            "history": "history counted too few units", "units": "units sold", "stock": "stock",
            "stock_sold_over": "more was sold than the stock given",
        },
        "head": "Of {n} SKUs, {sold_out} sold out, {low} with less than {share} of their expected demand left, {later} "
        "with more but not enough, {enough} with enough, {unknown} not known. To order in all: {reorder} units of "
        "{n_reorder} SKUs.",
        "unknown": "Of {n} SKUs it can't be said: {why}.",
        "one_why": "{why} ({n})",
        "and": ", ",
    },
    "zh": {
        "title": "库存：需要补货的商品",
        "names": {
            "sku_id": "SKU", "title": "标题", "category": "类目", "batch_id": "批次", "alert": "库存状态",
            "reorder": "建议补货", "stock_left": "剩余库存", "demand": "预计需求", "demand_low": "至少",
            "demand_high": "至多", "cover_days": "可售天数", "units_sold": "已售件数", "stock": "上架库存",
            "unknown": "未知项",
        },
        "meanings": {
            "reorder": "补货件数：使现有库存加补货以 {level} 的概率够卖 {window} 再加 {lead} 的到货时间。",
            "demand": "{window} 内的预计销量（件）：自测款结束起算，已结束的自现在起算。",
            "demand_low": "五个 SKU 中有四个的实际销量落在这两个数之间。",
            "cover_days": "按预计销售速度计算。",
            "stock_left": "上架库存减去已售件数。",
        },
        "alerts": {"sold_out": "已售罄", "low": "库存不足", "reorder": "补货", "enough": "充足", "unknown": "未知"},
        "why": {
            "history": "历史销量件数太少", "units": "已售件数", "stock": "库存",
            "stock_sold_over": "销量已超过所给库存",
        },
        "head": "{n} 个 SKU 中 {sold_out} 个已售罄，{low} 个剩余库存低于预计需求的 {share}，"
        "{later} 个高于此但仍需补货，{enough} 个充足，{unknown} 个未知。合计建议补货 "
        "{n_reorder} 个 SKU、{reorder} 件。",
        "unknown": "{n} 个 SKU 无法判断：{why}。",
        "one_why": "{why}（{n}）",
        "and": "、",
    },
}  # fmt: skip
KINDS = dict.fromkeys(("reorder", "stock_left", "demand", "demand_low", "demand_high", "units_sold", "stock"), "count")
# What a page shows in one cell.
ABOUT = ("title", "sku_id", "category", "batch_id")
MARKS = {"sold_out": "red", "low": "amber"}


def stock_paper(
    table: pd.DataFrame,
    *,
    alert_share: float,
    window: str,
    lead_time: str,
    service_level: float,
    skus: pd.DataFrame | None = None,
    language: str = "en",
) -> Paper:
    """Put a stock list into the form of a paper.

    Parameters
    ----------
    table
        From `stock`.
    alert_share, service_level
        What it was made with.
    window, lead_time
        The outcome window and the lead time, as in the settings: `28d`.
    skus
        The SKU table: its `title` and `category` are shown beside, where it has them.
    language
        `en` or `zh`.

    Raises
    ------
    SettingsError
        The language is not known.
    """
    check_language(language)
    words = WORDS[language]
    beside = (
        [] if skus is None else [name for name in ("title", "category") if name in skus and skus[name].notna().any()]
    )
    shown = table.assign(unknown=[_why(text, words) for text in table["unknown"]])
    shown["alert"] = shown["alert"].map(words["alerts"])
    if skus is not None and beside:
        shown = shown.merge(skus[["sku_id", *beside]], on="sku_id", how="left")
    told = {
        "window": window, "lead": lead_time, "level": f"{100 * service_level:g}%", "share": f"{100 * alert_share:g}%"
    }  # fmt: skip
    columns = {
        name: Column(
            heading,
            "days" if name == "cover_days" else KINDS.get(name, "text"),
            words["meanings"].get(name, "").format(**told),
            lines=ABOUT if name == "sku_id" else (),
        )
        for name, heading in words["names"].items()
        if name in shown and not (name == "unknown" and (table["unknown"] == "").all())
    }
    reorder = table["reorder"].fillna(0)
    says = [
        words["head"].format(
            n=f"{len(table):,}",
            sold_out=f"{(table['alert'] == 'sold_out').sum():,}",
            low=f"{(table['alert'] == 'low').sum():,}",
            later=f"{(table['alert'] == 'reorder').sum():,}",
            enough=f"{(table['alert'] == 'enough').sum():,}",
            unknown=f"{(table['alert'] == 'unknown').sum():,}",
            reorder=f"{reorder.sum():,.0f}",
            n_reorder=f"{(reorder > 0).sum():,}",
            **told,
        )
    ]
    if (table["unknown"] != "").any():
        every = [name for text in table["unknown"] for name in text.split(", ")]
        counted = {name: every.count(name) for name in words["why"] if name in every}
        each = [words["one_why"].format(why=words["why"][name], n=f"{n:,}") for name, n in counted.items()]
        says.append(words["unknown"].format(n=f"{(table['unknown'] != '').sum():,}", why=words["and"].join(each)))
    return Paper(
        title=words["title"],
        table=shown,
        columns=columns,
        says=[agreeing(text) for text in says],
        language=language,
        parts=[Part(columns=[name for name in columns if name == "sku_id" or name not in ABOUT])],
        marks=[MARKS.get(alert, "") for alert in table["alert"]],
        data=table,  # machines read the words of `hitfinder.stock`, people those of their language
    )


def _why(text: str, words: dict[str, Any]) -> str:
    return str(words["and"]).join(words["why"][name] for name in text.split(", ") if name)
