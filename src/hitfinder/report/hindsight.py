"""What became of past lists, in words, as a part of the weekly page, and as a page, table or JSON of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from hitfinder.report.content import percent
from hitfinder.report.forms import check_suffix, csv_bytes
from hitfinder.report.pages import digest, resource, template
from hitfinder.report.whole import replacing
from hitfinder.report.words import agreeing, check_language, load_words

__all__ = ["check_form", "hindsight_block", "hindsight_page", "say_hindsight", "write_hindsight"]

SUFFIXES = (".html", ".json", ".csv", ".txt")
# The parts of the bar, from what was found to what was lost, and their colours.
PARTS = {"scaled_hits": "#0b5d4b", "tested_hits": "#c58a12", "drawn_hits": "#0b57a4", "missed": "#9aa5b1"}
WORDS = {
    "en": {
        "lang": "en", "code": "en",
        "title": "What became of past lists", "said": "{title}: {head}",
        "intro": "{lists} lists with {skus} SKUs, all outcomes closed between {since} and {as_of} (UTC).",
        "empty": "No list closed between {since} and {as_of} (UTC).",
        "list": "List", "all": "All", "skus": "SKUs", "scaled": "Scaled", "scaled_hits": "Hits found",
        "false_alarms": "False alarms", "tested_hits": "Hits kept on test", "drawn_hits": "Hits kept by a draw",
        "stopped": "Stopped", "missed": "Hits missed, estimated",
        "bar": "Where the hits went", "bar_is": "Where the hits went: ",
        "about": "about {guess} ({low} to {high})", "range": "{low} to {high}",
        "unknown": "not known", "none": "–",
        "found": "Scaled {scaled}: {scaled_hits} hits, {false_alarms} false alarms. Kept on test {tested}: "
        "{tested_hits} hits.",
        "drawn": "Kept on trial by a random draw {drawn}: {drawn_hits} hits.",
        "estimate": "Stopped {stopped}: {missed} hits missed. Outcomes of stopped SKUs are cut off, so this is an "
        "estimate from the {drawn} that were drawn to stay, with its exact {level} interval.",
        "estimate_top": "Stopped {stopped}: {missed} hits missed. Outcomes of stopped SKUs are cut off, so this is an "
        "estimate from the {drawn} that were drawn to stay, with a rough {level} interval.",
        "nobody": "Stopped {stopped}: {missed} hits missed. Nobody was drawn to stay on trial, so nothing tells.",
        "certain": "{stopped_unknown} SKUs were stopped without a draw: what they would have done is not known.",
        "brought": "The SKUs kept on brought {value_kept} ({metric}).",
        "lost": "Those stopped after a draw might have brought about {value_missed} ({low} to {high}) on trial.",
        "spent": "Spend on the SKUs kept on: {spend}, of that {spend_on_losers} on SKUs that were no hits.",
        "raised": "People raised {skus} SKUs above what the model said: {hits} of them were hits.",
        "raised_more": " Of {scaled} that they scaled, {false_alarms} were false alarms.",
        "lowered": "People held {skus} SKUs below what the model said: {hits} of the {seen} that were seen were hits.",
        "cut": " What the {unseen} that they stopped would have done is not known.",
        "nobody_overrode": "Nobody decided against the model.",
        "open": "Still open and not counted: {open_lists} lists with {open_skus} SKUs.",
        "late": "{n} SKUs had been decided on only after half of their outcome window.",
        "unlabelled": "{n} SKUs have no outcome that can be judged.",
        "unknown_skus": "{n} SKUs of lists are not in the SKU table.",
        "others": "{n} other rows of the record (rounds, or other programs') are no lists.",
        "top": "With a top share, what a hit is worth at least is itself estimated: the SKUs drawn to stay stand for "
        "those stopped after a draw; for those stopped without one nobody does. The interval does not count this in.",
    },
    "zh": {
        "lang": "zh-CN", "code": "zh",
        "title": "往期榜单复盘", "said": "{title}：{head}",
        "intro": "共 {lists} 期榜单、{skus} 个 SKU，结果观察期均在 {since} 至 {as_of}（UTC）之间结束。",
        "empty": "{since} 至 {as_of}（UTC）之间没有观察期已结束的榜单。",
        "list": "榜单", "all": "合计", "skus": "SKU 数", "scaled": "放量", "scaled_hits": "找到爆款",
        "false_alarms": "误判放量", "tested_hits": "继续测款中的爆款", "drawn_hits": "随机留测出的爆款",
        "stopped": "停测", "missed": "漏掉爆款（估计）",
        "bar": "爆款去向", "bar_is": "爆款去向：",
        "about": "约 {guess}（{low}～{high}）", "range": "{low}～{high}",
        "unknown": "未知", "none": "–",
        "found": "放量 {scaled} 个：爆款 {scaled_hits} 个，误判 {false_alarms} 个。继续测款 {tested} 个：爆款 "
        "{tested_hits} 个。",
        "drawn": "随机留测 {drawn} 个：爆款 {drawn_hits} 个。",
        "estimate": "停测 {stopped} 个，漏掉的爆款：{missed}。停测后看不到结果，因此该数由随机留测的 {drawn} 个 SKU "
        "推算，并给出精确的 {level} 区间。",
        "estimate_top": "停测 {stopped} 个，漏掉的爆款：{missed}。停测后看不到结果，因此该数由随机留测的 {drawn} 个 "
        "SKU 推算，{level} 区间仅为近似。",
        "nobody": "停测 {stopped} 个，漏掉的爆款：{missed}。没有随机留测的 SKU，无从推算。",
        "certain": "另有 {stopped_unknown} 个 SKU 未经抽签即停测，本可表现如何不得而知。",
        "brought": "保留的 SKU 共带来 {value_kept}（{metric}）。",
        "lost": "抽签后停测的 SKU 若继续测款，约可带来 {value_missed}（{low}～{high}）。",
        "spent": "保留的 SKU 花费 {spend}，其中非爆款花费 {spend_on_losers}。",
        "raised": "人工上调 {skus} 个 SKU（高于模型建议）：其中爆款 {hits} 个。",
        "raised_more": "其中人工放量 {scaled} 个，误判 {false_alarms} 个。",
        "lowered": "人工下调 {skus} 个 SKU（低于模型建议）：可见结果的 {seen} 个中有爆款 {hits} 个。",
        "cut": "人工停测的 {unseen} 个结果不得而知。",
        "nobody_overrode": "没有与模型不同的人工决定。",
        "open": "观察期尚未结束、未计入：{open_lists} 期榜单、{open_skus} 个 SKU。",
        "late": "{n} 个 SKU 的决策晚于结果观察期过半，未计入。",
        "unlabelled": "{n} 个 SKU 的结果无法判定，未计入。",
        "unknown_skus": "{n} 个榜单 SKU 不在 SKU 表中。",
        "others": "记录中另有 {n} 行（测试轮次或其他程序所写）不属于榜单。",
        "top": "按前若干比例定义爆款时，爆款的最低门槛本身也是估计值：随机留测的 SKU 代表抽签后停测的 SKU，未经抽签"
        "即停测的 SKU 则无从代表；区间未计入这一不确定性。",
    },
}  # fmt: skip
COLUMNS = ("skus", "scaled", "scaled_hits", "false_alarms", "tested_hits", "drawn_hits", "stopped", "missed")


def say_hindsight(told: Mapping[str, Any], language: str = "en") -> str:
    """Say what became of past lists, one thing a line.

    Parameters
    ----------
    told
        `Hindsight.to_dict()`, or what its JSON file holds.
    language
        `en` or `zh`.

    Raises
    ------
    SettingsError
        The language is not known.
    """
    check_language(language)
    head, *lines = _sentences(told, WORDS[language])
    return "\n".join([WORDS[language]["said"].format(title=WORDS[language]["title"], head=head), *lines])


def hindsight_block(told: Mapping[str, Any], language: str = "en") -> Markup:
    """Return the part of a page that tells it, as HTML in which all text is escaped; it needs the page's own style.

    Raises
    ------
    SettingsError
        The language is not known.
    """
    check_language(language)
    words = WORDS[language]
    head, *lines = _sentences(told, words, counts=False)
    middle = (len(lines) + 1) // 2
    rows = [*told["lists"], {**told["all"], "list": words["all"]}] if told["all"] else []
    return Markup(  # noqa: S704 - the template escapes what it is given
        template("hindsight_block.html.j2").render(
            words=words,
            head=head,
            halves=[half for half in (lines[:middle], lines[middle:]) if half],
            columns=COLUMNS,
            rows=[
                {"name": row["list"], "all": place == len(rows) - 1, "cells": [_cell(row, c, words) for c in COLUMNS]}
                for place, row in enumerate(rows)
            ],
            bar=_bar(told["all"], words),
        )
    )


def hindsight_page(told: Mapping[str, Any], language: str = "en") -> str:
    """Return a page of its own that holds all it needs, runs nothing and loads nothing.

    Raises
    ------
    SettingsError
        The language is not known.
    """
    block, style = hindsight_block(told, language), resource("page.css")
    policy = f"default-src 'none'; style-src '{digest(style)}'; base-uri 'none'; form-action 'none'"
    return template("hindsight.html.j2").render(words=WORDS[language], block=block, style=Markup(style), policy=policy)  # noqa: S704


def write_hindsight(told: Mapping[str, Any], out: str | Path, *, language: str = "en") -> Path:
    """Write it to a file, whole or not at all; the suffix says in which form.

    Parameters
    ----------
    told
        `Hindsight.to_dict()`.
    out
        ``.html`` and ``.txt`` speak `language`; ``.csv`` has a row for each list and one for all; ``.json`` has it all.

    Raises
    ------
    DataError
        Another suffix.
    SettingsError
        The language is not known.
    HitfinderError
        The file can't be written.
    """
    out = Path(out)
    check_language(language)
    check_form(out)
    match out.suffix.lower():
        case ".html":
            content = hindsight_page(told, language).encode()
        case ".txt":
            content = f"{say_hindsight(told, language)}\n".encode()
        case ".json":
            content = json.dumps(told, ensure_ascii=False, indent=1).encode()
        case _:
            rows = [*told["lists"], {**told["all"], "list": None}] if told["all"] else []
            content = csv_bytes(pd.DataFrame(rows))
    with replacing(out) as partial:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
    return out


def check_form(out: str | Path) -> None:
    """Refuse a name that `write_hindsight` could not write.

    Raises
    ------
    DataError
        The suffix is not one of the four.
    """
    check_suffix(out, SUFFIXES)


def _sentences(told: Mapping[str, Any], words: Mapping[str, str], *, counts: bool = True) -> list[str]:
    """Return the head, then one sentence for each thing; without `counts`, only what a table beside can't tell."""
    days = {"since": told["since"][:10], "as_of": told["as_of"][:10]}
    whole = told["all"]
    if whole is None:
        return [words["empty"].format(**days), *_left_out(told, words)]
    numbers = {k: _count(v) for k, v in whole.items() if isinstance(v, int)}
    said = {**numbers, "missed": _missed(whole, words), "level": percent(told["level"])}
    lines = [words["intro"].format(lists=len(told["lists"]), skus=numbers["skus"], **days)]
    if counts:
        lines.append(words["found"].format(**said))
        lines += [words["drawn"].format(**said)] if whole["drawn"] else []
    if whole["stopped"]:
        estimate = "estimate_top" if told.get("top_share") else "estimate"
        lines.append(words[estimate if whole["drawn"] else "nobody"].format(**said))
    if whole["stopped_unknown"] and whole["stopped_unknown"] < whole["stopped"]:
        lines.append(words["certain"].format(**said))
    lines += [*_money(told, words), *_people(told["people"], words), *_left_out(told, words)]
    if told.get("top_share") and whole["stopped"]:
        lines.append(words["top"])
    return lines


