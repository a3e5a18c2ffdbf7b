"""Runs: one MLflow run with its steps nested below it, ended as finished, failed or killed, whatever happens."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitfinder.errors import ModelError
from hitfinder.registry.facts import code_facts
from hitfinder.registry.tracking import artifact_home, import_mlflow, speaking_to, tracking_uri

__all__ = [
    "LONGEST_PARAM",
    "LONGEST_TAG",
    "Run",
    "end_stale",
    "experiment_id",
    "find_finished",
    "recorded",
    "source_tags",
]

PARENT = "mlflow.parentRunId"
LONGEST_PARAM = 500
LONGEST_TAG = 5000
OURS = {"mlflow.source.name": "hitfinder"}
# The runs that this process has open.
_AT_WORK: set[str] = set()


@dataclass(frozen=True)
class Run:
    """An open run. What it is given is logged at once; `step` opens a run below it.

    It holds no connection: between two calls the caller's own errors and warnings are the caller's.
    """

    run_id: str
    experiment: str
    tracking_uri: str

    def log(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float | None] | None = None,
        tags: Mapping[str, Any] | None = None,
        model_id: str | None = None,
        step: int = 0,
    ) -> None:
        """Log parameters, figures and tags; a figure that is not known (None, NaN, infinite) is left out."""
        entities = import_mlflow("mlflow.entities")
        now = int(time.time() * 1000)
        known = {k: float(v) for k, v in (metrics or {}).items() if v is not None and math.isfinite(v)}
        about = {} if model_id is None else {"model_id": model_id, "run_id": self.run_id}
        with speaking_to(self.tracking_uri) as client:
            client.log_batch(
                self.run_id,
                params=[entities.Param(key, str(value)[:LONGEST_PARAM]) for key, value in (params or {}).items()],
                metrics=[entities.Metric(key, value, now, step, **about) for key, value in known.items()],
                tags=[entities.RunTag(key, str(value)[:LONGEST_TAG]) for key, value in (tags or {}).items()],
            )

    def text(self, text: str, name: str) -> None:
        """Keep a text under a name such as `replay.txt`."""
        with speaking_to(self.tracking_uri) as client:
            client.log_text(self.run_id, text, name)

    def values(self, values: Any, name: str) -> None:
        """Keep plain values as JSON under a name such as `evidence.json`; what is no number is null in it."""
        text = json.dumps(_finite(values), ensure_ascii=False, indent=1, default=str, allow_nan=False)
        self.text(text, name)

    def file(self, path: str | Path, folder: str | None = None) -> None:
        """Keep a copy of a file."""
        with speaking_to(self.tracking_uri) as client:
            client.log_artifact(self.run_id, str(path), folder)

    @contextmanager
    def step(self, name: str, **tags: Any) -> Iterator[Run]:
        """Open a run below this one; its tags say which step it is."""
        told = {**source_tags({key: str(value) for key, value in tags.items()}), PARENT: self.run_id}
        with _open(self.tracking_uri, self.experiment, name, told) as run:
            yield run


@contextmanager
def recorded(
    name: str,
    *,
    kind: str,
    tags: Mapping[str, str] | None = None,
    experiment: str = "hitfinder",
    folder_for_store: str | Path = "mlruns",
) -> Iterator[Run]:
    """Open a run in MLflow, stamped with the code's version; end it as finished, failed or killed.

    What was killed before it could end its runs has them ended now; see `end_stale`.

    Parameters
    ----------
    name, kind
        Of the run; `kind` is a tag by which its like are found, such as `retrain`.
    tags
        More of them, such as the digests of data and settings, and the seed.
    experiment
        That holds it.
    folder_for_store
        Where the database and the files go unless `MLFLOW_TRACKING_URI` names another place.

    Yields
    ------
    Run

    Raises
    ------
    ModelError
        MLflow can't be reached, or refuses.
    """
    uri = tracking_uri(folder_for_store)
    with speaking_to(uri) as client:
        place = experiment_id(client, experiment, uri)
    end_stale(experiment=experiment, folder_for_store=folder_for_store)
    with _open(uri, place, name, source_tags({**code_facts(), **(tags or {}), "kind": kind})) as run:
        yield run


@contextmanager
def _open(uri: str, experiment: str, name: str, tags: dict[str, str]) -> Iterator[Run]:
    # By these `end_stale` knows whether it is still at work.
    tags = {**tags, "host": socket.gethostname(), "pid": str(os.getpid())}
    with speaking_to(uri) as client:
        run = Run(client.create_run(experiment, tags=tags, run_name=name).info.run_id, experiment, uri)
    _AT_WORK.add(run.run_id)
    try:
        yield run
    except BaseException as error:
        with suppress(ModelError):  # what went wrong first is what the caller has to know
            _end(run, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    else:
        _end(run, "FINISHED")
    finally:
        _AT_WORK.discard(run.run_id)


def _end(run: Run, status: str) -> None:
    with speaking_to(run.tracking_uri) as client:
        client.set_terminated(run.run_id, status)


def find_finished(
    kind: str, tags: Mapping[str, str], *, experiment: str = "hitfinder", folder_for_store: str | Path = "mlruns"
) -> str | None:
    """Return the newest finished run of a kind that carries all these tags, or None.

    Raises
    ------
    ModelError
        MLflow can't be reached, or refuses.
    """
    # Only plain words go into the filter: a name may hold quotes, which it has no way to write.
    asked = f"attributes.status = 'FINISHED' and tags.kind = '{kind}'"
    for run in _runs(asked, experiment, folder_for_store):
        if tags.items() <= run.data.tags.items():
            return str(run.info.run_id)
    return None


def end_stale(*, experiment: str = "hitfinder", folder_for_store: str | Path = "mlruns") -> int:
    """End as killed what still looks as if it ran though its process on this machine is gone; return how many runs.

    What other machines run, and what this one is at work on, goes on. A process can only be looked for where it runs.

    Raises
    ------
    ModelError
        MLflow can't be reached, or refuses.
    """
    uri = tracking_uri(folder_for_store)
    running = [
        run
        for run in _runs("attributes.status = 'RUNNING'", experiment, folder_for_store)
        if OURS.items() <= run.data.tags.items()
    ]
    stale = {run.info.run_id for run in running if _is_gone(run)}
    # A step says where it runs only since runs do.
    stale |= {run.info.run_id for run in running if run.data.tags.get(PARENT) in stale and "pid" not in run.data.tags}
    with speaking_to(uri) as client:
        # What ended while it was looked for has said so by now.
        stale = {run_id for run_id in stale if client.get_run(run_id).info.status == "RUNNING"}
        for run_id in stale:
            client.set_terminated(run_id, "KILLED")
    return len(stale)


def _is_gone(run: Any) -> bool:
    """Whether the process that opened a run is known to have ended."""
    host, pid = (run.data.tags.get(name) for name in ("host", "pid"))
    if host != socket.gethostname():
        return False
    if pid is None or not pid.isdigit():  # of a version that did not say
        return True
    if int(pid) == os.getpid():  # numbers come again, in a container always the same
        return run.info.run_id not in _AT_WORK
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # somebody else's process, or no number of one
        return False
    return False


def _runs(asked: str, experiment: str, folder_for_store: str | Path) -> list[Any]:
    """Return the runs that MLflow's filter finds, the newest first."""
    uri = tracking_uri(folder_for_store)
    found, token = [], None
    with speaking_to(uri) as client:
        place = experiment_id(client, experiment, uri)
        while True:
            page = client.search_runs([place], asked, order_by=["attributes.start_time DESC"], page_token=token)
            found += page
            token = page.token
            if not token:
                return found


def _finite(values: Any) -> Any:
    """Return plain values with None for every number that JSON has no word for."""
    if isinstance(values, Mapping):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def experiment_id(client: Any, name: str, uri: str) -> str:
    """Return the experiment's id; make it where there is none."""
    exceptions = import_mlflow("mlflow.exceptions")
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifact_home(uri)))
        except exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process was faster
    if found.lifecycle_stage != "active":
        raise ModelError(f"{name}: the experiment was deleted in MLflow; restore it there, or choose another name")
    return str(found.experiment_id)


def source_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Add the tags under which MLflow's own pages show where a run came from."""
    known = {**OURS, "mlflow.source.type": "LOCAL"}
    if "git_commit" in tags:
        known["mlflow.source.git.commit"] = tags["git_commit"]
    return {**tags, **known}
