"""Loading: a model by its name in the registry, by its run, or from a folder."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hitfinder.errors import HitfinderError, ModelError, NotRegisteredError, UnreadableModelError
from hitfinder.models.hit_model import HitModel, open_model
from hitfinder.registry.fetching import download
from hitfinder.registry.tracking import chosen_uri, import_mlflow, speaking_to, store_path

__all__ = ["VERSIONS_TAG", "load_model", "open_champion"]

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
    NotRegisteredError
        There is no such registry, name, alias, version or run.
    UnreadableModelError
        What is there is no model of hitfinder, none of this format, or not whole.
    ModelError
        MLflow or its store of files can't be asked; the base of the two above.
    """
    text = str(source)
    if not re.match(r"(models|runs):", text):
        return _open_folder(Path(source))
    uri = chosen_uri(folder_for_store)
    store = store_path(uri)
    if store is not None and not store.is_file():
        raise NotRegisteredError(
            f"{text}: expected a model registry at {store}, got no such file; run `hitfinder train` first, or name the "
            "registry in MLFLOW_TRACKING_URI"
        )
    with speaking_to(uri) as client:
        location, version = _find(client, text)
        model = _fetch(text, location, uri)
    return model if version is None else replace(model, version=version)


def open_champion(
    name: str, number: str, *, folder_for_store: str | Path = "mlruns"
) -> tuple[HitModel | None, str | None]:
    """Load the version that is champion, to hold another against it; where it can't be opened, say so instead.

    A champion of another format, or one whose files were deleted, must not keep every later version out.

    Returns
    -------
    (HitModel or None, str or None)
        The model, or a note that says why there is none.

    Raises
    ------
    ModelError
        MLflow or its store of files can't be asked: that may be mended, and the champion with it.
    """
    try:
        return load_model(f"models:/{name}/{number}", folder_for_store=folder_for_store), None
    except UnreadableModelError as error:
        return None, f"version {number} is champion but can't be opened, so nothing was held against it ({error})"


def _open_folder(folder: Path) -> HitModel:
    # The folder of a whole MLflow model holds ours.
    return _open(folder / MODEL_INSIDE if (folder / "MLmodel").is_file() else folder, str(folder))


def _open(place: Path, source: str) -> HitModel:
    try:
        return open_model(place)
    except HitfinderError as error:  # its settings too may be of another version
        raise UnreadableModelError(str(error).replace(str(place), source)) from None
    except Exception as error:  # what a broken file makes its readers raise
        why = " ".join(str(error).split())
        raise UnreadableModelError(f"{source}: can't be read ({why}); give another, or fit it again") from None


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
    versions = _newest(_ask(client.get_registered_model, source, client, name))
    if not versions:
        raise NotRegisteredError(f"{source}: no version is registered; run `hitfinder train` first")
    return versions[-1]


def _newest(registered: Any) -> list[Any]:
    """Return the newest version of each stage, the newest of all last.

    Not by a search: its filter has no way to write a name that holds quotes.
    """
    return sorted(registered.latest_versions or [], key=lambda version: int(version.version))


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
        raise NotRegisteredError(
            f"{source}: not in the registry, which holds {registered}; give one of these, or run `hitfinder train`"
        ) from None


def _names(client: Any) -> list[str]:
    """Return what can be asked for, as `models:/name/number (alias, alias)`, the newest of each name."""
    shown = []
    for registered in client.search_registered_models(max_results=10):
        versions = _newest(registered)
        newest = versions[-1].version if versions else 0
        aliases = [f"@{alias}" for alias in sorted(registered.aliases)]
        shown.append(f"models:/{registered.name}" + f" ({', '.join([*aliases, f'versions up to {newest}'])})")
    return shown


def _fetch(source: str, location: str, uri: str) -> HitModel:
    """Copy our part of the model out of the store, so that nothing is written to it, and read that."""
    with tempfile.TemporaryDirectory(prefix="hitfinder-") as folder:
        return _open(download(source, f"{location.rstrip('/')}/{MODEL_INSIDE}", folder, uri), source)
