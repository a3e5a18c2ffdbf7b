"""One model asked in three ways: in Python, as a pyfunc, and over HTTP. They answer with the same numbers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from small_market import as_rows, fitted, newest_batch

import hitfinder as hf
from hitfinder.registry import load_model, rank_rows, register


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Register the small market's model in a store of its own, and name that in the environment."""
    place = tmp_path_factory.mktemp("serving")
    market, model = fitted()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
        yield register(model, market.signals, market.skus)[1]


@pytest.fixture(scope="module")
def address(store, tmp_path_factory):
    """Serve the champion on a free port, with MLflow's own command."""
    place = tmp_path_factory.mktemp("served")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/hitfinder@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # A proxy that is not there: a server that asks the outside for anything would not start.
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment = {**os.environ, **nowhere, "MLFLOW_DISABLE_TELEMETRY": "true", "NO_PROXY": "127.0.0.1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with (place / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=place, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(900):
            assert server.poll() is None, (place / "log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        end(server)


def end(process):
    """End a process and those that it started, which share its process group."""
    import signal

    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)


def ask(address, payload):
    """Return (status, answer)."""
    request = urllib.request.Request(
        address, json.dumps(payload, allow_nan=False).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def plain(rows):
    """Turn rows into what JSON holds: whole numbers, texts, ISO moments, null."""

    def value(x):
        if pd.isna(x):
            return None
        return x.isoformat() if isinstance(x, pd.Timestamp) else x.item() if hasattr(x, "item") else x

    return [{name: value(x) for name, x in row.items()} for row in rows.astype(object).to_dict("records")]


def as_split(records):
    columns = list(records[0])
    return {"columns": columns, "data": [[row[name] for name in columns] for row in records]}


def shown(ranked):
    return json.loads(json.dumps(plain(ranked)))


@pytest.fixture(scope="module")
def expected(store):
    """Rank in Python, from the two tables."""
    signals, skus, as_of = newest_batch()
    return shown(hf.rank(load_model("models:/hitfinder@champion"), signals, skus, as_of))


def test_a_pyfunc_answers_with_the_numbers_of_rank(store, expected):
    import mlflow

    signals, skus, as_of = newest_batch()
    # MLflow itself looks for a store at the place that the process names.
    mlflow.set_tracking_uri(store.tracking_uri)
    try:
        served = mlflow.pyfunc.load_model("models:/hitfinder@champion")
    finally:
        mlflow.set_tracking_uri(None)
        os.environ["MLFLOW_TRACKING_URI"] = store.tracking_uri
    answer = served.predict(as_rows(signals, skus), params={"as_of": as_of.isoformat()})
    assert shown(answer) == expected
    assert answer["model_version"].unique().tolist() == ["hitfinder/1"]
    pd.testing.assert_frame_equal(
        answer, rank_rows(load_model("models:/hitfinder@champion"), as_rows(signals, skus), as_of), check_exact=True
    )


@pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records"])
def test_a_server_answers_raw_signals_with_the_numbers_of_rank(address, expected, form):
    signals, skus, as_of = newest_batch()
    records = plain(as_rows(signals, skus))
    unseen = [row for row in records if row["sku_id"] == skus["sku_id"].iloc[3]]
    assert len(unseen) == 1
    assert unseen[0]["period_start"] is None  # a SKU that nobody has seen is asked for too
    rows = as_split(records) if form == "dataframe_split" else records
    status, answer = ask(address, {form: rows, "params": {"as_of": as_of.isoformat()}})
    assert status == 200
    assert answer["predictions"] == expected
    assert sorted(row["sku_id"] for row in answer["predictions"]) == sorted(skus["sku_id"])


def test_a_server_leaves_out_columns_and_keys_and_takes_the_newest_moment(address, store):
    signals, skus, _ = newest_batch()
    counts = ["sku_id", "period_start", "impressions", "clicks", "orders", "revenue"]
    few = signals.groupby(["sku_id", "period_start"], as_index=False)[counts[2:]].sum()[counts]
    beside = skus[["sku_id", "launched_at", "price", "title"]]
    rows = [{k: v for k, v in row.items() if v is not None} for row in plain(as_rows(few, beside))]
    status, answer = ask(address, {"dataframe_records": rows, "params": {"language": "zh"}})
    assert status == 200
    model = load_model("models:/hitfinder@champion")
    assert answer["predictions"] == shown(hf.rank(model, few, beside, language="zh"))


def test_what_can_not_be_understood_is_the_askers_error_in_one_sentence(address):
    rows = [{"sku_id": "a", "period_start": "2025-03-03", "orders": 1, "price": price} for price in (1.0, 2.0)]
    status, answer = ask(address, {"dataframe_records": rows})
    assert status == 400
    assert "rows.price: expected one value for each SKU, got 1.0, 2.0 for SKU 'a'" in answer["message"]
    status, answer = ask(address, {"dataframe_records": [{"period_start": "2025-03-03", "orders": 1}]})
    assert status == 400
    assert "sku_id" in answer["message"]
    status, answer = ask(address, {"dataframe_records": rows[:1], "params": {"as_of": "soon"}})
    assert status == 400
    assert "as_of: expected a moment" in answer["message"]


def test_an_artifact_is_served_by_the_source_that_it_carries(store):
    code = (
        "import sys, mlflow.pyfunc as p; m = p.load_model('models:/hitfinder@champion');"
        "import hitfinder; print(hitfinder.__file__); print(len(m.predict(m.input_example)))"
    )
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    file, n_ranked = done.stdout.split()
    assert "artifacts/code/hitfinder/__init__.py" in file.replace(os.sep, "/")
    assert int(n_ranked) == 5
