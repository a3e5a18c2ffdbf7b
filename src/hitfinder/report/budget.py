"""A week's budget in words, as a table, a workbook and a page."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.budget import Budget
from hitfinder.errors import DataError
from hitfinder.report.budget_pictures import draw_curve, draw_money
from hitfinder.report.cost_names import name_costs
from hitfinder.report.lists import csv_bytes, harmless
from hitfinder.report.pages import digest, resource, template
from hitfinder.report.whole import replacing
from hitfinder.report.words import check_language

__all__ = ["SUFFIXES", "budget_words", "check_form", "say_budget", "write_budget"]

# So many lines fit a page that still opens at once.
MAX_ROWS = 1000
UNKNOWN = "–"


def budget_words(language: str) -> dict[str, str]:
    """Return the texts of one language by key.

    Raises
    ------
    SettingsError
        For a language that there are none in.

    Examples
    --------
    >>> budget_words("en")["title"], budget_words("zh")["title"]
    ('Budget for the coming week', '下周预算')
    """
    check_language(language)
    words: dict[str, str] = tomllib.loads(resource("budget_words.toml"))[language]
    return words


def say_budget(budget: Budget, language: str = "en") -> list[str]:
    """Return what there is to say about a budget, one sentence or two each."""
    words, told = budget_words(language), budget.told
    said = [words["said_plan"].format(**_sums(told), lines=told["lines"], tests=told["explore"]["skus"])]
    said.append(words["said_last"].format(last_spend=_money(told["last_spend"])))
    if told["target_roi"] is None:
        said.append(words["said_no_target"])
    elif told["cautious"] is None:
        said.append(words["said_target"].format(target=f"{told['target_roi']:g}", chance=f"{told['chance']:.0%}"))
    else:
        said.append(
            words["said_cautious"].format(
                target=f"{told['target_roi']:g}",
                chance=f"{told['chance']:.1%}",
                cautious=f"{told['cautious']:.4g}",
                made_for=f"{told['made_for']:.2f}",
            )
        )
    if told["unspent"] >= 1:
        said.append(words["said_unspent"].format(unspent=_money(told["unspent"])))
    else:
        said.append(words["said_next"].format(next_profit=f"{told['next_total_profit']:,.2f}"))
    said += [_explore(told, words), _bought(told, words)]
    if told["unknown_costs"]:
        said.append(words["said_unknown"].format(names=name_costs(", ".join(told["unknown_costs"]), language)))
    for name, count in (("said_unprofitable", told["unprofitable_lines"]), ("said_paused", told["paused"])):
        if count:
            said.append(words[name].format(n=count))
    for row in budget.channels.to_dict("records"):
        curve = words[f"curve_{row['curve']}"]
        name = row["channel"] or words["unnamed"]
        said.append(words["said_curve"].format(channel=name, half_at=f"{row['half_at']:.2g}", curve=curve))
    return said


def write_budget(budget: Budget, out: str | Path, *, language: str = "en") -> Path:
    """Write a budget to a file, whole or not at all.

    Parameters
    ----------
    budget
        From `split_budget`.
    out
        Where to: ``.csv`` and ``.parquet`` hold the plan under its field names, ``.xlsx`` and ``.html`` are for readers
        and speak `language`. A missing folder is made.
    language
        ``"en"`` or ``"zh"``.

    Raises
    ------
    DataError
        The suffix is not one of the four.
    SettingsError
        The language is not known.
    HitfinderError
        The file can't be written.
    """
    out = Path(out)
    check_form(out)
    words = budget_words(language)
    with replacing(out) as partial:
        out.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[out.suffix.lower()](budget, partial, words, language)
    return out


def check_form(out: str | Path) -> None:
    """Refuse a name that `write_budget` could not write, before any work is done for it.

    Raises
    ------
    DataError
        The suffix is not one of the four.
    """
    suffix = Path(out).suffix
    if suffix.lower() not in WRITERS:
        raise DataError(f"{out}: expected a name that ends in {', '.join(WRITERS)}, got {suffix or 'no suffix'!r}")


def _sums(told: dict[str, Any]) -> dict[str, str]:
    sums = {name: _money(told[name]) for name in ("spend", "total", "value", "profit", "unspent")}
    return {**sums, "roi": _ratio(told["roi"])}


def _explore(told: dict[str, Any], words: dict[str, str]) -> str:
    explore = told["explore"]
    each = UNKNOWN if explore["each"] is None else f"{explore['each']:,.2f}"
    if explore["skus"]:
        return words["said_explore"].format(
            given=_money(explore["given"]),
            skus=explore["skus"],
            waiting=explore["waiting"],
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
        spend=_money(bought["spend"]), skus=bought["skus"], value=_money(bought["value"]),
        orders=f"{bought['orders']:,.0f}", roi=_ratio(bought["roi"]),
    )]  # fmt: skip
    if bought["above_target"] is not None:
        said.append(words["said_bought_target"].format(above=bought["above_target"]))
    if bought["best"]:
        best = (f"{one['sku_id']} ({_money(one['spend'])} → {_money(one['value'])})" for one in bought["best"])
        said.append(words["said_bought_best"].format(best=words["and"].join(best)))
    return (" " if words["lang"] == "en" else "").join(said)


def _write_csv(budget: Budget, path: Path, words: dict[str, str], language: str) -> None:
    del words, language
    table = budget.plan.copy()
    for name in ("sku_id", "channel", "category", "title"):
        table[name] = table[name].map(harmless, na_action="ignore")
    for name in ("value", "profit", "next_value", "next_profit", "last_spend", "spend", "low", "high"):
        table[name] = table[name].round(2)
    path.write_bytes(csv_bytes(table))


def _write_parquet(budget: Budget, path: Path, words: dict[str, str], language: str) -> None:
    del words, language
    budget.plan.to_parquet(path, index=False)


def _write_workbook(budget: Budget, path: Path, words: dict[str, str], language: str) -> None:
    import xlsxwriter

    shown = {
        "sku_id": words["sku_id"], "channel": words["channel"], "title": "", "last_spend": words["last_spend"],
        "spend": words["new_spend"], "value": words["short_value"], "roi": words["short_roi"],
        "profit": words["short_profit"], "next_profit": words["next_profit"], "bound_by": words["bound_by"],
        "low": "", "high": "", "slope": "", "half": "", "margin": "", "unknown_costs": "",
    }  # fmt: skip
    plan = budget.plan[list(shown)].assign(bound_by=[_held(words, by) for by in budget.plan["bound_by"]])
    # Ids stay texts, and no text is run as a formula or turned into a link.
    options = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with xlsxwriter.Workbook(str(path), options) as book:
        book.set_properties({"created": pd.Timestamp(budget.told["as_of"]).to_pydatetime()})
        bold, number = book.add_format({"bold": True}), book.add_format({"num_format": "#,##0.00"})
        for name, table, headings in (
            (words["sheet_plan"], plan, [heading or key for key, heading in shown.items()]),
            (words["sheet_curve"], budget.curve, list(budget.curve.columns)),
        ):
            sheet = book.add_worksheet(name)
            sheet.freeze_panes(1, 0)
            sheet.write_row(0, 0, headings, bold)
            for column, key in enumerate(table.columns):
                is_number = pd.api.types.is_numeric_dtype(table[key])
                sheet.set_column(column, column, 14 if is_number else 18)
                for row, value in enumerate(table[key].tolist(), start=1):
                    if is_number and np.isfinite(value):
                        sheet.write_number(row, column, round(value, 4), number)
                    elif not is_number and not pd.isna(value):
                        sheet.write_string(row, column, str(value))
        notes = book.add_worksheet(words["sheet_notes"])
        notes.set_column(0, 0, 120)
        for row, sentence in enumerate(say_budget(budget, language)):
            notes.write_string(row, 0, sentence)


def _write_page(budget: Budget, path: Path, words: dict[str, str], language: str) -> None:
    told, plan = budget.told, budget.plan
    bars = [
        (str(name) or words["unnamed"], float(rows["last_spend"].sum()), float(rows["spend"].sum()))
        for name, rows in plan[plan["kind"] == "line"].groupby("channel", sort=True)
    ]
    bars.sort(key=lambda bar: -bar[2])
    bars.append((words["explore"], float(told["explore_last_week"]["spend"]), float(told["explore"]["given"])))
    if told["unspent"] >= 1:
        bars.append((words["unspent"], 0.0, told["unspent"]))
    style = resource("page.css") + resource("health.css")
    page = template("budget.html.j2").render(
        words=words,
        facts=_facts(told, words),
        sentences=say_budget(budget, language),
        money=draw_money(bars, words["money_title"]),
        curve=draw_curve(budget.curve, told["spend"], told["profit"], words),
        rows=[_row(row, words) for row in plan.head(MAX_ROWS).to_dict("records")],
        rest=words["table_rest"].format(n=len(plan) - MAX_ROWS) if len(plan) > MAX_ROWS else "",
        style=style,
        policy=f"default-src 'none'; style-src '{digest(style)}'; base-uri 'none'; form-action 'none'",
    )
    path.write_text(page, encoding="utf-8")


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
    return facts + ([] if told["chance"] is None else [(words["chance"], f"{told['chance']:.0%}")])


def _row(row: dict[Any, Any], words: dict[str, str]) -> dict[str, str]:
    return {
        "sku_id": str(row["sku_id"]),
        "channel": str(row["channel"]) or words["unnamed"],
        **{name: f"{row[name]:,.2f}" for name in ("last_spend", "spend", "value", "profit", "next_profit")},
        "roi": _ratio(row["roi"]),
        "bound_by": _held(words, str(row["bound_by"])),
    }


def _held(words: dict[str, str], by: str) -> str:
    return words["bound_" + by.replace(" ", "_")]


def _money(amount: float) -> str:
    return f"{amount:,.0f}"


def _ratio(number: float | None) -> str:
    return UNKNOWN if number is None or not np.isfinite(number) else f"{number:.2f}"


WRITERS: dict[str, Callable[[Budget, Path, dict[str, str], str], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".xlsx": _write_workbook,
    ".html": _write_page,
}
SUFFIXES = tuple(WRITERS)
