"""Reasons: why a SKU stands where it stands, in sentences that a merchandiser understands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hitfinder.errors import SettingsError
from hitfinder.features import is_size
from hitfinder.models.hit_model import HitModel
from hitfinder.models.rules import rule_name

__all__ = ["reasons"]

N_REASONS = 3
# A contribution smaller than this changes no probability that anybody would notice.
SMALL = 0.02

# What a rate's numerator is called when it is (more, less) than its peers do, and what it is counted on.
VERBS = {
    "en": {
        "clicks": "is clicked",
        "visitors": "draws visitors",
        "favorites": "is saved as a favourite",
        "carts": "is added to carts",
        "saves": "is saved or added to carts",
        "orders": "is ordered",
        "units": "sells",
        "revenue": "earns",
        "refunds": "is refunded",
        "typical_revenue": "brings",
        "typical_units": "holds",
    },
    "zh": {
        "clicks": "点击",
        "visitors": "访客",
        "favorites": "收藏",
        "carts": "加购",
        "saves": "收藏加购",
        "orders": "下单",
        "units": "销量",
        "revenue": "成交额",
        "refunds": "退款",
        "typical_revenue": "成交额",
        "typical_units": "件数",
    },
}
UNITS = {
    "en": {"impression": "impressions", "click": "clicks", "order": "orders", "day": "days", "revenue": "of revenue"},
    "zh": {"impression": "次曝光", "click": "次点击", "order": "单", "day": "天", "revenue": "成交额"},
}
WORDS = {
    "en": {
        "more": "{verb} {ratio} times as {much} as {peers}, on {den} {unit}",
        "less": "{verb} only {ratio} times as {much} as {peers}, on {den} {unit}",
        "even": "{verb} about as {much} as {peers}, on {den} {unit}",
        "none": "{verb} not once so far, on {den} {unit}",
        "unseen": "nothing counted yet for how often it {verb}: taken from {peers}",
        "size_more": "a typical order {verb} {ratio} times as much as in {peers}, on {den} {unit}",
        "size_less": "a typical order {verb} only {ratio} times as much as in {peers}, on {den} {unit}",
        "size_even": "a typical order {verb} about as much as in {peers}, on {den} {unit}",
        "size_unseen": "no order yet: what one {verb} is taken from {peers}",
        "size_rising": "rising: lately a typical order {verb} more than at first",
        "size_falling": "fading: lately a typical order {verb} less than at first",
        "category": "its category",
        "batch": "its batch",
        "past": "SKUs of the past",
        "much": "much",
        "often": "often",
        "rising": "rising: lately it {verb} more than at first",
        "falling": "fading: lately it {verb} less than at first",
        "siblings_up": "its sister SKUs of the same style do well",
        "siblings_down": "its sister SKUs of the same style do poorly",
        "content_up": "products of similar title or attributes do well",
        "content_down": "products of similar title or attributes do badly",
        "price_up": "its price helps",
        "price_down": "its price weighs on it",
        "age_up": "{days} days since its launch and still going",
        "age_down": "little to show for {days} days since its launch",
        "impressions_up": "shown widely: {n} impressions",
        "impressions_down": "shown little so far: {n} impressions",
        "active_up": "sold or seen on most days",
        "active_down": "sold or seen on few days",
        "quiet_up": "seen only just now",
        "quiet_down": "quiet for the last {days} days",
        "other_up": "{name} speaks for it",
        "other_down": "{name} speaks against it",
        "rule": "ranked by the simple rule “{rule}”, which did better than the model on past batches",
        "new": "no signal yet: judged by its batch and by what it is",
    },
    "zh": {
        "more": "{verb}是{peers}的{ratio}倍（{den}{unit}）",
        "less": "{verb}只有{peers}的{ratio}倍（{den}{unit}）",
        "even": "{verb}与{peers}相当（{den}{unit}）",
        "none": "至今没有{verb}（{den}{unit}）",
        "unseen": "还没有{verb}数据，按{peers}估计",
        "size_more": "典型订单的{verb}是{peers}的{ratio}倍（{den}{unit}）",
        "size_less": "典型订单的{verb}只有{peers}的{ratio}倍（{den}{unit}）",
        "size_even": "典型订单的{verb}与{peers}相当（{den}{unit}）",
        "size_unseen": "还没有订单，每单{verb}按{peers}估计",
        "size_rising": "上升：近期典型订单的{verb}比初期多",
        "size_falling": "下滑：近期典型订单的{verb}比初期少",
        "category": "同类目",
        "batch": "同批次",
        "past": "以往商品",
        "much": "",
        "often": "",
        "rising": "上升：近期{verb}比初期多",
        "falling": "下滑：近期{verb}比初期少",
        "siblings_up": "同款其他SKU表现好",
        "siblings_down": "同款其他SKU表现差",
        "content_up": "标题或属性相近的商品表现好",
        "content_down": "标题或属性相近的商品表现差",
        "price_up": "价格有利",
        "price_down": "价格不利",
        "age_up": "上架{days}天仍有表现",
        "age_down": "上架{days}天，表现偏少",
        "impressions_up": "曝光充分：{n}次",
        "impressions_down": "曝光还少：{n}次",
        "active_up": "多数日子有动销",
        "active_down": "动销天数少",
        "quiet_up": "刚刚还有动静",
        "quiet_down": "最近{days}天没有动静",
        "other_up": "{name}加分",
        "other_down": "{name}减分",
        "rule": "按简单规则“{rule}”排序：它在过去批次上胜过模型",
        "new": "还没有数据：按批次和商品本身判断",
    },
}


def reasons(model: HitModel, table: pd.DataFrame, added: Any, language: str) -> list[list[str | None]]:
    """Say the three strongest reasons for each row.

    Parameters
    ----------
    model, table
        As in `ranking.score`.
    added
        Contributions to the margin, shape (rows, columns of the design).
    language
        `en` or `zh`.

    Returns
    -------
    list of three lists
        First, second and third reason of each row; None where there is no more to say.

    Raises
    ------
    SettingsError
        Another language.
    """
    if language not in WORDS:
        raise SettingsError(f"language: expected one of {', '.join(WORDS)}, got {language!r}")
    if model.estimator.kind == "rule":
        added = _leads_as_contributions(model, table)
    topics = [_topic(name) for name in model.design.columns]
    names = sorted(set(topics))
    by_topic = np.column_stack([added[:, [i for i, t in enumerate(topics) if t == name]].sum(axis=1) for name in names])
    # Against its own batch: what else is on the list changes no reason.
    batches = pd.DataFrame(by_topic).groupby(table["batch_id"].to_numpy())
    by_topic = by_topic - np.where(batches.transform("size").to_numpy()[:, None] > 2, batches.transform("median"), 0.0)
    said: list[list[str | None]] = [[], [], []]
    for row, (_, sku) in enumerate(table.iterrows()):
        lines: list[str | None] = []
        if model.estimator.kind == "rule":
            lines.append(WORDS[language]["rule"].format(rule=rule_name(model.winner, language)))
        if sku["active_periods"] == 0:
            lines.append(WORDS[language]["new"])
        # The strongest first; a loser is told what speaks against it, a winner what speaks for it.
        direction = 1.0 if by_topic[row].sum() >= 0 else -1.0
        strength = by_topic[row] * direction
        for place in np.argsort(-strength, kind="stable"):
            if len(lines) >= N_REASONS or strength[place] < SMALL:
                break
            columns = [i for i, t in enumerate(topics) if t == names[place]]
            strongest = model.design.columns[max(columns, key=lambda i: abs(added[row, i]))]
            line = _sentence(names[place], strongest, sku, bool(by_topic[row, place] > 0), language)
            if line is not None and line not in lines:
                lines.append(line)
        lines += [None] * (N_REASONS - len(lines))
        for place in range(N_REASONS):
            said[place].append(lines[place])
    return said


def _topic(column: str) -> str:
    """Group columns that say the same thing: all views of all rates of one count are one topic."""
    if "." not in column or column.startswith("sku."):
        return column
    rate, view = column.split(".")
    if view in ("trend", "sibling_lead"):
        return f"{view}:{_counted(rate)}" if view == "trend" else "siblings"
    return f"rate:{_counted(rate)}"


def _counted(rate: str) -> str:
    """Name what a rate counts: its key among the verbs."""
    return "_".join(rate.split("_")[: 2 if is_size(rate) else 1])


def _sentence(topic: str, column: str, sku: pd.Series, up: bool, language: str) -> str | None:
    words, verbs = WORDS[language], VERBS[language]
    side = "up" if up else "down"
    if topic.startswith("rate:"):
        line = _rate_sentence(column.split(".")[0], sku, up, language)
        return None if line is None else _capital(line)
    if topic.startswith("trend:"):
        what = topic.removeprefix("trend:")
        return _capital(words[_of_size(what, "rising" if up else "falling")].format(verb=verbs[what]))
    if topic == "siblings":
        return _capital(words[f"siblings_{side}"])
    if topic in ("log_price", "price_lead"):
        return _capital(words[f"price_{side}"])
    if topic == "age_share":
        return _capital(words[f"age_{side}"].format(days=_number(sku["age_days"])))
    if topic == "log_impressions":
        return _capital(words[f"impressions_{side}"].format(n=_number(sku["impressions"])))
    if topic == "active_share":
        return _capital(words[f"active_{side}"])
    if topic == "quiet_days":
        return _capital(words[f"quiet_{side}"].format(days=_number(sku["quiet_days"])))
    if topic == "content":
        return _capital(words[f"content_{side}"])
    return _capital(words[f"other_{side}"].format(name=topic.removeprefix("sku.")))


def _rate_sentence(rate: str, sku: pd.Series, up: bool, language: str) -> str | None:
    """Compare the SKU's own rate with its peers'; None where its own figures do not show what its pools made of it."""
    words = WORDS[language]
    what, unit = _counted(rate), rate.split("_per_")[1]
    num, den = sku[f"{rate}.num"], sku[f"{rate}.den"]
    nearest = "category" if sku["category"] != "(none)" else "batch"
    said = {"verb": VERBS[language][what], "den": _number(den), "unit": UNITS[language][unit]}
    if not den > 0:
        return words[_of_size(what, "unseen")].format(peers=words[nearest], **said)
    own = np.exp(num / den) if is_size(rate) else num / den
    if own == 0:
        return words["none"].format(**said) if not up or what == "refunds" else None
    past = sku[f"{rate}.sku_rate"] / np.exp(sku[f"{rate}.level"])
    typical = {"category": sku[f"{rate}.category_rate"], "batch": sku[f"{rate}.batch_rate"], "past": past}
    # A SKU may be weak for a strong category and still above the batch: name the peers to whom the reason applies.
    fitting = [
        peers
        for peers in dict.fromkeys((nearest, "batch", "past"))
        if what == "refunds" or (own > typical[peers]) == up
    ]
    if not fitting:
        return None
    peers = fitting[0]
    ratio = own / typical[peers]
    kind = "more" if ratio >= 1.1 else "less" if ratio <= 0.9 else "even"
    much = words["much" if what in ("revenue", "units", "refunds") else "often"]
    shown = f"{ratio:.1f}" if ratio >= 0.1 else f"{ratio:.2f}"
    return words[_of_size(what, kind)].format(ratio=shown, peers=words[peers], much=much, **said)


def _of_size(what: str, key: str) -> str:
    """Choose the words about the size of an order, where that is what is counted."""
    return f"size_{key}" if is_size(what) else key


def _leads_as_contributions(model: HitModel, table: pd.DataFrame) -> Any:
    """For a rule: what stands out, in place of what the rule does not weigh."""
    X = np.nan_to_num(model.design.matrix(table))
    leads = np.asarray([name.endswith(".lead") for name in model.design.columns])
    return np.where(leads, X, 0.0)


def _number(value: Any) -> str:
    if pd.isna(value):
        return "0"
    return f"{value:,.0f}" if value >= 10 or float(value).is_integer() else f"{value:.1f}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
