"""Tuning: what a trial's figure rests on, how a search goes on after a stop, and that it never makes things worse."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from fake_folds import SETTINGS, ToldFold, plain_fold, smooth, told_folds
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hitfinder.admission import admit_signals_and_skus
from hitfinder.cli import cli
from hitfinder.cohorts import forward_folds
from hitfinder.errors import HitfinderError, SettingsError
from hitfinder.features import moment_of_knowledge
from hitfinder.history import examples_of, know
from hitfinder.metrics import list_metrics
from hitfinder.models.boosted import BinnedRows, fit_boosted
from hitfinder.registry.tuning_pictures import draw_tuning
from hitfinder.settings import TreeSettings, parse_settings
from hitfinder.simulate import simulate
from hitfinder.training import JUDGE_STATES, MIN_FOLD_HITS, MIN_FOLD_SKUS, fit_estimator, prepare
from hitfinder.tuning import search, tune, tune_on
from hitfinder.tuning.folds import make_fold
from hitfinder.tuning.space import SPACE, known_good, space_around
from hitfinder.tuning.study import open_study
from hitfinder.warehouse import open_warehouse

HERE = Path(__file__).parent
MARKET = {
    "label": {"outcome_window": "14d", "top_share": 0.15},
    "model": {"ages": 2, "seeds": 1, "folds": 3, "threads": 1},
}
TREES = st.builds(
    TreeSettings,
    rounds=st.integers(1, 5000),
    learning_rate=st.floats(1e-6, 1),
    num_leaves=st.integers(2, 1024),
    lambda_l2=st.floats(0, 1e6),
    feature_fraction=st.floats(0.01, 1),
    bagging_fraction=st.floats(0.01, 1),
    min_skus_in_leaf=st.integers(1, 100_000),
)


@cache
def market():
    return simulate(weeks=16, skus_per_week=25, complete=True, seed=2)


@contextmanager
def known(signals, relabel=None):
    """What is known of the market: the history, and its forward folds."""
    settings = parse_settings(MARKET)
    con = open_warehouse(threads=1)
    admit_signals_and_skus(con, signals, market().skus, period=settings.signals.period)
    history, _ = know(con, settings, moment_of_knowledge(con, None), outcomes_given=False, relabel=relabel)
    try:
        yield history, forward_folds(history.labels, 3, min_train=MIN_FOLD_SKUS, min_hits=MIN_FOLD_HITS)
    finally:
        history.close()
        con.close()


def finished(tuned):
    """The trials that count, in order, without what differs from run to run."""
    kept = tuned.trials[tuned.trials["state"] != "stopped"]
    return kept.drop(columns=["number", "seconds"]).reset_index(drop=True)


# ---- what a trial's figure rests on


@pytest.mark.parametrize("ranks", [False, True])
def test_trees_from_bins_used_before_equal_trees_from_fresh_bins(ranks):
    rng = np.random.default_rng(0)
    X = np.where(rng.random((600, 8)) < 0.2, np.nan, rng.normal(size=(600, 8)))
    X[:, 6:] = rng.random((600, 2)) < 0.03  # rare: what LightGBM would filter out for large leaves
    y = (np.nan_to_num(X[:, 0]) + rng.normal(size=600) > 1).astype(float)
    lists = np.sort(rng.integers(0, 30, 600)) if ranks else None
    rows = (X, y, np.full(600, 0.5), np.nan_to_num(X[:, 0]))
    fixed = {"monotone": [1] + [0] * 7, "seed": 3, "rows_per_sku": 2.0}
    binned = BinnedRows(*rows, lists=lists)
    for trees in (
        {"min_skus_in_leaf": 60},
        {"min_skus_in_leaf": 1, "num_leaves": 31, "bagging_fraction": 1.0},
        {"rounds": 7, "lambda_l2": 0.0, "learning_rate": 0.3},
        {},
    ):
        assert binned.fit(trees, **fixed) == fit_boosted(*rows, trees=trees, lists=lists, **fixed)


def test_a_search_bins_nothing_again(monkeypatch):
    folds = [plain_fold(n) for n in range(3)]
    made = []
    construct = lgb.Dataset._lazy_init
    monkeypatch.setattr(lgb.Dataset, "_lazy_init", lambda self, *a, **k: (made.append(1), construct(self, *a, **k))[1])
    tuned = tune_on(folds, SETTINGS, name="s", trials=9)
    assert tuned.report["trials"]["finished"] == 9
    assert not made
    plain_fold(0)
    assert made, "the count would have seen bins being made"


def test_a_folds_figure_is_that_of_the_model_that_fit_judges():
    with known(market().signals.drop(columns="impressions")) as (history, folds):
        made = make_fold(history, folds[-1])
        model, table, train = prepare(history, set(folds[-1].train), states=JUDGE_STATES)
        test = examples_of(history, table[table["copy"] < 0], set(folds[-1].test))
        estimator = fit_estimator(history, model.design, train, "boosted", seeds=1, tree_folds=train.folds % 2)
    seen = test.table["age_days"].to_numpy() > 0
    margin = estimator.margin(model.design.matrix(test.table))[seen]
    trees = TreeSettings()
    assert np.array_equal(made.margin(trees), margin)
    key = test.table.loc[seen, "as_of"].astype(str) + "|" + test.table.loc[seen, "batch_id"]
    measured = list_metrics(key, test.hit[seen], test.value[seen], margin)["value_at_k"].dropna()
    by_batch = measured.groupby(measured.index.str.partition("|").get_level_values(2)).mean()
    assert len(by_batch) == made.about["batches"] > 2
    assert made.value_at_k(trees).to_numpy() == pytest.approx(by_batch.to_numpy())


def test_what_happens_after_a_folds_cut_does_not_change_the_fold():
    signals = market().signals
    with known(signals) as (history, folds):
        assert history.trial is not None, "tests are played again here, which is where a leak would come from"
        fold, labels = folds[0], history.labels
        before = make_fold(history, fold)
    launched = labels["launched_at"]
    later = labels["sku_id"][launched > launched[labels["sku_id"].isin(fold.test)].max()]
    assert len(later) > 60

    def turned(usable):
        """Give later SKUs one another's outcomes."""
        mine = usable["sku_id"].isin(later)
        out = usable.copy()
        for name in ("hit", "value", "standing"):
            out.loc[mine, name] = usable.loc[mine, name].to_numpy()[::-1]
        return out

    changed = signals.copy()
    counts = [name for name in ("impressions", "clicks", "orders", "units") if name in changed]
    of_later = changed["sku_id"].isin(later)
    changed.loc[of_later, counts] = changed.loc[of_later, counts] * 3
    with known(changed, relabel=turned) as (history, folds):
        moved = history.labels.set_index("sku_id")["hit"].reindex(labels["sku_id"]).to_numpy() != labels["hit"]
        assert moved.any()
        assert folds[0] == fold
        after = make_fold(history, fold)
    for trees in (TreeSettings(), TreeSettings(rounds=20, num_leaves=12)):
        assert np.array_equal(before.margin(trees), after.margin(trees))
        assert before.value_at_k(trees).equals(after.value_at_k(trees))


