"""`hitfinder monitor` and its pipeline leave with 1 on an alarm, write the page and the JSON, and record a run."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from changing_market import WEEKS, end_of, market, model

SCRIPT = Path(__file__).parent.parent / "pipelines" / "monitor.py"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with a market, in the last week of which rates change, and the model that is watched."""
    home = tmp_path_factory.mktemp("a shop 小店")
    market().signals.to_parquet(home / "signals.parquet", index=False)
    market().skus.to_parquet(home / "skus.parquet", index=False)
    model().save(home / "model")
    return home


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runs_in(folder):
    """Return (name, status, whether it has a parent) of the runs recorded below a folder."""
    [store] = folder.rglob("*.db")
    with closing(sqlite3.connect(store)) as con:
        query = (
            "select name, status, exists(select 1 from tags where tags.run_uuid = runs.run_uuid "
            "and key = 'mlflow.parentRunId') from runs"
        )
        return con.execute(query).fetchall()


def test_an_alarm_is_said_written_recorded_and_is_exit_status_1(run, shop, at_home):
    status, out, err = run("monitor", "--data", shop, "--model", shop / "model", "--out", "health")
    assert status == 1
    assert "alarms as of" in out
    assert "clicks per impression" in out
    assert "-> Find out whether" in out
    assert "error" not in err
    assert out.splitlines()[-2:] == ["wrote health/health.html", "wrote health/health.json"]
    values = json.loads((at_home / "health" / "health.json").read_text(encoding="utf-8"))
    assert values["ok"] is False
    assert values["alarms"]
    found = runs_in(at_home)
    [(name, ended, nested)] = [row for row in found if not row[2]]
    assert (name, ended, nested) == (f"monitor {end_of(WEEKS):%Y-%m-%d}", "FINISHED", 0)
    assert {row[0] for row in found if row[2]} == {row["check"] for row in values["checks"]}


def test_a_quiet_look_is_exit_status_0_and_untracked_where_asked(run, shop, at_home):
    before = end_of(WEEKS - 1).isoformat()
    status, out, _ = run(
        "monitor", "--data", shop, "--model", shop / "model", "--as-of", before, "--no-track", "--language", "zh"
    )  # fmt: skip
    assert status == 0
    assert "无警报" in out
    assert sorted(path.name for path in at_home.iterdir()) == ["health"]


def test_wrong_usage_and_refusals_are_told_apart_from_alarms(run, shop, at_home):
    status, _, err = run("monitor", "--data", shop, "--model", shop / "model", "--false-alarm", "1.5")
    assert status == 2
    assert "--false-alarm" in err
    status, out, err = run("monitor", "--data", shop, "--model", at_home / "no model")
    assert status == 1
    assert err.startswith("error: ")
    assert out == ""
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert sorted(path.name for path in at_home.iterdir()) == []
    status, _, err = run("monitor", "--data", shop, "--model", shop / "model", "--decisions", at_home / "none.parquet")
    assert status == 1
    assert "none.parquet is not there; run `hitfinder decide` first" in err
    status, out, _ = run("monitor", "--help")
    assert status == 0
    assert "Exit status: 0 quiet; 1 on an alarm" in " ".join(out.split())


def test_an_old_look_is_noted_and_as_of_now_raises_the_alarm_that_signals_stopped(run, shop, at_home):
    before = ("monitor", "--data", shop, "--model", shop / "model", "--no-track")
    _, out, err = run(*before)
    assert "note: the newest signal is " in err
    assert "if the feed should be live, pass --as-of now" in err
    assert "No signal at all" not in out
    status, out, err = run(*before, "--as-of", "now")
    assert status == 1
    assert "[missing signals] No signal at all has come for " in out
    assert "the newest signal is" not in err
    assert "error" not in err


def test_too_little_history_is_said_and_is_no_failure(run, shop, at_home):
    status, out, err = run(
        "monitor", "--data", shop, "--model", shop / "model", "--as-of", "2025-01-07", "--no-track"
    )  # fmt: skip
    assert status == 0
    assert "Too little history for a promise" in out
    assert "error" not in err


def test_the_pipeline_leaves_with_1_on_an_alarm_and_with_0_when_quiet(shop, at_home, capsys):
    spec = importlib.util.spec_from_file_location("pipelines_monitor", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    tables = ["--signals", str(shop / "signals.parquet"), "--skus", str(shop / "skus.parquet")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.showwarning", None)
        assert script.main([*tables, "--model", str(shop / "model")]) == 1
        quiet = end_of(WEEKS - 1).isoformat()
        assert script.main([*tables, "--model", str(shop / "model"), "--as-of", quiet]) == 0
        said, noted = capsys.readouterr()
        assert noted.startswith("note: the newest signal is ")
        assert noted.count("\n") == 1
        assert script.main([*tables, "--model", str(at_home / "none")]) == 1
        nothing, refused = capsys.readouterr()
        assert script.main([*tables, "--model", str(shop / "model"), "--as-of", "now", "--out", "now"]) == 1
        assert "No signal at all has come for " in capsys.readouterr().out
        assert script.moment("2025-01-06") == pd.Timestamp("2025-01-06")
    assert nothing == ""
    assert refused.startswith("error: ")
    assert refused.count("\n") == 1
    days = sorted(path.name for path in (at_home / "health").iterdir())
    assert days == [f"{end_of(week):%Y-%m-%d}" for week in (WEEKS - 1, WEEKS)]
    assert said.count("recorded as run ") == 2
