"""Tiers: the rules, their measures against slow ones, and that noise about a threshold changes nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from hitfinder.admission import admit_signals_and_skus
from hitfinder.errors import DataError
from hitfinder.features import set_scope
from hitfinder.settings import TierSettings, parse_settings
from hitfinder.simulate import simulate
from hitfinder.tiers import TIERS, place_in_tiers, standing_and_growth
from hitfinder.warehouse import open_warehouse

RULES = TierSettings()
shares = st.floats(0.001, 0.999)
growths = st.floats(0.05, 20)
tables = st.lists(st.tuples(shares, shares, growths), min_size=1, max_size=8).map(
    lambda rows: pd.DataFrame(rows, columns=["hit_probability", "top", "growth"]).assign(
        sku_id=[f"K{i}" for i in range(len(rows))]
    )
)


def plain(row, rules=RULES):
    """The rules as one would tell them."""
    if row["top"] <= rules.hot_top:
        return "hot"
    if row["growth"] >= rules.trending_growth:
        return "trending"
    return "potential" if row["hit_probability"] >= rules.potential_probability else "tail"


def moved(table, by):
    """Move every measure by so much on the scale of the margins."""

    def odds(share):
        other = share / (1 - share) * np.exp(by)
        return other / (1 + other)

    return table.assign(
        hit_probability=odds(table["hit_probability"]), top=odds(table["top"]), growth=table["growth"] * np.exp(by)
    )


@effort(deadline=None, max_examples=40)
@given(tables)
def test_without_last_week_the_plain_rules_hold(table):
    assert place_in_tiers(table, RULES).tolist() == [plain(row) for _, row in table.iterrows()]


@effort(deadline=None, max_examples=40)
@given(tables, st.data())
def test_small_noise_about_any_threshold_does_not_flicker(table, data):
    """Wherever a SKU stands, moves within the margin change its tier once at most: when it leaves for good."""
    margin = np.log1p(RULES.margin)
    last, changes = place_in_tiers(table, RULES), np.zeros(len(table))
    for _ in range(6):
        noise = data.draw(st.lists(st.floats(-0.49, 0.49), min_size=len(table), max_size=len(table)))
        previous = pd.DataFrame({"sku_id": table["sku_id"], "tier": last})
        new = place_in_tiers(moved(table, margin * np.array(noise)), RULES, previous)
        changes += (new != last).to_numpy()
        last = new
    assert (changes <= 1).all()


@effort(deadline=None, max_examples=40)
@given(tables, st.data())
def test_noise_within_the_margin_about_the_very_threshold_changes_nothing(table, data):
    on_edge = table.assign(top=RULES.hot_top, growth=1.0, hit_probability=0.01)
    tier = data.draw(st.sampled_from(["hot", "tail"]))
    noise = np.array(data.draw(st.lists(st.floats(-0.99, 0.99), min_size=len(table), max_size=len(table))))
    previous = pd.DataFrame({"sku_id": table["sku_id"], "tier": tier})
    assert (place_in_tiers(moved(on_edge, np.log1p(RULES.margin) * noise), RULES, previous) == tier).all()


@effort(deadline=None, max_examples=40)
@given(tables, st.data())
def test_far_past_every_threshold_last_week_does_not_matter(table, data):
    tiers = data.draw(st.lists(st.sampled_from(TIERS), min_size=len(table), max_size=len(table)))
    previous = pd.DataFrame({"sku_id": table["sku_id"], "tier": tiers})
    best = table.assign(top=0.001)
    worst = table.assign(top=0.9, growth=0.5, hit_probability=0.01)
    assert (place_in_tiers(best, RULES, previous) == "hot").all()
    assert (place_in_tiers(worst, RULES, previous) == "tail").all()


def test_a_sku_that_left_its_tier_goes_where_the_plain_rules_say():
    table = pd.DataFrame({"sku_id": ["a"], "hit_probability": [0.5], "top": [0.049], "growth": [0.5]})
    previous = pd.DataFrame({"sku_id": ["a"], "tier": ["trending"]})
    assert place_in_tiers(table, RULES, previous).tolist() == ["hot"]


def test_what_is_not_known_fits_no_rule_and_skus_without_last_week_follow_the_plain_ones():
    table = pd.DataFrame({"sku_id": ["a", "b"], "hit_probability": [np.nan, 0.21], "top": np.nan, "growth": np.nan})
    assert place_in_tiers(table, RULES).tolist() == ["tail", "potential"]
    other = pd.DataFrame({"sku_id": ["z"], "tier": ["hot"]})
    assert place_in_tiers(table, RULES, other).tolist() == ["tail", "potential"]


@pytest.mark.parametrize(
    ("previous", "said"),
    [
        (pd.DataFrame({"sku_id": ["a"]}), "tier missing"),
        (pd.DataFrame({"sku_id": ["a", "a"], "tier": ["hot", "tail"]}), "'a' more than once"),
        (pd.DataFrame({"sku_id": ["a"], "tier": ["warm"]}), "got 'warm'"),
    ],
)
def test_last_weeks_tiers_are_checked(previous, said):
    table = pd.DataFrame({"sku_id": ["a"], "hit_probability": [0.1], "top": [0.5], "growth": [1.0]})
    with pytest.raises(DataError, match=said):
        place_in_tiers(table, RULES, previous)


def test_standing_and_growth_are_what_a_slow_count_gives():
    market = simulate(weeks=4, skus_per_week=15, hits_per_week=2, seed=1)
    as_of = market.skus["launched_at"].max() + pd.Timedelta(days=3)
    settings = parse_settings({"tiers": {"window": "20d", "growth_window": "6d"}})
    con = open_warehouse(threads=1)
    admit_signals_and_skus(con, market.signals, market.skus, period=settings.signals.period)
    set_scope(con, settings, as_of)
    found = standing_and_growth(con, settings).set_index("sku_id")
    con.close()

    known = market.signals[(market.signals["known_at"] <= as_of) & (market.signals["period_start"] < as_of)]
    per_day, now, before = {}, {}, {}
    skus = market.skus.set_index("sku_id")
    for sku, row in skus.iterrows():
        own = known[known["sku_id"] == sku]
        back = (as_of - own["period_start"]) / pd.Timedelta(days=1)
        days = (as_of - row["launched_at"]) / pd.Timedelta(days=1)
        per_day[sku] = own.loc[back <= 20, "revenue"].sum() / max(min(days, 20), 1)
        if days >= 12:
            now[sku] = own.loc[back <= 6, "orders"].sum()
            before[sku] = own.loc[(back > 6) & (back <= 12), "orders"].sum()
    assert 0 < len(now) < len(skus)
    usual = sum(now.values()) / sum(before.values())
    for sku, value in per_day.items():
        at_least = sum(other >= value - 1e-9 for other in per_day.values())
        assert found.loc[sku, "top"] == pytest.approx(1.0 if value == 0 else at_least / len(per_day))
        if sku not in now:
            assert np.isnan(found.loc[sku, "growth"])
            continue
        batch = [s for s in now if skus.loc[s, "batch_id"] == skus.loc[sku, "batch_id"]]
        of_batch = (sum(now[s] for s in batch) + 10 * usual) / (sum(before[s] for s in batch) + 10)
        assert found.loc[sku, "growth"] == pytest.approx((now[sku] + 10 * of_batch) / (before[sku] + 10) / of_batch)