# ---- what is tried


@given(TREES)
def test_the_space_holds_whatever_is_given_and_it_is_tried_first(trees):
    space = space_around(trees)
    assert list(space) == list(TreeSettings.model_fields) == list(SPACE)
    for name, one in space.items():
        assert one.low <= getattr(trees, name) <= one.high
    assert known_good(trees)[0] == trees
    assert TreeSettings() in known_good(trees)


@pytest.mark.parametrize("trees", [{}, {"rounds": 900, "lambda_l2": 0.0, "learning_rate": 0.001}])
def test_a_trials_settings_give_its_figure_again(trees):
    asked = SETTINGS.model_copy(update={"trees": TreeSettings(**trees)})
    folds = [plain_fold(n) for n in range(3)]
    tuned = tune_on(folds, asked, name="s", trials=12, workers=2)
    fresh = [plain_fold(n) for n in range(3)]
    assert tuned.trials.loc[0, list(SPACE)].to_dict() == asked.trees.model_dump()
    for trial in tuned.trials.itertuples():
        plain = {name: np.asarray(getattr(trial, name)).item() for name in SPACE}
        own = TreeSettings(**plain)
        values = pd.concat([fold.value_at_k(own, range(2)) for fold in fresh[: trial.folds]])
        assert trial.value == pytest.approx(values.mean(), abs=1e-12)
        as_given = pd.concat([fold.value_at_k(asked.trees, range(2)) for fold in fresh[: trial.folds]])
        assert trial.gain == pytest.approx((values - as_given).mean(), abs=1e-12)
    assert tuned.trials["value"].nunique() > 3


