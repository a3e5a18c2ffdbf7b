"""Promotion on real stores: evidence first, `champion` last, the way back, and a whole champion after every kill."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from mlflow_server import serving
from mlflow_store import shared_folder
from small_market import fitted, newest_batch

import hitfinder as hf
from hitfinder.errors import ModelError
from hitfinder.registry import checks as checks_module
from hitfinder.registry import load_model, register
from hitfinder.registry.checks import Check, check_version, fetched
from hitfinder.registry.promotion import promote, roll_back, standing
from hitfinder.registry.tracking import open_client


@dataclass(frozen=True)
class Canned:
    """Evidence as a gate would give it."""

    passed: bool = True
    reason: str = "better on 5 batches"

    def to_dict(self):
        said = {"name": "hits_at_k.champion", "passed": self.passed, "said": self.reason, "figures": {"mean": 0.1}}
        return {"passed": self.passed, "reason": self.reason, "challenger": "c", "checks": [said], "notes": ["a note"]}

    def metrics(self):
        return {"gate.hits_at_k.champion.mean": 0.1}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A store with one registered model."""
    place = tmp_path_factory.mktemp("a shop 小店")
    market, model = fitted()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(place)
        return place, register(model, market.signals, market.skus)[1]


@pytest.fixture
def client(home, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(home[0])
    return open_client(home[1].tracking_uri)


@pytest.fixture
def name(client, request):
    """A registered model of the test's own, with four versions of one artifact; the first is champion."""
    own = re.sub(r"\W+", " ", request.node.name)
    source = client.get_model_version("hitfinder", "1")
    client.create_registered_model(own)
    for _ in range(4):
        client.create_model_version(own, source=source.source, run_id=source.run_id, tags=dict(source.tags))
    client.set_registered_model_alias(own, "champion", "1")
    client.set_registered_model_alias(own, "challenger", "2")
    return own


def aliases(client, name):
    return {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}


def tags(client, name, number):
    return client.get_model_version(name, str(number)).tags


def moved(name, number, champion, **options):
    return promote(name, str(number), Canned(), champion=str(champion), checks=(), **options)


def test_the_alias_moves_and_the_evidence_stands_on_the_version_and_in_a_run(client, name, tmp_path, capfd):
    done = moved(name, 2, 1, tags={"gate_of": "unregistered-abc"})
    assert capfd.readouterr() == ("", "")
    assert (done.promoted, done.version, done.champion_before) == (True, "2", "1")
    assert aliases(client, name) == {"champion": "2", "challenger": "2", "previous": "1"}
    told = tags(client, name, 2)
    assert (told["gate"], told["gate_reason"], told["gate_against"]) == ("passed", "better on 5 batches", "1")
    assert (told["gate_run"], told["gate_of"]) == (done.run_id, "unregistered-abc")
    assert json.loads(told["gate_evidence"])["figures"]["hits_at_k.champion"] == {"mean": 0.1}
    run = client.get_run(done.run_id)
    assert (run.info.status, run.data.tags["kind"], run.data.tags["gate"]) == ("FINISHED", "gate", "passed")
    assert run.data.metrics["gate.hits_at_k.champion.mean"] == 0.1
    evidence = json.loads(Path(client.download_artifacts(done.run_id, "evidence.json", str(tmp_path))).read_text())
    assert evidence["promoted"] is True
    assert evidence["notes"] == ["a note"]
    assert load_model(f"models:/{name}@champion").version == f"{name}/2"


def test_a_refusal_is_written_down_and_moves_nothing(client, name):
    before = aliases(client, name)
    done = promote(name, "2", Canned(False, "hits at k fell"), champion="1", checks=())
    assert (done.promoted, done.reason) == (False, "hits at k fell")
    assert aliases(client, name) == before
    assert tags(client, name, 2)["gate"] == "refused"
    assert tags(client, name, 2)["gate_reason"] == "hits at k fell"
    assert "champion_before" not in tags(client, name, 2)


def test_good_evidence_does_not_carry_a_version_that_fails_its_own_checks(client, name):
    slow = [Check("digest", True, "loads"), Check("latency", False, "a list takes 9 s", {"seconds": 9.0})]
    done = promote(name, "2", Canned(), champion="1", checks=slow)
    assert (done.promoted, done.reason) == (False, "a list takes 9 s")
    assert aliases(client, name)["champion"] == "1"
    assert client.get_run(done.run_id).data.metrics["version.latency.seconds"] == 9.0


def contents(home):
    """Everything that the store's database holds."""
    with sqlite3.connect(home[0] / "mlruns" / "mlflow.db") as database:
        return list(database.iterdump())


def test_a_dry_run_changes_nothing(client, home, name):
    moved(name, 2, 1)
    before = contents(home)
    assert moved(name, 3, 2, dry_run=True).promoted
    assert not promote(name, "3", Canned(False), champion="2", checks=(), dry_run=True).promoted
    assert roll_back(name, dry_run=True) == ("2", "1")
    assert contents(home) == before


def test_a_champion_that_changed_meanwhile_is_not_overwritten(client, name):
    with pytest.raises(ModelError, match="version 2 was champion when this began, now it is version 1; run it again"):
        moved(name, 3, 2)
    assert aliases(client, name)["champion"] == "1"
    assert "champion_before" not in tags(client, name, 3)


def test_rolling_back_goes_back_one_champion_at_a_time_and_never_forward(client, name):
    moved(name, 2, 1)
    moved(name, 3, 2)
    assert roll_back(name) == ("3", "2")
    assert aliases(client, name) == {"champion": "2", "challenger": "2", "previous": "1"}
    assert "to version 2" in tags(client, name, 3)["rolled_back"]
    assert roll_back(name) == ("2", "1")
    assert aliases(client, name) == {"champion": "1", "challenger": "2"}
    assert standing(name).rolled_back == tags(client, name, 2)["rolled_back"]
    with pytest.raises(ModelError, match="version 1 is champion and knows of none before it"):
        roll_back(name)
    assert aliases(client, name)["champion"] == "1"
    # One that was rolled back is no goal of a roll-back, until the gate lets it pass again.
    moved(name, 4, 1)
    client.set_model_version_tag(name, "4", "champion_before", "3")
    with pytest.raises(ModelError, match="was version 3, which was rolled back itself"):
        roll_back(name)
    moved(name, 3, 4)
    assert "rolled_back" not in tags(client, name, 3)


def test_there_is_no_way_back_to_a_version_that_is_gone_or_broken(client, name, tmp_path):
    moved(name, 2, 1)
    client.delete_model_version(name, "1")
    with pytest.raises(ModelError, match="version 1 was champion before, but was deleted"):
        roll_back(name)
    broken = client.create_model_version(
        name, source=tmp_path.as_uri(), run_id=client.get_model_version(name, "2").run_id
    )
    client.set_model_version_tag(name, "2", "champion_before", str(broken.version))
    with pytest.raises(ModelError):
        roll_back(name)
    assert aliases(client, name)["champion"] == "2"


def test_what_is_not_there_is_said(client, name, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="nobody: nothing is registered under that name"):
        standing("nobody")
    client.delete_registered_model_alias(name, "champion")
    with pytest.raises(ModelError, match="no version is champion"):
        roll_back(name)
    assert standing(name).champion is None
    assert promote(name, "2", Canned(), champion=None, checks=()).promoted
    assert aliases(client, name) == {"champion": "2", "challenger": "2"}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="expected a model registry at"):
        standing(name)
    assert list(tmp_path.iterdir()) == []


