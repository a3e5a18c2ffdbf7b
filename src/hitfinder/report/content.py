"""What a list says, checked and put in order, before any format gives it a shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.errors import DataError
from hitfinder.models.rules import rule_name
from hitfinder.promise import ScalePromise, StopPromise
from hitfinder.report.cost_names import name_costs
from hitfinder.report.words import load_words

__all__ = ["ACTIONS", "BESIDE", "COLUMNS", "REASONS", "Content", "decimals_of", "percent", "prepare", "text_of"]

ACTIONS = ("scale", "test", "stop")
REASONS = ("reason_1", "reason_2", "reason_3")
PROBABILITIES = ("hit_probability", "hit_probability_low", "hit_probability_high")
COLUMNS = ("rank", "sku_id", "batch_id", *PROBABILITIES, "expected_value", "action", *REASONS, "model_version", "as_of")
BESIDE = ("title", "category", "price", "image_url")
MEASURES = ("average_precision", "hits_at_k")
# Measures that are shares of something, and read better as per cent. The others are shown with two decimals.
SHARES = ("hits_at_k", "precision_at_k")


@dataclass(frozen=True)
class Content:
    """A list that is ready to be written.

    Attributes
    ----------
    table
        The columns of `COLUMNS`, then what came beside them, best first.
    words
        The texts of the language, by key.
    as_of, model_version, batch
        What holds for the whole list; `batch` is "" where there are several. `as_of` is None for an empty list.
    counts, hits_expected
        For each action: how many SKUs, and the sum of their hit probabilities.
    promises
        What is promised about an action, or why nothing is: action, sentence.
    facts
        What the summary says in single values: heading, text.
    measures
        How each way of ranking did on past batches: heading of each measure, by key.
    methods
        One row for each way of ranking, best first: `name`, `used`, and a text for each measure.
    warning, note
        Sentences, or "".
    hindsight
        What became of past lists (`Hindsight.to_dict()`), or None.
    """

    table: pd.DataFrame
    words: dict[str, str]
    as_of: pd.Timestamp | None
    model_version: str
    batch: str
    counts: dict[str, int]
    hits_expected: dict[str, float]
    promises: list[tuple[str, str]]
    facts: list[tuple[str, str]]
    measures: dict[str, str]
    methods: list[dict[str, Any]]
    warning: str
    note: str
    value_heading: str
    language: str = "en"
    hindsight: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """The heading of the page."""
        return self.words["title_batch"].format(batch=self.batch) if self.batch else self.words["title"]

    @property
    def as_of_text(self) -> str:
        """The moment of knowledge, as text."""
        return "" if self.as_of is None else f"{self.as_of:%Y-%m-%d %H:%M} UTC"


def prepare(
    ranked: pd.DataFrame,
    skus: pd.DataFrame | None,
    language: str,
    summary: Mapping[str, Any] | None,
    hindsight: Mapping[str, Any] | None = None,
) -> Content:
    """Check a ranked list and put together all that a reader is to see.

    Raises
    ------
    DataError
        A column is missing, an action or a probability is impossible, an id is not text or comes twice.
    SettingsError
        The language is not known.
    """
    words = load_words(language)
    table = _checked(ranked)
    if skus is not None:
        table = table.merge(_beside(skus, table), on="sku_id", how="left", validate="m:1")
    said = dict(summary or {})
    metric = str(said.get("metric") or "")
    batches = table["batch_id"].dropna().unique()
    versions = table["model_version"].dropna().unique()
    by_action = table.groupby("action")["hit_probability"]
    methods, measures, warning = _methods(said, words)
    return Content(
        table=table,
        words=words,
        as_of=None if table["as_of"].isna().all() else table["as_of"].max(),
        model_version=words["list_sep"].join(str(v) for v in versions),
        batch=str(batches[0]) if len(batches) == 1 and table["batch_id"].notna().all() else "",
        counts={a: int((table["action"] == a).sum()) for a in ACTIONS},
        hits_expected={a: float(v) for a, v in by_action.sum().items()},  # type: ignore[misc]  # keys are actions
        promises=_promises(said, language),
        facts=_facts(said, words),
        measures=measures,
        methods=methods,
        warning=warning,
        note=_note(said, words),
        value_heading=words.get(f"expected_{metric}", words["expected_value"]),
        language=language,
        hindsight=hindsight,
    )


def _checked(ranked: pd.DataFrame) -> pd.DataFrame:
    """Copy the list with the contract's columns first, in order of rank, each of its type."""
    missing = [c for c in COLUMNS if c not in ranked.columns]
    if missing:
        raise DataError(f"ranked list: expected the columns of `rank`, missing: {', '.join(missing)}")
    table = ranked[[*COLUMNS, *(c for c in ranked.columns if c not in COLUMNS)]].copy()
    table["sku_id"] = _ids(table["sku_id"], "ranked list")
    twice = table.loc[table["sku_id"].duplicated(), "sku_id"]
    if len(twice):
        raise DataError(f"ranked list: expected each sku_id once, {len(twice)} came again, such as {twice.iloc[0]!r}")
    strange = sorted({str(a) for a in table.loc[~table["action"].isin(ACTIONS), "action"].unique()})
    if strange:
        raise DataError(f"ranked list: expected the actions {', '.join(ACTIONS)}, got {', '.join(strange)}")
    for name in (*PROBABILITIES, "expected_value", "rank"):
        table[name] = _numbers(table[name], name, "ranked list")
    for name in PROBABILITIES:
        wrong = table.loc[(table[name] < 0) | (table[name] > 1), name]
        if len(wrong):
            raise DataError(f"ranked list: expected {name} from 0 to 1, got {wrong.iloc[0]} ({len(wrong)} such rows)")
    try:
        table["as_of"] = (
            pd.to_datetime(table["as_of"], utc=True, format="ISO8601").dt.tz_localize(None).dt.as_unit("us")
        )
    except (ValueError, TypeError) as error:
        raise DataError(f"ranked list: expected timestamps in as_of, got something else ({error})") from None
    return table.sort_values("rank", kind="stable", ignore_index=True)


