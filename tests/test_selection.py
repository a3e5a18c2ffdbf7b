"""What a stop cut off is left out, what chance kept on stands in for it, and a biased history no longer misleads."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hitfinder as hf
from hitfinder.admission import admit
from hitfinder.decided import decide_once
from hitfinder.deciding import coin
from hitfinder.errors import DataError
from hitfinder.features import set_scope
from hitfinder.gate import unseen_batches
from hitfinder.labels import label
from hitfinder.livetest import plan_round
from hitfinder.metrics import list_metrics
from hitfinder.promise import forward_losses, promise_stop
from hitfinder.selection import Selection, weigh_seen, weighted_standing
from hitfinder.settings import parse_settings
from hitfinder.simulate import cut_off, simulate
from hitfinder.tables import DECISIONS, SIGNALS, SKUS
from hitfinder.warehouse import open_warehouse

SETTINGS = {
    "label": {"test_window": "7d", "outcome_window": "14d", "top_share": 0.1},
    "model": {"ages": 2, "seeds": 1, "folds": 3, "threads": 1},
}
DAY = pd.Timedelta(days=1)


@pytest.fixture(scope="module")
def market():
    return simulate(weeks=3, skus_per_week=20, hits_per_week=2, complete=True, seed=5)


@pytest.fixture
def weigh(market):
    """Return `weigh(decisions, as_of=None, **policy)`: (labels before, labels after, Selection)."""

    def call(decisions, as_of=None, **policy):
        settings = parse_settings({**SETTINGS, "policy": policy})
        con = open_warehouse(threads=1)
        try:
            admit(con, SIGNALS, market.signals, period=settings.signals.period)
            admit(con, SKUS, market.skus)
            assert admit(con, DECISIONS, decisions).rejects == {}
            set_scope(con, settings, pd.Timestamp(as_of or market.signals["known_at"].max()))
            labels = label(con, settings, outcomes_given=False)
            labels = labels[labels["problem"].isna()].reset_index(drop=True).assign(weight=1.0)
            return labels, *weigh_seen(con, labels, settings)
        finally:
            con.close()

    return call


def decision(market, place, *, days=7.0, action="stop", propensity=1.0):
    sku = market.skus.iloc[place]
    return {"sku_id": sku["sku_id"], "decided_at": sku["launched_at"] + days * DAY, "action": action,
            "propensity": propensity}  # fmt: skip


def test_where_everybody_was_kept_on_the_labels_stay_as_they_were(market, weigh):
    before, after, facts = weigh(pd.DataFrame([decision(market, i, action="test") for i in range(len(market.skus))]))
    pd.testing.assert_frame_equal(before, after[before.columns], check_exact=False)
    assert (facts.seen, facts.cut_off, facts.by_chance, facts.effective) == (60, 0, 0, pytest.approx(60))
    assert "nobody had been stopped" in str(facts)


def test_a_stopped_sku_is_left_out_and_the_explored_one_counts_for_those_like_it(market, weigh):
    rows = [decision(market, i, propensity=0.75) for i in (0, 1, 2)]
    rows.append(decision(market, 3, action="test", propensity=0.25))
    before, after, facts = weigh(pd.DataFrame(rows))
    gone = set(before["sku_id"]) - set(after["sku_id"])
    assert gone == {row["sku_id"] for row in rows[:3]}
    weight = after.set_index("sku_id")["weight"]
    assert weight[rows[3]["sku_id"]] == pytest.approx(4 * weight[market.skus["sku_id"].iloc[5]])
    assert weight.mean() == pytest.approx(1)
    assert (facts.cut_off, facts.by_chance, facts.clipped) == (3, 1, 0)
    assert facts.effective == pytest.approx((56 + 4) ** 2 / (56 + 16))


def test_weights_are_clipped_and_that_is_counted(market, weigh):
    rows = [decision(market, 0, action="test", propensity=0.01), decision(market, 1)]
    _, after, facts = weigh(pd.DataFrame(rows), max_weight=5.0)
    weight = after.set_index("sku_id")["weight"]
    assert weight.max() == pytest.approx(5 * weight.min())
    assert facts.clipped == 1
    assert "1 of them clipped" in str(facts)


def test_the_chances_of_a_path_multiply_and_one_that_is_missing_counts_as_chosen(market, weigh):
    rows = [
        decision(market, 0, days=3, action="test", propensity=0.5),
        decision(market, 0, days=7, action="test", propensity=0.4),
        decision(market, 1, days=3, action="stop", propensity=0.5),  # passed over by a coin, and called back
        decision(market, 1, days=7, action="scale", propensity=None),
        decision(market, 3, days=3, action="stop", propensity=None),  # stopped by a person, and called back
        decision(market, 3, days=7, action="scale", propensity=None),
    ]
    _, after, facts = weigh(pd.DataFrame(rows))
    weight = after.set_index("sku_id")["weight"]
    plain = weight[market.skus["sku_id"].iloc[2]]
    assert weight[rows[0]["sku_id"]] == pytest.approx(5 * plain)
    assert rows[2]["sku_id"] not in weight.index  # those drawn in its stead stand for it
    assert weight[rows[4]["sku_id"]] == pytest.approx(plain)
    assert facts.cut_off == 1


def test_who_was_drawn_still_stands_for_the_others_after_rounds_of_the_same_record(market, weigh, tmp_path):
    """Lists and rounds share a record: a round that stops all it may leaves the drawn SKU seen, at its chance."""
    record, batch = tmp_path / "decisions.parquet", market.skus["batch_id"].iloc[0]
    mine = market.skus[market.skus["batch_id"] == batch]
    coins = {sku_id: coin(0, batch, sku_id) for sku_id in mine["sku_id"].iloc[5:]}
    drawn = min(coins, key=coins.get)
    share = coins[drawn] + 1e-9
    moment = mine["launched_at"].max() + 2 * DAY
    ranked = pd.DataFrame({"sku_id": mine["sku_id"], "batch_id": batch, "hit_probability": 0.1, "expected_value": 1.0,
                           "action": ["test"] * 5 + ["stop"] * (len(mine) - 5), "reason_1": "", "reason_2": "",
                           "reason_3": "", "model_version": "m/1", "as_of": moment})  # fmt: skip
    policy = parse_settings({**SETTINGS, "policy": {"explore_share": share}})
    decide_once(ranked, policy, decisions=record, decided_at=moment)
    before = weigh(str(record))[2]

    def planner(model, signals, skus, *_args, stopped, kept, **_limits):
        ids = skus.to_pandas()["sku_id"]
        stays = ids.isin([*kept, *mine["sku_id"].iloc[:5]])
        return pd.DataFrame({"sku_id": ids, "exposures": np.where(stays, 10, 0), "hit_probability": 0.1,
                             "action": np.where(stays, "test", "stop")})  # fmt: skip

    model = SimpleNamespace(settings=policy, promises={}, version="m/1", rates=pd.DataFrame({"rate": ["x_per_day"]}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of those stopped
        plan_round(model, market.signals, market.skus, decisions=record, out=[tmp_path / "plan.csv"], number=1,
                   rounds=6, budget=10_000, batch=batch, as_of=moment + DAY, planner=planner)  # fmt: skip
    # A round is decided now; in the history that is weighed, it was the day after.
    rows = pd.read_parquet(record)
    rounds = rows["reason"].str.startswith("test=")
    assert rounds.sum() == len(mine)
    _, after, facts = weigh(rows.assign(decided_at=rows["decided_at"].mask(rounds, moment + DAY)), max_weight=1e6)
    assert (facts.seen, facts.cut_off, facts.by_chance) == (before.seen, before.cut_off, 1)
    assert facts.cut_off == len(mine) - 6
    weight = after.set_index("sku_id")["weight"]
    assert weight[drawn] / weight[mine["sku_id"].iloc[0]] == pytest.approx(1 / share)


def test_who_is_stopped_late_has_shown_what_it_is_worth(market, weigh):
    _, after, facts = weigh(pd.DataFrame([decision(market, 0, days=14)]))
    assert facts.cut_off == 0
    assert len(after) == 60
    assert weigh(pd.DataFrame([decision(market, 0, days=13.9)]))[2].cut_off == 1


def test_a_decision_of_tomorrow_changes_nothing_today(market, weigh):
    closed = market.skus["launched_at"].min() + 21 * DAY
    rows = pd.DataFrame([decision(market, 0, days=7)])
    assert weigh(rows, as_of=closed)[2].cut_off == 1
    rows["decided_at"] = closed + DAY / 24
    assert weigh(rows, as_of=closed)[2].cut_off == 0


def test_a_batch_of_which_too_few_were_seen_is_named(market, weigh):
    batch = market.skus["batch_id"].iloc[0]
    places = [i for i, name in enumerate(market.skus["batch_id"]) if name == batch]
    before, after, facts = weigh(pd.DataFrame([decision(market, i) for i in places[3:]]))
    assert facts.left_out == 1
    assert batch not in set(after["within_group"])
    assert batch in set(before["within_group"])


def test_the_gate_judges_nobody_by_an_outcome_that_was_cut_off(market):
    settings = parse_settings(SETTINGS)
    decisions = pd.DataFrame([decision(market, 0), decision(market, 1, action="test", propensity=0.5)])
    con = open_warehouse(threads=1)
    try:
        admit(con, SIGNALS, market.signals, period=settings.signals.period)
        admit(con, SKUS, market.skus)
        admit(con, DECISIONS, decisions)
        moment = market.signals["known_at"].max()
        whole = unseen_batches(con, settings, [], moment, outcomes_given=False)
        seen = unseen_batches(con, settings, [], moment, outcomes_given=False, decisions_given=True)
    finally:
        con.close()
    assert set(whole.labels["sku_id"]) - set(seen.labels["sku_id"]) == {decisions["sku_id"].iloc[0]}
    assert seen.batches == whole.batches


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=30),
)
def test_a_weight_of_two_is_two_rows(rows):
    group, value, weight = (np.array(column) for column in zip(*rows, strict=True))
    standing, above = weighted_standing(group, value.astype(float), weight)
    again = np.repeat(np.arange(len(rows)), weight)
    long_standing, long_above = weighted_standing(group[again], value[again].astype(float), np.ones(len(again)))
    np.testing.assert_allclose(standing[again], long_standing)
    np.testing.assert_allclose(above[again], long_above)
    assert ((standing > 0) & (standing < 1)).all()


@given(st.integers(0, 2**16))
def test_equal_weights_promise_what_no_weights_promise(seed):
    rng = np.random.default_rng(seed)
    batch, hit = rng.integers(0, 14, 120), rng.random(120) < 0.4
    lowest = rng.random(120).round(2)
    usual = {"max_hits_lost": 0.3, "confidence": 0.8}
    weight = np.full(120, 0.37)
    assert promise_stop(batch, hit, lowest, **usual) == promise_stop(batch, hit, lowest, weight=weight, **usual)
    pd.testing.assert_frame_equal(
        forward_losses(batch, batch, hit, lowest, **usual),
        forward_losses(batch, batch, hit, lowest, weight=weight, **usual),
    )


def test_a_heavy_hit_below_the_threshold_may_not_be_lost():
    batch, hit, lowest = [0] * 4, [1] * 4, [0.1, 0.2, 0.3, 0.4]
    usual = {"max_hits_lost": 0.25, "confidence": 0.5}
    assert promise_stop(batch, hit, lowest, **usual).threshold == 0.2
    assert promise_stop(batch, hit, lowest, weight=[5, 1, 1, 1], **usual).threshold == 0.1
    assert promise_stop(batch, hit, lowest, weight=[1, 1, 1, 5], **usual).threshold == 0.3


@pytest.mark.parametrize("weight", [[1, 1], [1, 1, 1, 0], [1, 1, 1, np.nan]])
def test_what_is_no_weight_is_refused(weight):
    with pytest.raises(DataError, match="weight: expected a number above 0 for each of 4 rows"):
        promise_stop([0] * 4, [1] * 4, [0.1] * 4, max_hits_lost=0.1, confidence=0.5, weight=weight)


def test_cutting_off_takes_what_came_after_a_stop_until_the_sku_is_called_back(market):
    sku = market.skus["sku_id"].iloc[0]
    start = market.skus["launched_at"].iloc[0]
    steps = pd.DataFrame({"sku_id": sku, "decided_at": [start + 7 * DAY, start + 9 * DAY], "action": ["stop", "test"]})
    left = cut_off(market.signals, steps)
    gone = market.signals.merge(left, how="left", indicator=True)
    gone = gone[gone["_merge"] == "left_only"]
    assert set(gone["sku_id"]) == {sku}
    assert sorted(gone["period_start"].unique()) == [start + 7 * DAY, start + 8 * DAY]


@pytest.fixture(scope="module")
def misled():
    """A shop that stopped its dear SKUs for being dear: the dear earn most, and nobody was left to show it."""
    whole = simulate(weeks=14, skus_per_week=60, complete=True, seed=1)
    # With impressions: where exposures are days, a simple rule was seen to rank, and a rule can't be misled.
    signals, skus = whole.signals, whole.skus
    moment = np.sort(skus["launched_at"].unique())[11]
    past = skus[skus["launched_at"] < moment]
    dear = past.groupby("batch_id")["price"].rank(pct=True) > 0.3
    coin = np.random.default_rng(0).random(len(past)) < 0.15
    decisions = pd.DataFrame(
        {
            "sku_id": past["sku_id"],
            "decided_at": past["launched_at"] + 7 * DAY,
            "action": np.where(dear & ~coin, "stop", "test"),
            "propensity": np.where(dear, np.where(coin, 0.15, 0.85), 1.0),
        }
    )
    seen = cut_off(signals, decisions)
    return {"whole": signals, "seen": seen[seen["known_at"] <= moment], "past": past, "decisions": decisions,
            "future": skus[skus["launched_at"] >= moment], "moment": moment}  # fmt: skip


def worth(misled, model):
    """Return the mean value at k on the batches to come, ranked at the end of their tests."""
    found = []
    for _, batch in misled["future"].groupby("batch_id"):
        end = batch["launched_at"].min() + 7 * DAY
        signals = misled["whole"][misled["whole"]["sku_id"].isin(batch["sku_id"])]
        ranked = hf.rank(model, signals[signals["known_at"] <= end], batch, as_of=end)
        later = signals[signals["period_start"] >= end]
        later = later[later["period_start"] < end + 14 * DAY]
        value = later.groupby("sku_id")["revenue"].sum().reindex(ranked["sku_id"]).fillna(0).to_numpy(dtype=float)
        hit = pd.Series(value).rank(ascending=False, method="first") <= np.ceil(0.1 * len(value))
        found.append(list_metrics(np.zeros(len(value)), hit, value, -ranked["rank"])["value_at_k"].iloc[0])
    return float(np.mean(found))


def test_a_biased_history_misleads_and_weights_undo_it(misled):
    settings = parse_settings(SETTINGS)
    known = (misled["seen"], misled["past"], settings)
    naive = hf.fit(*known, as_of=misled["moment"])
    weighted = hf.fit(*known, as_of=misled["moment"], decisions=misled["decisions"])
    assert worth(misled, naive) < 0.8 * worth(misled, weighted)
    told = weighted.report["selection"]
    assert told["by_chance"] > 20
    assert told["cut_off"] > 200
    assert told["effective"] < told["seen"]


def test_without_exploration_fit_says_that_it_can_not_know(misled):
    decisions = misled["decisions"].assign(propensity=1.0)
    with pytest.warns(UserWarning, match="nobody was kept on by chance"):
        model = hf.fit(misled["seen"], misled["past"], parse_settings(SETTINGS), as_of=misled["moment"],
                       decisions=decisions)  # fmt: skip
    assert model.report["selection"]["by_chance"] == 0


def test_decisions_that_kept_everybody_give_the_model_that_no_decisions_give(misled):
    settings = parse_settings(SETTINGS)
    kept = misled["decisions"].assign(action="test", propensity=1.0)
    known = (misled["seen"], misled["past"], settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        without = hf.fit(*known, as_of=misled["moment"])
        given = hf.fit(*known, as_of=misled["moment"], decisions=kept)
    assert given.estimator.to_dict() == without.estimator.to_dict()
    assert given.thresholds == without.thresholds


def test_the_facts_read_as_a_sentence():
    facts = Selection(seen=50, cut_off=30, by_chance=4, clipped=0, effective=21.4, left_out=0)
    assert str(facts) == (
        "30 of 80 outcomes were cut off by a stop and are left out; 4 that were kept on by chance stand in for them "
        "(effective sample size 21 of 50)"
    )


def test_whom_people_call_back_after_the_coin_is_not_counted_beside_those_drawn_for_it(market, weigh):
    """Half are told to stop; whatever people call back later, those drawn and the rest weigh what all SKUs would."""
    told = range(0, 60, 2)
    rows = [
        decision(market, i, days=5, action="test" if i % 10 == 0 else "stop", propensity=0.2 if i % 10 == 0 else 0.8)
        for i in told
    ]
    rows += [decision(market, i, action="test", propensity=None) for i in told if i % 10 in (2, 4)]
    _, after, facts = weigh(pd.DataFrame(rows))
    weight = after["weight"] / after["weight"].min()
    assert weight.sum() == pytest.approx(60)
    assert (facts.seen, facts.cut_off, facts.by_chance) == (36, 24, 6)
