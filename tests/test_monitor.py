"""The monitor sees what changed, says so in time, and keeps quiet at the promised rate where nothing did."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from importlib import resources

import numpy as np
import pandas as pd
import pytest
from changing_market import WEEKS, end_of, market, model, raised, seen
from scipy.stats import binom
from small_market import SETTINGS, fitted

from hitfinder.errors import SettingsError
from hitfinder.monitor import SHARES, monitor
from hitfinder.monitor import health as health_module
from hitfinder.monitor.checks import WEEKLY
from hitfinder.monitor.outcomes import Seen, bet_on_losses, lost_by_decisions, shortfall
from hitfinder.monitor.ratios import difference, log_ratio, noise_of
from hitfinder.monitor.reports import MAX_UNDATED
from hitfinder.monitor.sentences import sentences
from hitfinder.monitor.shift import (
    CLEAR,
    MIN_HISTORY,
    Track,
    _chance,
    _past_surprises,
    _shifts,
    _surprise,
    judge,
    judge_together,
    usual_up_to,
)
from hitfinder.promise import StopPromise
from hitfinder.report.health import render_health
from hitfinder.report.words import LANGUAGES
from hitfinder.settings import parse_settings
from hitfinder.simulate import cut_off

KINDS = {  # check -> the (kind, measure) pairs that an alarm of it can have
    "batch_drift": [("feature", "mean"), ("feature", "psi"), ("channel", "psi"), ("all", "orders per clicks"),
                    ("channel", "clicks per impressions"), ("category", "share of reports")],
    "same_skus": [("same all", "orders per clicks"), ("same category", "clicks per impressions")],
    "missing": [("skus", ""), ("channel", ""), ("column", ""), ("silent", "days without any signal")],
    "late": [("channel", m) for m in ("share a day late", "share two days late", "share revised",
                                      "mean delay in hours")],
    "rejects": [("rejects", ""), ("undated", "")],
    "calibration": [("over", ""), ("under", "")],
    "hits_found": [("", "")], "against_rule": [("", "")], "promise": [("", "wealth")], "decisions": [("", "wealth")],
}  # fmt: skip


def look(signals=None, *, watched=None, week=WEEKS - 1, **options):
    signals = market().signals if signals is None else signals
    return monitor(watched or model(), signals, market().skus, as_of=end_of(week), **options)


def newest_week(signals, week=WEEKS - 1):
    return (signals["period_start"] >= end_of(week - 1)) & (signals["period_start"] < end_of(week))


def track_of(value, **changed):
    n, subjects = value.shape
    about = pd.DataFrame({"kind": "feature", "subject": [str(i) for i in range(subjects)], "measure": "mean"})
    moments = pd.date_range("2025-01-06", periods=n, freq="7D")
    given = {"noise": np.zeros_like(value), "floor": np.zeros(subjects), "side": np.zeros(subjects), **changed}
    return Track(about=about, value=value, moments=moments, **given)


def test_a_change_of_rates_is_seen_in_its_first_week_and_nothing_is_raised_before():
    assert seen(WEEKS - 1).ok
    after = seen(WEEKS)
    assert raised(after) <= {"batch_drift", "same_skus"}
    assert raised(after)
    told = after.alarms
    assert told["what_happened"].str.len().min() > 20
    assert told["what_to_do"].str.contains("retrain").all()
    assert (told["p_value"] <= SHARES["weekly"] * 0.05).all()


def test_nothing_known_later_changes_a_look():
    cut = market().signals[market().signals["known_at"] <= end_of(WEEKS - 1)]
    pd.testing.assert_frame_equal(look(cut).checks, seen(WEEKS - 1).checks)


def test_the_order_of_rows_does_not_matter_and_the_callers_tables_stay_as_they_were():
    mixed = market().signals.sample(frac=1, random_state=1)
    kept = mixed.copy()
    pd.testing.assert_frame_equal(look(mixed).checks, seen(WEEKS - 1).checks)
    pd.testing.assert_frame_equal(mixed, kept)


def test_a_channel_that_falls_silent_is_missing():
    signals = market().signals
    silent = look(signals[~(newest_week(signals) & (signals["channel"] == "ads"))])
    assert "missing" in raised(silent)
    [row] = silent.alarms[silent.alarms["check"] == "missing"].to_dict("records")
    assert row["subject"] == "ads"
    assert "channel ads: reports came for 0% of the periods" in row["what_happened"]


def test_a_column_that_is_newly_empty_is_missing():
    signals = market().signals.astype({"carts": "Int64"})
    signals["carts"] = signals["carts"].mask(newest_week(signals))
    empty = look(signals)
    assert "missing" in raised(empty)
    assert "carts" in set(empty.alarms["subject"])


def test_a_feed_that_stopped_is_told_as_soon_as_the_gap_is_longer_than_usual():
    signals = market().signals[market().signals["known_at"] <= end_of(WEEKS - 1)]
    newest = signals["known_at"].max()
    for hours, state in ((0, "quiet"), (47, "quiet"), (49, "alarm"), (24 * 400, "alarm")):
        found = monitor(model(), signals, market().skus, as_of=newest + pd.Timedelta(hours=hours))
        [row] = found.checks[found.checks["kind"] == "silent"].to_dict("records")
        assert (row["state"], row["check"], row["threshold"]) == (state, "missing", 2.0)
        assert 0 < row["usual"] <= 1
        told = found.alarms[found.alarms["subject"] == "signals"]
        assert len(told) == (state == "alarm")
        if state == "alarm":
            assert found.told("zh")["what_happened"].str.contains("没有任何信号").any()
            assert told["what_happened"].iloc[0].startswith("No signal at all has come for")
            assert "whether the export still runs" in told["what_to_do"].iloc[0]


def test_a_weekly_export_is_not_silent_within_its_week():
    signals = market().signals
    weekly = signals.assign(known_at=(signals["known_at"] - pd.Timestamp("2025-01-06")).dt.ceil("7D") +
                            pd.Timestamp("2025-01-06"))  # fmt: skip
    for days, state in ((7, "quiet"), (9, "alarm")):
        found = monitor(model(), weekly, market().skus, as_of=weekly["known_at"].max() + pd.Timedelta(days=days))
        assert found.checks.loc[found.checks["kind"] == "silent", "state"].tolist() == [state]


def test_now_is_the_clocks_moment_and_an_old_look_says_that_it_is_old(monkeypatch):
    monkeypatch.setattr(health_module, "_now", lambda: end_of(WEEKS) + pd.Timedelta(days=30))
    late = monitor(model(), market().signals, market().skus, as_of="now")
    assert late.as_of == end_of(WEEKS) + pd.Timedelta(days=30)
    assert "signals" in set(late.alarms["subject"])
    assert late.stale() is None
    assert seen(WEEKS).stale() == "the newest signal is 30 days old; if the feed should be live, pass --as-of now"
    assert "30 天前" in seen(WEEKS).stale("zh")
    assert seen(WEEKS).stale(now=end_of(WEEKS) + pd.Timedelta(days=2)) is None


def little_history():
    signals, skus = market().signals, market().skus
    small = skus.groupby("batch_id").head(9)
    return {
        "before the data": (signals, skus, "2024-01-01"),
        "at the first launch": (signals, skus, "2025-01-06"),
        "after three days": (signals, skus, "2025-01-09"),
        "fifty weeks after the data": (signals, skus, end_of(WEEKS + 50)),
        "batches of nine": (signals[signals["sku_id"].isin(small["sku_id"])], small, None),
        "signals of others": (signals[~signals["sku_id"].isin(small["sku_id"])], small, None),
        "one row": (signals.head(1), skus, None),
        "no rows": (signals.head(0), skus, "2025-03-01"),
        "no SKUs": (signals, skus.head(0), None),
    }


@pytest.mark.parametrize("case", little_history())
def test_with_nothing_to_compare_too_little_history_is_said(case):
    signals, skus, as_of = little_history()[case]
    found = monitor(model(), signals, skus, as_of=as_of)
    assert "short" in set(found.checks["state"])
    assert "Too little history for a promise" in found.say()
    assert "too little history" in render_health(found).lower()


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (1, 0), (5, 0), (1, 3)])
def test_a_track_without_weeks_or_subjects_is_judged_too_short(shape):
    found = judge(track_of(np.zeros(shape)), 0.05)
    assert found.threshold is None
    assert (found.shift.shape, found.top.shape, found.p_each.shape) == (shape, shape[:1], shape[1:])


def test_a_batch_without_signals_is_missing():
    newest = set(market().skus.loc[market().skus["launched_at"] == end_of(WEEKS - 2), "sku_id"])
    signals = market().signals
    found = look(signals[~signals["sku_id"].isin(sorted(newest)[: len(newest) // 2])])
    missing = found.checks[(found.checks["check"] == "missing") & (found.checks["kind"] == "skus")]
    assert missing["state"].tolist() == ["alarm"]
    assert missing["value"].iloc[0] == pytest.approx(0.5, abs=0.05)


def test_reports_that_come_later_than_usual_are_late():
    signals = market().signals.copy()
    slow = newest_week(signals, WEEKS - 2) & (signals["channel"] == "feed")
    signals.loc[slow, "known_at"] += pd.Timedelta(hours=36)
    late = look(signals)
    assert "late" in raised(late)
    assert set(late.alarms.loc[late.alarms["check"] == "late", "subject"]) == {"feed"}


def test_reports_that_are_revised_more_than_usual_are_told():
    signals = market().signals
    again = signals[newest_week(signals, WEEKS - 2) & (signals["channel"] == "search")]
    again = again.assign(known_at=again["known_at"] + pd.Timedelta(hours=30))
    found = look(pd.concat([signals, again], ignore_index=True))
    revised = found.checks[found.checks["measure"] == "share revised"].set_index("subject")["state"]
    assert revised.to_dict() == {"search": "alarm", "feed": "quiet", "ads": "quiet"}


def test_more_rejects_than_usual_raise_the_alarm_and_those_without_a_date_too():
    signals = market().signals.copy()
    broken = signals.index[newest_week(signals)][::15]
    signals.loc[broken, "clicks"] = signals.loc[broken, "impressions"] + 1
    with pytest.warns(UserWarning, match="clicks_above_impressions"):
        found = look(signals)
    assert "rejects" in raised(found)
    assert found.alarms.loc[found.alarms["check"] == "rejects", "value"].iloc[0] == pytest.approx(1 / 15, abs=0.01)
    torn = market().signals.astype({"period_start": "str", "known_at": "str"})
    torn.loc[torn.index % 30 == 0, "period_start"] = "no date"
    with pytest.warns(UserWarning, match="period_start_unreadable"):
        undated = look(torn)
    assert undated.checks.loc[undated.checks["kind"] == "undated", "state"].tolist() == ["alarm"]


def test_with_too_little_history_nothing_is_promised_and_that_is_said():
    short = look(week=9)
    states = short.checks.groupby("check")["state"].agg(set)
    assert all(states[name] <= {"short", "quiet"} for name in ("batch_drift", "same_skus", "missing", "late"))
    assert "short" in states["batch_drift"]
    assert short.ok
    assert "Too little history for a promise: drift, newest batch" in short.say()
    assert "历史太短" in short.say("zh")


def test_outcomes_turned_upside_down_break_probabilities_ranking_and_promise():
    usual = seen(WEEKS - 1)
    assert len(usual.outcomes.batches) >= 6
    assert usual.outcomes.curve["predicted"]
    values = market().truth[["sku_id", "expected_revenue"]].rename(columns={"expected_revenue": "value"})
    upside_down = values.assign(value=-values["value"], known_at=end_of(WEEKS - 2))
    learned = StopPromise(threshold=0.5, max_hits_lost=0.1, confidence=0.9, n_batches=12, needed=9)
    watched = replace(model(), promises={**model().promises, "stop": learned})
    found = look(outcomes=upside_down, watched=watched)
    assert {"hits_found", "promise"} <= raised(found)
    assert found.bets["wealth"].iloc[-1] > 1 / (SHARES["promise"] * 0.05)
    assert found.checks.set_index("check").loc["promise", "usual"] >= 3


def told_about(skus, day, action="stop", propensity=1.0):
    decided = skus["launched_at"] + pd.Timedelta(days=day)
    return pd.DataFrame(
        {"sku_id": skus["sku_id"], "decided_at": decided, "action": action, "propensity": propensity}
    )  # fmt: skip


def carried_out(decisions, **options):
    return look(cut_off(market().signals, decisions), decisions=decisions, **options)


def checks_of(health, *names):
    return health.checks[health.checks["check"].isin(names)].set_index("check")


def test_stopping_hits_breaks_the_promise_by_decisions_as_those_show_that_chance_kept_on():
    drawn = np.random.default_rng(3).random(len(market().skus)) < 0.5
    found = carried_out(told_about(market().skus, 5, np.where(drawn, "test", "stop"), 0.5))
    assert "decisions" in raised(found)
    batches = found.outcomes.batches
    assert batches["expected"].gt(0).all()
    # Each of the seen stands for two: half of the estimated hits had been stopped.
    assert batches["hits"].mod(2).eq(0).all()
    assert batches["n_skus"].lt(35).all()
    assert "decisions" not in raised(look(decisions=told_about(market().skus, 5, "test")))


def test_stopping_what_becomes_no_hit_keeps_the_promise_by_decisions():
    made = look()
    hits = market().truth.set_index("sku_id")["expected_revenue"].reindex(market().skus["sku_id"])
    good = hits.groupby(market().skus.set_index("sku_id")["batch_id"]).rank(pct=True).to_numpy() > 0.5
    drawn = np.random.default_rng(4).random(len(good)) < 0.3
    action, chance = np.where(good | drawn, "test", "stop"), np.where(good, 1.0, np.where(drawn, 0.3, 0.7))
    found = carried_out(told_about(market().skus, 5, action, chance))
    assert not raised(found) & {"decisions", "promise", "calibration"}
    assert checks_of(found, "decisions").loc["decisions", "state"] == "quiet"
    estimated, true = found.outcomes.batches["hits"].mean(), made.outcomes.batches["hits"].mean()
    assert estimated == pytest.approx(true, rel=0.35)


def test_where_nobody_was_kept_on_by_chance_stopping_cannot_be_judged_and_that_is_said():
    half = np.arange(len(market().skus)) % 2 == 0
    found = carried_out(told_about(market().skus, 5, np.where(half, "stop", "test")))
    judged = checks_of(found, "decisions", "promise", "calibration", "hits_found")
    assert judged["state"].eq("none").all()
    assert "decisions" in found.blind
    assert "calibration" in found.blind
    assert "Can't be judged: probabilities" in found.say()
    assert "policy.explore_share" in found.say("zh")
    page = render_health(found)
    assert "Can&#39;t be judged" in page
    assert "No batch has closed" not in page


def test_batches_from_before_the_first_stop_are_judged_though_later_ones_cannot_be():
    late = market().skus["launched_at"] >= end_of(8)
    found = carried_out(told_about(market().skus[late], 5))
    assert 1 <= len(found.outcomes.batches) < len(seen(WEEKS - 1).outcomes.batches)
    assert found.outcomes.batches["launched_at"].max() < end_of(8)


@pytest.mark.parametrize(("lost", "flagged"), [(0, (0, 0)), (4, (0, 0.011)), (20, (0.5, 1))])
def test_a_batch_of_many_hits_that_lost_what_is_allowed_is_not_told_to_have_lost_more_by_the_luck_of_the_draw(
    lost, flagged
):
    rng = np.random.default_rng(12)
    parts = []
    for batch in range(2000):
        n = 40 - lost + rng.binomial(lost, 0.3)
        weight = np.where(np.arange(n) < 40 - lost, 1.0, 1 / 0.3)
        parts.append(pd.DataFrame({"batch": batch, "weight": weight}))
    labels = pd.concat(parts, ignore_index=True).assign(hit=True, decided=True, launched_at=end_of(0))
    share = lost_by_decisions(Seen(labels), model().settings)["lost_too_much"].mean()
    assert flagged[0] <= share <= flagged[1]


def test_a_sell_off_after_the_outcome_has_shown_itself_is_no_lost_hit():
    kept = told_about(market().skus, 5, "test")
    sold_off = told_about(market().skus, 16)
    found = look(decisions=pd.concat([kept, sold_off], ignore_index=True))
    assert checks_of(found, "decisions").loc["decisions", ["state", "usual"]].tolist() == ["quiet", 0.0]
    pd.testing.assert_frame_equal(found.outcomes.batches, seen(WEEKS - 1).outcomes.batches)


def test_where_hits_are_taken_within_categories_batches_closed_since_the_fit_are_judged_all_the_same():
    settings = parse_settings({**SETTINGS, "label": {**SETTINGS["label"], "within": "category"}})
    found = look(watched=replace(model(), settings=settings)).outcomes.batches
    by_batch = seen(WEEKS - 1).outcomes.batches
    assert found["batch_id"].tolist() == by_batch["batch_id"].tolist()
    assert found["n_skus"].tolist() == by_batch["n_skus"].tolist()
    assert found["hits"].tolist() != by_batch["hits"].tolist()


def test_a_model_fitted_after_all_that_closed_has_no_outcomes_to_be_judged_by():
    market_of_fit, just_fitted = fitted()
    health = monitor(just_fitted, market_of_fit.signals, market_of_fit.skus)
    assert health.outcomes.batches.empty
    assert set(health.checks.loc[health.checks["check"].isin(["calibration", "promise"]), "state"]) == {"none"}


@pytest.mark.parametrize("tail", ["normal", "student"])
def test_false_alarms_over_all_subjects_together_are_as_rare_as_promised(tail):
    rng = np.random.default_rng(5)
    allowed, runs, found = 0.05, 150, 0
    for _ in range(runs):
        shape = (26, 25)
        value = rng.normal(size=shape) if tail == "normal" else rng.standard_t(4, size=shape)
        value += 2 * rng.normal(size=(26, 1))  # subjects go together
        found += judge(track_of(value), allowed).p <= allowed
    assert found <= binom.ppf(0.999, runs, allowed)
    assert found > 0


def looks_without_a_change(noise, rng, weeks=24, checks=5, subjects=40, looks=600):
    """Return the largest shift of each week, check and look where weeks are exchangeable."""
    shape = (weeks, looks, checks, subjects)
    value = {
        "normal": lambda: rng.normal(size=shape),
        "student 4": lambda: rng.standard_t(4, size=shape),
        "student 3": lambda: rng.standard_t(3, size=shape),
        "unequal weeks": lambda: rng.normal(size=shape) * np.exp(0.5 * rng.normal(size=(weeks, looks, checks, 1))),
    }[noise]()
    # Scatter is pulled towards that of its like: the like are those of one look and check.
    flat = value.reshape(weeks, -1)
    kind = np.repeat(np.arange(looks * checks), subjects)
    about = pd.DataFrame({"kind": kind, "subject": "", "measure": ""})
    track = replace(track_of(flat[:, :1], floor=np.full(flat.shape[1], 0.05), side=np.zeros(flat.shape[1])),
                    about=about, value=flat, noise=np.zeros_like(flat))  # fmt: skip
    _, _, size = _shifts(track, 6.0)
    return size.reshape(shape).max(axis=3)


@pytest.mark.parametrize("noise", ["normal", "student 4", "student 3", "unequal weeks"])
def test_a_look_of_five_checks_rings_no_more_often_than_promised_also_where_tails_are_heavy(noise):
    tops = looks_without_a_change(noise, np.random.default_rng(21))
    p = []
    for look in range(tops.shape[1]):
        past, newest = tops[:-1, look], tops[-1, look]
        told, surprises = _past_surprises(past, newest)
        assert told.all()
        p.append(min(_chance(_surprise(newest[[i]], past[:, i]), surprises)[0] for i in range(len(newest))))
    p = np.array(p)
    for allowed in (SHARES["weekly"] * 0.05, 0.0125, 0.0025):
        assert (p <= allowed).sum() <= binom.ppf(0.999, len(p), allowed), allowed
    assert (p <= 0.1).mean() > 0.02  # it does ring


def test_one_check_of_heavy_tails_does_not_hide_a_change_in_another():
    rng = np.random.default_rng(22)
    quiet, loud = rng.normal(size=(24, 40)), 5 * rng.standard_t(2, size=(24, 12))
    quiet[-1, 7] += 12
    found = judge_together({"quiet": track_of(quiet), "loud": track_of(loud)}, 0.036)
    assert np.flatnonzero(found["quiet"].p_each <= 0.036).tolist() == [7]
    assert not (found["loud"].p_each <= 0.036).any()
    assert found["quiet"].top[-1] > found["quiet"].threshold


def test_a_check_of_short_history_keeps_no_other_from_being_judged():
    rng = np.random.default_rng(23)
    found = judge_together({"long": track_of(rng.normal(size=(30, 9))), "new": track_of(rng.normal(size=(7, 9)))}, 0.05)
    alone = judge(track_of(np.random.default_rng(23).normal(size=(30, 9))), 0.05)
    assert found["new"].threshold is None
    assert np.isnan(found["new"].p_each).all()
    assert (found["long"].p, found["long"].threshold) == (alone.p, alone.threshold)


def test_gaps_that_scatter_raise_the_limit_of_silence_and_even_ones_do_not():
    assert usual_up_to(np.ones(12), 0.00125) == pytest.approx(1)
    gaps = np.random.default_rng(24).lognormal(sigma=0.5, size=(400, 20))
    beyond = [row[-1] > usual_up_to(row[:-1], 0.01) for row in gaps]
    assert sum(beyond) <= binom.ppf(0.999, len(gaps), 0.01)


def test_a_shift_in_one_of_many_subjects_is_found_and_named():
    rng = np.random.default_rng(6)
    value = rng.normal(size=(30, 60))
    value[-1, 17] += 8
    found = judge(track_of(value), 0.0125)
    assert np.flatnonzero(found.p_each <= 0.0125).tolist() == [17]
    assert found.top[-1] > found.threshold
    down = judge(track_of(-value, side=np.ones(60)), 0.0125)  # only a rise counts there
    assert not (down.p_each <= 0.0125).any()


@pytest.mark.parametrize("size", [0.5, 3.0, 4.0, 6.0])
def test_the_threshold_is_where_the_p_value_crosses_what_is_allowed(size):
    rng = np.random.default_rng(7)
    value = rng.normal(size=(40, 10))
    value[-1, 0] = size
    for allowed in (0.005, 0.0125, 0.05, 0.2):
        found = judge(track_of(value), allowed)
        assert (found.p <= allowed) == (found.top[-1] > found.threshold)


def test_a_past_change_is_not_taken_for_what_is_usual():
    rng = np.random.default_rng(8)
    value = rng.normal(size=(40, 10))
    clean = judge(track_of(value), 0.05).threshold
    value[25, 3] += 40
    again = judge(track_of(value), 0.05)
    assert again.p_weeks[25] <= CLEAR * 0.05
    assert again.threshold < 2 * clean


def test_no_alarm_without_enough_comparisons_or_without_any_shift():
    rng = np.random.default_rng(9)
    short = judge(track_of(rng.normal(size=(MIN_HISTORY + 3, 4)) * 10), 0.05)
    assert short.threshold is None
    assert np.isnan(short.p)
    still = judge(track_of(np.zeros((30, 4)), floor=np.full(4, 0.1)), 0.05)
    assert still.p == 1.0


def test_wealth_against_a_kept_promise_reaches_its_threshold_no_more_often_than_allowed():
    rng = np.random.default_rng(10)
    m, batches, runs, allowed = 12, 60, 2000, 0.05
    k = int(np.floor(0.1 * (m + 1)))
    promise = StopPromise(threshold=0.5, max_hits_lost=0.1, confidence=0.9, n_batches=m, needed=9)
    ever = 0
    for _ in range(runs):
        past, new = rng.random(m), rng.random(batches)
        ever += bet_on_losses(new < np.sort(past)[k - 1], promise).max() >= 1 / allowed
    assert ever <= binom.ppf(0.999, runs, allowed)
    assert bet_on_losses([1] * 12, promise)[-1] > 1 / allowed


def test_a_shortfall_takes_batches_to_be_seen():
    assert np.isnan(shortfall([0, 0, 0], [3, 3, 3]))
    assert shortfall([1, 1, 2, 1, 1, 0], [3] * 6) < 0.01
    assert shortfall([3, 2, 4, 3, 3, 4], [3] * 6) > 0.3


def test_what_a_style_adds_to_part_and_whole_cancels():
    rng = np.random.default_rng(11)
    styles = [f"s{i}" for i in range(40)]
    appeal = np.exp(rng.normal(size=40))
    rows = [
        {"week": 0, "style_id": s, "channel": c, "n": share * 100 * a, "d": share * 1000.0}
        for s, a in zip(styles, appeal, strict=True) for c, share in (("x", 0.5), ("y", 0.5))
    ]  # fmt: skip
    cells = pd.DataFrame(rows)
    part = log_ratio(cells, "week", [0], "channel", ["x", "y"], "n", "d")
    whole = log_ratio(cells, "week", [0], None, [""], "n", "d")
    assert (noise_of(part) > 0.01).all()
    assert (noise_of(part, whole) < 1e-4).all()
    assert (noise_of(difference(part, part)) == 0).all()
    boot = [
        float(np.log(appeal[pick].sum() / len(pick))) for pick in (rng.integers(0, 40, 40) for _ in range(400))
    ]  # fmt: skip
    assert noise_of(whole)[0, 0] == pytest.approx(np.var(boot), rel=0.3)


def test_a_chance_that_is_none_is_refused():
    with pytest.raises(SettingsError, match="false_alarm: expected a chance between 0 and 1"):
        look(false_alarm=0)


def test_the_chance_of_a_false_alarm_is_spent_once():
    assert sum(SHARES.values()) == pytest.approx(1)
    checks = seen(WEEKS).checks
    weekly = checks["check"].isin(WEEKLY) & ~checks["kind"].isin(["silent", "undated"])
    assert checks.loc[weekly, "allowed"].unique() == pytest.approx([SHARES["weekly"] * 0.05])
    others = checks[~weekly].set_index(["check", "kind"])["allowed"]
    # Rejects without a date have a fixed limit: no chance is told of it, and none spent.
    assert others[others.isna()].index.tolist() == [("rejects", "undated")]
    assert others.sum() + SHARES["weekly"] * 0.05 == pytest.approx(0.05)
    assert checks.loc[checks["kind"] == "undated", "threshold"].iloc[0] >= MAX_UNDATED


@pytest.mark.parametrize("file", [("hitfinder.monitor", "words.toml"), ("hitfinder.report", "health_words.toml")])
def test_both_languages_say_the_same(file):
    words = tomllib.loads(resources.files(file[0]).joinpath(file[1]).read_text(encoding="utf-8"))
    names_of_counts = {
        "clicks", "impressions", "favorites", "carts", "orders", "revenue", "skus", "units", "saves", "visitors",
        "refunds", "on_impression", "on_click", "on_order", "on_day", "on_revenue",
    }  # fmt: skip
    assert set(words["zh"]) - set(words["en"]) <= names_of_counts
    for key, text in words["en"].items():
        assert set(re.findall(r"{(\w+)}", text)) == set(re.findall(r"{(\w+)}", words["zh"][key])), key


@pytest.mark.parametrize("check", KINDS)
def test_every_alarm_can_be_told_in_both_languages(check):
    for kind, measure in KINDS[check]:
        row = {"check": check, "kind": kind, "subject": "x", "measure": measure, "value": 0.5, "usual": 0.1}
        for language in LANGUAGES:
            what, do = sentences({**row, "batch": "B", "more": 2, "n_history": 9}, language)
            assert "{" not in what + do
            assert what
            assert do


def test_a_rule_is_named_in_the_language_of_the_alarm():
    row = {"check": "against_rule", "kind": "", "subject": "orders a day", "measure": "", "value": 0.2, "usual": 0.5}
    row |= {"batch": "B", "more": 0, "n_history": 9}
    assert "orders a day" in sentences(row, "en")[0]
    assert "日均订单" in sentences(row, "zh")[0]
