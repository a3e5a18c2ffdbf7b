"""Loading: a model by its name in the registry, by its run, or from a folder."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hitfinder.errors import ModelError
from hitfinder.models.hit_model import HitModel, open_model
from hitfinder.registry.tracking import chosen_uri, import_mlflow, speaking_to, store_path

__all__ = ["VERSIONS_TAG", "load_model"]

# MLflow's own tag: which registered versions a logged model has become.
VERSIONS_TAG = "mlflow.modelVersions"
MODEL_INSIDE = "artifacts/model"
FORMS = "models:/hitfinder@champion, models:/hitfinder/3, runs:/<run id>/hitfinder, or the folder of a saved model"


def load_model(source: str | Path, *, folder_for_store: str | Path = "mlruns") -> HitModel:
    """Load a fitted model.

    Parameters
    ----------
    source
        `models:/hitfinder@champion` (an alias), `models:/hitfinder/3` (a version, or `latest`), `models:/m-...` (a
        logged model), `runs:/<run id>/hitfinder`, or the folder that `model.save` wrote. The registry is the one that
        `MLFLOW_TRACKING_URI` names, else `mlflow.db` in `folder_for_store`.
    folder_for_store
        As for `register`.

    Returns
    -------
    HitModel
        A registered model's `version` is `<name>/<number>`.

    Raises
    ------
    ModelError
        There is no such registry, name, alias, version, run or folder, or what is there is no model of hitfinder.
    """
    text = str(source)
    if not re.match(r"(models|runs):", text):
        return _open_folder(Path(source))
    uri = chosen_uri(folder_for_store)
    store = store_path(uri)
    if store is not None and not store.is_file():
        raise ModelError(
            f"{text}: expected a model registry at {store}, got no such file; run `hitfinder train` first, or name the "
            "registry in MLFLOW_TRACKING_URI"
        )
    with speaking_to(uri) as client:
        location, version = _find(client, text)
        model = _fetch(text, location, uri)
    return model if version is None else replace(model, version=version)


def _open_folder(folder: Path) -> HitModel:
    # The folder of a whole MLflow model holds ours.
    return open_model(folder / MODEL_INSIDE if (folder / "MLmodel").is_file() else folder)


def _find(client: Any, source: str) -> tuple[str, str | None]:
    """Return where the files of `source` are, and its registered `name/number` where it has one."""
    if found := re.fullmatch(r"models:/+([^/@]+)(?:@([^/@]+)|/(latest|\d+))/?", source):
        version = _version(client, source, *found.groups())
        return client.get_model_version_download_uri(version.name, version.version), f"{version.name}/{version.version}"
    if found := re.fullmatch(r"models:/+(m-[^/@]+)/?", source):
        return _logged_model(client, source, found[1])
    if found := re.fullmatch(r"runs:/+([^/]+)(?:/([^/]+))?/?", source):
        run = _ask(client.get_run, source, client, found[1])
        ids = [output.model_id for output in (run.outputs.model_outputs if run.outputs else [])]
        for model_id in reversed(ids):
            if found[2] in (None, client.get_logged_model(model_id).name):
                return _logged_model(client, source, model_id)
        raise ModelError(f"{source}: the run holds no such model; give {FORMS}")
    raise ModelError(f"{source}: expected {FORMS}; write it so")


def _version(client: Any, source: str, name: str, alias: str | None, number: str | None) -> Any:
    if alias is not None:
        return _ask(client.get_model_version_by_alias, source, client, name, alias)
    if number is not None and number != "latest":
        return _ask(client.get_model_version, source, client, name, number)
    _ask(client.get_registered_model, source, client, name)
    versions = client.search_model_versions(f"name='{name}'")
    if not versions:
        raise ModelError(f"{source}: no version is registered; run `hitfinder train` first")
    return max(versions, key=lambda version: int(version.version))


def _logged_model(client: Any, source: str, model_id: str) -> tuple[str, str | None]:
    logged = _ask(client.get_logged_model, source, client, model_id)
    versions = json.loads(logged.tags.get(VERSIONS_TAG, "[]"))
    return logged.artifact_location, "{name}/{version}".format(**versions[-1]) if versions else None


def _ask(question: Any, source: str, client: Any, *names: str) -> Any:
    """Put a question about something that may not exist; say what does where it doesn't."""
    try:
        return question(*names)
    except import_mlflow("mlflow.exceptions").MlflowException as error:
        # An unknown alias is an invalid parameter to MLflow.
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        registered = ", ".join(_names(client)) or "nothing"
        raise ModelError(
            f"{source}: not in the registry, which holds {registered}; give one of these, or run `hitfinder train`"
        ) from None


def _names(client: Any) -> list[str]:
    """Return what can be asked for, as `models:/name/number (alias, alias)`, the newest of each name."""
    shown = []
    for registered in client.search_registered_models(max_results=10):
        versions = client.search_model_versions(f"name='{registered.name}'")
        newest = max((int(version.version) for version in versions), default=0)
        aliases = [f"@{alias}" for alias in sorted(registered.aliases)]
        shown.append(f"models:/{registered.name}" + f" ({', '.join([*aliases, f'versions up to {newest}'])})")
    return shown


def _fetch(source: str, location: str, uri: str) -> HitModel:
    """Copy our part of the model out of the store, so that nothing is written to it, and read that."""
    mlflow = import_mlflow("mlflow.artifacts")
    exceptions = import_mlflow("mlflow.exceptions")
    with tempfile.TemporaryDirectory(prefix="hitfinder-") as folder:
        try:
            place = mlflow.download_artifacts(
                artifact_uri=f"{location.rstrip('/')}/{MODEL_INSIDE}", dst_path=folder, tracking_uri=uri
            )
            return open_model(place)
        except (exceptions.MlflowException, OSError) as error:
            raise ModelError(
                f"{source}: expected a model of hitfinder at {location}, found none that can be read "
                f"({str(error).splitlines()[0]}); give one that `hitfinder train` registered"
            ) from None
        except ModelError as error:
            raise ModelError(str(error).replace(str(place), source)) from None
