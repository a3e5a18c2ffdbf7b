"""The pipelines run on real files and a real registry; a second run changes nothing, and a refusal is one line."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import hitfinder as hf
from hitfinder.simulate import simulate, write_market

SCRIPTS = Path(__file__).parent.parent / "pipelines"
SMALL = '[label]\noutcome_window = "14d"\ntop_share = 0.15\n[model]\nages = 2\nseeds = 1\nfolds = 2\nthreads = 1\n'
LISTS = ["list.csv", "list.html", "list.parquet", "list.xlsx"]


def load(name):
    spec = importlib.util.spec_from_file_location(f"pipelines_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tables(folder):
    return ["--signals", str(folder / "signals.parquet"), "--skus", str(folder / "skus.parquet")]


def run(name, capsys, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.showwarning", None)  # the script sets its own; put back what was there
        status = load(name).main([str(a) for a in arguments])
    return status, *capsys.readouterr()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder that holds a market, its settings, and a registry in which train.py registered version 1."""
    home = tmp_path_factory.mktemp("a shop 小店")
    write_market(simulate(weeks=8, skus_per_week=30, seed=2), home)
    (home / "hitfinder.toml").write_text(SMALL, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(home)
        patch.setattr("warnings.showwarning", None)
        assert load("train").main([*tables(home), "--settings", str(home / "hitfinder.toml")]) == 0
    return home


@pytest.fixture
def at_shop(shop, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(shop)
    return shop


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_training_again_registers_nothing_and_a_change_says_what_changed(at_shop, capsys):
    settings = at_shop / "hitfinder.toml"
    status, said, _ = run("train", capsys, *tables(at_shop), "--settings", settings)
    assert status == 0
    assert said == "nothing changed: hitfinder/1 is this model; nothing registered\n"
    assert hf.load_model("models:/hitfinder/latest").version == "hitfinder/1"

    earlier = hf.load_model("models:/hitfinder/1").report["n_skus"]
    as_of = pd.read_parquet(at_shop / "signals.parquet")["known_at"].max() - pd.Timedelta(days=7)
    status, said, _ = run("train", capsys, *tables(at_shop), "--settings", settings, "--as-of", as_of)
    assert status == 0
    newer = hf.load_model("models:/hitfinder@challenger")
    assert newer.report["n_skus"] < earlier
    assert f"SKUs learned from: {earlier} -> {newer.report['n_skus']}" in said
    assert "version: hitfinder/1 -> hitfinder/2" in said
    assert "settings:" not in said
    assert hf.load_model("models:/hitfinder@champion").version == "hitfinder/1"


def test_weekly_writes_the_newest_batch_in_four_forms_and_a_second_run_changes_no_byte(at_shop, tmp_path, capsys):
    arguments = [*tables(at_shop), "--out", tmp_path / "lists"]
    status, said, _ = run("weekly", capsys, *arguments)
    assert status == 0
    as_of = pd.read_parquet(at_shop / "signals.parquet")["known_at"].max()
    folder = tmp_path / "lists" / f"{as_of:%Y-%m-%d}"
    assert sorted(path.name for path in folder.iterdir()) == LISTS
    assert [line for line in said.splitlines() if line.startswith("wrote ")][-1] == f"wrote {folder / 'list.parquet'}"

    skus = pd.read_parquet(at_shop / "skus.parquet")
    batch = skus[skus["batch_id"] == skus["batch_id"].max()]
    listed = pd.read_parquet(folder / "list.parquet")
    assert sorted(listed["sku_id"]) == sorted(batch["sku_id"])
    assert listed["rank"].tolist() == list(range(1, len(batch) + 1))
    assert set(listed["model_version"]) == {"hitfinder/1"}

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "list.csv").write_bytes(b"torn")
    (folder / "list.html").unlink()
    assert run("weekly", capsys, *arguments)[0] == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_weekly_ranks_as_rank_does(at_shop, tmp_path, capsys):
    assert run("weekly", capsys, *tables(at_shop), "--out", tmp_path)[0] == 0
    listed = pd.read_parquet(next(tmp_path.glob("*/list.parquet")))
    model = hf.load_model("models:/hitfinder@champion")
    ranked = hf.rank(model, str(at_shop / "signals.parquet"), str(at_shop / "skus.parquet"))
    expected = ranked[ranked["sku_id"].isin(listed["sku_id"])]
    assert listed["sku_id"].tolist() == expected["sku_id"].tolist()
    assert listed["hit_probability"].tolist() == expected["hit_probability"].tolist()


@pytest.mark.parametrize("script", ["train", "weekly"])
def test_a_table_that_is_not_there_is_one_line_and_status_1(script, at_shop, tmp_path, capsys):
    arguments = ["--signals", tmp_path / "none.parquet", "--skus", at_shop / "skus.parquet"]
    arguments += ["--settings", at_shop / "hitfinder.toml"] if script == "train" else ["--out", tmp_path]
    status, said, complaint = run(script, capsys, *arguments)
    assert (status, said) == (1, "")
    assert complaint.startswith("error: ")
    assert "none.parquet" in complaint
    assert complaint.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_settings_with_an_unknown_key_are_refused_before_anything_is_registered(shop, elsewhere, capsys):
    (elsewhere / "bad.toml").write_text("sed = 1\n")
    status, said, complaint = run("train", capsys, *tables(shop), "--settings", "bad.toml")
    assert (status, said) == (1, "")
    assert "unknown key sed" in complaint
    assert [path.name for path in elsewhere.iterdir()] == ["bad.toml"]


def test_weekly_without_a_champion_says_to_train_first(shop, elsewhere, capsys):
    status, said, complaint = run("weekly", capsys, *tables(shop))
    assert (status, said) == (1, "")
    assert "hitfinder train" in complaint
    assert complaint.count("\n") == 1
    assert not list(elsewhere.iterdir())


def test_no_skus_to_rank_is_refused_in_one_line(at_shop, tmp_path, capsys):
    pd.read_parquet(at_shop / "skus.parquet").head(0).to_parquet(tmp_path / "skus.parquet")
    arguments = ["--signals", at_shop / "signals.parquet", "--skus", tmp_path / "skus.parquet"]
    status, _, complaint = run("weekly", capsys, *arguments, "--out", tmp_path / "lists")
    assert status == 1
    assert complaint.count("\n") == 1
    assert not (tmp_path / "lists").exists()


def test_a_row_set_aside_is_a_note_and_the_rest_goes_on(at_shop, tmp_path, capsys):
    signals = pd.read_parquet(at_shop / "signals.parquet")
    signals.loc[0, "clicks"] = -1
    signals.to_parquet(tmp_path / "signals.parquet")
    arguments = ["--signals", tmp_path / "signals.parquet", "--skus", at_shop / "skus.parquet"]
    status, _, notes = run("weekly", capsys, *arguments, "--out", tmp_path / "lists")
    assert status == 0
    assert notes.startswith("note: ")
    assert "clicks" in notes


@pytest.mark.parametrize("script", ["train", "weekly"])
def test_wrong_usage_is_status_2(script, elsewhere, capsys):
    with pytest.raises(SystemExit) as left:
        load(script).main(["--signals", "a.csv", "--skus", "b.csv", "--as-of", "someday"])
    assert left.value.code == 2
    assert "--as-of" in capsys.readouterr().err


def test_as_a_program_it_leaves_with_its_status(elsewhere):
    command = [sys.executable, SCRIPTS / "weekly.py", "--signals", "a.csv", "--skus", "b.csv", "--model", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: none: ")
    assert done.stderr.count("\n") == 1
