"""`hitfinder promote` as it is typed: what it says, what it moves, and how it leaves."""

from __future__ import annotations

import random
import sqlite3

import pytest
from forked import forking
from gated_models import NOW, SETTINGS, START, WEEK, fitted_as_of, tables

from hitfinder.registry import load_model, register
from hitfinder.registry.promotion import standing


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with the tables and a store: version 1 is champion, 2 a good challenger, 3 one of shuffled labels."""
    place = tmp_path_factory.mktemp("shop")
    signals, skus = tables()
    signals.to_parquet(place / "signals.parquet")
    skus.to_parquet(place / "skus.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(place)
        for week, sabotaged in ((6, False), (8, False), (8, True)):
            register(fitted_as_of(week, sabotaged), signals, skus)
    return place


@pytest.fixture
def promote(run, shop, tmp_path, monkeypatch):
    """Return `promote(*more)`: the verb on a copy of the store's database, with version 2 for the challenger."""
    database = shop / "mlruns" / "mlflow.db"
    with sqlite3.connect(database) as source, sqlite3.connect(tmp_path / "mlflow.db") as copy:
        source.backup(copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(shop)
    point(tmp_path / "mlflow.db", "challenger", 2)
    return lambda *more: run("promote", "--data", shop, "--as-of", NOW, *more)


def point(database, alias, version):
    with sqlite3.connect(database) as rows:
        rows.execute("update registered_model_aliases set version = ? where alias = ?", (version, alias))


def contents(folder):
    with sqlite3.connect(folder / "mlflow.db") as database:
        return list(database.iterdump())


def refused(done, said):
    status, _, err = done
    assert status == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    return True


def test_a_challenger_that_is_as_good_becomes_champion_and_can_be_rolled_back(promote, run, tmp_path):
    before = contents(tmp_path)
    status, out, err = promote("--dry-run")
    assert (status, err) == (0, "")
    assert "hitfinder version 2 would be champion now, in place of version 1" in out
    assert "hits at k" in out
    assert contents(tmp_path) == before

    status, out, err = promote()
    assert (status, err) == (0, "")
    assert "hitfinder version 2 is champion now, in place of version 1" in out
    assert "evidence: run " in out
    assert standing().champion == "2"

    status, out, _ = promote()
    assert (status, out) == (0, "hitfinder version 2 is champion already; nothing was moved\n")

    status, out, err = run("promote", "--rollback", "--dry-run")
    assert (status, out) == (0, "hitfinder version 1 would be champion again, in place of version 2\n")
    assert standing().champion == "2"
    status, out, err = run("promote", "--rollback")
    assert (status, out, err) == (0, "hitfinder version 1 is champion again, in place of version 2\n", "")
    assert refused(promote(), "not promoted: hitfinder version 2 was rolled back")
    assert refused(run("promote", "--rollback"), "knows of none before it")
    assert standing().champion == "1"
    # Named, it is judged again.
    assert promote("--challenger", "models:/hitfinder/2", "--dry-run")[0] == 0


def test_shuffled_labels_are_never_promoted(promote, tmp_path):
    done = promote("--challenger", "models:/hitfinder/3")
    assert refused(done, "error: not promoted: hitfinder version 3: ")
    assert "NO" in done[1]
    assert "log loss" in done[2]
    assert standing().champion == "1"
    with sqlite3.connect(tmp_path / "mlflow.db") as rows:
        tags = dict(rows.execute("select key, value from model_version_tags where version = 3").fetchall())
    assert tags["gate"] == "refused"
    assert tags["gate_reason"] in done[2]


def test_a_champion_that_can_not_be_opened_keeps_nobody_out(promote, run, shop, tmp_path):
    with sqlite3.connect(tmp_path / "mlflow.db") as rows:
        gone = (shop / "gone").as_uri()
        rows.execute("update model_versions set source = ?, storage_location = ? where version = 1", (gone, gone))
    status, out, err = promote()
    assert (status, err) == (0, "")
    assert "note: version 1 is champion but can't be opened, so nothing was held against it" in out
    assert "hitfinder version 2 is champion now, in place of version 1" in out
    assert refused(run("promote", "--rollback"), "version 1 was champion before version 2, but can't be opened")
    assert standing().champion == "2"


def test_too_little_evidence_is_said_with_what_it_takes(promote):
    early = START + WEEK * 10
    done = promote("--as-of", early)
    assert refused(done, "too little evidence")
    assert "it takes 3" in done[2]
    assert standing().champion == "1"


def test_the_settings_are_the_challengers_unless_named(promote, tmp_path):
    # With the defaults, outcome windows are four weeks long and other batches are unseen.
    (tmp_path / "other.toml").write_text('[label]\noutcome_window = "28d"\n')
    assert refused(promote("--settings", tmp_path / "other.toml", "--as-of", START + WEEK * 12), "too little evidence")
    assert SETTINGS.label.outcome_window == WEEK
    assert promote("--as-of", START + WEEK * 12, "--dry-run")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--name", "nobody"], 1, "nobody: nothing is registered under that name"),
        (["--challenger", "models:/hitfinder/9"], 1, "not in the registry"),
        (["--challenger", "models:/hitfinder/2", "--rollback"], 2, "give either --challenger or --rollback"),
        (["--as-of", "soon"], 2, "expected a moment"),
    ],
)
def test_what_cannot_be_done_is_said(promote, arguments, status, said):
    done = promote(*arguments)
    assert done[0] == status
    assert said in done[2]


def test_without_tables_or_a_registry_it_says_so_and_makes_none(run, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert run("promote")[0] == 2
    for more in (["--data", "."], ["--rollback"]):
        assert refused(run("promote", *more), "expected a model registry at")
    assert list(tmp_path.iterdir()) == []


def test_a_model_from_elsewhere_is_not_promoted(promote, tmp_path):
    folder = fitted_as_of(8).save(tmp_path / "model")
    assert refused(promote("--challenger", folder), "expected a version of hitfinder, got unregistered-")


def test_the_command_killed_leaves_a_whole_champion(promote, shop, tmp_path):
    command = ["hitfinder", "promote", "--data", shop, "--as-of", NOW]
    chance = random.Random(3)
    with forking(shop) as call:
        status, whole = call(*command)
        assert status == 0
        assert standing().champion == "2"
        for _ in range(3):
            point(tmp_path / "mlflow.db", "champion", 1)
            call(*command, seconds=whole * chance.uniform(0.1, 1.0))
            champion = load_model("models:/hitfinder@champion")
            assert champion.version in ("hitfinder/1", "hitfinder/2")
            assert champion.digest() == fitted_as_of(6 if champion.version == "hitfinder/1" else 8).digest()
