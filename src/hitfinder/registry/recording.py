"""Recording: one run with all that a fit was, and a new version of the registered model."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hitfinder.errors import ModelError
from hitfinder.models.hit_model import HitModel
from hitfinder.registry.artifact import example_rows, write_artifact
from hitfinder.registry.facts import admit_data, code_facts, data_facts, flat, metric_values
from hitfinder.registry.loading import VERSIONS_TAG
from hitfinder.registry.tracking import artifact_home, import_mlflow, speaking_to, tracking_uri
from hitfinder.warehouse import TableLike, open_warehouse

__all__ = ["CHALLENGER", "CHAMPION", "Registered", "experiment_id", "register", "source_tags"]

CHAMPION = "champion"
CHALLENGER = "challenger"
LONGEST_PARAM = 500
LONGEST_TAG = 5000


@dataclass(frozen=True)
class Registered:
    """A registered version: `model_uri` is what `load_model` and `mlflow models serve` take."""

    name: str
    version: str
    run_id: str
    aliases: tuple[str, ...]
    tracking_uri: str
    model_uri: str


def register(
    model: HitModel,
    signals: TableLike,
    skus: TableLike,
    *,
    name: str = "hitfinder",
    experiment: str = "hitfinder",
    folder_for_store: str | Path = "mlruns",
    data_description: Mapping[str, Any] | None = None,
) -> tuple[HitModel, Registered]:
    """Log one run to MLflow and register the model as `challenger`, and as `champion` where there is none.

    Parameters
    ----------
    model
        From `fit`.
    signals, skus
        The tables that it was fitted on.
    name, experiment
        Of the registered model, and of the experiment that holds the run.
    folder_for_store
        Where the database and the files go unless `MLFLOW_TRACKING_URI` names another place.
    data_description
        More about the data, such as where it came from; logged as parameters `data.<key>`.

    Returns
    -------
    (HitModel, Registered)
        The same model with `version` set to `<name>/<number>`, and what was registered.

    Raises
    ------
    ModelError
        MLflow can't be reached, or refuses.
    DataError
        A table can't be understood.

    Notes
    -----
    Stopped at any moment, it leaves the aliases as they were or as they should be: they are set last. Nothing global
    to MLflow is changed: a run that the caller has open, and the caller's tracking URI, stay theirs.
    """
    con = open_warehouse(threads=model.settings.model.threads)
    try:
        admit_data(con, model, signals, skus)
        facts = {**code_facts(), **data_facts(con)}
        example = example_rows(con)
        sku_columns = [row[0] for row in con.execute("describe skus").fetchall()]
    finally:
        con.close()
    params = {**flat(model.settings.to_dict()), **_described(data_description)}
    tags = {**facts, **_told(model), "settings_digest": model.settings.digest(), "model_digest": model.digest()}
    uri = tracking_uri(folder_for_store)
    with speaking_to(uri) as client:
        run_id = client.create_run(
            experiment_id(client, experiment, uri), tags=source_tags(tags), run_name=model.version
        ).info.run_id
        try:
            model_id = _log(client, run_id, model, name, params, tags, example, sku_columns)
        except BaseException as error:
            client.set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        client.set_terminated(run_id, "FINISHED")
        number = _new_version(client, name, model_id, run_id, str(model.report.get("note", "")), tags)
        aliases = _set_aliases(client, name, number)
    return replace(model, version=f"{name}/{number}"), Registered(
        name=name,
        version=number,
        run_id=run_id,
        aliases=aliases,
        tracking_uri=uri,
        model_uri=f"models:/{name}/{number}",
    )


def _log(
    client: Any,
    run_id: str,
    model: HitModel,
    name: str,
    params: dict[str, str],
    tags: dict[str, str],
    example: Any,
    sku_columns: list[str],
) -> str:
    """Log the run's figures and files and the model itself; return the logged model's id."""
    entities = import_mlflow("mlflow.entities")
    logged = client.create_logged_model(
        client.get_run(run_id).info.experiment_id,
        name=name,
        source_run_id=run_id,
        params=params,
        tags=tags,
        model_type="hitfinder",
    )
    client.log_outputs(run_id, [entities.LoggedModelOutput(logged.model_id, step=0)])
    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        params=[entities.Param(key, value) for key, value in params.items()],
        metrics=[
            entities.Metric(key, value, now, 0, model_id=logged.model_id, run_id=run_id)
            for key, value in metric_values(model.report).items()
        ],
    )
    client.log_text(run_id, json.dumps(model.report, ensure_ascii=False, indent=1, default=str), "report.json")
    _log_pictures(client, run_id, model.report)
    with tempfile.TemporaryDirectory(prefix="hitfinder-") as scratch:
        folder = Path(scratch) / "model"
        place = {"artifact_path": logged.artifact_location, "run_id": run_id, "model_id": logged.model_id}
        write_artifact(folder, model, example, sku_columns, place)
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def _log_pictures(client: Any, run_id: str, report: dict[str, Any]) -> None:
    # Matplotlib takes half a second that `import hitfinder` need not spend.
    from hitfinder.registry.pictures import draw

    for picture, png in draw(report).items():
        with tempfile.TemporaryDirectory(prefix="hitfinder-") as scratch:
            file = Path(scratch) / f"{picture}.png"
            file.write_bytes(png)
            client.log_artifact(run_id, str(file), "pictures")


def experiment_id(client: Any, name: str, uri: str) -> str:
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


def _new_version(client: Any, name: str, model_id: str, run_id: str, note: str, tags: dict[str, str]) -> str:
    exceptions = import_mlflow("mlflow.exceptions")
    try:
        client.create_registered_model(name, description="Finds hits among SKUs; made by hitfinder.")
    except exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # The place itself, not `models:/<id>`: a database store would look that up at the process's global address.
    source = client.get_logged_model(model_id).artifact_location
    version = client.create_model_version(
        name, source=source, run_id=run_id, model_id=model_id, description=note, tags={**tags, "model_id": model_id}
    )
    # MLflow's pages and `runs:/` find the version by this.
    link = json.dumps([{"name": name, "version": str(version.version)}])
    client.set_logged_model_tags(model_id, {VERSIONS_TAG: link})
    return str(version.version)


def _set_aliases(client: Any, name: str, number: str) -> tuple[str, ...]:
    client.set_registered_model_alias(name, CHALLENGER, number)
    if CHAMPION in client.get_registered_model(name).aliases:
        return (CHALLENGER,)
    client.set_registered_model_alias(name, CHAMPION, number)
    return (CHALLENGER, CHAMPION)


def _told(model: HitModel) -> dict[str, str]:
    """Return what the report says in single words."""
    told = {"seed": model.settings.seed, "ranked_by": model.winner, "unregistered_version": model.version}
    for key in ("note", "evaluation", "as_of", "best_kind", "best_rule", "first_launch", "last_launch", "metric"):
        if model.report.get(key) is not None:
            told[key] = model.report[key]
    return {key: str(value)[:LONGEST_TAG] for key, value in told.items()}


def source_tags(tags: dict[str, str]) -> dict[str, str]:
    """Add the tags under which MLflow's own pages show where a run came from."""
    known = {"mlflow.source.name": "hitfinder", "mlflow.source.type": "LOCAL"}
    if "git_commit" in tags:
        known["mlflow.source.git.commit"] = tags["git_commit"]
    return {**tags, **known}


def _described(description: Mapping[str, Any] | None) -> dict[str, str]:
    return {f"data.{key}": str(value)[:LONGEST_PARAM] for key, value in (description or {}).items()}
