"""What an alarm means and what to do about it, in plain words; they live in `words.toml`."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from hitfinder.models.rules import rule_name
from hitfinder.report.words import check_language

__all__ = ["name_of_feature", "name_of_measure", "name_of_subject", "sentences", "words_of"]

LATE = {
    "share a day late": "late_day", "share two days late": "late_two_days", "mean delay in hours": "late_hours",
    "share revised": "late_revised",
}  # fmt: skip
SINGULAR = {"impressions": "impression", "clicks": "click", "orders": "order", "skus": "SKU"}
ON_CHINESE = {"clicks": "次点击", "orders": "个订单"}


def words_of(language: str) -> dict[str, str]:
    """Return the texts of one language.

    Raises
    ------
    SettingsError
        For a language that there are none in.
    """
    check_language(language)
    return _all_words()[language]


@cache
def _all_words() -> dict[str, dict[str, str]]:
    text = resources.files("hitfinder.monitor").joinpath("words.toml").read_text(encoding="utf-8")
    words: dict[str, dict[str, str]] = tomllib.loads(text)
    return words


def sentences(row: Mapping[str, Any], language: str) -> tuple[str, str]:
    """Say what happened and what to do about it.

    Parameters
    ----------
    row
        A row of `Health.checks` that is an alarm, with `batch` and `more` beside it.
    language
        `en` or `zh`.

    Examples
    --------
    >>> row = {"check": "missing", "kind": "channel", "subject": "ads", "measure": "share of periods with a report",
    ...        "value": 0.0, "usual": 1.0, "batch": "2025-W09", "more": 0, "n_history": 20}
    >>> print(sentences(row, "en")[0])
    channel ads: reports came for 0% of the periods of the week; 100% is usual.
    """
    words = words_of(language)
    key, do = _keys(row)
    what = words[key].format(
        **{name: row[name] for name in ("batch", "n_history")},
        subject=name_of_subject(row, language),
        measure=name_of_measure(str(row["measure"]), language),
        **_figures(row),
        direction=words["above" if row["value"] >= row["usual"] else "below"],
    )
    if row["more"]:
        what += ("" if language == "zh" else " ") + words["more"].format(more=row["more"])
    return what, words[do]


def name_of_subject(row: Mapping[str, Any], language: str) -> str:
    """Name what a row is about: `channel ads`, `category shoes`, a column."""
    kind, name = str(row["kind"]).removeprefix("same "), str(row["subject"])
    words = words_of(language)
    if kind in ("channel", "category"):
        return words[kind].format(name=name)
    if kind == "feature":
        return name_of_feature(name, language)
    if row["check"] == "against_rule":
        return rule_name(name, language)
    return words["whole"] if kind in ("all", "skus") and not name else name


def name_of_feature(name: str, language: str) -> str:
    """Name a column that the model reads in words; one that there are none for keeps its own.

    >>> name_of_feature("favorites_per_click.level", "en"), name_of_feature("orders_per_click.trend", "zh")
    ('favorites per click', '每次点击的订单（走势）')
    """
    words = words_of(language)
    rate, _, view = name.partition(".")
    top, per, below = rate.replace("_again", "").partition("_per_")
    if not per:
        return words.get(f"feature_{name}", name)
    if language == "en":
        said = words["per"].format(top=top, below=below)
    else:
        said = words["per"].format(top=words.get(top, top), below=words.get(f"on_{below}", below))
    more = [words["again"]] if "_again" in rate else []
    more += [words.get(f"view_{view}", view)] if view not in ("", "level") else []
    if not more:
        return said
    return said + words["view"].format(views=words["and"].join(more))


def name_of_measure(measure: str, language: str) -> str:
    """Name a rate in words.

    >>> name_of_measure("clicks per impressions", "en"), name_of_measure("orders per clicks", "zh")
    ('clicks per impression', '每次点击的订单')
    """
    top, per, below = measure.partition(" per ")
    words = words_of(language)
    if not per:
        return words.get(measure, measure)
    if language == "zh":
        return words["per"].format(top=words.get(top, top), below=ON_CHINESE.get(below, words.get(below, below)))
    return words["per"].format(top=top, below=SINGULAR.get(below, below))


def _keys(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return the keys of what happened and of what to do."""
    check, kind, measure = str(row["check"]), str(row["kind"]), str(row["measure"])
    if check == "batch_drift":
        if measure == "psi":
            return "spread", "do_drift"
        if measure == "share of reports":
            return "group_share", "do_drift"
        return {"feature": "feature_mean", "all": "all"}.get(kind, "group"), "do_drift"
    if check == "same_skus":
        return "same" if kind == "same skus" else "same_group", "do_drift"
    if check == "late":
        return LATE[measure], "do_late"
    if check == "missing":
        return f"missing_{kind}", "do_silent" if kind == "silent" else "do_missing"
    if check == "rejects":
        return "undated" if kind == "undated" else "rejects", "do_rejects"
    if check == "calibration":
        return kind, "do_calibration"
    return check, "do_promise" if check in ("promise", "decisions") else "do_found"


def _figures(row: Mapping[str, Any]) -> dict[str, str]:
    """Bring the figures of a row to the scale on which they are told."""
    value, usual, measure = float(row["value"]), float(row["usual"]), str(row["measure"])
    check = str(row["check"])
    told = {"factor": _factor(value - usual), "change": f"{abs(value - usual):.2f}"}
    if measure == "psi":
        return {
            **told,
            "value": f"{max(math.exp(value) - 0.01, 0):.2f}",
            "usual": f"{max(math.exp(usual) - 0.01, 0):.2f}",
        }
    if check == "same_skus":
        return {**told, "value": _factor(value), "usual": _factor(usual)}
    if check in ("promise", "decisions"):
        return {**told, "value": f"{value:.3g}", "usual": f"{usual:.0f}"}
    if check == "calibration" or row["kind"] == "silent" or measure == "mean delay in hours":
        return {**told, "value": f"{value:.1f}".removesuffix(".0"), "usual": f"{usual:.1f}".removesuffix(".0")}
    if check in ("missing", "late", "rejects", "hits_found", "against_rule"):
        return {**told, "value": _percent(value), "usual": _percent(usual)}
    return {**told, "value": f"{value:.2f}", "usual": f"{usual:.2f}"}


def _factor(difference: float) -> str:
    return f"{math.exp(min(max(difference, -20.0), 20.0)):.2f}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"