def _money(told: Mapping[str, Any], words: Mapping[str, str]) -> list[str]:
    whole, lines = told["all"], []
    amounts = {k: _amount(v) for k, v in whole.items() if k.startswith(("value", "spend")) and v is not None}
    if "value_kept" in amounts:
        metric = load_words(words["code"]).get(f"metric_{told['metric']}", told["metric"])
        lines.append(words["brought"].format(metric=metric, **amounts))
    if "value_missed" in amounts and whole["stopped"]:
        low, high = amounts["value_missed_low"], amounts["value_missed_high"]
        lines.append(words["lost"].format(value_missed=amounts["value_missed"], low=low, high=high))
    if "spend" in amounts:
        lines.append(words["spent"].format(**amounts))
    return lines


def _people(people: list[dict[str, Any]], words: Mapping[str, str]) -> list[str]:
    if not people:
        return [words["nobody_overrode"]]
    lines = []
    raised = [row for row in people if row["raised"]]
    if raised:
        scaled = [row for row in raised if row["action"] == "scale"]
        text = words["raised"].format(**_sums(raised))
        if scaled:
            sums = _sums(scaled)
            text += words["raised_more"].format(scaled=sums["skus"], false_alarms=sums["seen"] - sums["hits"])
        lines.append(text)
    lowered = [row for row in people if not row["raised"]]
    if lowered:
        sums = _sums(lowered)
        text = words["lowered"].format(**sums)
        lines.append(
            text + (words["cut"].format(unseen=sums["skus"] - sums["seen"]) if sums["skus"] > sums["seen"] else "")
        )
    return lines