def test_every_trial_carries_its_whole_configuration_folds_and_seconds(tmp_path):
    tune_on(told_folds(smooth), SETTINGS, name="s", trials=9, study=tmp_path / "t.journal")
    with open_study(tmp_path / "t.journal", "s", {}) as study:
        assert len(study.trials) == 9
        for trial in study.trials:
            assert parse_settings(trial.user_attrs["settings"]).label == SETTINGS.label
            assert trial.user_attrs["settings"]["trees"] == pytest.approx(trial.params)
            assert len(trial.user_attrs["value_by_fold"]) == 3 or trial.state.name == "PRUNED"
            assert trial.user_attrs["seconds"] > 0


def test_bad_trials_are_given_up_early_and_good_ones_are_not():
    def value(trees):
        return 0.2 if trees.rounds < 60 else 0.6

    folds = told_folds(value)
    trials = tune_on(folds, SETTINGS, name="s", trials=25).trials
    pruned = trials["state"] == "pruned"
    assert (pruned == (trials["rounds"] < 60)).all()
    assert pruned.sum() > 2
    assert (trials.loc[pruned, "folds"] == 1).all()
    assert (trials.loc[~pruned, "folds"] == 3).all()


def test_a_hard_fold_gives_nobody_up():
    """Every trial is worth the same; only folds differ, by far more than trials ever do."""
    folds = [ToldFold(lambda _trees, level=level: level, seed=n) for n, level in enumerate((0.9, 0.1, 0.5, 0.3))]
    trials = tune_on(folds, SETTINGS, name="s", trials=12).trials
    assert (trials["state"] == "complete").all()


# ---- never worse


def test_where_every_other_setting_is_worse_what_was_given_stays():
    odd = SETTINGS.model_copy(update={"trees": TreeSettings(rounds=33, num_leaves=4)})
    tuned = tune_on(told_folds(lambda trees: 0.7 if trees == odd.trees else 0.69), odd, name="s", trials=15)
    assert tuned.settings == odd
    assert not tuned.report["helped"]
    assert "did not help" in tuned.report["note"]
    assert "no trial beat" in tuned.report["note"]


def test_where_the_newest_fold_disagrees_what_was_given_stays():
    tuned = tune_on(told_folds(smooth, newest=lambda trees: -smooth(trees)), SETTINGS, name="s", trials=15)
    assert tuned.report["search"]["low"] > 0 > tuned.report["out_of_time"]["gain"]
    assert tuned.settings == SETTINGS
    assert "worse where the search did not look" in tuned.report["note"]


def test_where_the_gain_is_luck_what_was_given_stays():
    """No setting is better than another: whatever leads, leads by luck."""
    helped = [
        tune_on(told_folds(lambda _t: 0.5, noise=0.1), replace_seed(seed), name="s", trials=15).report["helped"]
        for seed in range(8)
    ]
    assert sum(helped) <= 1


