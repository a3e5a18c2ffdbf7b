"""From nothing to a list, as a merchant does it: the real program, files, and a registry of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import hitfinder as hf
from hitfinder.ranking import RANKED_COLUMNS

PROGRAM = Path(sys.executable).with_name("hitfinder")
SETTINGS = """
[label]
outcome_window = "14d"
top_share = 0.15
[model]
ages = 2
seeds = 1
folds = 2
threads = 1
"""


def run(folder, *arguments, store=None):
    surroundings = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    if store is not None:
        surroundings["MLFLOW_TRACKING_URI"] = store
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)], cwd=folder, env=surroundings, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # quiet in a pipe
    written = [Path(folder, line.removeprefix("wrote ")) for line in done.stdout.splitlines() if line[:6] == "wrote "]
    assert all(path.exists() for path in written)
    return done.stdout, written


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder in which a market was simulated and a model trained on it."""
    folder = tmp_path_factory.mktemp("shop")
    store = f"sqlite:///{folder / 'store.db'}"
    run(folder, "simulate", "--out", "market", "--weeks", 6, "--skus-per-week", 30, "--complete", "--language", "mixed")
    (folder / "market" / "hitfinder.toml").write_text(SETTINGS)
    said = run(folder, "train", "--data", "market", "--out", "model", store=store)
    return folder, store, said


def test_simulate_train_and_rank_hand_files_to_each_other(shop):
    folder, store, (said, written) = shop
    assert [path.name for path in written] == ["model"]
    assert "<- ranks" in said
    assert "registered hitfinder version 1 (challenger, champion)" in said
    skus = pd.read_parquet(folder / "market" / "skus.parquet")
    _, lists = run(folder, "rank", "--data", "market", "--out", "a.parquet", "--out", "a.html", store=store)
    assert [path.name for path in lists] == ["a.parquet", "a.html"]
    found = pd.read_parquet(folder / "a.parquet")
    assert found.columns.tolist()[: len(RANKED_COLUMNS)] == list(RANKED_COLUMNS)
    assert sorted(found["sku_id"]) == sorted(skus["sku_id"])
    assert (found["model_version"] == "hitfinder/1").all()


def test_the_folder_the_registry_and_python_give_the_same_numbers(shop):
    folder, store, _ = shop
    run(folder, "rank", "--data", "market", "--model", "model", "--batch", "newest", "--out", "b.parquet")
    run(folder, "rank", "--data", "market", "--batch", "newest", "--out", "c.parquet", store=store)
    one, other = pd.read_parquet(folder / "b.parquet"), pd.read_parquet(folder / "c.parquet")
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    market = folder / "market"
    whole = hf.rank(hf.load_model(folder / "model"), market / "signals.parquet", market / "skus.parquet")
    mine = whole[whole["batch_id"] == one["batch_id"].iloc[0]].reset_index(drop=True)
    columns = [c for c in RANKED_COLUMNS if c not in ("rank", "as_of")]
    pd.testing.assert_frame_equal(mine[columns], one[columns], check_exact=True, check_dtype=False)


def test_the_same_market_and_model_come_of_the_same_seed(shop):
    folder, _, _ = shop
    market = folder / "market"
    run(folder, "simulate", "--out", "again", "--weeks", 6, "--skus-per-week", 30, "--complete", "--language", "mixed")
    again = folder / "again" / "signals.parquet"
    pd.testing.assert_frame_equal(pd.read_parquet(again), pd.read_parquet(market / "signals.parquet"))
    fitted = hf.fit(again, market / "skus.parquet", hf.load_settings(market / "hitfinder.toml"))
    assert fitted.digest() == hf.load_model(folder / "model").digest()


def test_the_demo_runs_and_leaves_lists_and_a_registry_where_it_stands(tmp_path):
    said, written = run(tmp_path, "demo", "--weeks", 7, "--out", "demo")
    names = {path.name for path in written}
    assert names >= {"list.html", "list.xlsx", "list.csv", "list.parquet", "signals.parquet", "skus.parquet"}
    assert "the hits stand at places" in said.replace("  ", " ") or "hits stand at places" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo", "mlruns"]
    found = pd.read_parquet(tmp_path / "demo" / "list.parquet")
    assert (found["batch_id"] == found["batch_id"].iloc[0]).all()
    assert found["rank"].tolist() == list(range(1, len(found) + 1))
