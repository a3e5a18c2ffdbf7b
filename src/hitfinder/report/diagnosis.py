"""The diagnosis as a page, a workbook or a table; the suffix of the file says which."""

from __future__ import annotations

import datetime as dt
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from hitfinder.diagnosis import DIAGNOSIS_COLUMNS, diagnosis_words
from hitfinder.errors import DataError
from hitfinder.report.content import percent
from hitfinder.report.lists import check_suffix, csv_bytes, harmless
from hitfinder.report.pages import digest, resource, template
from hitfinder.report.whole import replacing
from hitfinder.report.words import check_language
from hitfinder.tiers import TIERS

__all__ = ["diagnosis_page", "write_diagnosis"]

STEPS = ("click", "cart", "order", "return")
WIDTHS = {"sku_id": 20, "title": 34, "category": 16, "tier": 11, "weak_step": 16, "weakness": 12, "weakness_low": 9,
          "weakness_high": 9, "advice": 80, "own_appeal": 12, "picture": 30}  # fmt: skip
PERCENTS = ("weakness", "weakness_low", "weakness_high")


def write_diagnosis(
    table: pd.DataFrame,
    out: str | Path,
    *,
    skus: pd.DataFrame | None = None,
    language: str = "en",
    as_of: str = "",
    model_version: str = "",
    false_share: float = 0.1,
) -> Path:
    """Write what `diagnose` returned, whole or not at all.

    Parameters
    ----------
    table
        From `diagnose`.
    out
        ``.csv`` and ``.parquet`` keep the field names and can be given to the next week's `diagnose` as `previous`;
        ``.html`` and ``.xlsx`` are for readers.
    skus
        The SKU table; its `title` and `category` are shown beside.
    language
        ``"en"`` or ``"zh"``; the advice is already in that language.
    as_of, model_version, false_share
        What stands on top of the page; without `as_of`, the moment that `diagnose` left with the table.

    Raises
    ------
    DataError
        The suffix is not one of the four, or a column is missing.
    SettingsError
        The language is not known.
    HitfinderError
        The file can't be written.
    """
    path = Path(out)
    check_suffix(path)
    check_language(language)
    missing = [c for c in DIAGNOSIS_COLUMNS if c not in table.columns]
    if missing:
        raise DataError(f"diagnosis: expected the columns of `diagnose`, {', '.join(missing)} missing")
    with replacing(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        match path.suffix.lower():
            case ".parquet":
                table.to_parquet(partial, index=False)
            case ".csv":
                texts = table.select_dtypes(exclude="number").columns
                plain = table.assign(**{c: table[c].map(harmless, na_action="ignore") for c in texts})
                partial.write_bytes(csv_bytes(plain))
            case ".xlsx":
                _write_workbook(_beside(table, skus), partial, language)
            case _:
                facts = {"as_of": as_of or str(table.attrs.get("as_of", "")), "model_version": model_version}
                page = diagnosis_page(_beside(table, skus), language, facts=facts, false_share=false_share)
                partial.write_text(page, encoding="utf-8")
    return path


def diagnosis_page(
    table: pd.DataFrame, language: str = "en", *, facts: dict[str, str] | None = None, false_share: float = 0.1
) -> str:
    """Return the page as HTML: all text escaped, nothing loaded, no script.

    Parameters
    ----------
    table
        From `diagnose`, with `title` and `category` beside where there are any.
    language
        `en` or `zh`.
    facts
        `as_of` and `model_version`, for the head.
    false_share
        What share of the steps called weak may be none.

    Raises
    ------
    SettingsError
        The language is not known.
    """
    check_language(language)
    words, said = _words(language), diagnosis_words(language)
    n = len(table)
    tiles = []
    for tier in TIERS:
        count = int((table["tier"] == tier).sum())
        tiles.append(
            {
                "tier": tier,
                "name": said[f"tier_{tier}"],
                "count": f"{count:,}",
                "width": f"{100 * count / max(n, 1):.2f}",
                "share": words["share"].format(share=percent(count / max(n, 1))),
                "meaning": words[f"meaning_{tier}"],
            }
        )
    counts = table["weak_step"].value_counts()
    kinds = {**dict.fromkeys(STEPS, "bar"), "nothing": "calm", "too_little": "open"}
    bars = [
        {
            "name": said[step],
            "kind": kind,
            "count": f"{counts.get(step, 0):,}",
            "width": f"{100 * counts.get(step, 0) / max(n, 1):.2f}",
        }
        for step, kind in kinds.items()
    ]
    rows = {step: _rows(part, words, said) for step, part in table.groupby(table["weak_step"].isin(STEPS))}
    calm = table[table["weak_step"] == "nothing"]
    style = resource("page.css") + resource("diagnosis.css")
    shown = {"n_skus": f"{n:,}", **{k: v for k, v in (facts or {}).items() if v}}
    return template("diagnosis.html.j2").render(
        words=words,
        facts=[(words[name], shown[name]) for name in ("as_of", "model_version", "n_skus") if name in shown],
        tiles=tiles,
        bars=bars,
        weak=rows.get(True, []),
        rest=[
            (words["fine_title"], _rows(calm, words, said)),
            (words["little_title"], _rows(table[table["weak_step"] == "too_little"], words, said)),
        ],
        pictured=bool(table["picture"].notna().any()),
        false_share=percent(false_share),
        style=style,
        policy=f"default-src 'none'; style-src '{digest(style)}'; base-uri 'none'; form-action 'none'",
    )


def _rows(table: pd.DataFrame, words: dict[str, str], said: dict[str, str]) -> list[dict[str, Any]]:
    """Put what each row shows into texts."""
    rows = []
    for row in table.to_dict("records"):
        size, low, high = (row[c] for c in PERCENTS)
        # Returns may be several times the peers'; one scale for all rows, cut at twice.
        top = 2.0 if row["weak_step"] == "return" else 1.0
        ends = [0.0 if pd.isna(v) else min(max(v, 0.0), top) / top for v in (low, size, high)]
        rows.append(
            {
                "tier": row["tier"],
                "tier_name": said[f"tier_{row['tier']}"],
                "id": row["sku_id"],
                "title": _text(row.get("title")),
                "category": _text(row.get("category")),
                "step": said[row["weak_step"]],
                "size": words["none"] if pd.isna(size) else f"{size:.0%}",
                "range": "" if pd.isna(low) else words["range"].format(low=f"{low:.0%}", high=f"{high:.0%}"),
                "above": row["weak_step"] == "return",
                "band": (f"{100 * ends[0]:.1f}", f"{max(100 * (ends[2] - ends[0]), 1.0):.1f}"),
                "mark": f"{min(100 * ends[1], 98.5):.1f}",
                "advice": row["advice"],
                "appeal": words["none"]
                if pd.isna(row["own_appeal"])
                else words["times"].format(value=f"{row['own_appeal']:.2f}"),
                "picture": _text(row["picture"]),
            }
        )
    return rows


def _write_workbook(table: pd.DataFrame, path: Path, language: str) -> None:
    import xlsxwriter

    words, said = _words(language), diagnosis_words(language)
    names = [c for c in WIDTHS if c in table.columns]
    shown = table.assign(
        tier=table["tier"].map({t: said[f"tier_{t}"] for t in TIERS}),
        weak_step=table["weak_step"].map({s: said[s] for s in (*STEPS, "nothing", "too_little")}),
    )
    options = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with xlsxwriter.Workbook(str(path), options) as book:
        # A fixed moment, so that the same diagnosis gives the same bytes.
        book.set_properties({"title": words["title"], "created": dt.datetime(2000, 1, 1), "author": "hitfinder"})  # noqa: DTZ001  # no moment of the real world
        sheet = book.add_worksheet(words["sheet"])
        head = book.add_format({"bold": True, "font_color": "white", "bg_color": "#1F2D3A", "text_wrap": True})
        look = {"valign": "top", "font_size": 10}
        plain, wrapped = book.add_format(look), book.add_format({**look, "text_wrap": True})
        share, number = book.add_format({**look, "num_format": "0%"}), book.add_format({**look, "num_format": "0.00"})
        formats = {**dict.fromkeys(PERCENTS, share), "own_appeal": number, "advice": wrapped, "title": wrapped,
                   "picture": wrapped}  # fmt: skip
        for place, name in enumerate(names):
            sheet.set_column(place, place, WIDTHS[name])
            sheet.write_string(0, place, words["title_column" if name == "title" else name], head)
            form = formats.get(name, plain)
            for row, value in enumerate(shown[name].tolist(), start=1):
                if pd.isna(value):
                    sheet.write_blank(row, place, None, form)
                elif isinstance(value, float):
                    sheet.write_number(row, place, value, form)
                else:
                    sheet.write_string(row, place, str(value), form)
        sheet.freeze_panes(1, 1)
        sheet.autofilter(0, 0, max(len(shown), 1), len(names) - 1)
        sheet.set_landscape()
        sheet.set_paper(9)  # A4
        sheet.fit_to_pages(1, 0)
        sheet.repeat_rows(0)
        sheet.set_footer(f"&L&8{words['title']}&R&8{words['page_of']}")


def _beside(table: pd.DataFrame, skus: pd.DataFrame | None) -> pd.DataFrame:
    """Put title and category beside, where the SKU table has them."""
    if skus is None:
        return table
    columns = ["sku_id", *(c for c in ("title", "category") if c in skus.columns)]
    found = skus[columns].drop_duplicates("sku_id")
    return table.merge(found.astype({"sku_id": "str"}), on="sku_id", how="left", validate="m:1")


@cache
def _words(language: str) -> dict[str, str]:
    text = resources.files("hitfinder.report").joinpath("diagnosis_words.toml").read_text(encoding="utf-8")
    words: dict[str, str] = tomllib.loads(text)[language]
    return words


def _text(value: object) -> str:
    return "" if pd.isna(value) else str(value).strip()  # type: ignore[call-overload]  # stubs know no plain object
