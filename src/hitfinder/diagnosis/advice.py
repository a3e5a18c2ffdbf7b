"""What a SKU's diagnosis says, in words."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.creatives import PICTURES
from hitfinder.diagnosis.findings import Findings
from hitfinder.errors import SettingsError

__all__ = ["LANGUAGES", "PICTURE_WORDS", "advice", "diagnosis_words"]

LANGUAGES = ("en", "zh")
PICTURE_WORDS = PICTURES
# A price this far above its category's median is the first thing to look at.
DEAR = 1.10


def diagnosis_words(language: str) -> dict[str, str]:
    """Return the texts of one language by key.

    Raises
    ------
    SettingsError
        For a language that there are none in.

    Examples
    --------
    >>> diagnosis_words("en")["click"], diagnosis_words("zh")["tier_hot"]
    ('picture or title', '热销款')
    """
    if language not in LANGUAGES:
        raise SettingsError(f"language: expected {' or '.join(LANGUAGES)}, got {language!r}")
    return _all_words()[language]


@cache
def _all_words() -> dict[str, dict[str, str]]:
    text = resources.files("hitfinder.diagnosis").joinpath("words.toml").read_text(encoding="utf-8")
    words: dict[str, dict[str, str]] = tomllib.loads(text)
    return words


def advice(found: Findings, language: str) -> pd.Series:
    """Say of each SKU what to change first, or why nothing is said; by `sku_id`."""
    words = diagnosis_words(language)
    steps = found.steps.set_index(["sku_id", "step"]).sort_index()
    steps = steps.assign(below=steps.index.get_level_values("step").map({s.name: s.below for s, _ in found.fitted}))
    rows = dict(zip(steps.index, steps.to_dict("records"), strict=True))
    pictures: dict[str, dict[str, Any]] = {}
    if found.pictures is not None:
        pictures = found.pictures.skus.set_index("sku_id").to_dict("index")  # type: ignore[assignment]  # ids are texts
    said = {
        str(sku["sku_id"]): words["sentence_sep"].join(_lines(sku, rows, pictures.get(str(sku["sku_id"]), {}), words))
        for sku in found.skus.to_dict("records")
    }
    return pd.Series(said, dtype=object)


def _lines(
    sku: dict[Any, Any], rows: dict[Any, dict[Any, Any]], picture: dict[str, Any], words: dict[str, str]
) -> list[str]:
    weak = sku["weak_step"]
    if weak == "nothing":
        key = "said_nothing" if len(sku["held"]) > 1 else "said_nothing_one"
        return [words[key].format(steps=_named(sku["held"], words))]
    if weak == "too_little":
        if sku["open_step"] is None:
            return [words["no_steps"]]
        lines = [words["said_too_little"]]
        if sku["held"]:
            lines.append(words["holds_up"].format(steps=_named(sku["held"], words)))
        return [*lines, _more(sku, words)]
    row = rows[(sku["sku_id"], weak)]
    size, low, high = (_percent(sku[name]) for name in ("weakness", "weakness_low", "weakness_high"))
    counts = {"num": f"{row['num']:,.0f}", "den": f"{row['den']:,.0f}"}
    if weak == "return":
        measured = words["far_above"].format(size=size, low=low, high=high, **counts)
    else:
        measured = words["far_below"].format(
            of=words[f"of_{weak}"], size=size, low=low, high=high, unit=words[row["below"]], **counts
        )
    lines = [*_what_to_do(weak, row, sku, picture, words), measured]
    if sku["also"]:
        lines.append(words["also"].format(steps=_named(sku["also"], words)))
    return lines


def _what_to_do(
    weak: str, row: dict[Any, Any], sku: dict[Any, Any], picture: dict[str, Any], words: dict[str, str]
) -> list[str]:
    if weak == "click":
        key = {"good_product_bad_picture": "do_picture", "bad_product_good_picture": "do_product",
               "both_bad": "do_both"}.get(picture.get("picture", ""), "do_click")  # fmt: skip
        lines = [words[key]]
        if pd.notna(picture.get("best_gain", np.nan)):
            gain = _percent(np.expm1(picture["best_gain"]))
            lines.append(words["do_best"].format(creative=picture["best_creative"], gain=gain))
        return lines
    if weak == "cart":
        dear = sku["price_ratio"]
        return [words["do_price"].format(above=_percent(dear - 1)) if dear >= DEAR else words["do_page"]]
    if weak == "order":
        return [words["do_checkout" if row["below"] == "carts" else "do_order"]]
    return [words["do_return"]]


def _more(sku: dict[Any, Any], words: dict[str, str]) -> str:
    step = words[sku["open_step"]]
    if pd.isna(sku["more"]):
        return words["never"].format(step=step)
    return words["more"].format(n=f"{_rounded(sku['more']):,}", unit=words[sku["unit"]], step=step)


def _named(steps: list[str], words: dict[str, str]) -> str:
    return words["list_sep"].join(words[step] for step in steps)


def _rounded(value: float) -> int:
    """Round to two digits: it is a forecast.

    >>> _rounded(12345.6), _rounded(7.2)
    (12000, 7)
    """
    digits = 1 - int(np.floor(np.log10(max(value, 1))))
    return int(round(value, min(digits, 0)))


def _percent(share: float) -> str:
    return f"{share:.0%}"
