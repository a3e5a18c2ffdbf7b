"""Recording: one run with all that a fit was, and a new version of the registered model."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hitfinder.models.hit_model import HitModel
from hitfinder.registry.artifact import example_rows, write_artifact
from hitfinder.registry.facts import admit_data, code_facts, data_facts, flat, metric_values
from hitfinder.registry.loading import VERSIONS_TAG
from hitfinder.registry.runs import LONGEST_PARAM, LONGEST_TAG, Run, recorded
from hitfinder.registry.tracking import chosen_uri, import_mlflow, speaking_to
from hitfinder.warehouse import TableLike, open_warehouse

__all__ = ["CHALLENGER", "CHAMPION", "Registered", "point_to", "register", "register_admitted"]

CHAMPION = "champion"
CHALLENGER = "challenger"
# MLflow takes quotes and dots in a registered model's name but not in that of a logged model.
_NOT_IN_A_NAME = re.compile(r"""[/:.%"']""")


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
    parent: Run | None = None,
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
    parent
        A run that this is a step of; then `experiment` and `folder_for_store` are the parent's.

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
    Stopped at any moment, it leaves the aliases as they were or as they should be: they are set last. Between the two
    of a first version there may be a challenger and no champion yet; `point_to`, or another version, makes up for it.
    Nothing global to MLflow is changed: a run that the caller has open, and the caller's tracking URI, stay theirs.
    """
    con = open_warehouse(threads=model.settings.model.threads)
    try:
        admit_data(con, model, signals, skus)
        return register_admitted(
            con,
            model,
            name=name,
            experiment=experiment,
            folder_for_store=folder_for_store,
            data_description=data_description,
            parent=parent,
        )
    finally:
        con.close()


def register_admitted(
    con: Any,
    model: HitModel,
    *,
    name: str = "hitfinder",
    experiment: str = "hitfinder",
    folder_for_store: str | Path = "mlruns",
    data_description: Mapping[str, Any] | None = None,
    parent: Run | None = None,
) -> tuple[HitModel, Registered]:
    """Register a model that was fitted on the tables that stand admitted in `con`; see `register`."""
    facts = {**code_facts(), **data_facts(con, ("signals", "skus"))}
    example = example_rows(con)
    sku_columns = [row[0] for row in con.execute("describe skus").fetchall()]
    params = {**flat(model.settings.to_dict()), **_described(data_description)}
    tags = {**facts, **_told(model), "settings_digest": model.settings.digest(), "model_digest": model.digest()}
    step = parent.step(model.version) if parent is not None else recorded(
        model.version, kind="fit", experiment=experiment, folder_for_store=folder_for_store
    )  # fmt: skip
    with step as run:
        run.log(tags={**tags, "kind": "fit"}, params=params)
        model_id = _log(run, model, name, params, tags, example, sku_columns)
    # The run has ended well before anything points to it.
    with speaking_to(run.tracking_uri) as client:
        number = _new_version(client, name, model_id, run.run_id, str(model.report.get("note", "")), tags)
        aliases = _set_aliases(client, name, number)
    return replace(model, version=f"{name}/{number}"), Registered(
        name=name,
        version=number,
        run_id=run.run_id,
        aliases=aliases,
        tracking_uri=run.tracking_uri,
        model_uri=f"models:/{name}/{number}",
    )


def point_to(name: str, number: str, *, folder_for_store: str | Path = "mlruns") -> tuple[str, ...]:
    """Make a version `challenger`, and `champion` where there is none, as `register` does last; return the aliases.

    Raises
    ------
    ModelError
        MLflow can't be reached, or refuses.
    """
    with speaking_to(chosen_uri(folder_for_store)) as client:
        return _set_aliases(client, name, number)


def _log(
    run: Run,
    model: HitModel,
    name: str,
    params: dict[str, str],
    tags: dict[str, str],
    example: Any,
    sku_columns: list[str],
) -> str:
    """Log the run's figures and files and the model itself; return the logged model's id."""
    entities = import_mlflow("mlflow.entities")
    with speaking_to(run.tracking_uri) as client:
        logged = client.create_logged_model(
            run.experiment,
            name=_NOT_IN_A_NAME.sub("-", name),
            source_run_id=run.run_id,
            params=params,
            tags=tags,
            model_type="hitfinder",
        )
        client.log_outputs(run.run_id, [entities.LoggedModelOutput(logged.model_id, step=0)])
        run.log(metrics=metric_values(model.report), model_id=logged.model_id)
        run.values(model.report, "report.json")
        _log_pictures(run, model.report)
        with tempfile.TemporaryDirectory(prefix="hitfinder-") as scratch:
            folder = Path(scratch) / "model"
            place = {"artifact_path": logged.artifact_location, "run_id": run.run_id, "model_id": logged.model_id}
            write_artifact(folder, model, example, sku_columns, place)
            client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def _log_pictures(run: Run, report: dict[str, Any]) -> None:
    # Matplotlib takes half a second that `import hitfinder` need not spend.
    from hitfinder.registry.pictures import draw

    for picture, png in draw(report).items():
        with tempfile.TemporaryDirectory(prefix="hitfinder-") as scratch:
            file = Path(scratch) / f"{picture}.png"
            file.write_bytes(png)
            run.file(file, "pictures")


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


def _described(description: Mapping[str, Any] | None) -> dict[str, str]:
    return {f"data.{key}": str(value)[:LONGEST_PARAM] for key, value in (description or {}).items()}
