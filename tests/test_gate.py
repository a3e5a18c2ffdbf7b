"""The gate: what is unseen, what carries a promotion, and what never does."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from gated_models import NOW, SETTINGS, START, WEEK, WEEKS, fitted_as_of, tables
from hypothesis import given, settings
from hypothesis import strategies as st
from small_market import fitted

from hitfinder.admission import admit_signals_and_skus
from hitfinder.comparison import LEARNED
from hitfinder.errors import ModelError, NotEnoughHistoryError, SettingsError
from hitfinder.features import set_scope
from hitfinder.gate import gate, moment_before_newest, unseen_batches
from hitfinder.gate import judging as judging_module
from hitfinder.gate.equal_hits import cost_ratio
from hitfinder.gate.lists import learned_rule, per_batch
from hitfinder.gate.unseen import MOST_UNSEEN
from hitfinder.labels import label
from hitfinder.models.rules import LOGISTIC
from hitfinder.simulate import cut_off
from hitfinder.warehouse import open_warehouse

CHAMPION, CHALLENGER = 6, 8
WINDOWS = SETTINGS.label.test_window + SETTINGS.label.outcome_window


def admitted():
    con = open_warehouse(threads=1)
    admit_signals_and_skus(con, *tables(), period=SETTINGS.signals.period)
    return con


def unseen(models, moment=NOW):
    con = admitted()
    try:
        return unseen_batches(con, SETTINGS, models, moment, outcomes_given=False)
    finally:
        con.close()


def known_at(moment):
    """Return the SKUs whose outcome was known at a moment."""
    con = admitted()
    try:
        set_scope(con, SETTINGS, moment)
        return set(label(con, SETTINGS, outcomes_given=False)["sku_id"])
    finally:
        con.close()


def told(as_of, newest=None):
    """A model that says what it learned from; nothing else of it is looked at."""
    newest = as_of - WINDOWS if newest is None else newest
    return replace(fitted()[1], settings=SETTINGS, report={"as_of": str(as_of), "last_launch": str(newest)})


@cache
def judged():
    return gate(fitted_as_of(CHALLENGER), fitted_as_of(CHAMPION), *tables(), SETTINGS, as_of=NOW)


@cache
def sabotaged():
    return gate(fitted_as_of(CHALLENGER, sabotaged=True), fitted_as_of(CHAMPION), *tables(), SETTINGS, as_of=NOW)


def check(verdict, name):
    return next(check for check in verdict.checks if check.name == name)


@pytest.mark.parametrize("weeks", [(6,), (6, 8), (8, 6), (8, 10)])
def test_batches_are_unseen_where_no_model_knew_one_outcome(weeks):
    moments = [START + WEEK * week for week in weeks]
    found = unseen([told(moment) for moment in moments])
    skus = tables()[1]
    learned = set().union(*map(known_at, moments))
    batches = skus.groupby("batch_id")["sku_id"].agg(set)
    assert learned
    assert list(found.batches) == sorted(name for name, of in batches.items() if not of & learned)
    assert set(found.labels["sku_id"]) == set().union(*batches[list(found.batches)])
    assert found.closed == WEEKS


def test_a_batch_is_not_closed_before_its_last_window_is():
    moment = START + WEEK * 8
    launches = tables()[1].groupby("batch_id")["launched_at"].max()
    assert set(unseen([], moment).batches) == set(launches[launches + WINDOWS <= moment].index)


def test_a_model_that_learned_from_later_skus_than_its_moment_tells_has_seen_them():
    moment = START + WEEK * 6
    assert len(unseen([told(moment, START + WEEK * 8)]).batches) == WEEKS - 9


def test_only_the_newest_are_judged_on():
    early = unseen([])
    assert (len(early.batches), early.closed) == (min(WEEKS, MOST_UNSEEN), WEEKS)


@pytest.mark.parametrize("missing", ["as_of", "last_launch"])
def test_a_model_that_does_not_say_what_it_learned_from_is_refused(missing):
    silent = told(START + WEEK * 6)
    silent = replace(silent, report={k: v for k, v in silent.report.items() if k != missing})
    with pytest.raises(ModelError, match="expected a report that says as_of and last_launch"):
        gate(silent, silent, *tables(), SETTINGS, as_of=NOW)


@pytest.mark.parametrize("n_batches", [1, 3])
def test_the_moment_before_the_newest_leaves_just_these_out(n_batches):
    moment = moment_before_newest(*tables(), SETTINGS, n_batches, as_of=NOW)
    names = set(unseen([]).batches[-n_batches:])
    skus = tables()[1]
    newest = set(skus.loc[skus["batch_id"].isin(names), "sku_id"])
    assert not known_at(moment) & newest
    assert set(unseen([told(moment)]).batches) == names
    # No later moment does.
    first = skus.loc[skus["batch_id"].isin(names), "launched_at"].min() + WINDOWS
    assert pd.Timedelta(0) < first - moment <= pd.Timedelta(microseconds=1)


def test_too_few_closed_batches_leave_nothing_to_hold_out():
    with pytest.raises(NotEnoughHistoryError, match="expected more than 12 closed batches, got 12"):
        moment_before_newest(*tables(), SETTINGS, 12, as_of=NOW)
    with pytest.raises(SettingsError, match="n_batches: expected 1 or more, got 0"):
        moment_before_newest(*tables(), SETTINGS, 0, as_of=NOW)


def test_too_few_unseen_batches_are_too_little_and_said_with_what_it_takes():
    late = told(START + WEEK * 12)
    verdict = gate(late, told(START + WEEK * 6), *tables(), SETTINGS, as_of=NOW)
    assert (verdict.passed, verdict.too_little) == (False, True)
    assert "too little evidence: of 12 closed batches 1 are new to both models" in verdict.reason
    assert "it takes 3" in verdict.reason


def test_batches_without_lists_to_judge_on_are_too_little_too():
    none = SETTINGS.model_copy(
        update={"label": SETTINGS.label.model_copy(update={"top_share": None, "min_value": 1e12})}
    )
    models = fitted_as_of(CHALLENGER), fitted_as_of(CHAMPION)
    verdict = gate(*models, *tables(), none, as_of=NOW)
    assert (verdict.passed, verdict.too_little) == (False, True)
    assert "0 of these can be judged on" in verdict.reason


def test_a_challenger_as_good_as_the_champion_passes():
    verdict = judged()
    assert verdict.passed, verdict.say()
    assert not verdict.too_little
    assert len(verdict.batches) == len(verdict.per_batch) >= 3
    assert [check.name for check in verdict.checks] == [
        "batches", "own_report", "hits_at_k.champion", "value_at_k.champion", "hits_at_k.rule", "value_at_k.rule",
        "log_loss", "calibration",
    ]  # fmt: skip
    assert "impressions were not counted" in verdict.notes[0]


def test_a_challenger_that_learned_from_shuffled_labels_is_refused():
    verdict = sabotaged()
    assert not verdict.passed
    assert not verdict.too_little
    assert not check(verdict, "own_report").passed
    assert not check(verdict, "log_loss").passed


def test_of_many_sabotaged_challengers_none_that_ranks_by_what_it_learned_passes():
    models = [fitted_as_of(CHALLENGER, sabotaged=True, deal=deal) for deal in range(1, 13)]
    passed = [model for model in models if gate(model, None, *tables(), SETTINGS, as_of=NOW).passed]
    assert sum(model.winner in LEARNED for model in models) >= 6
    assert not any(model.winner in LEARNED for model in passed)
    assert len(passed) <= 2


def test_a_sabotaged_champion_keeps_nobody_out():
    verdict = gate(fitted_as_of(CHALLENGER), fitted_as_of(CHALLENGER, sabotaged=True), *tables(), SETTINGS, as_of=NOW)
    assert verdict.passed, verdict.say()


def test_a_model_against_itself_differs_in_nothing():
    model = fitted_as_of(CHALLENGER)
    verdict = gate(model, model, *tables(), SETTINGS, as_of=NOW)
    for name in ("hits_at_k.champion", "value_at_k.champion", "log_loss"):
        figures = check(verdict, name).figures
        assert (figures["mean"], figures["low"], figures["high"]) == (0, 0, 0)
        assert figures["own"] == figures["other"]


def test_without_a_champion_the_rule_and_the_probabilities_decide():
    good = gate(fitted_as_of(CHALLENGER), None, *tables(), SETTINGS, as_of=NOW)
    bad = gate(fitted_as_of(CHALLENGER, sabotaged=True), None, *tables(), SETTINGS, as_of=NOW)
    assert (good.passed, bad.passed) == (True, False)
    assert not any("champion" in check.name for check in good.checks)
    # The same batches, so the same figures.
    assert check(good, "hits_at_k.rule").figures["other"] >= 0


def test_rows_from_after_the_moment_change_nothing():
    signals, skus = tables()
    moment = START + WEEK * 13
    models = fitted_as_of(CHALLENGER), fitted_as_of(CHAMPION)
    known = signals[(signals["known_at"] <= moment) & (signals["period_start"] < moment)]
    whole = gate(*models, signals, skus, SETTINGS, as_of=moment)
    assert whole.to_dict() == gate(*models, known, skus, SETTINGS, as_of=moment).to_dict()


def test_the_best_rule_is_the_one_that_the_challengers_own_report_names():
    model = fitted_as_of(CHALLENGER)
    figures = {}
    for rule in ("orders so far", "clicks a day", LOGISTIC):
        named = replace(model, report={**model.report, "best_rule": rule})
        verdict = gate(named, fitted_as_of(CHAMPION), *tables(), SETTINGS, as_of=NOW)
        assert verdict.rule == rule
        assert verdict.batches == judged().batches
        figures[rule] = check(verdict, "hits_at_k.rule").figures["other"]
        assert check(verdict, "hits_at_k.champion") == check(judged(), "hits_at_k.champion")
    assert len(set(figures.values())) == 3


def test_the_logistic_rule_learns_from_no_outcome_that_a_stop_cut_off():
    """Were they taken for zeros, a challenger that learned from decisions would be held against a misled rival."""
    signals, skus = tables()
    model = fitted_as_of(CHALLENGER)
    # Half are stopped at the end of their test but for a coin: the better half, so that taking them as they come tells.
    worth = signals.groupby("sku_id")["revenue"].sum().reindex(skus["sku_id"]).fillna(0).to_numpy()
    better = pd.Series(worth).groupby(skus["batch_id"].to_numpy()).rank(pct=True).to_numpy() > 0.5
    coin = np.random.default_rng(0).random(len(skus)) < 0.3
    decisions = pd.DataFrame(
        {
            "sku_id": skus["sku_id"],
            "decided_at": skus["launched_at"] + SETTINGS.label.test_window,
            "action": np.where(better & ~coin, "stop", "test"),
            "propensity": np.where(better, np.where(coin, 0.3, 0.7), 1.0),
        }
    )
    cut = cut_off(signals, decisions[decisions["action"] == "stop"])

    def learned(signals, **given):
        con = open_warehouse(threads=1)
        try:
            admit_signals_and_skus(con, signals, skus, period=SETTINGS.signals.period, decisions=decisions)
            rule, names = learned_rule(con, model, outcomes_given=False, **given)
            return {**rule.to_dict(), "counts": names}
        finally:
            con.close()

    whole, known = learned(signals), learned(cut, decisions_given=True)
    assert known == learned(signals, decisions_given=True)  # whatever came after a stop
    blind = learned(cut)

    def far(rule):
        ours, theirs = (np.asarray(values["coefficients"]) for values in (rule, whole))
        return np.corrcoef(ours, theirs)[0, 1]

    assert far(known) > far(blind)


def test_the_gate_tells_the_logistic_rule_of_decisions(monkeypatch):
    def ask(con, model, **told):
        raise LookupError(told)

    monkeypatch.setattr(judging_module, "learned_rule", ask)
    model = fitted_as_of(CHALLENGER)
    named = replace(model, report={**model.report, "best_rule": LOGISTIC})
    signals, skus = tables()
    decisions = pd.DataFrame({"sku_id": skus["sku_id"][:1], "decided_at": NOW, "action": "test"})
    for table in (None, decisions):
        with pytest.raises(LookupError, match=f"'decisions_given': {table is not None}"):
            gate(named, None, signals, skus, SETTINGS, as_of=NOW, decisions=table)


def test_a_figure_that_no_batch_has_is_no_reason_against_a_challenger():
    """Value at k, where the best k of no batch earned anything."""
    nothing = pd.DataFrame({"challenger.value_at_k": [np.nan, np.nan], "champion.value_at_k": [np.nan, np.nan]})
    found = judging_module._as_good(nothing, "value_at_k", "champion", "the champion", 0)
    assert found.passed
    assert "can't be told" in found.said
    assert found.figures == {}


def test_a_verdict_is_plain_values_and_says_itself():
    values = json.loads(json.dumps(judged().to_dict(), allow_nan=False))
    assert values["passed"] is True
    assert len(values["per_batch"]) == len(values["batches"])
    assert judged().say().count("ok") >= len(judged().checks)
    assert all(np.isfinite(value) for value in judged().metrics().values())
    assert set(sabotaged().reason.split("; ")) >= {check(sabotaged(), "log_loss").said}


def test_where_impressions_are_counted_the_tests_are_played_again():
    market, model = fitted()
    early = {**model.report, "as_of": "2025-02-10", "last_launch": "2025-01-20"}
    model = replace(model, report=early)
    moment = market.signals["known_at"].max() + WEEK * 4
    told_steps = []
    options = {"as_of": moment, "min_batches": 2, "progress": told_steps.append}
    verdict = gate(model, model, market.signals, market.skus, model.settings, **options)
    assert check(verdict, "cost").figures == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert any("again" in words for words in told_steps)
    without = gate(model, model, market.signals, market.skus, model.settings, replays=False, **options)
    assert verdict.checks[:-1] == without.checks
    blind = replace(model, belief=None)
    assert (
        "holds nothing to plan" in gate(blind, model, market.signals, market.skus, model.settings, **options).notes[0]
    )


def test_figures_per_batch_are_means_over_its_lists():
    rng = np.random.default_rng(0)
    rows = [
        {"as_of": day, "sku_id": f"{batch}{sku}", "batch_id": batch, "age_share": day / 4, "hit": float(sku < 2),
         "value": float(20 - sku), "a": rng.normal(), "rule": -sku, "a.probability": 0.2 if sku < 2 else 0.1}
        for batch in "xy" for day in (1, 2, 4) for sku in range(12)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    table["list"] = table.groupby(["as_of", "batch_id"]).ngroup()
    found = per_batch(table, ["a", "rule"], 0.25)
    assert list(found.index) == ["x", "y"]
    assert (found["rule.hits_at_k"] == 1).all()
    assert (found["rule.value_at_k"] == 1).all()
    for batch in "xy":
        lists = [of.nlargest(2, "a")["hit"].sum() / 2 for _, of in table[table["batch_id"] == batch].groupby("as_of")]
        assert found.loc[batch, "a.hits_at_k"] == pytest.approx(np.mean(lists))
    assert found["a.expected_hits"].tolist() == pytest.approx([1.4, 1.4])
    assert found["hits"].tolist() == [2, 2]
    assert found["a.log_loss"].tolist() == pytest.approx([-(2 * np.log(0.2) + 10 * np.log(0.9)) / 12] * 2)
    assert found["base.log_loss"].tolist() == pytest.approx([-(2 * np.log(0.25) + 10 * np.log(0.75)) / 12] * 2)


def curve(found, spent=(50, 100, 200, 400)):
    """Four batches that find the same."""
    return pd.DataFrame(
        [
            {"budget": cost / 1000, "batch_id": str(batch), "found": hits, "spent": float(cost)}
            for batch in range(4)
            for hits, cost in zip(found, spent, strict=True)
        ]
    )


def test_the_cost_at_equal_hits_is_read_off_sideways():
    plain = curve((1, 2, 3, 4))
    half = curve((1, 2, 3, 4), spent=(25, 50, 100, 200))
    assert cost_ratio(plain, plain, seed=0) == (1, 1, 1)
    assert cost_ratio(half, plain, seed=0) == pytest.approx((0.5, 0.5, 0.5))
    # Nothing in common: the dearest of one against the cheapest of the other.
    assert cost_ratio(curve((5, 6, 7, 8)), plain, seed=0)[0] == pytest.approx(50 / 400)
    assert cost_ratio(plain, curve((5, 6, 7, 8)), seed=0)[0] == pytest.approx(400 / 50)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=32, max_size=32))
def test_changing_sides_turns_the_cost_ratio_over(found):
    one, other = (
        curve((1, 2, 3, 4)).assign(found=np.array(half, dtype=float)) for half in (found[:16], found[16:])
    )  # fmt: skip
    mean, low, high = cost_ratio(one, other, seed=3)
    turned = cost_ratio(other, one, seed=3)
    assert turned == pytest.approx((1 / mean, 1 / high, 1 / low), rel=1e-6)
    assert low <= high


def test_a_dearer_challenger_is_refused_only_beyond_chance():
    assert judging_module._as_cheap(1.3, 1.05, 1.6).passed is False
    assert judging_module._as_cheap(1.3, 0.9, 1.6).passed is True
    assert judging_module._as_cheap(1.05, 1.01, 1.09).passed is True
    assert judging_module._as_cheap(0.6, 0.5, 0.7).passed is True
