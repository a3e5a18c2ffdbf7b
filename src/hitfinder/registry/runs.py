"""Runs: one MLflow run with its steps nested below it, ended as finished, failed or killed, whatever happens."""

from __future__ import annotations

import json
import math
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
        """Keep plain values as JSON under a name such as `evidence.json`."""
        self.text(json.dumps(values, ensure_ascii=False, indent=1, default=str), name)

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
    with _open(uri, place, name, source_tags({**code_facts(), **(tags or {}), "kind": kind})) as run:
        yield run


@contextmanager
def _open(uri: str, experiment: str, name: str, tags: dict[str, str]) -> Iterator[Run]:
    with speaking_to(uri) as client:
        run = Run(client.create_run(experiment, tags=tags, run_name=name).info.run_id, experiment, uri)
    try:
        yield run
    except BaseException as error:
        with suppress(ModelError):  # what went wrong first is what the caller has to know
            _end(run, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    _end(run, "FINISHED")


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
    found = _runs_of(kind, tags, "FINISHED", experiment, folder_for_store)
    return found[0] if found else None


def end_stale(
    kind: str, tags: Mapping[str, str], *, experiment: str = "hitfinder", folder_for_store: str | Path = "mlruns"
) -> int:
    """End as killed what still looks as if it ran, with the steps below it; return how many runs that were.

    Only for who knows that none of them can be running: the holder of their lock.

    Raises
    ------
    ModelError
        MLflow can't be reached, or refuses.
    """
    uri = tracking_uri(folder_for_store)
    ended = 0
    for run_id in _runs_of(kind, tags, "RUNNING", experiment, folder_for_store):
        with speaking_to(uri) as client:
            place = experiment_id(client, experiment, uri)
            below = client.search_runs([place], f"tags.`{PARENT}` = '{run_id}' and attributes.status = 'RUNNING'")
            for each in [*(step.info.run_id for step in below), run_id]:
                client.set_terminated(each, "KILLED")
                ended += 1
    return ended


def _runs_of(
    kind: str, tags: Mapping[str, str], status: str, experiment: str, folder_for_store: str | Path
) -> list[str]:
    uri = tracking_uri(folder_for_store)
    with speaking_to(uri) as client:
        place = experiment_id(client, experiment, uri)
        # Only plain words go into the filter: a name may hold quotes, which it has no way to write.
        asked = f"attributes.status = '{status}' and tags.kind = '{kind}'"
        found, token = [], None
        while True:
            page = client.search_runs([place], asked, order_by=["attributes.start_time DESC"], page_token=token)
            found += page
            token = page.token
            if not token:
                break
    return [str(run.info.run_id) for run in found if tags.items() <= run.data.tags.items()]


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
    known = {"mlflow.source.name": "hitfinder", "mlflow.source.type": "LOCAL"}
    if "git_commit" in tags:
        known["mlflow.source.git.commit"] = tags["git_commit"]
    return {**tags, **known}
