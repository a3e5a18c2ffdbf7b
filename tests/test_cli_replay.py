"""`hitfinder replay` on a small market: what it writes, says and logs, what it refuses, and with which exit status."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from hitfinder import replays
from hitfinder.registry import record_replay
from hitfinder.registry.replayed import replay_metrics
from hitfinder.registry.tracking import open_client, tracking_uri
from hitfinder.replays import ReplayReport
from hitfinder.replays import replay as replay_directly
from hitfinder.report.replay_files import WORDS, check_folder, say_promises, write_replay
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate

SMALL = '[label]\noutcome_window = "14d"\ntop_share = 0.15\n[model]\nages = 2\nseeds = 1\nfolds = 2\nthreads = 1\n'
FILES = ["replay.csv", "replay_results.parquet", "replay_promises.csv", "replay.png"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with signals.parquet, skus.parquet and hitfinder.toml."""
    folder = tmp_path_factory.mktemp("shop")
    market = simulate(weeks=12, skus_per_week=30, complete=True, seed=2)
    market.signals.to_parquet(folder / "signals.parquet")
    market.skus.to_parquet(folder / "skus.parquet")
    (folder / "hitfinder.toml").write_text(SMALL)
    return folder


@pytest.fixture
def replay(run, shop, tmp_path, monkeypatch):
    """Return `replay(*more, **changes)`: the verb, standing in an empty folder with no MLflow named."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*more, **changes):
        values = {"data": shop, "budgets": "0.1,0.4", "rounds": 2, "repeats": 1, **changes}
        return run("replay", *(p for n, v in values.items() for p in (f"--{n}", v)), "--no-controls", *more)

    return call


def assert_refused(done, said):
    status, out, err = done
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(said, err)


@pytest.fixture(scope="module")
def report():
    """Three batches with 4 hits each, in which hitfinder finds as many with a fifth of the exposures."""
    from hitfinder.report.replay import FULL, OURS, summarise_replay

    rows = [
        {"policy": policy, "budget": budget, "batch_id": f"b{i}", "seed": 0, "skus": 20, "hits": 4, "slots": 4,
         "found": found, "spent": 100 * budget, "pool": 100, "value_found": 10 * found, "value_best": 40}
        for policy, budget, found in ((OURS, 0.05, 2), (OURS, 0.2, 3), (FULL, 1.0, 3))
        for i in range(3)
    ]  # fmt: skip
    results = pd.DataFrame(rows)
    promises = pd.DataFrame({"block": 1, "budget": [0.05, 0.2], "seed": 0, "promise": "At most 10 %", "promised": True,
                             "batches": 3, "broken": [1, 0], "stopped_share": 0.5})  # fmt: skip
    return ReplayReport(results, summarise_replay(results, seed=0, draws=50), (), promises)


def test_a_replay_is_written_said_and_logged(replay, tmp_path, monkeypatch):
    done = []
    # The real replay; what it returned is kept to compare with.
    monkeypatch.setattr(replays, "replay", lambda *a, **k: done.append(replay_directly(*a, **k)) or done[-1])
    status, out, err = replay("--experiment", "past tests")
    assert (status, err) == (0, "")  # quiet in a pipe
    [expected] = done
    said = [*expected.say().splitlines(), say_promises(expected.promises, 0.9)]
    lines = out.splitlines()
    assert lines[: len(said)] == said
    assert lines[len(said) : -1] == [f"wrote replay/{name}" for name in FILES]
    uri, run_id = re.fullmatch(r"logged to (\S+), run (\w+)", lines[-1]).groups()

    assert sorted(path.name for path in (tmp_path / "replay").iterdir()) == sorted(FILES)
    pd.testing.assert_frame_equal(pd.read_csv("replay/replay.csv"), expected.summary, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_parquet("replay/replay_results.parquet"), expected.results)
    pd.testing.assert_frame_equal(pd.read_csv("replay/replay_promises.csv"), expected.promises, check_dtype=False)
    assert (tmp_path / "replay" / "replay.png").read_bytes().startswith(b"\x89PNG")

    assert uri == f"sqlite:///{tmp_path.as_posix()}/mlruns/mlflow.db"
    client = open_client(uri)
    logged = client.get_run(run_id)
    assert logged.info.status == "FINISHED"
    assert client.get_experiment(logged.info.experiment_id).name == "past tests"
    assert logged.data.metrics == pytest.approx(
        {**replay_metrics(expected.summary, expected.promises), "promise.confidence": 0.9}
    )
    played = {"replay.budgets": "0.1, 0.4", "replay.rounds": "2", "replay.repeats": "1", "replay.controls": "False"}
    assert played.items() <= logged.data.params.items()
    assert logged.data.params["label.outcome_window"] == "14d"
    assert logged.data.tags["kind"] == "replay"
    assert len(logged.data.tags["data_digest"]) == 64
    files = [file.path for file in client.list_artifacts(run_id, "replay")]
    assert sorted(files) == sorted(f"replay/{name}" for name in FILES)
    text = client.download_artifacts(run_id, "replay.txt", str(tmp_path))
    assert Path(text).read_text("utf-8").splitlines() == said


def test_it_speaks_chinese_and_leaves_mlflow_alone_where_asked(replay, report, tmp_path, monkeypatch):
    monkeypatch.setattr(replays, "replay", lambda *_args, **_kwargs: report)
    status, out, err = replay("--no-track", language="zh", out=tmp_path / "新 [1]")
    assert (status, err) == (0, "")
    assert out.startswith("策略")
    assert "停测承诺：" in out
    assert out.splitlines()[-4:] == [f"wrote {tmp_path / '新 [1]' / name}" for name in FILES]
    assert [path.name for path in tmp_path.iterdir()] == ["新 [1]"]


def test_too_little_history_is_refused_with_the_counts(replay, tmp_path):
    assert_refused(replay(**{"as-of": "2025-02-10"}), r"expected a batch with 100 SKUs and 8 hits closed")
    assert list(tmp_path.iterdir()) == []


def test_what_can_not_be_written_is_refused_before_anything_is_played(replay, tmp_path):
    (tmp_path / "file").write_text("x")
    for out in ("file", "file/deeper"):
        assert_refused(replay(out=out), f"{out}: can't be written .*no folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "more",
    [
        *({"budgets": text} for text in ("", "much", "0.1,", "0,0.1", "-0.1", "1.1", "0.1,0.1", "nan", "5%")),
        {"rounds": 0},
        {"repeats": 0},
        {"merit": "luck"},
        {"merit": "impressions"},
        {"as-of": "soon"},
        {"language": "fr"},
    ],
)
def test_wrong_usage_leaves_with_2(replay, tmp_path, more):
    status, out, err = replay(**more)
    assert (status, out) == (2, "")
    assert err.count("Error:") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_merit_that_was_not_counted_is_refused_in_one_line(run, shop, tmp_path):
    signals = pd.read_parquet(shop / "signals.parquet").drop(columns=["visitors", "units"], errors="ignore")
    signals.to_parquet(tmp_path / "signals.parquet")
    done = run("replay", "--data", shop, "--signals", tmp_path / "signals.parquet", "--budgets", 0.2, "--rounds", 1,
               "--repeats", 1, "--merit", "units", "--no-controls", "--out", tmp_path / "out")  # fmt: skip
    assert_refused(done, "merit: expected one of .*, got 'units'")


# What is logged and written, from figures that are known


def test_the_figures_logged_are_those_of_the_summary(report):
    values = replay_metrics(report.summary, report.promises)
    assert values["hitfinder.equal_saved"] == pytest.approx(0.8)
    assert values["hitfinder.equal_saved_low"] == pytest.approx(0.8)
    assert values["hitfinder.budget_0.05.hits_share"] == 0.5
    assert values["full_test.budget_1.hits_share"] == 0.75
    assert values["hitfinder.budget_0.2.hits_vs_full"] == 1.0
    assert (values["batches"], values["hits"]) == (3, 12)
    assert (values["promise.tests"], values["promise.kept_share"]) == (6, pytest.approx(5 / 6))
    never = replay_metrics(report.summary.assign(equal_saved=None), report.promises.head(0))
    assert "hitfinder.equal_saved" not in never
    assert (never["promise.tests"], "promise.kept_share" in never) == (0, False)


@pytest.mark.parametrize(("broken", "kept"), [(0, "true"), (1, "false"), (None, "nothing was promised")])
def test_a_run_tells_whether_promises_were_kept(report, shop, tmp_path, monkeypatch, broken, kept):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    promises = report.promises.assign(broken=broken) if broken is not None else pd.DataFrame()
    tables = [shop / "signals.parquet", shop / "skus.parquet"]
    done = record_replay(report.summary, promises, *tables, parse_settings({}), folder_for_store=tmp_path / "store")
    logged = open_client(done.tracking_uri).get_run(done.run_id)
    assert logged.data.tags["promise_kept"] == kept


def test_a_run_that_could_not_be_finished_is_marked_as_failed(report, shop, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tables = [shop / "signals.parquet", shop / "skus.parquet"]
    with pytest.raises(Exception, match=r"gone\.png"):
        record_replay(report.summary, report.promises, *tables, parse_settings({}), files=[tmp_path / "gone.png"],
                      folder_for_store=tmp_path / "store")  # fmt: skip
    client = open_client(tracking_uri(tmp_path / "store"))
    [logged] = client.search_runs([client.get_experiment_by_name("hitfinder").experiment_id])
    assert logged.info.status == "FAILED"


def test_how_promises_were_kept_is_said_in_both_languages(report):
    assert say_promises(report.promises, 0.9) == (
        "Promise about stopping: kept in 83% of 6 replayed tests with hits; promised: 90%."
    )
    assert say_promises(report.promises, 0.9, "zh") == (
        "停测承诺：在 6 次有爆款的回放测试中，83% 兑现了承诺；承诺的比例为 90%。"
    )
    nothing = report.promises.assign(promised=False)
    for language, words in WORDS.items():
        assert say_promises(nothing, 0.9, language) == words["none"] == say_promises(pd.DataFrame(), 0.9, language)
    with pytest.raises(Exception, match="en or zh, got 'fr'"):
        say_promises(nothing, 0.9, "fr")


def test_where_the_full_test_found_nothing_all_but_the_picture_is_written(report, tmp_path):
    with pytest.warns(UserWarning, match="no picture was drawn"):
        paths = write_replay(report.summary.assign(hits_vs_full=None), report.results, report.promises, tmp_path / "a")
    assert [path.name for path in paths] == FILES[:3]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(FILES[:3])


def test_the_same_replay_gives_the_same_bytes(report, tmp_path):
    one, two = (write_replay(report.summary, report.results, report.promises, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_a_folder_is_checked_without_being_made(tmp_path):
    check_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
