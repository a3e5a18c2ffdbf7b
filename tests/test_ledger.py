"""The ledger: every line is what a slow hand would write, and sums reconcile with the signals to the last decimal."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.costs import COEFFICIENTS, unit_economics
from hitfinder.errors import DataError, SettingsError
from hitfinder.ledger import COSTS, ledger, ledgers
from hitfinder.report.ledger import ledger_paper
from hitfinder.settings import parse_settings

RATES = {
    "platform_fee": 0.05,
    "payment_fee": 0.006,
    "commission": 0.1,
    "coupons": 0.03,
    "shipping": 3.0,
    "freight_insurance": 0.5,
    "return_handling": 2.0,
    "resellable": 0.7,
}
WEEK = pd.Timedelta(days=7)


def some_signals(rows):
    return pd.DataFrame(
        rows,
        columns=["sku_id", "period_start", "channel", "impressions", "orders", "units", "revenue", "refunds", "spend"],
    )


def market(seed=0, n=60):
    rng = np.random.default_rng(seed)
    orders = rng.poisson(2, n)
    units = orders + rng.poisson(0.3, n) * (orders > 0)
    return (
        some_signals(
            {
                "sku_id": rng.choice(["a", "b", "c"], n),
                "period_start": pd.Timestamp("2025-01-06") + pd.to_timedelta(np.arange(n), unit="D"),
                "channel": rng.choice(["search", "ads"], n),
                "impressions": rng.integers(100, 900, n),
                "orders": orders,
                "units": units,
                "revenue": np.round(units * rng.uniform(10, 60, n), 2),
                "refunds": np.round(rng.uniform(0, 20, n) * (rng.random(n) < 0.2), 2),
                "spend": np.round(rng.uniform(0, 9, n), 2),
            }
        ),
        pd.DataFrame({"sku_id": ["a", "b", "c"], "category": ["x", "x", "y"], "price": [30.0, 40.0, 50.0],
                      "unit_cost": [11.0, 15.5, 19.99]}),
    )  # fmt: skip


def exact(value):
    return Decimal(repr(float(value))).quantize(Decimal("0.0001"), ROUND_HALF_UP)


def test_sums_reconcile_with_the_signals_to_the_last_decimal_whatever_the_rows_are_about():
    signals, skus = market()
    every = ledgers(
        signals, skus, parse_settings({"costs": RATES}),
        by=((), ("sku_id",), ("channel",), ("period_start", "category"), ("sku_id", "creative_id", "batch_id")),
        every=WEEK,
    )  # fmt: skip
    for name in ("revenue", "refunds", "spend"):
        want = sum(map(exact, signals[name]), Decimal(0))
        column = "ad_spend" if name == "spend" else name
        assert [sum(table[column], Decimal(0)) for table in every] == [want] * len(every)
    for name in ("contribution", *COSTS):
        sums = {sum(table[name], Decimal(0)) for table in every}
        assert len(sums) == 1, name
    for table in every:
        kept = table["revenue"] - table["refunds"]
        for name in COSTS:
            kept = kept - table[name]
        assert (kept == table["contribution"]).all()


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), st.integers(0, 20), st.integers(0, 9), st.decimals(0, 99_999, places=2),
            st.decimals(0, 999, places=2), st.decimals(0, 999, places=4),
        ),
        min_size=1, max_size=12, unique_by=lambda row: (row[0], row[1]),
    ),
    st.fixed_dictionaries(dict.fromkeys(("platform_fee", "commission", "coupons", "payment_fee"), st.floats(0, 0.3))),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_the_contribution_is_what_is_left_of_any_signals_at_any_rates(rows, rates):
    signals = pd.DataFrame(
        [
            {
                "sku_id": sku, "period_start": pd.Timestamp("2025-01-06") + pd.Timedelta(days=day), "orders": orders,
                "units": orders, "revenue": float(revenue), "refunds": float(refunds), "spend": float(spend),
            }
            for sku, day, orders, revenue, refunds, spend in rows
        ]
    )  # fmt: skip
    skus = pd.DataFrame({"sku_id": ["a", "b"], "price": 10.0, "unit_cost": [3.0, 4.0]})
    whole, each = ledgers(signals, skus, parse_settings({"costs": {**RATES, **rates}}), by=((), ("sku_id",)))
    assert sum(each["contribution"], Decimal(0)) == whole["contribution"].iloc[0]
    assert sum(each["revenue"], Decimal(0)) == sum((exact(r) for r in signals["revenue"]), Decimal(0))
    assert sum(each["ad_spend"], Decimal(0)) == sum((exact(r) for r in signals["spend"]), Decimal(0))
    parts = [sum(each[name], Decimal(0)) for name in COSTS]
    kept = sum(each["revenue"], Decimal(0)) - sum(each["refunds"], Decimal(0)) - sum(parts, Decimal(0))
    assert kept == whole["contribution"].iloc[0]


def test_each_line_is_what_a_slow_hand_would_write():
    signals = some_signals([["a", "2025-01-06", "s", 1000, 4, 5, 200.0, 40.0, 12.0]])
    skus = pd.DataFrame({"sku_id": ["a"], "price": [45.0], "unit_cost": [15.0]})
    row = ledger(signals, skus, parse_settings({"costs": RATES})).iloc[0].astype(object)
    # A unit brought 40, an order 50: what came back is one unit, and 0.8 orders.
    want = {
        "platform_fee": 0.05 * 160, "commission": 0.1 * 160, "payment_fee": 0.006 * 200, "coupons": 0.03 * 200,
        "shipping": 3 * 4, "freight_insurance": 0.5 * 4, "return_handling": 2 * 0.8,
        "cost_of_goods": 15 * 5 - 0.7 * 15 * 1, "ad_spend": 12.0,
    }  # fmt: skip
    assert {name: float(row[name]) for name in want} == pytest.approx(want)
    left = 160 - sum(want.values())
    assert float(row["contribution"]) == pytest.approx(left)
    assert row["contribution_per_order"] == pytest.approx(left / 4)
    assert row["contribution_per_1000_impressions"] == pytest.approx(left)
    assert row["net_return_on_spend"] == pytest.approx(160 / 12)
    assert row["break_even_return_on_spend"] == pytest.approx(160 / (left + 12))
    assert row["unknown_costs"] == ""


def test_the_coefficients_say_what_the_ledger_says():
    signals, skus = market(1)
    one = parse_settings({"costs": {**RATES, "category": {"y": {"shipping": 9.0}}, "sku": {"a": {"commission": 0.2}}}})
    table = ledger(signals, skus, one)
    seen = signals.groupby("sku_id")[["revenue", "orders", "units", "refunds", "impressions", "spend"]].sum()
    brought = {"unit_price": seen["revenue"] / seen["units"], "order_value": seen["revenue"] / seen["orders"]}
    about = pd.DataFrame({**brought, "unmeasured": ""}).reset_index()
    found = unit_economics(skus, one.costs, about).set_index("sku_id")[list(COEFFICIENTS)]
    counts = seen[["revenue", "refunds", "orders", "units", "impressions"]].to_numpy()
    want = (counts * found.to_numpy()).sum(axis=1) - seen["spend"]
    # Each line of each report is rounded to a hundredth of a cent.
    assert table["contribution"].astype(float).to_numpy() == pytest.approx(want.to_numpy(), abs=1e-3 * len(signals))


def test_a_cost_that_nobody_gave_is_named_and_not_taken_for_nothing():
    signals = some_signals([["a", "2025-01-06", "s", 1000, 4, 5, 200.0, 40.0, np.nan]])
    skus = pd.DataFrame({"sku_id": ["a"], "price": [45.0]})
    row = ledger(signals, skus, parse_settings({"costs": {"platform_fee": 0.05}})).iloc[0]
    named = (
        "commission, coupons, freight_insurance, payment_fee, resellable, return_handling, shipping, spend, unit_cost"
    )
    assert row["unknown_costs"] == named
    assert pd.isna(row["commission"])
    assert pd.isna(row["cost_of_goods"])
    assert float(row["contribution"]) == pytest.approx(160 * 0.95)
    known = parse_settings({"costs": {**RATES, "goods_share": 0.4, "ad_cost": 5.0}})
    row = ledger(signals, skus, known).iloc[0]
    assert row["unknown_costs"] == ""
    assert float(row["ad_spend"]) == pytest.approx(5.0)
    assert float(row["cost_of_goods"]) == pytest.approx(18 * 5 - 0.7 * 18)


def test_a_sku_s_own_rate_goes_before_its_category_s_and_that_before_everybody_s():
    signals, skus = market(2)
    given_rates = {**RATES, "category": {"x": {"platform_fee": 0.1}}, "sku": {"b": {"platform_fee": 0.2}}}
    table = ledger(signals, skus, parse_settings({"costs": given_rates})).set_index("sku_id").astype(object)
    rate = {sku: float(table["platform_fee"][sku]) / float(table["net_revenue"][sku]) for sku in "abc"}
    assert rate == pytest.approx({"a": 0.1, "b": 0.2, "c": 0.05}, abs=1e-4)


def test_the_newest_report_known_counts_and_what_was_not_known_does_not():
    signals = some_signals([["a", "2025-01-06", "s", 100, 1, 1, 50.0, 0.0, 1.0]] * 2).assign(
        known_at=pd.to_datetime(["2025-01-07", "2025-01-20"]), revenue=[50.0, 80.0]
    )
    skus = pd.DataFrame({"sku_id": ["a"], "price": [50.0], "unit_cost": [10.0]})
    for as_of, want in (("2025-01-10", 50), ("2025-01-21", 80)):
        assert float(ledger(signals, skus, parse_settings({}), as_of=as_of)["revenue"].iloc[0]) == want


@pytest.mark.parametrize(
    ("by", "every", "said"),
    [(("colour",), None, "expected some of sku_id"), (("sku_id",), WEEK, "needs period_start")],
)
def test_what_a_ledger_can_not_be_grouped_by_is_refused(by, every, said):
    signals, skus = market()
    with pytest.raises(SettingsError, match=said):
        ledger(signals, skus, parse_settings({}), by=by, every=every)


def test_weeks_begin_on_monday():
    signals, skus = market()
    table = ledger(signals, skus, parse_settings({}), by=("period_start",), every=WEEK)
    assert set(table["period_start"].dt.day_of_week) == {0}
    assert len(table) == 9


def test_skus_that_are_not_listed_are_in_the_ledger_and_named():
    signals = some_signals(
        [[sku, "2025-01-06", "s", 10, 1, 1, revenue, 0.0, 1.0] for sku, revenue in (("a", 100.0), ("c", 500.0))]
    )
    skus = pd.DataFrame({"sku_id": ["a"], "price": [100.0], "unit_cost": [30.0]})
    with pytest.warns(UserWarning, match="1 SKUs with signals are not listed"):
        whole, each = ledgers(signals, skus, parse_settings({"costs": RATES}), by=((), ("sku_id",)))
    assert whole["revenue"].iloc[0] == 600
    assert each.set_index("sku_id")["unknown_costs"].to_dict() == {"a": "", "c": "unit_cost"}


def test_what_only_some_reports_count_is_unknown_of_the_others():
    signals = some_signals(
        [
            ["a", "2025-01-06", "x", 10, 10, 10, 1000.0, 0.0, 1.0],
            ["a", "2025-01-06", "y", 10, None, None, 1000.0, 0.0, 1.0],
        ]
    )
    skus = pd.DataFrame({"sku_id": ["a"], "price": [100.0], "unit_cost": [50.0]})
    table = ledger(signals, skus, parse_settings({"costs": RATES}), by=("channel",)).set_index("channel")
    assert table["unknown_costs"].to_dict() == {"x": "", "y": "cost_of_goods, freight_insurance, shipping"}


def test_ads_without_spend_and_impressions_are_unknown_whatever_their_rate():
    signals = pd.DataFrame({"sku_id": ["a"], "period_start": ["2025-01-06"], "orders": 1, "units": 1, "revenue": 90.0,
                            "refunds": 0.0})  # fmt: skip
    skus = pd.DataFrame({"sku_id": ["a"], "price": [90.0], "unit_cost": [50.0]})
    row = ledger(signals, skus, parse_settings({"costs": {**RATES, "ad_cost": 30.0}})).iloc[0]
    assert row["unknown_costs"] == "spend"


def test_a_ledger_of_nothing_and_a_ledger_without_money():
    skus = pd.DataFrame({"sku_id": ["a"], "price": [90.0]})
    seen = pd.DataFrame({"sku_id": ["a"], "period_start": ["2025-01-06"], "clicks": [5]})
    assert pd.isna(ledger(seen, skus, parse_settings({}))["contribution"].iloc[0])
    sold = some_signals([["a", "2025-01-06", "s", 10, 1, 1, 90.0, 0.0, 1.0]])
    with pytest.warns(UserWarning, match="not listed"):
        table = ledger(sold, skus.iloc[:0], parse_settings({}))
    assert table["revenue"].tolist() == [90]


def test_a_category_that_no_sku_is_of_is_named():
    signals, skus = market()
    with pytest.warns(UserWarning, match="no SKU is of 'Dresses'"):
        ledger(signals, skus, parse_settings({"costs": {"category": {"Dresses": {"commission": 0.3}}}}))


def test_ids_that_do_not_match_are_said_and_the_money_is_in_the_ledger_all_the_same():
    signals, skus = market()
    plain = ledger(signals, skus, parse_settings({}))
    with (
        pytest.warns(UserWarning, match="3 of 3 SKUs have no signal.*check that both spell the ids alike"),
        pytest.warns(UserWarning, match="3 SKUs with signals are not listed"),
    ):
        strange = ledger(signals, skus.assign(sku_id="00" + skus["sku_id"]), parse_settings({}))
    assert strange["revenue"].sum() == plain["revenue"].sum() > 0
    some = skus.assign(sku_id=["a", "00b", "00c"])
    with pytest.warns(UserWarning, match="2 of 3 SKUs have no signal.*check that both spell the ids alike"):
        ledger(signals, some, parse_settings({}))


def test_a_moment_before_all_signals_is_refused_and_one_long_after_them_is_noted():
    signals, skus = market()
    with pytest.raises(DataError, match="as_of: the first signal was known 2025-01-07 00:00, got 2020-01-01"):
        ledger(signals, skus, parse_settings({}), "2020-01-01")
    with pytest.warns(UserWarning, match="as_of 2030-01-01 is 1,761 days after the newest signal was known"):
        ledger(signals, skus, parse_settings({}), "2030-01-01")


def test_the_paper_leaves_out_what_is_empty():
    signals, skus = market()
    told = parse_settings({"costs": RATES})
    table, total = ledgers(signals, skus, told, by=(("sku_id",), ()))
    assert ("unknown_costs" in ledger_paper(table, total).columns) == bool((table["unknown_costs"] != "").any())
    none = table.assign(unknown_costs="")
    assert "unknown_costs" not in ledger_paper(none, total).columns
    assert "unknown_costs" in ledger_paper(table.assign(unknown_costs="spend"), total).columns
    [unsold], [nothing] = (ledgers(signals.assign(revenue=0.0), skus, told, by=(by,)) for by in (("sku_id",), ()))
    for language in ("en", "zh"):
        assert "–" not in ledger_paper(unsold, nothing, language).says[0]