def _sums(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {name: sum(row[name] for row in rows) for name in ("skus", "seen", "hits")}


def _left_out(told: Mapping[str, Any], words: Mapping[str, str]) -> list[str]:
    lines = [words["open"].format(**told)] if told["open_skus"] else []
    kinds = ("late", "unlabelled", "unknown_skus", "others")
    return lines + [agreeing(words[kind].format(n=_count(told[kind]))) for kind in kinds if told.get(kind)]


def _cell(row: Mapping[str, Any], column: str, words: Mapping[str, str]) -> str:
    return _missed(row, words) if column == "missed" else _count(row[column])


def _missed(row: Mapping[str, Any], words: Mapping[str, str]) -> str:
    low, high, guess = row["missed_low"], row["missed_high"], row["missed"]
    if high is None:
        return words["unknown"]
    if high == 0:
        return "0"
    if guess is None:
        return words["range"].format(low=low, high=high)
    return words["about"].format(
        guess=f"{guess:.0f}" if guess >= 10 else f"{guess:.1f}".removesuffix(".0"), low=low, high=high
    )


def _bar(whole: Mapping[str, Any] | None, words: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the parts of the bar that shows where the hits went; none where there were no hits."""
    sizes = {name: float(whole[name] or 0) for name in PARTS} if whole else {}
    total, start, parts = sum(sizes.values()), 0.0, []
    for name, size in sizes.items() if total else ():
        # What may have been missed is told also where the guess is none: its range may be wide.
        if size or (name == "missed" and whole and whole["stopped"]):
            width = 100 * size / total
            count = _missed(whole or {}, words) if name == "missed" else _count(int(size))
            parts.append({"x": f"{start:.2f}", "width": f"{width:.2f}", "fill": PARTS[name], "name": words[name],
                          "count": count})  # fmt: skip
            start += width
    return parts


def _count(n: int) -> str:
    return f"{n:,}"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"
