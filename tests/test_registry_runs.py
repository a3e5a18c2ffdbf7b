"""Runs: what was killed is ended as killed, and what is at work is left alone, whoever asks and whatever kind it is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hitfinder.registry import runs as runs_module
from hitfinder.registry.runs import end_stale, recorded, source_tags
from hitfinder.registry.tracking import open_client, tracking_uri


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    client = open_client(tracking_uri())
    client.create_experiment("hitfinder")
    return client


@pytest.fixture
def process():
    """Return a process that waits."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as waiting:
        yield waiting
        waiting.stdin.close()


def status(client, run):
    return client.get_run(getattr(run, "run_id", run)).info.status


def begun(client, **tags):
    """Begin a run as another process would."""
    place = client.get_experiment_by_name("hitfinder").experiment_id
    return client.create_run(place, tags=source_tags(tags)).info.run_id


def test_every_run_says_where_it_runs(client):
    with recorded("weekly", kind="weekly") as run, run.step("rank") as step:
        for each in (run, step):
            tags = client.get_run(each.run_id).data.tags
            assert (tags["host"], tags["pid"]) == (socket.gethostname(), str(os.getpid()))


def test_only_what_a_process_of_this_machine_left_behind_is_ended(client, process):
    here = socket.gethostname()
    other = begun(client, host="elsewhere", pid="1")
    foreign = client.create_run(client.get_run(other).info.experiment_id, tags={"host": here}).info.run_id
    alive = begun(client, host=here, pid=str(process.pid))
    odd = begun(client, host=here, pid="9" * 30)
    with recorded("monitor", kind="monitor") as mine:
        own = begun(client, host=here, pid=str(os.getpid()))  # the number has come again
        old = begun(client, host=here)
        step = begun(client, **{runs_module.PARENT: old})
        assert end_stale() == 3
        assert {status(client, run) for run in (own, old, step)} == {"KILLED"}
        assert {status(client, run) for run in (mine, other, foreign, alive, odd)} == {"RUNNING"}
        process.kill()
        process.wait()
    assert status(client, mine) == "FINISHED"
    # Whatever begins next ends it, of whatever kind it was.
    with recorded("retrain", kind="retrain"):
        assert status(client, alive) == "KILLED"


def test_what_ends_while_it_is_looked_for_stays_as_it_ended(client, process, monkeypatch):
    run = begun(client, host=socket.gethostname(), pid=str(process.pid))

    def gone(found):
        client.set_terminated(found.info.run_id, "FINISHED")
        return True

    monkeypatch.setattr(runs_module, "_is_gone", gone)
    assert end_stale() == 0
    assert status(client, run) == "FINISHED"


def test_evidence_is_json_also_where_a_figure_is_no_number(client, tmp_path):
    with recorded("gate", kind="gate") as run:
        run.values({"own": float("nan"), "per_batch": [{"gap": float("-inf"), "hits": 2}], "said": "nan"}, "e.json")
    text = Path(client.download_artifacts(run.run_id, "e.json", str(tmp_path))).read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "own": None, "per_batch": [{"gap": None, "hits": 2}], "said": "nan",
    }  # fmt: skip