def test_where_others_are_better_they_are_used_and_nothing_else_changes():
    # With some luck in every figure, or whatever is a little worse would be given up at once.
    tuned = tune_on(told_folds(smooth, noise=0.05), SETTINGS, name="s", trials=40)
    assert tuned.report["helped"]
    assert smooth(tuned.settings.trees) > smooth(SETTINGS.trees) + 0.05
    assert tuned.settings.model_copy(update={"trees": SETTINGS.trees}) == SETTINGS
    gain = smooth(tuned.settings.trees) - smooth(SETTINGS.trees)
    assert tuned.report["out_of_time"]["gain"] == pytest.approx(gain, abs=0.15)
    assert SETTINGS.trees == TreeSettings()
    assert set(tuned.report["importance"]) == set(SPACE)
    assert max(tuned.report["importance"], key=tuned.report["importance"].get) == "learning_rate"


@hypothesis_settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.2), st.floats(-0.1, 0.1))
def test_what_is_returned_is_never_below_what_was_given_on_any_folds_looked_at(seed, noise, slope):
    def value(trees):
        return 0.5 + slope * np.log(trees.num_leaves)

    folds = [ToldFold(value, seed=seed + n, noise=noise) for n in range(4)]
    tuned = tune_on(folds, replace_seed(seed), name="s", trials=8)
    fresh = range(2, 4)

    def mean(trees, some):
        return pd.concat([fold.value_at_k(trees, fresh) for fold in some]).mean()

    for some in (folds[:-1], folds[-1:]):
        assert mean(tuned.settings.trees, some) >= mean(SETTINGS.trees, some)
    assert tuned.report["helped"] == (tuned.settings.trees != SETTINGS.trees)


def replace_seed(seed):
    return SETTINGS.model_copy(update={"seed": seed})


# ---- again, further, side by side


