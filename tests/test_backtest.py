"""A history walked through: nothing known later is used, sabotage stays out, no registry that serves is touched."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest

from hitfinder.errors import ModelError, NotEnoughHistoryError
from hitfinder.registry.promotion import standing
from hitfinder.routines.backtest import FIGURES, Backtest, backtest
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate

SETTINGS = parse_settings(
    {
        "label": {"test_window": "7d", "outcome_window": "7d", "top_share": 0.15},
        "model": {"ages": 2, "seeds": 1, "folds": 2, "threads": 1},
        "policy": {"explore_share": 0.2},
    }
)
START, WEEK = pd.Timestamp("2025-01-06"), pd.Timedelta(days=7)
SCRIPT = Path(__file__).parent.parent / "pipelines" / "backtest.py"


def tables(weeks=11):
    """Days are the exposure: fits without impressions are quick."""
    market = simulate(weeks=weeks, skus_per_week=30, hits_per_week=4, complete=True, seed=3)
    return market.signals.drop(columns=["impressions", "spend"]), market.skus


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    signals, skus = tables()
    store = tmp_path_factory.mktemp("walk")
    done = backtest(
        signals, skus, SETTINGS, folder_for_store=store, start=START + 6 * WEEK, retrain_every=4, watch=False,
        carry_out=True, sabotage=True,
    )  # fmt: skip
    return store, done


def test_every_week_has_its_list_beside_the_others(walked):
    _, done = walked
    assert len(done.weeks) == 6
    assert done.weeks["moment"].is_monotonic_increasing
    sizes = done.lists.groupby("batch_id").size()
    assert (sizes == 3).all()
    means = done.between()
    assert list(means.index) == ["champion", "never retrained", "best rule"]
    assert ((means[list(FIGURES)] > 0) & (means[list(FIGURES)] <= 1)).all().all()
    assert (done.weeks["skus"] >= done.weeks["stopped"] + done.weeks["scaled"]).all()


def test_a_sabotaged_challenger_was_tried_and_stayed_out(walked):
    store, done = walked
    kinds = done.retrainings["kind"].tolist()
    assert kinds == ["own", "sabotaged", "own"]
    assert done.sabotage() == (1, 0)
    assert done.retrainings["outcome"].iloc[0] == "first"
    assert standing("hitfinder", folder_for_store=store).champion == done.retrainings["champion"].iloc[-1]


def test_it_does_not_start_with_a_champion_that_may_know_what_came_later(walked):
    store, _ = walked
    with pytest.raises(ModelError, match="expected a name that is not registered"):
        backtest(*tables(), SETTINGS, folder_for_store=store)


def test_an_address_is_named_without_its_password_and_a_registry_that_does_not_answer_is_no_empty_one(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:1")
    with pytest.raises(ModelError, match="no MLflow server answers") as refused:
        backtest(*tables(4), SETTINGS, folder_for_store=tmp_path)
    assert "secret" not in str(refused.value)
    monkeypatch.setattr("hitfinder.routines.backtest.standing", lambda *_, **__: None)
    with pytest.raises(ModelError, match=r"not registered at http://\*\*\*@127.0.0.1:1, got one that is"):
        backtest(*tables(4), SETTINGS, folder_for_store=tmp_path)


def test_moments_with_a_zone_are_brought_to_utc(tmp_path):
    with pytest.raises(NotEnoughHistoryError, match="got 0 closed batches"):
        backtest(*tables(4), SETTINGS, folder_for_store=tmp_path, start="2030-02-01T00:00+08:00")
    lists = pd.DataFrame({"moment": [START, START + WEEK], "ranker": "champion"}).assign(**dict.fromkeys(FIGURES, 0.0))
    lists.loc[1, "value_at_k"] = 1.0
    done = Backtest(pd.DataFrame(), lists, pd.DataFrame())
    assert done.between(first="2025-01-13T08:00+08:00")["value_at_k"].tolist() == [1.0]
    assert done.between(last="2025-01-13T08:00+08:00")["value_at_k"].tolist() == [0.0]


def test_a_week_knows_nothing_of_what_came_later(tmp_path):
    signals, skus = tables()
    until = START + 9 * WEEK  # the outcomes of the first lists have closed by then
    kept = skus[skus["launched_at"] < until - 2 * WEEK]
    # One retraining each: what the shorter history has lists of comes before a second.
    given = {"start": START + 6 * WEEK, "retrain_every": 6, "watch": False}
    whole = backtest(signals, skus, SETTINGS, folder_for_store=tmp_path / "whole", **given)
    short = backtest(
        signals[(signals["known_at"] <= until) & signals["sku_id"].isin(kept["sku_id"])], kept, SETTINGS,
        folder_for_store=tmp_path / "short", **given,
    )  # fmt: skip
    n = len(short.weeks)
    assert 0 < n < len(whole.weeks)
    plain = ["moment", "batch_id", "skus", "stopped", "explored", "scaled"]
    pd.testing.assert_frame_equal(short.weeks[plain], whole.weeks[plain].head(n))


def test_alarms_are_counted_before_a_change_and_timed_after_it():
    moments = [START + week * WEEK for week in range(6)]
    weeks = pd.DataFrame({"moment": moments, "alarm": [None, True, False, False, False, True]})
    done = Backtest(weeks, pd.DataFrame(), pd.DataFrame())
    told = done.alarms(change=moments[3])
    assert (told["quiet_looks"], told["false_alarms"], told["weeks_to_alarm"]) == (3, 1, 2)
    assert told["raised_in_time"] == 1
    assert done.alarms(change=moments[3], within="7D")["raised_in_time"] == 0
    assert done.alarms()["quiet_looks"] == 5


def test_the_script_keeps_to_a_registry_of_its_own(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("pipelines_backtest", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    signals, skus = tables(9)
    signals.to_parquet(tmp_path / "signals.parquet")
    skus.to_parquet(tmp_path / "skus.parquet")
    (tmp_path / "s.toml").write_text(
        "[label]\noutcome_window = '7d'\ntop_share = 0.15\n[model]\nages = 2\nseeds = 1\nfolds = 2\nthreads = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    # What serves: nobody may even ask there.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    status = script.main(
        ["--signals", "signals.parquet", "--skus", "skus.parquet", "--settings", "s.toml", "--no-watch", "--start",
         str(START + 6 * WEEK), "--out", "out"]
    )  # fmt: skip
    said, notes = capsys.readouterr()
    assert status == 0, notes
    assert "weekly lists" in said
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert 0 < figures["all.champion.value_at_k"] <= 1
    assert (tmp_path / "out" / "backtest.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "backtest.png", "figures.json", "lists.csv", "mlruns", "retrainings.csv", "summary.txt", "weeks.csv",
    ]  # fmt: skip
