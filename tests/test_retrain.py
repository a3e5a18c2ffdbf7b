"""Retraining can be left alone: run twice, killed at any moment, two at once, sabotaged, against a remote server."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forked import SCRIPTS, forking
from mlflow_server import serving
from mlflow_store import shared_folder

import hitfinder as hf
from hitfinder.errors import HitfinderError, ModelError, NotEnoughHistoryError
from hitfinder.gate import gate_admitted
from hitfinder.locks import only_one
from hitfinder.registry import recording as recording_module
from hitfinder.registry.promotion import roll_back, standing
from hitfinder.registry.tracking import open_client
from hitfinder.replays import shuffled
from hitfinder.routines.retrain import lock_of, retrain
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate

TEXT = """
[label]
test_window = "7d"
outcome_window = "7d"
top_share = 0.15
[model]
ages = 2
seeds = 1
folds = 2
threads = 1
"""
SETTINGS = parse_settings({"label": {"test_window": "7d", "outcome_window": "7d", "top_share": 0.15},
                           "model": {"ages": 2, "seeds": 1, "folds": 2, "threads": 1}})  # fmt: skip
START, WEEK = pd.Timestamp("2025-01-06"), pd.Timedelta(days=7)
KILLS = 20


@pytest.fixture(scope="module")
def tables():
    """Days are the exposure: fits without impressions are quick."""
    market = simulate(weeks=14, skus_per_week=30, hits_per_week=4, complete=True, seed=3)
    return market.signals.drop(columns=["impressions", "spend"]), market.skus


@pytest.fixture(autouse=True)
def own_store(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)


def known(tables, week):
    """Return what was known on the Monday of a week, and that moment."""
    signals, skus = tables
    moment = START + week * WEEK
    return signals[signals["known_at"] <= moment], skus[skus["launched_at"] < moment], moment


def again(tables, week, store, **more):
    signals, skus, moment = known(tables, week)
    return retrain(signals, skus, SETTINGS, as_of=moment, folder_for_store=store, **more)


def runs_of(store, experiment="hitfinder"):
    client = client_of(store)
    place = client.get_experiment_by_name(experiment).experiment_id
    return {run.info.run_id: run for run in client.search_runs([place])}


def test_a_year_of_retraining_in_small(tables, tmp_path):
    store = tmp_path / "store"
    first = again(tables, 6, store)
    assert (first.outcome, first.version, first.champion) == ("first", "hitfinder/1", "1")
    same = again(tables, 6, store)
    assert (same.outcome, same.run_id) == ("unchanged", first.run_id)
    soon = again(tables, 7, store)
    assert (soon.outcome, soon.version, soon.champion) == ("waiting", "hitfinder/2", "1")
    assert "it takes 3" in soon.reason

    sabotaged = again(tables, 10, store, relabel=shuffled(1))
    assert (sabotaged.outcome, sabotaged.version, sabotaged.champion) == ("refused", "hitfinder/3", "1")
    own = again(tables, 10, store)
    assert (own.outcome, own.version, own.champion) == ("promoted", "hitfinder/4", "4"), own.reason
    now = standing("hitfinder", folder_for_store=store)
    assert (now.challenger, now.champion, now.previous) == ("4", "4", "1")
    learned = {name: (before, after) for name, before, after in own.changes}["learned from SKUs"]
    assert learned[1] > learned[0]

    runs = runs_of(store)
    parents = {
        run.data.tags["mlflow.runName"]: run for run in runs.values() if "mlflow.parentRunId" not in run.data.tags
    }
    assert set(parents) == {"retrain"}
    steps = {
        r.data.tags["mlflow.runName"] for r in runs.values() if r.data.tags.get("mlflow.parentRunId") == own.run_id
    }
    assert {"fit, blind to the newest batches", "gate", "promote"} <= steps
    stamped = runs[own.run_id].data.tags
    assert {"code_version", "data_digest", "settings_digest", "seed", "as_of", "outcome", "reason"} <= set(stamped)
    assert all(run.info.status == "FINISHED" for run in runs.values())


def test_too_short_a_history_is_refused_and_the_run_ends_as_failed(tables, tmp_path):
    with pytest.raises(NotEnoughHistoryError):
        again(tables, 2, tmp_path / "store")
    assert [run.info.status for run in runs_of(tmp_path / "store").values()] == ["FAILED"]


def test_while_one_is_at_work_the_second_leaves(tables, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    with only_one(lock_of("hitfinder", store), what="a test", seconds=0):
        left = again(tables, 6, store)
    assert left.outcome == "busy"
    assert not (store / "mlflow.db").exists()


def test_a_run_that_was_killed_before_is_ended_and_its_version_is_not_registered_twice(tables, tmp_path):
    store = tmp_path / "store"
    again(tables, 6, store)
    signals, skus, moment = known(tables, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hitfinder.routines.retrain.promote", _die)
        with pytest.raises(KeyboardInterrupt):
            retrain(signals, skus, SETTINGS, as_of=moment, folder_for_store=store)
        patch.setattr("hitfinder.registry.runs._end", lambda *_: None)  # as after kill -9
        with pytest.raises(KeyboardInterrupt):
            retrain(signals, skus, SETTINGS, as_of=moment, folder_for_store=store)
    assert "RUNNING" in {run.info.status for run in runs_of(store).values()}
    done = retrain(signals, skus, SETTINGS, as_of=moment, folder_for_store=store)
    assert (done.outcome, done.version) == ("promoted", "hitfinder/2")
    assert {run.info.status for run in runs_of(store).values()} == {"FINISHED", "KILLED"}


def _die(*_args, **_kwargs):
    raise KeyboardInterrupt


def client_of(store):
    return open_client(f"sqlite:///{Path(store).absolute()}/mlflow.db")


def files_of(store, name, number):
    location = client_of(store).get_model_version_download_uri(name, number)
    return Path(urllib.request.url2pathname(location.removeprefix("file://"))) / "artifacts" / "model"


def test_a_champion_that_can_not_be_opened_keeps_nobody_out(tables, tmp_path):
    store = tmp_path / "store"
    again(tables, 6, store)
    place = files_of(store, "hitfinder", "1")
    # As after a change of the format.
    values = (place / "model.json").read_text("utf-8")
    (place / "model.json").write_text(values.replace('"format":', '"format": 10'), encoding="utf-8")
    soon = again(tables, 10, store, min_batches=99)
    assert (soon.outcome, soon.champion) == ("waiting", "1")
    assert "batches have closed, it takes 99; version 1 is champion but can't be opened" in soon.reason
    shutil.rmtree(place)
    done = again(tables, 10, store)
    assert (done.outcome, done.champion) == ("promoted", "2"), done.reason
    assert "version 1 is champion but can't be opened, so nothing was held against it" in done.reason
    assert ("champion", "hitfinder/1", "hitfinder/2") in done.changes
    tags = client_of(store).get_model_version("hitfinder", "2").tags
    assert (tags["gate"], tags["gate_against"], tags["champion_before"]) == ("passed", "1", "1")
    with pytest.raises(ModelError, match="version 1 was champion before version 2, but can't be opened"):
        roll_back(folder_for_store=store)
    assert standing(folder_for_store=store).champion == "2"


def test_killed_between_the_two_aliases_of_a_first_version_it_is_started_again(tables, tmp_path, monkeypatch):
    store = tmp_path / "store"

    def half(client, name, number):
        client.set_registered_model_alias(name, "challenger", number)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recording_module, "_set_aliases", half)
        with pytest.raises(KeyboardInterrupt):
            again(tables, 6, store)
    assert standing(folder_for_store=store).champion is None
    done = again(tables, 6, store)
    assert (done.outcome, done.version, done.champion) == ("first", "hitfinder/1", "1")
    # It is not done while nobody is champion, whatever a run says.
    client_of(store).delete_registered_model_alias("hitfinder", "champion")
    assert again(tables, 6, store).outcome == "first"
    assert again(tables, 6, store).outcome == "unchanged"


def test_one_question_that_mlflow_does_not_answer_fails_the_run_and_the_next_call_starts_over(
    tables, tmp_path, monkeypatch
):
    store = tmp_path / "store"
    again(tables, 6, store)

    def unanswered(*_args, **_kwargs):
        raise ModelError("http://mlflow: MLflow refused (503)")

    for question in ("standing", "open_champion", "load_model"):
        with monkeypatch.context() as patch:
            patch.setattr(f"hitfinder.routines.retrain.{question}", unanswered)
            with pytest.raises(ModelError, match="503"):
                again(tables, 7, store)
    assert standing(folder_for_store=store).challenger == "1"
    assert (again(tables, 7, store).outcome, standing(folder_for_store=store).challenger) == ("waiting", "2")


def test_what_is_registered_is_described_by_the_tables_that_it_was_fitted_on(tables, tmp_path):
    signals, skus, moment = known(tables, 6)
    paths = [str(tmp_path / f"{name}.parquet") for name in ("signals", "skus")]
    for path, table in zip(paths, (signals, skus), strict=True):
        table.to_parquet(path, index=False)

    def meanwhile(words):
        if words == "registering":  # new signals come in
            signals.head(50).to_parquet(paths[0], index=False)

    done = retrain(*paths, SETTINGS, as_of=moment, folder_for_store=tmp_path / "store", progress=meanwhile)
    tags = client_of(tmp_path / "store").get_model_version("hitfinder", "1").tags
    assert tags["data_signals_rows"] == str(len(signals))
    assert tags["data_digest"] == runs_of(tmp_path / "store")[done.run_id].data.tags["data_digest"]


def test_a_folder_that_can_not_be_made_is_refused_in_a_line(tables, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HitfinderError, match="can't be made"):
        again(tables, 6, tmp_path / "file" / "store")


def test_what_was_rolled_back_is_not_put_back_and_another_champion_is_not_overrun(tables, tmp_path, monkeypatch):
    store = tmp_path / "store"
    name = "o'brien's"  # a name may hold what a filter can't
    again(tables, 6, store, name=name)
    assert again(tables, 10, store, name=name).outcome == "promoted"
    assert roll_back(name, folder_for_store=store) == ("2", "1")
    # The same data, but not the same call: as after a change of the code.
    back = again(tables, 10, store, name=name, min_batches=2)
    assert (back.outcome, back.champion) == ("refused", "1")
    assert "was rolled back" in back.reason

    def judge(*given, **more):
        """While the gate is at work somebody promotes version 2."""
        verdict = gate_admitted(*given, **more)
        client = open_client(f"sqlite:///{store.absolute()}/mlflow.db")
        client.set_registered_model_alias(name, "champion", "2")
        return verdict

    monkeypatch.setattr("hitfinder.routines.retrain.gate_admitted", judge)
    with pytest.raises(ModelError, match="now it is version 2"):
        again(tables, 11, store, name=name)
    assert standing(name, folder_for_store=store).champion == "2"


def test_two_in_different_folders_with_one_server_share_a_lock(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert lock_of("hitfinder", tmp_path / "a") == lock_of("hitfinder", tmp_path / "b")
    assert lock_of("hitfinder") != lock_of("another")


@pytest.mark.parametrize(
    "others",
    [
        ["http://localhost:5000", "http://127.0.0.1:5000/", "http://LOCALHOST:5000", "http://me:secret@[::1]:5000"],
        ["https://mlflow.example.com/team", "https://MLflow.example.com:443/team/"],
        ["sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db", "sqlite:///./mlflow.db", "sqlite:///link/mlflow.db"],
    ],
)
def test_one_store_has_one_lock_however_its_address_is_spelt(tmp_path, monkeypatch, others):
    (tmp_path / "link").symlink_to(tmp_path)
    locks = set()
    for uri in others:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(here=tmp_path))
        locks.add(lock_of("hitfinder").resolve())
    assert len(locks) == 1
    for uri in ("http://localhost:5001", "http://localhost:5000/other", "sqlite:///other.db", "postgresql://a:b@c/d"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        locks.add(lock_of("hitfinder").resolve())
    assert len(locks) == 5


@pytest.fixture
def shop(tables, tmp_path):
    """A folder with tables, settings, and a registry that holds a first champion."""
    for name, table in zip(("signals", "skus"), tables, strict=True):
        table.to_parquet(tmp_path / f"{name}.parquet", index=False)
    (tmp_path / "hitfinder.toml").write_text(TEXT)
    assert again(tables, 6, tmp_path / "mlruns").outcome == "first"
    return tmp_path


def start(script, shop, *arguments):
    given = ["--signals", "signals.parquet", "--skus", "skus.parquet", *map(str, arguments)]
    # A group of its own: kill -9 is for the script and what it started.
    return subprocess.Popen(
        [sys.executable, str(SCRIPTS / f"{script}.py"), *given], cwd=shop, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def retraining(shop, week):
    return start("retrain", shop, "--settings", "hitfinder.toml", "--as-of", START + week * WEEK)


@pytest.fixture
def forked(shop):
    """Return `forked(script, week, seconds=None)`: the status (-9: killed after the seconds) and the time it took."""
    with forking(shop) as call:

        def run(script, week, seconds=None):
            more = ["--settings", "hitfinder.toml"] if script == "retrain" else []
            given = ["--signals", "signals.parquet", "--skus", "skus.parquet", "--as-of", START + week * WEEK]
            return call(script, *given, *more, seconds=seconds)

        yield run


def test_killed_at_twenty_moments_the_registry_stays_whole_and_no_half_list_is_there(shop, forked):
    rng = np.random.default_rng(7)
    champions, at_work = [], 0
    longest = {}
    for script in ("retrain", "weekly"):
        status, longest[script] = forked(script, 7)
        assert status == 0
    longest["retrain"] *= 1.5  # later ones are judged and checked too
    for kill in range(KILLS):
        script = "weekly" if kill % 4 == 3 else "retrain"
        week = 8 + kill // 4
        seconds = float(rng.uniform(0.02, 1.0)) * longest[script]
        status = forked(script, week, seconds)[0]
        at_work += status != 0
        while status == 0:  # it was done before, so it is killed sooner in the next call, which has nothing left to do
            seconds /= 2
            status = forked(script, week, seconds)[0]
        now = standing("hitfinder", folder_for_store=shop / "mlruns")
        for number in filter(None, (now.champion, now.challenger, now.previous)):
            hf.load_model(f"models:/hitfinder/{number}")
        champions.append(now.champion)
        for folder in (shop / "lists").glob("2*"):
            if (folder / "list.parquet").exists():  # written last: where it stands, all do
                assert len(pd.read_parquet(folder / "list.parquet")) == len(pd.read_csv(folder / "list.csv")) > 20
            for page in folder.glob("list.html"):
                assert page.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert champions == sorted(champions, key=int)  # never back
    assert at_work >= KILLS / 2
    last = retraining(shop, 13)
    said, _ = last.communicate()
    assert last.returncode == 0, said
    assert said.startswith(("promoted", "waiting", "refused"))
    assert "RUNNING" not in {
        run.info.status for run in runs_of(shop / "mlruns").values() if run.data.tags.get("kind") == "retrain"
    }
    weekly = start("weekly", shop, "--as-of", START + 13 * WEEK)
    said, _ = weekly.communicate()
    assert weekly.returncode == 0, said
    assert pd.read_parquet(shop / "lists" / "decisions.parquet").groupby(["sku_id", "decided_at"]).size().max() == 1


def test_of_two_at_once_one_leaves_and_neither_spoils_the_other(shop):
    pair = [retraining(shop, 10) for _ in range(2)]
    said = [process.communicate()[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    outcomes = sorted(text.split(":")[0] for text in said)
    # The slower to start either meets the lock, or comes after the end.
    assert outcomes in (["busy", "promoted"], ["promoted", "unchanged"]), said
    assert standing("hitfinder", folder_for_store=shop / "mlruns").champion == "2"


def test_a_remote_server_takes_it_all(tables, tmp_path, monkeypatch, tmp_path_factory):
    with serving(tmp_path / "server", shared_folder(tmp_path_factory)) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert again(tables, 6, tmp_path / "locks").outcome == "first"
        done = again(tables, 10, tmp_path / "locks")
        assert (done.outcome, done.champion) == ("promoted", "2"), done.reason
        assert hf.load_model("models:/hitfinder@champion").version == "hitfinder/2"
        assert again(tables, 10, tmp_path / "locks").outcome == "unchanged"
