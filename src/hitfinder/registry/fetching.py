"""Fetching: files out of the artifact store, wherever that is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hitfinder.errors import ModelError, UnreadableModelError
from hitfinder.registry.tracking import import_mlflow, shown_uri

__all__ = ["download"]


def download(source: str, location: str, folder: str | Path, uri: str) -> Path:
    """Copy what a store holds at a location to a folder; to be called while speaking to MLflow.

    Parameters
    ----------
    source
        What was asked for, such as `models:/hitfinder/3`.
    location
        Where the store keeps it.
    folder
        That gets the copy.
    uri
        Of MLflow.

    Raises
    ------
    UnreadableModelError
        The store answers, and holds nothing there.
    ModelError
        It can't be fetched, for another reason.
    """
    artifacts = import_mlflow("mlflow.artifacts")
    try:
        return Path(artifacts.download_artifacts(artifact_uri=location, dst_path=str(folder), tracking_uri=uri))
    except ImportError:
        raise  # which `speaking_to` turns into what to install
    except Exception as error:  # each kind of store has errors of its own
        gone = False
        with suppress(Exception):
            gone = not artifacts.list_artifacts(artifact_uri=location, tracking_uri=uri)
        if gone:
            raise UnreadableModelError(
                f"{source}: expected a model of hitfinder at {shown_uri(location)}, found none that can be read; give "
                "one that `hitfinder train` registered"
            ) from None
        why = " ".join(str(error).split())
        for address in (location, uri.rstrip("/")):  # which MLflow's own words may name as they stand
            why = why.replace(address, shown_uri(address))
        raise ModelError(
            f"{source}: can't be fetched from {shown_uri(location)} ({why}); try again, or mend that store"
        ) from None
