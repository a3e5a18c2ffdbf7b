"""Reasons: a sentence for every topic, in both languages, with numbers that can be recomputed by hand."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_market import fitted, newest_batch

import hitfinder as hf
from hitfinder.errors import SettingsError
from hitfinder.features import RATES, is_size
from hitfinder.models.design import choose_design
from hitfinder.ranking import score
from hitfinder.reasons import VERBS, WORDS, reasons

EVERY_RATE = sorted(name for group in RATES.values() for name in group)


@pytest.fixture(scope="module")
def every_topic():
    """Return (model, table) with every column that a design can have, and rows of every kind."""
    design = choose_design(
        EVERY_RATE, ["weight"], metric="revenue", on_impressions=True, history_days=400, hit_share=0.05
    )
    rows = 8
    columns = dict.fromkeys(design.columns, np.zeros(rows))
    for rate in EVERY_RATE:
        columns[f"{rate}.num"] = np.asarray([0, 1, 5, 20, 0, 3, 2, np.nan])
        columns[f"{rate}.den"] = np.asarray([0, 10, 10, 10, 10, 30, 1, np.nan])
        for level in ("sku_rate", "category_rate", "batch_rate"):
            columns[f"{rate}.{level}"] = np.full(rows, 0.5)
    more = {
        "active_periods": [0, 1, 2, 3, 4, 5, 6, 7],
        "age_days": [0, 0.5, 2, 3, 4, 5, 6, 7],
        "impressions": [np.nan, 0, 5, 2000, 1e6, 1, 2, 3],
        "quiet_days": [np.nan, 0, 1.5, 2, 3, 4, 5, 6],
        "category": ["(none)", *["dress"] * 7],
        "batch_id": list("abcdefgh"),
        "sku_id": list("abcdefgh"),
    }
    return replace(fitted()[1], design=design), pd.DataFrame({**columns, **more})


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_every_column_has_a_sentence_in_every_language(every_topic, language, sign):
    model, table = every_topic
    for place, name in enumerate(model.design.columns):
        added = np.zeros((len(table), len(model.design.columns)))
        added[:, place] = sign  # each row is a batch of its own: nothing is taken off
        for row, lines in enumerate(zip(*reasons(model, table, added, language), strict=True)):
            assert (lines[0] is not None) == _can_be_said(name, table.iloc[row], sign), (name, row)
            for line in filter(None, lines):
                assert not re.search(r"\bnan\b|\binf\b|None|[{}]|(^|\s)\.|\s$", line), (name, line)
                assert line[:1] == line[:1].upper() or row == 0
                assert bool(re.search("[\u4e00-\u9fff]", line)) == (language == "zh"), line


def _can_be_said(column, sku, sign):
    """A reason about a rate is given only where the SKU's own figures show it; all others always."""
    rate, _, view = column.partition(".")
    if view in ("", "trend", "sibling_lead"):
        return True
    num, den = sku[f"{rate}.num"], sku[f"{rate}.den"]
    if not den > 0:
        return True
    own = np.exp(num / den) if is_size(rate) else num / den
    return rate.startswith("refunds") or (own > 0.5) == (sign > 0)


def test_both_languages_have_the_same_words():
    assert set(WORDS["en"]) == set(WORDS["zh"])
    assert set(VERBS["en"]) == set(VERBS["zh"])
    assert {rate.split("_per_")[0].removesuffix("_again") for rate in EVERY_RATE} <= set(VERBS["en"])


def test_another_language_is_refused():
    signals, skus, as_of = newest_batch()
    with pytest.raises(SettingsError, match="language: expected one of en, zh, got 'fr'"):
        hf.rank(fitted()[1], signals, skus, as_of, language="fr")


def test_the_counts_in_a_reason_are_those_of_the_signals():
    """Clicks and impressions summed by hand; the peers' rate by hand from the fitted pooling."""
    signals, skus, as_of = newest_batch()
    model = fitted()[1]
    found = hf.rank(model, signals, skus, as_of)
    said = found.melt("sku_id", ["reason_1", "reason_2", "reason_3"], value_name="line").dropna()
    said = said[said["line"].str.fullmatch(r"Is clicked .* as its category, on [\d,]+ impressions")]
    assert len(said) > 5
    known = signals[signals["known_at"] <= as_of].sort_values("known_at")
    known = known.drop_duplicates(["sku_id", "period_start", "channel", "creative_id"], keep="last")  # revisions
    known = known.dropna(subset=["clicks", "impressions"])
    own = known.groupby("sku_id")[["clicks", "impressions"]].sum()
    kinds = skus.set_index("sku_id")["category"]
    pools = own.groupby(kinds.reindex(own.index)).sum()
    rate = model.rates.set_index("rate").loc["clicks_per_impression"]
    batch = (own["clicks"].sum() + rate["batch_strength"] * rate["mean"]) / (
        own["impressions"].sum() + rate["batch_strength"]
    )
    for row in said.itertuples():
        clicks, impressions = own.loc[row.sku_id]
        pool = pools.loc[kinds[row.sku_id]]
        peers = (pool["clicks"] + rate["category_strength"] * batch) / (pool["impressions"] + rate["category_strength"])
        ratio = clicks / impressions / peers
        assert f"on {int(impressions):,} impressions" in row.line
        if 0.9 < ratio < 1.1:
            assert "about as often" in row.line
        else:
            assert f" {ratio:.1f} times" in row.line
            assert ("only" in row.line) == (ratio < 1)


def test_reasons_are_distinct_and_follow_the_strongest_contributions():
    signals, skus, as_of = newest_batch()
    model = fitted()[1]
    table, _, added = score(model, signals, skus, as_of)
    said = pd.DataFrame(reasons(model, table, added, "en")).T
    for row in said.itertuples(index=False):
        lines = [line for line in row if isinstance(line, str)]
        assert len(lines) == len(set(lines)) > 0
    place = model.design.columns.index("age_share")
    alone = np.zeros_like(added)
    alone[5, place] = 1.0
    assert reasons(model, table, alone, "en")[0][5] == WORDS["en"]["age_up"].format(days="4").capitalize()
    assert [part[6] for part in reasons(model, table, alone, "en")] == [None] * 3