def _ids(ids: pd.Series, where: str) -> pd.Series:
    """Ids as text. A float has already lost the last digits of a long id, so it is refused."""
    if len(ids) and pd.api.types.is_float_dtype(ids.dtype):
        raise DataError(
            f"{where}: expected sku_id as text, got {ids.dtype}; read the ids as text, long ones lose digits"
        )
    if ids.isna().any():
        raise DataError(f"{where}: expected a sku_id in every row, {int(ids.isna().sum())} are empty")
    return ids.astype("str")


def _numbers(column: pd.Series, name: str, where: str) -> pd.Series:
    try:
        numbers = pd.to_numeric(column)
    except (ValueError, TypeError):
        raise DataError(f"{where}: expected numbers in {name}, got {column.dtype} such as {column.iloc[0]!r}") from None
    if name == "rank" and (numbers.isna().any() or (numbers % 1 != 0).any()):
        raise DataError(f"{where}: expected whole numbers in rank, got empty or broken ones")
    numbers = numbers.astype("int64" if name == "rank" else "float64")
    if np.isinf(numbers).any():
        raise DataError(f"{where}: expected finite numbers in {name}, {int(np.isinf(numbers).sum())} are infinite")
    return numbers


def _beside(skus: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Take what stands beside each SKU of the list: one row for each sku_id. The list's own columns win."""
    if "sku_id" not in skus.columns:
        raise DataError(f"skus: expected the column sku_id, got {', '.join(map(str, skus.columns)) or 'no columns'}")
    beside = skus[["sku_id", *(c for c in BESIDE if c in skus.columns and c not in table.columns)]].copy()
    beside["sku_id"] = _ids(beside["sku_id"], "skus")
    beside = beside.loc[beside["sku_id"].isin(table["sku_id"])].drop_duplicates()
    twice = beside.loc[beside["sku_id"].duplicated(), "sku_id"]
    if len(twice):
        raise DataError(
            f"skus: expected each sku_id once, {len(twice)} came with different rows, such as {twice.iloc[0]!r}"
        )
    if "price" in beside.columns:
        beside["price"] = _numbers(beside["price"], "price", "skus")
    return beside


def _promises(said: dict[str, Any], language: str) -> list[tuple[str, str]]:
    promises = said.get("promises") or {}
    if not isinstance(promises, Mapping):
        raise DataError(f"summary: expected promises as a mapping from action, got {type(promises).__name__}")
    strange = [a for a, p in promises.items() if a not in ACTIONS or not isinstance(p, StopPromise | ScalePromise)]
    if strange:
        raise DataError(f"summary: expected promises about {' or '.join(ACTIONS)}, got one about {strange[0]!r}")
    told = [(action, promises[action].sentence(language)) for action in ACTIONS if action in promises]
    stop = promises.get("stop")
    if not said.get("stopped_by_people") or stop is None or stop.threshold is None:
        return told
    # A person's stop was nothing that the model could promise about.
    about = load_words(language)["promise_models_only"]
    return [(action, text + ("" if language == "zh" else " ") + about if action == "stop" else text)
            for action, text in told]  # fmt: skip


def _facts(said: dict[str, Any], words: dict[str, str]) -> list[tuple[str, str]]:
    """List the summary's single values, each under its heading; one that has no heading keeps its own name."""
    facts = []
    for key, value in said.items():
        if key in ("note", "verdict", "rules", "model", "k", "promises", "stopped_by_people") or value is None:
            continue
        if key == "metric":
            text = words.get(f"metric_{value}", str(value))
        elif key == "ranked_by":
            text = rule_name(str(value), words["lang"])
        elif key == "unknown_costs":
            text = name_costs(str(value), "zh" if words["lang"].startswith("zh") else "en")
        else:
            text = text_of(value)
        facts.append((words.get(key, key), text))
    return facts


def _methods(said: dict[str, Any], words: dict[str, str]) -> tuple[list[dict[str, Any]], dict[str, str], str]:
    """Compare the ways of ranking: rows best first, headings of the measures, and a warning where one is due."""
    rules: Sequence[Any] = said.get("rules") or []
    model = said.get("model")
    if isinstance(rules, str | Mapping) or not all(isinstance(r, Mapping) for r in rules):
        raise DataError("summary: expected rules as a list of mappings with a name and its measures")
    if model and not isinstance(model, Mapping):
        raise DataError(f"summary: expected model as a mapping with its measures, got {type(model).__name__}")
    rows = [dict(r) for r in rules]
    if model:
        # What ranked the list and is none of the rules is the model.
        own = said.get("ranked_by")
        unnamed = words["default_model"] if own in [r.get("name") for r in rows] else own or words["default_model"]
        rows.insert(0, {**model, "name": model.get("name") or unnamed})
    for row in rows:
        row["name"] = str(row.get("name") or words["none"])

    def precision(row: dict[str, Any]) -> float:
        value = row.get("average_precision")
        return -1.0 if value is None or math.isnan(value) else float(value)

    rows.sort(key=precision, reverse=True)
    keys = list(dict.fromkeys(k for row in rows for k in row if k != "name"))
    keys.sort(key=lambda k: MEASURES.index(k) if k in MEASURES else len(MEASURES))
    headings = {k: words.get(k, k) for k in keys}
    if said.get("k") is not None and "hits_at_k" in headings:
        headings["hits_at_k"] = words["hits_at_k_k"].format(k=text_of(said["k"]))
    used = next((row for row in rows if row["name"] == said.get("ranked_by")), None)
    warning = ""
    if used is not None and -1 < precision(used) < precision(rows[0]):
        warning = words["worse_than_rule"].format(rule=rule_name(rows[0]["name"], words["lang"]))
    methods = [
        {
            "name": rule_name(row["name"], words["lang"]),
            "used": row is used,
            "texts": {k: _measure(k, row.get(k), words) for k in keys},
        }
        for row in rows
    ]
    return methods, headings, warning


def _note(said: dict[str, Any], words: dict[str, str]) -> str:
    """Say how the list did beside the best simple rule: in the language, where there are figures."""
    told = said.get("verdict")
    if not told:
        return str(said.get("note") or "")
    kind = "better" if told["low"] > 0 else "par" if told["ranks"] else "rule"
    return words[f"verdict_{kind}"].format(
        rule=rule_name(told["rule"], words["lang"]),
        **{name: f"{told[name]:.3f}" for name in ("ours", "theirs", "mean", "low", "high")},
    )


def _measure(key: str, value: Any, words: dict[str, str]) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return words["none"]
    if key in SHARES:
        return percent(float(value))
    return text_of(value) if isinstance(value, str | int) else f"{float(value):.2f}"


def text_of(value: Any) -> str:
    """One value as a reader writes it: whole numbers with thousands marked, others short.

    >>> text_of(5000), text_of(0.25), text_of("2025-W22")
    ('5,000', '0.25', '2025-W22')
    """
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def percent(share: float) -> str:
    """Write a share from 0 to 1 in per cent, as exactly as it is worth; never 0% or 100% where it is neither.

    >>> [percent(x) for x in (0, 0.0004, 0.034, 0.34, 0.9987, 1)]
    ['0%', '<0.1%', '3.4%', '34%', '>99%', '100%']
    """
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.995 <= share < 1:
        return ">99%"
    return f"{share:.1%}" if 0 < share < 0.0995 else f"{share:.0%}"


def decimals_of(column: pd.Series) -> int:
    """How many decimals one column of numbers needs so that its largest shows three digits.

    >>> decimals_of(pd.Series([4.0, 5120.5])), decimals_of(pd.Series([0.012, None]))
    (0, 4)
    """
    top = column.abs().max()
    if not top > 0:
        return 0
    return min(max(0, 2 - math.floor(math.log10(top))), 6)