def test_the_same_seed_gives_the_same_search_and_another_seed_another():
    one, two = (tune_on(told_folds(smooth), SETTINGS, name="s", trials=16) for _ in range(2))
    pd.testing.assert_frame_equal(finished(one), finished(two))
    assert one.settings == two.settings
    other = tune_on(told_folds(smooth), replace_seed(1), name="s", trials=16)
    assert not finished(other).equals(finished(one))


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from fake_folds import SETTINGS, smooth, told_folds
from hitfinder.tuning import tune_on
tune_on(told_folds(smooth, seconds=0.1), SETTINGS, name="s", trials=20, study=sys.argv[2])
"""


def test_a_search_killed_by_force_goes_on_to_what_it_would_have_come_to(tmp_path):
    journal = tmp_path / "t.journal"
    for at_least in (3, 11):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(HERE), str(journal)]) as process:
            while not journal.exists() or journal.read_bytes().count(b'"seconds"') < at_least:
                assert process.poll() is None, "it ended before it could be killed"
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    resumed = tune_on(told_folds(smooth), SETTINGS, name="s", trials=20, study=journal)
    counts = resumed.report["trials"]
    assert counts["finished"] == counts["complete"] + counts["pruned"] == 20
    assert 10 <= counts["of_an_earlier_call"] < 20
    assert counts["stopped"] == len(resumed.trials) - 20 <= 2
    whole = tune_on(told_folds(smooth), SETTINGS, name="s", trials=20)
    pd.testing.assert_frame_equal(finished(resumed), finished(whole))
    assert resumed.settings == whole.settings
    again = tune_on(told_folds(smooth), SETTINGS, name="s", trials=20, study=journal)
    assert len(again.trials) == len(resumed.trials), "what is complete is not gone on with"


def test_another_study_in_the_same_file_starts_anew(tmp_path):
    journal = tmp_path / "t.journal"
    tune_on(told_folds(smooth), SETTINGS, name="one", trials=4, study=journal)
    two = tune_on(told_folds(smooth), SETTINGS, name="two", trials=5, study=journal)
    assert two.report["trials"]["of_an_earlier_call"] == 0
    assert two.report["trials"]["finished"] == 5


def test_a_line_that_a_power_cut_left_unfinished_is_cut_off(tmp_path):
    journal = tmp_path / "t.journal"
    tune_on(told_folds(smooth), SETTINGS, name="s", trials=4, study=journal)
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":5,"worker')
    more = tune_on(told_folds(smooth), SETTINGS, name="s", trials=6, study=journal)
    assert more.report["trials"]["finished"] == 6
    assert more.report["trials"]["of_an_earlier_call"] == 4
    assert journal.read_bytes().startswith(whole)


def test_two_workers_work_side_by_side_on_one_study_and_run_no_trial_too_many(tmp_path):
    together = threading.Barrier(2, timeout=30)
    met = []

    def value(trees):
        if trees == TreeSettings(rounds=1, learning_rate=0.01) or trees == TreeSettings(rounds=25):
            together.wait()  # breaks, and fails the trial, unless the other worker is in a trial as well
            met.append(threading.get_ident())
        return smooth(trees)

    folds = [ToldFold(value, seed=0, seconds=0.003), *told_folds(smooth, seconds=0.003)[1:]]
    tuned = tune_on(folds, SETTINGS, name="s", trials=15, workers=2, study=tmp_path / "t.journal")
    assert len(set(met)) == 2
    assert tuned.report["trials"]["finished"] == len(tuned.trials) == 15
    assert not tuned.trials[list(SPACE)].duplicated().any()


def test_a_failing_trial_is_an_error_and_not_a_count(tmp_path):
    def value(trees):
        if trees.rounds == 25:
            raise MemoryError("no room")
        return smooth(trees)

    for workers in (1, 2):
        with pytest.raises(MemoryError, match="no room"):
            tune_on(
                told_folds(value), SETTINGS, name=f"s{workers}", trials=9, workers=workers, study=tmp_path / "t.journal"
            )
    with open_study(tmp_path / "t.journal", "s1", {}) as study:
        assert [trial.state.name == "FAIL" for trial in study.trials] == [False, False, True]


def test_when_the_time_is_up_nothing_begins_the_fold_ends_and_a_later_call_goes_on(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(search.time, "monotonic", lambda: clock[0])

    def value(trees):
        clock[0] += 1  # each fold takes a second
        return 0.5

    journal = tmp_path / "t.journal"
    late = tune_on(told_folds(value), SETTINGS, name="s", trials=9, study=journal, deadline=7.5)
    # Two trials of three folds each; the third was stopped after its second fold.
    assert late.trials["state"].tolist() == ["complete", "complete", "stopped"]
    assert late.report["trials"] == {
        "wanted": 9,
        "finished": 2,
        "complete": 2,
        "pruned": 0,
        "stopped": 1,
        "of_an_earlier_call": 0,
    }
    monkeypatch.undo()
    resumed = tune_on(told_folds(lambda _trees: 0.5), SETTINGS, name="s", trials=9, study=journal)
    assert resumed.report["trials"]["finished"] == 9
    whole = tune_on(told_folds(lambda _trees: 0.5), SETTINGS, name="s", trials=9)
    pd.testing.assert_frame_equal(finished(resumed), finished(whole))


def test_without_any_time_the_given_settings_are_judged_all_the_same():
    tuned = tune_on(told_folds(smooth), SETTINGS, name="s", trials=9, deadline=0.0)
    assert len(tuned.trials) == 1
    assert tuned.trials.loc[0, "folds"] == 3
    assert tuned.settings == SETTINGS
    assert "did not help" in tuned.report["note"]


def test_progress_is_told_with_the_best_so_far():
    told = []
    tune_on(told_folds(smooth), SETTINGS, name="s", trials=5, progress=told.append)
    assert told[0] == "trial 1 of 5"
    assert told[4].startswith("trial 5 of 5, best so far ")
    assert "as given" in told[4]


# ---- what is refused


@pytest.mark.parametrize(
    ("content", "said"), [(b"SQLite format 3\x00", "expected a study"), (b'{"a": 1}\n', "entry of a study in line 1")]
)
def test_a_file_of_another_kind_is_refused_and_left_as_it_was(tmp_path, content, said):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(HitfinderError, match=said):
        tune_on(told_folds(smooth), SETTINGS, name="s", trials=2, study=path)
    assert path.read_bytes() == content


def test_a_study_that_is_in_use_is_refused(tmp_path):
    with open_study(tmp_path / "t", "s", {}), pytest.raises(HitfinderError, match="another call"):
        tune_on(told_folds(smooth), SETTINGS, name="s", trials=2, study=tmp_path / "t")


@pytest.mark.parametrize(
    "wrong",
    [{"trials": 0}, {"trials": True}, {"trials": 2, "workers": 0}, {"trials": 2, "time_budget": pd.Timedelta(0)}],
)
def test_impossible_counts_are_refused(wrong):
    with pytest.raises(SettingsError, match="expected"):
        tune(market().signals, market().skus, SETTINGS, **wrong)


def test_too_few_batches_say_so_and_try_nothing():
    folds = [ToldFold(smooth, batches=2) for _ in range(3)]
    tuned = tune_on(folds, SETTINGS, name="s", trials=9)
    assert tuned.settings == SETTINGS
    assert "can't be judged: it takes 6 batches" in tuned.report["note"]
    assert "there are 4" in tuned.report["note"]
    assert sum(fold.asked for fold in folds) == 0
    assert "there are 0" in tune_on([], SETTINGS, name="s", trials=9).report["note"]


# ---- on record


def test_pictures_are_drawn_for_long_and_short_searches():
    long = tune_on(told_folds(smooth, noise=0.1), SETTINGS, name="s", trials=25)
    assert set(draw_tuning(long.trials, long.report)) == {"tuning_history", "tuning_importance"}
    assert all(png.startswith(b"\x89PNG") for png in draw_tuning(long.trials, long.report).values())
    short = tune_on(told_folds(smooth), SETTINGS, name="s", trials=1)
    assert set(draw_tuning(short.trials, short.report)) == {"tuning_history"}
    assert short.report["importance"] == {}
    assert "it takes 12 trials" in short.report["importance_note"]


def test_train_tunes_records_and_registers_below_the_tuning_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    market().signals.drop(columns="impressions").to_parquet(tmp_path / "signals.parquet")
    market().skus.to_parquet(tmp_path / "skus.parquet")
    (tmp_path / "hitfinder.toml").write_text(
        '[label]\noutcome_window = "14d"\ntop_share = 0.15\n[model]\nages = 2\nseeds = 1\nfolds = 3\nthreads = 1\n'
    )
    done = CliRunner().invoke(cli, ["train", "--data", str(tmp_path), "--trials", "3"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "tuning " in done.output
    assert (tmp_path / "mlruns" / "tuning.journal").is_file()
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("hitfinder").experiment_id])
    (parent,) = [run for run in runs if run.data.tags.get("kind") == "tuning"]
    (fitted,) = [run for run in runs if run.data.tags.get("kind") == "fit"]
    assert parent.info.status == fitted.info.status == "FINISHED"
    assert fitted.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert fitted.data.tags["tuned"] == parent.data.tags["helped"]
    assert parent.data.metrics["trials.finished"] == 3
    kept = {file.path for folder in (None, "pictures") for file in client.list_artifacts(parent.info.run_id, folder)}
    assert {"tuning.json", "trials.csv", "pictures/tuning_history.png"} <= kept


def test_options_of_tuning_without_trials_are_wrong_usage():
    done = CliRunner().invoke(cli, ["train", "--data", "nowhere", "--time-budget", "30m"])
    assert done.exit_code == 2
    assert "--trials" in done.output
    assert CliRunner().invoke(cli, ["train", "--data", "nowhere", "--trials", "0"]).exit_code == 2