def test_a_registered_version_passes_its_checks(client):
    found = check_version("hitfinder", "1", model=fitted()[1])
    assert [(check.name, check.passed) for check in found] == [
        ("digest", True), ("reload", True), ("signature", True), ("latency", True),
    ]  # fmt: skip
    assert found[-1].figures["seconds"] > 0


@pytest.fixture
def spoiled(client, name, tmp_path):
    """Return `spoil(file, old, new)`: a version of which one file of the artifact was changed."""

    def spoil(file, old, new):
        with fetched("hitfinder", "1", client._tracking_client.tracking_uri) as folder:
            place = folder.rename(tmp_path / "artifact")
        text = (place / file).read_text("utf-8")
        assert old in text
        (place / file).write_text(text.replace(old, new), encoding="utf-8")
        good = client.get_model_version(name, "2")
        return client.create_model_version(
            name, source=place.as_uri(), run_id=good.run_id, tags=dict(good.tags)
        ).version

    return spoil


@pytest.mark.parametrize(
    ("file", "old", "new", "failing", "said"),
    [
        ("artifacts/model/model.json", '"winner": "', '"winner": "x', "digest", "which was registered"),
        ("artifacts/model/model.json", "{", "", "digest", "can't be loaded"),
        ("code/hitfinder/ranking.py", '"hit_probability": probability', '"hit_probability": probability / 2', "reload",
         "numbers that differ by up to"),
        ("code/hitfinder/ranking.py", "-best))", "best))", "reload", "another order"),
        ("code/hitfinder/ranking.py", "import numpy as np", "import nowhere", "reload", "could not load the artifact"),
        ("MLmodel", '"clicks"', '"clocks"', "signature", "lacks clicks"),
    ],
)  # fmt: skip
def test_a_spoiled_artifact_fails_the_check_that_looks_there(client, name, spoiled, file, old, new, failing, said):
    number = spoiled(file, old, new)
    failed = [check for check in check_version(name, str(number)) if not check.passed]
    # MLflow drops columns that its signature does not know, so a wrong signature gives other numbers too.
    assert [check.name for check in failed] == (["reload", "signature"] if failing == "signature" else [failing])
    assert said in failed[-1].said
    done = promote(name, str(number), Canned(), champion="1", checks=failed)
    assert not done.promoted
    assert aliases(client, name)["champion"] == "1"


