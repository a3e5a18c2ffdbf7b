"""The week's budget from tables: bounds, stock, tests of new SKUs, knowledge at a moment, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from small_market import SETTINGS

from hitfinder.budget import PLAN_COLUMNS, split_budget
from hitfinder.budget.explore import share_out
from hitfinder.errors import DataError, SettingsError
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate

COSTS = {"platform_fee": 0.05, "shipping": 1.0}
AS_OF = pd.Timestamp("2025-03-03")


def tuned(**budget):
    return parse_settings({**SETTINGS, "costs": COSTS, "budget": {"draws": 400, **budget}})


@pytest.fixture(scope="module")
def market():
    """Signals known at AS_OF, and SKUs of which the newest batch is launched then and has no signal."""
    made = simulate(weeks=9, skus_per_week=30, complete=True, seed=6)
    launched = made.skus["launched_at"] <= AS_OF
    return made.signals, made.skus[launched].reset_index(drop=True)


def drawn_up(market, total=6000.0, settings=None, **asked):
    """Draw a budget up; with shares of returns at hand, since to forecast them takes seconds."""
    asked.setdefault("returned", pd.Series(0.12, index=market[1]["sku_id"]))
    return split_budget(*market, settings or tuned(), total=total, as_of=AS_OF, **asked)


@pytest.fixture(scope="module")
def usual(market):
    return drawn_up(market)


def test_a_budget_keeps_to_its_total_its_target_and_every_bound(market):
    done = drawn_up(market, 5000.0, target_roi=5.0)
    plan, told = done.plan, done.told
    assert tuple(plan.columns) == PLAN_COLUMNS
    assert plan["spend"].sum() <= 5000.0
    assert plan["value"].sum() >= 5.0 * plan["spend"].sum()
    assert (plan["spend"] >= plan["low"] - 1e-9).all()
    assert (plan["spend"] <= plan["high"] + 1e-9).all()
    cents = plan["spend"] * 100
    assert np.allclose(cents, cents.round(), atol=1e-6)
    lines = plan[plan["kind"] == "line"]
    assert (lines["change"].abs() <= 0.5 + 0.02 / lines["last_spend"]).all()
    assert told["spend"] == pytest.approx(plan["spend"].sum())
    assert told["spend"] + told["unspent"] == pytest.approx(5000.0)
    assert told["roi"] >= 5.0
    assert told["profit"] == pytest.approx(plan["profit"].sum())
    assert 0 < told["chance"] <= 1


def test_marginal_returns_are_those_of_the_curve(usual):
    plan = usual.plan
    curve = plan["slope"] * plan["half"] * np.log1p((plan["spend"] + 100) / plan["half"]) - plan["value"]
    assert np.allclose(plan["next_value"], curve)
    assert np.allclose(plan["next_profit"], plan["margin"] * curve - 100)


def test_margins_are_what_the_cost_chain_leaves(market, usual):
    """One SKU by hand: revenue of 1 becomes 1 - r after returns; of it fees, shipping and goods are paid."""
    done = usual
    row = done.plan[done.plan["kind"] == "line"].iloc[0]
    signals, skus = market
    seen = signals[
        (signals["sku_id"] == row["sku_id"]) & (signals["known_at"] <= AS_OF) & (signals["period_start"] < AS_OF)
    ]
    sums = seen[["revenue", "orders", "units"]].sum()
    goods = skus.set_index("sku_id").loc[row["sku_id"], "unit_cost"] * sums["units"] / sums["revenue"]
    left = 0.95 * (1 - row["returned"]) - 1.0 * sums["orders"] / sums["revenue"] - goods
    assert row["margin"] == pytest.approx(left / (1 - row["returned"]))


def test_last_weeks_spend_is_that_of_the_seven_days_before_the_channels_newest_report(market, usual):
    plan = usual.plan
    signals, _ = market
    known = signals[(signals["known_at"] <= AS_OF) & (signals["period_start"] < AS_OF)]
    for channel, rows in known.groupby("channel"):
        last = rows.loc[rows["spend"] > 0, "period_start"].max()
        spent = rows[rows["period_start"] > last - pd.Timedelta(days=7)].groupby("sku_id")["spend"].sum()
        mine = plan[(plan["channel"] == channel) & (plan["kind"] == "line")].set_index("sku_id")["last_spend"]
        assert mine.to_dict() == pytest.approx(spent[spent > 0].to_dict())


def test_what_comes_after_the_moment_changes_nothing(market):
    signals, skus = market
    known = signals[(signals["known_at"] <= AS_OF) & (signals["period_start"] < AS_OF)]
    later = signals[signals["known_at"] > AS_OF].assign(spend=1e6)
    whole, part = drawn_up((pd.concat([known, later]), skus)), drawn_up((known, skus))
    pd.testing.assert_frame_equal(whole.plan, part.plan)
    assert whole.told == part.told


def test_only_the_newest_report_of_a_period_counts(market):
    signals, skus = market
    known = signals[(signals["known_at"] <= AS_OF) & (signals["period_start"] < AS_OF)]
    old = known[known["period_start"] > AS_OF - pd.Timedelta(days=20)]
    old = old.assign(known_at=old["period_start"] + pd.Timedelta(hours=1), spend=9999.0, revenue=0.0)
    pd.testing.assert_frame_equal(drawn_up((pd.concat([known, old]), skus)).plan, drawn_up((known, skus)).plan)


def test_the_order_of_rows_changes_nothing(market, usual):
    signals, skus = market
    mixed = signals.sample(frac=1, random_state=1), skus.sample(frac=1, random_state=2)
    pd.testing.assert_frame_equal(drawn_up(mixed).plan, usual.plan)


def test_floors_and_caps_of_lines_come_before_the_move_limit_and_are_named(market, usual):
    plan = usual.plan
    lines = plan[plan["kind"] == "line"].iloc[:3].reset_index(drop=True)
    last = lines["last_spend"]
    limits = pd.DataFrame(
        {"sku_id": lines["sku_id"], "channel": [lines["channel"][0], "", lines["channel"][2]],
         "floor": [3 * last[0], np.nan, np.nan], "cap": [np.nan, 0.1 * last[1], last[2]]}
    )  # fmt: skip
    done = drawn_up(market, limits=limits).plan.set_index(["sku_id", "channel"])
    first, second, third = (done.loc[(row["sku_id"], row["channel"])] for row in lines.to_dict("records"))
    assert first["spend"] == pytest.approx(3 * last[0])
    assert first["bound_by"] == "floor"
    assert second["spend"] <= 0.1 * last[1]
    assert third["spend"] <= last[2]
    assert third["bound_by"] in ("cap", "profit", "move limit")


def test_stock_is_a_ceiling_and_what_was_sold_is_no_longer_in_it(market, usual):
    signals, skus = market
    free = usual.plan
    top = free[(free["kind"] == "line") & (free["spend"] > free["last_spend"])].iloc[0]
    sold = signals[
        (signals["sku_id"] == top["sku_id"]) & (signals["known_at"] <= AS_OF) & (signals["period_start"] < AS_OF)
    ]
    short = skus.assign(stock=skus["stock"].where(skus["sku_id"] != top["sku_id"], sold["units"].sum() + 3))
    row = drawn_up((signals, short)).plan.set_index(["sku_id", "channel"]).loc[(top["sku_id"], top["channel"])]
    assert row["units_left"] == 3
    assert row["bound_by"] == "stock"
    price = sold["revenue"].sum() / sold["units"].sum()
    assert row["value"] <= 3 * price * (1 - row["returned"]) + 1e-6
    assert row["value"] >= 0.9 * 3 * price * (1 - row["returned"]) - 0.02 * row["slope"]
    out = skus.assign(stock=skus["stock"].where(skus["sku_id"] != top["sku_id"], 0))
    assert (
        drawn_up((signals, out)).plan.set_index(["sku_id", "channel"]).loc[(top["sku_id"], top["channel"]), "spend"]
        == 0
    )


def test_untested_skus_get_their_share_in_amounts_that_tell_something(market):
    done = drawn_up(market, 6000.0)
    tests, said = done.plan[done.plan["kind"] == "explore"], done.told["explore"]
    new = market[1].loc[market[1]["launched_at"] == AS_OF, "sku_id"]
    assert len(tests) > 0
    assert set(tests["sku_id"]) <= set(new)
    assert tests["spend"].sum() <= 0.08 * 6000.0
    assert (tests["spend"] >= said["each"] - 0.01).all()
    assert (tests["spend"] <= 4 * said["each"]).all()
    assert (tests["spend"] == tests["spend"].iloc[0]).all()
    assert tests["bound_by"].unique().tolist() == ["explore"]
    few = drawn_up(market, 6000.0, tuned(explore_orders=60.0)).told["explore"]
    assert 0 < few["skus"] < said["skus"] or few["skus"] == 0


def test_a_model_says_which_skus_are_tested(market, monkeypatch):
    skus = market[1]
    new = skus.loc[skus["launched_at"] == AS_OF, "sku_id"].reset_index(drop=True)
    chance = pd.Series(np.linspace(0.9, 0.1, len(skus)), index=skus["sku_id"].sample(frac=1, random_state=0))

    class Model:
        version = "m1"

    def rank(model, signals, skus, as_of):
        assert (model.version, as_of) == ("m1", AS_OF)
        return chance.rename("hit_probability").reset_index()

    monkeypatch.setattr("hitfinder.ranking.rank", rank)
    done = drawn_up(market, 6000.0, tuned(explore_orders=12.0), model=Model())
    tests = done.plan[done.plan["kind"] == "explore"]
    assert 0 < len(tests) < len(new)
    assert chance[tests["sku_id"]].min() >= chance[new[~new.isin(tests["sku_id"])]].max()
    assert tests.set_index("sku_id")["spend"].corr(chance[tests["sku_id"]]) > 0
    assert done.told["explore"]["by"] == "hit_probability"
    assert done.told["model_version"] == "m1"


def test_money_for_tests_goes_by_weight_within_what_a_test_needs_and_can_use():
    waiting = pd.DataFrame({"sku_id": list("abc")})
    given = share_out(waiting, 60.0, 10.0, pd.Series({"a": 0.2, "b": 0.6, "c": 0.1}))
    assert given["sku_id"].tolist() == ["b", "a", "c"]
    assert given["spend"].sum() == pytest.approx(60.0, abs=0.03)
    assert given["spend"].is_monotonic_decreasing
    assert given["spend"].between(10.0, 40.0).all()
    assert share_out(waiting, 1000.0, 10.0, None)["spend"].tolist() == [40.0, 40.0, 40.0]
    assert share_out(waiting, 25.0, 10.0, None)["sku_id"].tolist() == ["a", "b"]
    assert share_out(waiting, 9.0, 10.0, None).empty


def test_what_the_explore_money_bought_is_counted_from_signals(market):
    signals, _ = market
    said = drawn_up(market, target_roi=1.0).told["explore_last_week"]
    known = signals[(signals["known_at"] <= AS_OF) & (signals["period_start"] < AS_OF) & (signals["spend"] > 0)]
    begun = known.groupby("sku_id")["period_start"].min()
    first = begun.index[begun >= AS_OF - pd.Timedelta(days=7)]
    assert said["skus"] == len(first)
    mine = known[known["sku_id"].isin(first)]
    assert said["spend"] == pytest.approx(mine["spend"].sum(), rel=0.1)
    assert 0 <= said["above_target"] <= said["skus"]
    assert said["roi"] == pytest.approx(said["value"] / said["spend"])


def test_no_stock_given_and_a_stock_that_was_sold_over_are_no_ceiling(market, usual):
    signals, skus = market
    bare = drawn_up((signals, skus.drop(columns="stock")))
    assert bare.told["spend"] == pytest.approx(usual.told["spend"], rel=0.05)
    assert set(bare.plan["kind"]) == {"line", "explore"}
    assert "stock" not in set(bare.plan["bound_by"])
    # Today's stock of a best seller is less than what it sold since its launch.
    top = usual.plan[usual.plan["kind"] == "line"].nlargest(1, "spend").iloc[0]
    today = skus.assign(stock=skus["stock"].where(skus["sku_id"] != top["sku_id"], 1))
    plan = drawn_up((signals, today)).plan.set_index(["sku_id", "channel"])
    assert plan.loc[(top["sku_id"], top["channel"]), "spend"] > 0


def test_unknown_costs_are_named_and_known_ones_are_not(market, usual):
    named = usual.told["unknown_costs"]
    assert "commission" in named
    assert not {"platform_fee", "shipping", "unit_cost"} & set(named)
    bare = drawn_up((market[0], market[1].drop(columns="unit_cost"))).told["unknown_costs"]
    assert "unit_cost" in bare


def test_a_cautious_budget_meets_the_target_more_often_and_earns_no_more(market):
    settings = tuned(move_down=1.0, explore_share=0.0)
    free = drawn_up(market, settings=settings)
    target = free.told["roi"]
    plain, careful = (drawn_up(market, settings=settings, target_roi=target, cautious=c) for c in (None, 0.8))
    assert careful.told["chance"] >= 0.79
    assert plain.told["chance"] < careful.told["chance"]
    assert careful.told["made_for"] > target
    assert careful.told["profit"] <= plain.told["profit"]


def test_the_curve_of_totals_passes_through_the_plan_and_never_falls(market):
    done = drawn_up(market, 4000.0, target_roi=4.0)
    assert done.curve["profit"].is_monotonic_increasing or (done.curve["profit"].diff().dropna() > -1e-6).all()
    at = done.curve.loc[done.curve["total"] == 4000.0, "profit"].iloc[0]
    assert done.told["profit"] == pytest.approx(at, abs=2.0)


def test_the_same_inputs_give_the_same_budget(market):
    one, two = (drawn_up(market, target_roi=4.0) for _ in range(2))
    pd.testing.assert_frame_equal(one.plan, two.plan)
    assert one.told == two.told


def test_returns_are_forecast_where_they_are_not_given(market, usual):
    sku = usual.plan["sku_id"].iloc[0]
    rows = drawn_up(market, returned=pd.Series({sku: 0.5})).plan.set_index("sku_id")["returned"]
    assert (rows.loc[[sku]] == 0.5).all()
    others = rows.drop(sku)
    assert others.between(0.01, 0.6).all()
    assert others.nunique() > 5


def test_more_returns_leave_less_margin(market):
    ids = market[1]["sku_id"]
    few, many = (drawn_up(market, returned=pd.Series(share, index=ids)).plan for share in (0.1, 0.4))
    both = few.merge(many, on=["sku_id", "channel"], suffixes=("_few", "_many"))
    assert (both["margin_few"] > both["margin_many"]).all()


def test_where_what_has_to_be_spent_is_above_the_total_both_are_named(market):
    with pytest.raises(
        SettingsError, match=r"total 100.00 clashes with what has to be spent, [\d,.]+ \(.*by the move limit"
    ):
        drawn_up(market, 100.0)


def test_where_the_target_clashes_with_what_has_to_be_spent_the_reachable_is_named_and_reachable(market):
    with pytest.raises(SettingsError, match="target_roi 50 clashes") as caught:
        drawn_up(market, target_roi=50.0)
    said = str(caught.value)
    reached = float(said.split("can be reached is ")[1].split(",")[0])
    assert drawn_up(market, target_roi=reached).told["roi"] >= reached
    with pytest.raises(SettingsError, match="clashes"):
        drawn_up(market, target_roi=reached + 0.02)


def test_a_target_above_every_slope_is_refused_where_nothing_has_to_be_spent(market):
    with pytest.raises(SettingsError, match="no line's first unit of spend is expected to bring more than"):
        drawn_up(market, settings=tuned(move_down=1.0, explore_share=0.0), target_roi=1e5)


def test_a_chance_that_cant_be_had_is_refused_with_the_most_that_can(market, usual):
    best = usual.told["roi"]
    with pytest.raises(SettingsError, match=r"can't be met with a chance of 0.999: the most that was found is 0\.\d+"):
        drawn_up(market, target_roi=best, cautious=0.999)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"total": 0}, "total: expected money to split"),
        ({"total": float("nan")}, "total: expected money to split"),
        ({"target_roi": -1.0}, "target_roi: expected 0 or more"),
        ({"cautious": 0.3, "target_roi": 2.0}, "cautious: expected a chance"),
        ({"cautious": 0.9}, "cautious: there is no target"),
    ],
)
def test_what_is_no_total_target_or_chance_is_refused(market, asked, said):
    with pytest.raises(SettingsError, match=said):
        drawn_up(market, **{"total": 6000.0, **asked})


def test_limits_that_clash_or_hit_nothing_are_refused(market, usual):
    sku = usual.plan["sku_id"].iloc[0]
    for table, said in (
        (pd.DataFrame({"sku_id": [sku], "floor": [9.0], "cap": [3.0]}), "floor and cap clash"),
        (pd.DataFrame({"sku_id": ["nobody"], "cap": [3.0]}), "limits: expected SKUs and channels that were spent on"),
    ):
        with pytest.raises(SettingsError, match=said):
            drawn_up(market, limits=table)
    for table, said in (
        (pd.DataFrame({"sku_id": [sku]}), "limits: expected columns"),
        (pd.DataFrame({"sku_id": [sku], "cap": ["much"]}), "limits.cap: expected amounts"),
        (pd.DataFrame({"sku_id": [sku], "floor": [-1.0]}), "limits.floor: expected amounts"),
    ):
        with pytest.raises(DataError, match=said):
            drawn_up(market, limits=table)


def test_signals_without_spend_or_revenue_are_refused_with_what_is_missing(market):
    signals, skus = market
    for name in ("spend", "revenue"):
        with pytest.raises(DataError, match=rf"signals.{name}: expected .* found none in the 12 weeks"):
            drawn_up((signals.drop(columns=name), skus))


def test_a_week_in_which_nothing_was_spent_is_refused(market):
    signals, skus = market
    early = signals[signals["period_start"] < AS_OF - pd.Timedelta(days=20)]
    with pytest.raises(DataError, match="expected SKUs that were spent on in the week before"):
        drawn_up((early, skus))


def test_signals_without_channels_are_lines_all_the_same(market):
    signals, skus = market
    plan = drawn_up((signals.drop(columns="channel"), skus)).plan
    assert plan["channel"].unique().tolist() == [""]
    assert len(plan) > 0


def test_a_callers_tables_are_left_as_they_are(market):
    signals, skus = market[0].copy(), market[1].copy()
    drawn_up((signals, skus))
    pd.testing.assert_frame_equal(signals, market[0])
    pd.testing.assert_frame_equal(skus, market[1])


def test_a_move_that_may_have_been_meant_in_per_cent_is_noted(market):
    with pytest.warns(UserWarning, match=r"budget.move_up 50 lets a line grow by 5,000 % in a week"):
        drawn_up(market, settings=tuned(move_up=50))


def test_ids_that_match_nowhere_are_refused_as_such(market):
    signals, skus = market
    with pytest.raises(DataError, match="check that both spell the ids alike"):
        drawn_up((signals, skus.assign(sku_id="0" + skus["sku_id"])))
