"""The diagnosis as a page or workbook, and as two columns beside the weekly list."""

from __future__ import annotations

import pandas as pd

from hitfinder.diagnosis import DIAGNOSIS_COLUMNS, diagnosis_words
from hitfinder.errors import DataError
from hitfinder.report.content import percent
from hitfinder.report.drawings import draw_bars
from hitfinder.report.paper import Column, Paper, Part, Picture, Tile
from hitfinder.report.words import load_words

__all__ = ["TIER_MARKS", "diagnosis_paper", "with_diagnosis"]

STEPS = ("click", "cart", "order", "return")
TIER_MARKS = {"hot": "red", "trending": "amber", "potential": "green", "tail": "grey"}
KINDS = {"tier": "badge", **dict.fromkeys(("weakness", "weakness_low", "weakness_high"), "percent"),
         "own_appeal": "number"}  # fmt: skip
WIDTHS = {"sku_id": 20, "title": 34, "category": 16, "tier": 11, "weak_step": 16, "weakness": 12, "weakness_low": 9,
          "weakness_high": 9, "advice": 80, "own_appeal": 12, "picture": 30}  # fmt: skip
# On the page a cell holds several of these.
LINES = {"sku_id": ("title", "sku_id", "category"), "weak_step": ("weak_step",), "weakness": ("size", "range"),
         "own_appeal": ("appeal",)}  # fmt: skip


def diagnosis_paper(
    table: pd.DataFrame,
    *,
    skus: pd.DataFrame | None = None,
    language: str = "en",
    as_of: str = "",
    model_version: str = "",
    false_share: float = 0.1,
) -> Paper:
    """Put what `diagnose` returned into the form of a paper.

    Parameters
    ----------
    table
        From `diagnose`. As CSV or Parquet it can be given to the next week's `diagnose` as `previous`.
    skus
        The SKU table; its `title` and `category` are shown beside.
    language
        ``"en"`` or ``"zh"``; the advice is already in that language.
    as_of, model_version, false_share
        What stands on top of the page; without `as_of`, the moment that `diagnose` left with the table.

    Raises
    ------
    DataError
        A column is missing.
    SettingsError
        The language is not known.
    """
    words = load_words(language, "diagnosis_words.toml")
    missing = [c for c in DIAGNOSIS_COLUMNS if c not in table.columns]
    if missing:
        raise DataError(f"diagnosis: expected the columns of `diagnose`, {', '.join(missing)} missing")
    facts = {"as_of": as_of or str(table.attrs.get("as_of", "")), "model_version": model_version,
             "n_skus": f"{len(table):,}"}  # fmt: skip
    pictured = bool(table["picture"].notna().any())
    bars = {"weakness": ("weakness_low", "weakness_high")}
    columns = {
        name: Column(words[name], KINDS.get(name, "text"), "", width, LINES.get(name, ()), bars.get(name))
        for name, width in WIDTHS.items()
    }
    shown = ["sku_id", "tier", "advice", *(("own_appeal", "picture") if pictured else ())]
    parts = []
    for title, steps, more in (
        ("weak_title", STEPS, ("weak_step", "weakness")),
        ("fine_title", ("nothing",), ()),
        ("little_title", ("too_little",), ()),
    ):
        rows = [place for place, step in enumerate(table["weak_step"]) if step in steps]
        if rows or more:
            heading = f"{words[title]} · {words['n_of'].format(n=f'{len(rows):,}')}"
            note = words["appeal_note"] if rows and more and pictured else ""
            parts.append(Part(heading, note, rows, [*shown, *more], folded=not more, empty=words["weak_none"]))
    return Paper(
        title=words["page_title"],
        table=_shown(table, skus, words, language),
        columns=columns,
        facts=[(words[name], text) for name, text in facts.items() if text],
        tiles=_tiles(table, words, language),
        pictures=[_draw(table, words, language, false_share)],
        language=language,
        marks=[TIER_MARKS[tier] for tier in table["tier"]],
        parts=parts,
        data=table,
        sheet=words["sheet"],
    )


def with_diagnosis(ranked: pd.DataFrame, found: pd.DataFrame, language: str = "en") -> pd.DataFrame:
    """Put each SKU's tier and its diagnosis, in one short sentence, beside a ranked list.

    Parameters
    ----------
    ranked
        From `rank`; every SKU stays, in its place.
    found
        From `diagnose`.
    language
        `en` or `zh`.

    Returns
    -------
    pandas.DataFrame
        With `tier` (`hot`, `trending`, `potential`, `tail`) and `diagnosis` as last columns.

    Raises
    ------
    SettingsError
        The language is not known.

    Examples
    --------
    >>> found = pd.DataFrame({"sku_id": ["a", "b"], "tier": ["hot", "tail"], "weak_step": ["click", "too_little"]})
    >>> with_diagnosis(pd.DataFrame({"sku_id": ["b", "a"]}), found).values.tolist()
    [['b', 'tail', 'Too little evidence to say.'], ['a', 'hot', 'Weak step: clicks; picture or title first.']]
    """
    words = load_words(language, "diagnosis_words.toml")
    short = found[["sku_id", "tier"]].assign(diagnosis=[words[f"short_{step}"] for step in found["weak_step"]])
    return ranked.merge(short, on="sku_id", how="left", validate="1:1")


def _shown(table: pd.DataFrame, skus: pd.DataFrame | None, words: dict[str, str], language: str) -> pd.DataFrame:
    """Put title and category beside, where the SKU table has them, and what is shown into words."""
    said = diagnosis_words(language)
    if skus is not None:
        beside = skus[["sku_id", *(c for c in ("title", "category") if c in skus.columns)]].drop_duplicates("sku_id")
        table = table.merge(beside.astype({"sku_id": "str"}), on="sku_id", how="left", validate="m:1")
    ranges = [
        "" if pd.isna(low) else words["range"].format(low=f"{low:.0%}", high=f"{high:.0%}")
        + (f" {words['weakness_return']}" if step == "return" else "")
        for low, high, step in zip(table["weakness_low"], table["weakness_high"], table["weak_step"], strict=True)
    ]  # fmt: skip
    return table.assign(
        tier=[said[f"tier_{tier}"] for tier in table["tier"]],
        weak_step=[said[step] for step in table["weak_step"]],
        size=["" if pd.isna(size) else f"{size:.0%}" for size in table["weakness"]],
        range=ranges,
        appeal=["" if pd.isna(times) else words["times"].format(value=f"{times:.2f}") for times in table["own_appeal"]],
    )


def _tiles(table: pd.DataFrame, words: dict[str, str], language: str) -> list[Tile]:
    said, tiles = diagnosis_words(language), []
    for tier, mark in TIER_MARKS.items():
        count = int((table["tier"] == tier).sum())
        share = count / max(len(table), 1)
        says = (words["share"].format(share=percent(share)), words[f"meaning_{tier}"])
        tiles.append(Tile(said[f"tier_{tier}"], f"{count:,}", share, says, mark))
    return tiles


def _draw(table: pd.DataFrame, words: dict[str, str], language: str, false_share: float) -> Picture:
    said, counts = diagnosis_words(language), table["weak_step"].value_counts()
    colours = {**dict.fromkeys(STEPS, "#b23a0c"), "nothing": "#7cc9b3", "too_little": "#aab4bf"}
    bars = [(said[step], float(counts.get(step, 0)), colour) for step, colour in colours.items()]
    return Picture(
        draw_bars(bars, words["steps"], width=660),
        words["steps"],
        words["steps_intro"].format(false_share=percent(false_share)),
    )