def test_a_version_of_another_model_than_the_one_at_hand_is_refused(client):
    other = replace(fitted()[1], winner="orders a day")
    assert [check.passed for check in check_version("hitfinder", "1", model=other)] == [False]


def test_a_list_that_takes_too_long_fails(client, monkeypatch):
    monkeypatch.setattr(checks_module, "_reloaded", lambda *_: Check("reload", True, ""))
    asked = []
    own = checks_module.rank
    monkeypatch.setattr(checks_module, "rank", lambda model, signals, skus: asked.append(own(model, signals, skus)))
    last = check_version("hitfinder", "1", slowest=0.0)[-1]
    assert (last.name, last.passed) == ("latency", False)
    assert [len(ranked) for ranked in asked] == [200, 200, 200]


KILLED = """
    import json, os, random, signal, sqlite3, sys, time
    import hitfinder.registry.tracking as tracking
    from hitfinder.registry.promotion import promote, roll_back, standing
    from hitfinder.errors import ModelError
    import mlflow.tracking, mlflow.artifacts, mlflow.store.tracking.sqlalchemy_store
    sys.path.insert(0, {tests!r})
    from test_promotion import Canned

    def work(name):
        turn = 0
        while True:
            now = standing(name).champion
            goal = "2" if now != "2" else "3"
            promote(name, goal, Canned(), champion=now, checks=())
            turn += 1
            if turn % 2 == 0:
                try:
                    roll_back(name)
                except ModelError:
                    pass

    name, database, seed, kills = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    chance = random.Random(seed)
    for _ in range(kills):
        # The parent never opens the store, so that a fork starts as a fresh process does.
        child = os.fork()
        if child == 0:
            os.setsid()
            work(name)
        time.sleep(chance.uniform(0.05, 2.5))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with sqlite3.connect(database, timeout=20) as rows:
            query = "select alias, version from registered_model_aliases where name = ?"
            print(json.dumps(dict(rows.execute(query, (name,)).fetchall())), flush=True)
"""


def test_killed_at_any_moment_champion_points_to_a_whole_version(client, home, name):
    code = textwrap.dedent(KILLED).format(tests=str(Path(__file__).parent))
    database = home[0] / "mlruns" / "mlflow.db"
    done = subprocess.run(
        [sys.executable, "-c", code, name, str(database), "11", "12"],
        capture_output=True,
        text=True,
        cwd=home[0],
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(seen) == 12
    assert {str(row["champion"]) for row in seen} <= {"1", "2", "3"}
    assert len({str(row["champion"]) for row in seen}) > 1  # it did get somewhere
    for number in {str(row["champion"]) for row in seen}:
        assert load_model(f"models:/{name}/{number}").digest() == fitted()[1].digest()
    # And what was cut short can be done again.
    now = standing(name).champion
    assert moved(name, 4, now).promoted
    assert standing(name).previous == now
    if "rolled_back" not in tags(client, name, now):
        assert roll_back(name) == ("4", now)


def test_a_server_does_what_the_file_does(tmp_path, monkeypatch, capfd, tmp_path_factory):
    with serving(tmp_path / "server", shared_folder(tmp_path_factory)) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.chdir(tmp_path)
        market, model = fitted()
        register(model, market.signals, market.skus)
        register(model, market.signals, market.skus)
        done = promote("hitfinder", "2", Canned(), champion="1")
        assert done.promoted, done.reason
        assert [check.name for check in done.checks] == ["digest", "reload", "signature", "latency"]
        assert standing().champion == "2"
        loaded = load_model("models:/hitfinder@champion")
        signals, skus, as_of = newest_batch()
        assert hf.rank(loaded, signals, skus, as_of)["model_version"].iloc[0] == "hitfinder/2"
        assert roll_back() == ("2", "1")
        assert (standing().champion, standing().previous) == ("1", None)
        assert capfd.readouterr() == ("", "")
        assert not (tmp_path / "mlruns").exists()
