"""What if: answers against a ledger made by hand, break-evens that break even, and the deal that both sides gain by."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hitfinder.elasticity import DEFAULT, fit_elasticity
from hitfinder.errors import DataError, SettingsError
from hitfinder.report.whatif import answer_paper
from hitfinder.settings import parse_settings
from hitfinder.whatif import Change, what_if

COSTS = {
    "platform_fee": 0.05, "payment_fee": 0.0, "commission": 0.2, "coupons": 0.1, "shipping": 3.0,
    "freight_insurance": 0.5, "return_handling": 0.0, "resellable": 1.0,
}  # fmt: skip
SETTINGS = parse_settings({"label": {"outcome_window": "28d"}, "costs": COSTS})
SKUS = pd.DataFrame({"sku_id": ["a", "b"], "category": ["x", "y"], "price": [50.0, 20.0], "unit_cost": [15.0, 8.0]})


def sales(refunds=0.0):
    days = pd.date_range("2025-01-06", periods=28, freq="D")
    rows = [
        {"sku_id": sku, "period_start": day, "impressions": 1000, "clicks": 40, "orders": 2, "units": 2,
         "revenue": 2 * price, "refunds": refunds, "spend": 6.0}
        for sku, price in (("a", 50.0), ("b", 20.0)) for day in days
    ]  # fmt: skip
    return pd.DataFrame(rows)


def profit_by_hand(price, cost, *, orders, commission=0.2, coupons=0.1, spend=168.0):
    revenue = orders * price
    return revenue * (1 - 0.05 - commission - coupons) - 3.5 * orders - cost * orders - spend


def test_as_good_as_no_change_changes_nothing_and_is_the_ledger_s_profit():
    answer = what_if(sales(), SKUS, SETTINGS, Change(commission=1e-13))
    want = [profit_by_hand(50, 15, orders=56), profit_by_hand(20, 8, orders=56)]
    assert answer.skus["profit"].tolist() == pytest.approx(want)
    assert answer.skus["new_profit"].tolist() == pytest.approx(want)
    assert answer.total["break_even_traffic"] == pytest.approx(0, abs=1e-9)


def test_commission_down_and_traffic_up():
    answer = what_if(sales(), SKUS, SETTINGS, Change(commission=-0.03, traffic=0.10))
    want = [profit_by_hand(p, c, orders=61.6, commission=0.17) for p, c in ((50, 15), (20, 8))]
    assert answer.skus["new_profit"].tolist() == pytest.approx(want)
    low, high = answer.commission_range
    # At the lower end influencers earn what they do now; at the upper end the merchant does.
    assert low == pytest.approx(0.2 / 1.1)
    at_high = what_if(sales(), SKUS, SETTINGS, Change(commission=high - 0.2, traffic=0.10))
    assert at_high.total["difference"] == pytest.approx(0, abs=1e-6)
    assert answer.commission_now == pytest.approx(0.2)


def test_where_the_traffic_costs_more_than_it_brings_no_commission_pleases_both():
    answer = what_if(sales(), SKUS, SETTINGS, Change(traffic=0.01, spend=500.0))
    assert answer.commission_range is None


@pytest.mark.parametrize(
    "change",
    [{"price": 0.1}, {"price": -0.2, "elasticity": -1.2}, {"coupons": 0.05}, {"commission": 0.04, "spend": 90.0}],
)
def test_at_the_break_even_traffic_profit_is_what_it_was(change):
    needed = what_if(sales(2.0), SKUS, SETTINGS, Change(**change)).total["break_even_traffic"]
    again = what_if(sales(2.0), SKUS, SETTINGS, Change(**change, traffic=needed))
    assert again.total["difference"] == pytest.approx(0, abs=1e-6)


def test_demand_answers_to_the_price_that_is_paid_coupons_included():
    up = what_if(sales(), SKUS, SETTINGS, Change(price=0.1, elasticity=-2.0)).skus
    assert up["new_revenue"][0] == pytest.approx(56 * 50 * 1.1 * 1.1**-2)
    orders = 56 * 1.1**-2
    assert up["new_profit"][0] == pytest.approx(profit_by_hand(55, 15, orders=orders))
    cheaper = what_if(sales(), SKUS, SETTINGS, Change(coupons=0.09, elasticity=-2.0)).skus
    orders = 56 * (0.81 / 0.9) ** -2
    assert cheaper["new_profit"][0] == pytest.approx(profit_by_hand(50, 15, orders=orders, coupons=0.19))


def test_the_answer_says_where_its_elasticity_is_from():
    answer = what_if(sales(), SKUS, SETTINGS, Change(price=0.1))
    assert (answer.elasticity.source, answer.elasticity.value, answer.given) == ("default", DEFAULT, False)
    assert what_if(sales(), SKUS, SETTINGS, Change(price=0.1, elasticity=-1)).given


@pytest.mark.parametrize("truth", [-0.5, -1.5, -3.0])
def test_elasticity_is_recovered_where_prices_varied(truth):
    rng = np.random.default_rng(5)
    n = 50 * 12
    weeks = pd.DataFrame({"sku_id": np.repeat(np.arange(50), 12), "traffic": rng.integers(200, 900, n),
                          "price": rng.choice([70.0, 85.0, 100.0], n)})  # fmt: skip
    base = np.exp(rng.normal(0, 0.5, 50))[weeks["sku_id"]] * 0.04
    weeks["units"] = rng.poisson(weeks["traffic"] * base * (weeks["price"] / 85) ** truth)
    found = fit_elasticity(weeks)
    assert found.source == "learned"
    assert abs(found.value - truth) < 3 * found.sd
    assert found.sd < 0.3


def test_little_evidence_leaves_the_default_to_speak():
    weeks = pd.DataFrame(
        {"sku_id": np.repeat([1, 2, 3], 2), "traffic": 50.0, "price": [9.0, 10.0] * 3, "units": [1, 1] * 3}
    )
    found = fit_elasticity(weeks)
    assert found.source == "default"
    assert abs(found.value - DEFAULT) < 0.3


def test_only_those_asked_about_count():
    answer = what_if(sales(), SKUS, SETTINGS, Change(traffic=0.1), only={"category": ["y"]})
    assert answer.skus["sku_id"].tolist() == ["b"]
    with pytest.raises(SettingsError, match="no SKU has category 'z'"):
        what_if(sales(), SKUS, SETTINGS, Change(traffic=0.1), only={"category": ["z"]})
    with pytest.raises(SettingsError, match="expected a column of skus"):
        what_if(sales(), SKUS, SETTINGS, Change(traffic=0.1), only={"colour": ["z"]})


def test_what_can_not_be_is_refused():
    with pytest.raises(SettingsError, match=r"commission: a change of -0\.300 makes it -0\.100 for a"):
        what_if(sales(), SKUS, SETTINGS, Change(commission=-0.3))
    with pytest.raises(SettingsError, match="elasticity: expected a number from -20 to 0"):
        Change(elasticity=2.0)
    with pytest.raises(SettingsError, match="price: expected a change"):
        Change(price=-2.0)
    for spend in (float("nan"), float("inf")):
        with pytest.raises(SettingsError, match="spend: expected an amount"):
            Change(spend=spend)
    with pytest.raises(SettingsError, match=r"spend: .* takes more than the 336\.00 that was spent"):
        what_if(sales(), SKUS, SETTINGS, Change(spend=-1000.0))
    with pytest.raises(DataError, match="expected sales in the 28 days"):
        what_if(sales(), SKUS, SETTINGS, Change(traffic=0.1), as_of="2025-03-05")


def test_unknown_costs_are_named_and_the_difference_stands():
    unknown = parse_settings({"costs": {name: rate for name, rate in COSTS.items() if name != "commission"}})
    known = what_if(sales(), SKUS, SETTINGS, Change(commission=-0.03))
    other = what_if(sales(), SKUS, unknown, Change(commission=-0.03))
    assert "commission" in other.unknown_costs
    assert other.total["difference"] == pytest.approx(known.total["difference"])
    assert other.commission_now is None


def test_refunds_and_ads_in_rows_of_their_own_count_as_beside_the_sales():
    beside = sales(refunds=8.0)
    bare = beside.assign(refunds=None, spend=None)
    none = dict.fromkeys(("impressions", "clicks", "orders", "units", "revenue"))
    apart = pd.concat(
        [
            bare.assign(channel="shop"),
            beside.assign(channel="returns", spend=None, **none),
            beside.assign(channel="ads", refunds=None, **none),
        ]
    )
    one, other = (what_if(rows, SKUS, SETTINGS, Change(commission=-0.03)) for rows in (beside, apart))
    assert other.unknown_costs == one.unknown_costs == ""
    assert other.total == pytest.approx(one.total, rel=1e-6)
    assert one.total["profit"] < what_if(sales(), SKUS, SETTINGS, Change(commission=1e-13)).total["profit"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"commission": -0.03}, "as good as today's even if traffic falls by"),
        ({"commission": 0.03}, "as good as today's only if traffic grows by"),
        ({"commission": 1e-9}, "as good as today's with the same traffic"),
        ({"commission": 0.6}, "No traffic makes up for it"),
    ],
)
def test_the_answer_says_with_which_traffic_the_deal_is_as_good_as_today_s(change, said):
    answer = what_if(sales(), SKUS, SETTINGS, Change(**change))
    assert said in answer_paper(answer).says[1]
    assert answer_paper(answer, "zh").says[1].isascii() is False


def test_where_only_traffic_changes_nothing_is_said_of_other_traffic():
    assert not any(
        "as good as" in text for text in answer_paper(what_if(sales(), SKUS, SETTINGS, Change(traffic=0.1))).says
    )


def test_where_nothing_changes_there_is_nothing_to_answer():
    for nothing in (Change(), Change(elasticity=-2.0)):
        with pytest.raises(SettingsError, match="expected a change, got none"):
            what_if(sales(), SKUS, SETTINGS, nothing)


@pytest.mark.parametrize(("name", "said"), [("traffic", r"\+1,000 %"), ("price", r"\+500 %")])
def test_a_change_that_may_have_been_meant_in_per_cent_is_noted(name, said):
    with pytest.warns(UserWarning, match=f"{name} {said}; write 0.10 for 10 %"):
        what_if(sales(), SKUS, SETTINGS, Change(**{name: 10.0 if name == "traffic" else 5.0}))


def test_ids_that_match_nowhere_are_refused():
    with pytest.raises(DataError, match="check that both spell the ids alike"):
        what_if(sales(), SKUS.assign(sku_id=["001", "002"]), SETTINGS, Change(traffic=0.1))
