"""A real MLflow server on loopback, with a database and proxied artifacts, for as long as a test needs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import requests
from mlflow_store import copy_to

SECONDS = 120


@contextmanager
def serving(folder, shared=None):
    """Start a server that keeps its things in `folder`; yield its address, and end it with all that it started.

    `shared` is the folder of empty stores (see `mlflow_store`); without it the server makes its own.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if shared is not None:
        copy_to(folder / "server.db", shared)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{folder}/server.db",
               "--artifacts-destination", str(folder / "files")]  # fmt: skip
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment.pop("MLFLOW_TRACKING_URI", None)
    log = folder / "server.log"
    with log.open("wb") as told:
        # A group of its own, so that its workers end with it.
        server = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=told, stderr=told, start_new_session=True
        )
    try:
        uri = f"http://127.0.0.1:{port}"
        _wait_for(f"{uri}/health", server, log)
        yield uri
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_for(address, server, log):
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        if server.poll() is not None:
            raise AssertionError(f"the server ended: {log.read_text()[-2000:]}")
        with suppress(requests.ConnectionError):
            if requests.get(address, timeout=5).ok:
                return
        time.sleep(0.2)
    raise AssertionError(f"no answer from {address}: {log.read_text()[-2000:]}")
