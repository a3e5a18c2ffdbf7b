"""The list as one page that holds all it needs and loads nothing."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hitfinder.diagnosis import diagnosis_words
from hitfinder.report.content import ACTIONS, REASONS, Content, decimals_of, percent
from hitfinder.report.diagnosis import TIER_MARKS
from hitfinder.report.hindsight import hindsight_block
from hitfinder.report.pages import digest, resource, template

__all__ = ["render_page"]

# Where the bars may end. All bars of a list share one of these, so that lengths can be compared.
TOPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


def render_page(content: Content) -> str:
    """Return the page as HTML. Without JavaScript it is the same table, without filter, search and sorting.

    All text is escaped. The page's own policy (CSP) forbids every outside resource, and every script and style but
    its own, which it names by their hashes.
    """
    table = content.table
    ends = table[["hit_probability", "hit_probability_high"]].max().max() if len(table) else None
    top = next((t for t in TOPS if ends is not None and ends <= t), 1.0)
    style, script = resource("page.css"), resource("page.js")
    return template("page.html.j2").render(
        content=content,
        words=content.words,
        tiles=_tiles(content),
        rows=_rows(content, top),
        top=percent(top),
        actions=ACTIONS,
        ranged="expected_value_low" in table,
        diagnosed={"tier", "diagnosis"} <= {*table.columns},
        hindsight=hindsight_block(content.hindsight, content.language) if content.hindsight else "",
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src '{digest(style)}'; script-src '{digest(script)}'; base-uri 'none'; "
        "form-action 'none'",
    )


def _tiles(content: Content) -> list[dict[str, str]]:
    total = len(content.table)
    tiles = []
    for action in ACTIONS:
        count, hits = content.counts[action], content.hits_expected.get(action, 0.0)
        share = percent(count / total) if total else percent(0)
        text = f"{hits:.1f}" if 0 < hits < 9.95 else f"{hits:,.0f}"
        tiles.append({
            "action": action,
            "count": f"{count:,}",
            "width": f"{100 * count / total if total else 0:.2f}",
            "share": content.words["share_of_list"].format(share=share),
            "hits": content.words["hits_expected"].format(hits=text),
        })  # fmt: skip
    return tiles


def _rows(content: Content, top: float) -> list[dict[str, Any]]:
    """Put what each row shows into texts, and what it is sorted by."""
    table, none = content.table, content.words["none"]
    value_decimals = decimals_of(table["expected_value"])
    price_decimals = 2 if "price" in table and (table["price"].dropna() % 1 != 0).any() else 0
    said = diagnosis_words(content.language)
    rows = []
    for row in table.to_dict("records"):
        tier = _text(row.get("tier"))
        probability, value = row["hit_probability"], row["expected_value"]
        low, high = row["hit_probability_low"], row["hit_probability_high"]
        known = pd.notna(low) and pd.notna(high)
        place = {"category": _text(row.get("category")), "batch": "" if content.batch else _text(row["batch_id"])}
        price = row.get("price")
        rows.append({
            "rank": f"{row['rank']:,}",
            "action": row["action"],
            "id": row["sku_id"],
            "title": _text(row.get("title")),
            "place": " · ".join(t for t in place.values() if t),
            "price": "" if pd.isna(price) else f"{price:,.{price_decimals}f}",
            "sort_probability": "" if pd.isna(probability) else f"{probability:.6g}",
            "sort_value": "" if pd.isna(value) else f"{value:.6g}",
            "probability": none if pd.isna(probability) else percent(probability),
            "range": content.words["range"].format(low=percent(low), high=percent(high)) if known else "",
            "band": _band(low / top, high / top) if known else None,
            "mark": "" if pd.isna(probability) else f"{min(max(100 * probability / top - 0.75, 0), 98.5):.1f}",
            "value": none if pd.isna(value) else f"{value:,.{value_decimals}f}",
            "value_range": _value_range(row, value_decimals, content.words),
            "sort_tier": [*TIER_MARKS].index(tier) if tier in TIER_MARKS else "",
            "tier": said.get(f"tier_{tier}", tier),
            "tier_mark": TIER_MARKS.get(tier, "grey"),
            "diagnosis": _text(row.get("diagnosis")),
            "reasons": [t for t in (_text(row[r]) for r in REASONS) if t],
        })  # fmt: skip
    return rows


def _value_range(row: dict[Any, Any], decimals: int, words: dict[str, str]) -> str:
    low, high = row.get("expected_value_low"), row.get("expected_value_high")
    if pd.isna(low) or pd.isna(high):
        return ""
    return words["range"].format(low=f"{low:,.{decimals}f}", high=f"{high:,.{decimals}f}")


def _band(low: float, high: float) -> tuple[str, str]:
    """Start and length in per cent of the bar, never too thin to see."""
    start = min(100 * low, 99.0)
    return f"{start:.1f}", f"{max(100 * high - start, 1.0):.1f}"


def _text(value: object) -> str:
    return "" if pd.isna(value) else str(value).strip()  # type: ignore[call-overload]  # stubs know no plain object
