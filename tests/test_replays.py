"""Replays: what is bought is what was budgeted, nothing is learned late, and controls fail."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

import hitfinder as hf
from hitfinder import blocks
from hitfinder.admission import admit_signals_and_skus
from hitfinder.blocks import ModelPolicy, block_of, play_ours
from hitfinder.errors import NotEnoughHistoryError, SettingsError
from hitfinder.features import moment_of_knowledge, set_scope
from hitfinder.labels import label
from hitfinder.promise import StopPromise
from hitfinder.replays import PRICE, SHUFFLED, replay
from hitfinder.report.replay import FULL, OURS
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate
from hitfinder.warehouse import open_warehouse

SETTINGS = parse_settings(
    {
        "label": {"outcome_window": "7d", "top_share": 0.1},
        "model": {"ages": 2, "seeds": 1, "folds": 2, "threads": 1},
    }
)
COLUMNS = [
    "policy", "budget", "batch_id", "seed", "skus", "hits", "slots", "found", "spent", "pool", "value_found",
    "value_best", "money_spent", "regret",
]  # fmt: skip


@cache
def market():
    return simulate(weeks=9, skus_per_week=30, hits_per_week=3, complete=True, seed=4)


@cache
def played():
    told = []
    report = replay(
        market().signals, market().skus, SETTINGS, budgets=(0.1, 0.3), rounds=3, repeats=1, progress=told.append
    )
    return report, told


def test_every_policy_plays_every_batch_once_per_budget_and_buys_no_more_than_that():
    report, told = played()
    results = report.results
    assert set(results.columns) == set(COLUMNS)
    names = {FULL, OURS, SHUFFLED, PRICE, "shorter test", "rule of thumb", "sequential halving", "top-k Thompson"}
    assert set(results["policy"]) == names
    assert not results.duplicated(["policy", "budget", "batch_id", "seed"]).any()
    assert (results["spent"] <= np.floor(results["budget"] * results["pool"] + 1e-6)).all()
    assert (results["found"] <= results[["hits", "slots"]].min(axis=1)).all()
    full = results[results["policy"] == FULL]
    assert (full["spent"] == full["pool"]).all()
    for name in names - {FULL, PRICE}:
        assert set(results.loc[results["policy"] == name, "budget"]) == {0.1, 0.3}
        assert set(results.loc[results["policy"] == name, "batch_id"]) == set(full["batch_id"])
    ours = results[results["policy"] == OURS]
    assert (ours["spent"] > 0.8 * ours["budget"] * ours["pool"]).mean() > 0.5
    assert any("fitting as of" in words for words in told)


def test_money_spent_and_regret_follow_from_what_was_bought():
    results = played()[0].results
    signals, skus = market().signals, market().skus
    launched = signals["sku_id"].map(skus.set_index("sku_id")["launched_at"])
    in_test = signals["known_at"] <= launched + pd.Timedelta(days=7)
    newest = (
        signals[in_test]
        .sort_values("known_at")
        .drop_duplicates(["sku_id", "period_start", "channel", "creative_id"], keep="last")
    )
    spend = newest.groupby("sku_id")["spend"].sum().groupby(
        skus.set_index("sku_id")["batch_id"]
    ).sum()  # fmt: skip
    full = results[results["policy"] == FULL].set_index("batch_id")
    np.testing.assert_allclose(full["money_spent"], spend.reindex(full.index), rtol=1e-9)
    np.testing.assert_allclose(
        results["regret"], results["value_best"] - results["value_found"] + results["money_spent"]
    )
    assert (results["value_found"] <= results["value_best"] + 1e-6).all()


def test_the_controls_find_what_chance_finds():
    results = played()[0].results
    share = results.groupby("policy")[["found", "hits"]].sum()
    share = share["found"] / share["hits"]
    assert share[OURS] > share[SHUFFLED] + 0.2
    assert share[OURS] > share[PRICE] + 0.2
    assert share[SHUFFLED] < 0.35  # three of thirty: a tenth by chance


def test_hitfinder_finds_more_than_an_even_test_of_the_same_cost():
    found = played()[0].results.groupby(["policy", "budget"])["found"].sum()
    assert found[OURS, 0.1] >= found["shorter test", 0.1]


def test_a_replay_says_what_was_promised_and_how_it_was_kept():
    promises = played()[0].promises
    assert set(promises["budget"]) == {0.1, 0.3}
    assert (promises["broken"] <= promises["batches"]).all()
    # Fewer than nine batches before: nothing is promised, and nobody is stopped.
    assert not promises["promised"].any()
    assert (promises["stopped_share"] == 0).all()
    assert promises["promise"].str.startswith("No promise").all()


def test_rows_from_after_the_moment_change_nothing():
    moment = market().skus["launched_at"].max() + pd.Timedelta(days=3)
    options = {"budgets": (0.2,), "rounds": 2, "repeats": 1, "controls": False, "as_of": moment}
    signals = market().signals
    known = signals[(signals["known_at"] <= moment) & (signals["period_start"] < moment)]
    whole = replay(signals, market().skus, SETTINGS, **options).results
    pd.testing.assert_frame_equal(whole, replay(known, market().skus, SETTINGS, **options).results)


def test_tests_are_batches_whatever_group_hits_are_taken_in():
    chosen = SETTINGS.model_copy(update={"label": SETTINGS.label.model_copy(update={"within": "category"})})
    report = replay(market().signals, market().skus, chosen, budgets=(0.3,), rounds=2, repeats=1, controls=False)
    skus = market().skus.set_index("sku_id")
    full = report.results[report.results["policy"] == FULL]
    assert set(full["batch_id"]) <= set(skus["batch_id"])
    assert not set(full["batch_id"]) & set(skus["category"])
    size = skus["batch_id"].value_counts()
    assert (full["skus"] <= full["batch_id"].map(size)).all()


def test_batches_without_counted_exposures_and_a_control_without_prices_are_left_out_and_named():
    signals, skus = market().signals.copy(), market().skus.copy()
    weeks = sorted(skus["batch_id"].unique())
    uncounted, unpriced = weeks[-2], weeks[-1]
    of_batch = signals["sku_id"].map(skus.set_index("sku_id")["batch_id"])
    signals["impressions"] = signals["impressions"].astype("Int64").mask(of_batch == uncounted)
    skus["price"] = skus["price"].mask(skus["batch_id"] >= unpriced)
    report = replay(signals, skus, SETTINGS, budgets=(0.2,), rounds=2, repeats=1)
    assert set(report.results["batch_id"]) == set(played()[0].results["batch_id"]) - {uncounted}
    assert f"left out, since their tests' exposures were not counted: {uncounted}" in report.notes
    assert PRICE not in set(report.results["policy"])
    assert f"{PRICE}: not played, prices are not known in every block" in report.notes


def test_stops_are_counted_as_they_were_told_and_nothing_is_bought_after_one(monkeypatch):
    """With a threshold among the margins some SKUs are stopped, and hits among them break the promise."""
    looks = []

    class Watched(ModelPolicy):
        def spend(self, view, rng):
            described = self._described(self.table.features(view, self.model.rates))
            margin, stop = self.model.margin_shown(described), self.model.stops(described, view.bought)
            looks.append((margin, stop, super().spend(view, rng)))
            return looks[-1][2]

    monkeypatch.setattr(blocks, "ModelPolicy", Watched)
    skus = market().skus
    model = hf.fit(market().signals, skus, SETTINGS, as_of=np.sort(skus["launched_at"].unique())[-2])
    block = newest_block()
    _, [kept] = play_ours(block, OURS, model)
    assert kept["stopped_share"] == kept["broken"] == 0
    high = float(np.quantile(looks[-1][0], 0.7))  # many are stopped, some hits among them
    looks.clear()
    promise = StopPromise(threshold=0.5, max_hits_lost=0.1, confidence=0.9, n_batches=24, needed=9)
    stopping = replace(
        model,
        thresholds={**model.thresholds, "plan_stop": high},
        promises={**model.promises, "plan_stop": promise},
    )
    results, [kept] = play_ours(block, OURS, stopping)
    stops, wanted = (np.array([look[i] for look in looks]) for i in (1, 2))
    ever = stops.any(axis=0)
    assert 0.1 < ever.mean() < 1
    assert (wanted[stops] == 0).all()
    assert (wanted[1:][~stops[1:]] > 0).any()
    hit = block.tests["hit"].to_numpy(dtype=bool)
    hits, lost = (np.bincount(block.pool.batch, weights=which) for which in (hit, hit & ever))
    assert kept["stopped_share"] == pytest.approx(ever.mean())
    assert kept["broken"] == (lost > 0.1 * hits)[hits > 0].sum() > 0
    assert kept["promised"]
    assert len(results) == len(hits)


def newest_block():
    con = open_warehouse(threads=1)
    admit_signals_and_skus(con, market().signals, market().skus, period=SETTINGS.signals.period)
    set_scope(con, SETTINGS, moment_of_knowledge(con, None))
    labels = label(con, SETTINGS, outcomes_given=False)
    newest = sorted(labels["batch"].unique())[-2:]
    tests = labels[labels["batch"].isin(newest)].sort_values("sku_id").reset_index(drop=True)
    block = block_of(con, SETTINGS, tests, (0.3,), 4, 1, 1, None)
    con.close()
    return block


def test_text_and_picture_hold_every_policy(tmp_path):
    report = played()[0]
    for language in ("en", "zh"):
        assert OURS in report.say(language)
    assert "control" in report.say()
    path = report.draw(tmp_path / "curve.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_impressions_days_are_bought():
    signals = market().signals.drop(columns=["impressions", "clicks", "spend"])
    report = hf.replay(signals, market().skus, SETTINGS, budgets=(0.5,), rounds=3, repeats=1, slots=5, controls=False)
    full = report.results[report.results["policy"] == FULL]
    assert (full["pool"] == 7 * full["skus"]).all()
    assert (report.results["slots"] == 5).all()
    ours = report.results[report.results["policy"] == OURS]
    assert (ours["spent"] <= 0.5 * ours["pool"]).all()
    assert ours["money_spent"].isna().all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budgets": ()}, "budgets: expected different shares"),
        ({"budgets": (0.0,)}, "budgets: expected different shares"),
        ({"budgets": (0.1, 0.1)}, "budgets: expected different shares"),
        ({"budgets": (1.5,)}, "budgets: expected different shares"),
        ({"rounds": 0}, "rounds: expected 1 or more, got 0"),
        ({"repeats": 0}, "repeats: expected 1 or more"),
        ({"slots": 0}, "slots: expected 1 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(options, said):
    with pytest.raises(SettingsError, match=said):
        replay(market().signals, market().skus, SETTINGS, **options)


def test_too_little_history_is_said_with_what_it_takes():
    early = market().skus["launched_at"].min() + pd.Timedelta(days=16)
    with pytest.raises(
        NotEnoughHistoryError, match="expected a batch with 100 SKUs and 8 hits closed before its launch"
    ):
        replay(market().signals, market().skus, SETTINGS, as_of=early)
