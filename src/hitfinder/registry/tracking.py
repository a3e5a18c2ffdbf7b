"""Where MLflow is, how to speak to it, and how to keep it quiet."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from hitfinder.errors import ModelError

__all__ = [
    "artifact_home",
    "chosen_uri",
    "import_mlflow",
    "open_client",
    "same_store",
    "shown_uri",
    "speaking_to",
    "store_at",
    "store_path",
    "tracking_uri",
]

URI = "MLFLOW_TRACKING_URI"
SQLITE = "sqlite:///"
_HERE: ContextVar[str | None] = ContextVar("hitfinder's store", default=None)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
PORTS = {"http": 80, "https": 443}
# What a store of files is spoken to with, where its module and its package have different names.
PACKAGES = {
    "azure": "azure-identity azure-storage-blob azure-storage-file-datalake",
    "botocore": "boto3",
    "google": "google-cloud-storage",
    "paramiko": "pysftp",
}
# Each can be set by the user; these are what hitfinder asks for where they are not.
WISHES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Else MLflow copies the lock file of whatever project the user stands in into the model.
    "MLFLOW_UV_AUTO_DETECT": "false",
}


def tracking_uri(default_home: str | Path = "mlruns") -> str:
    """Return where runs and models are kept.

    Parameters
    ----------
    default_home
        The folder for the database and the artifacts where `MLFLOW_TRACKING_URI` names nothing. It is made when
        missing.

    Returns
    -------
    str
        The environment's `MLFLOW_TRACKING_URI`, or `sqlite:///<default_home>/mlflow.db` with the whole path.

    Raises
    ------
    ModelError
        The folder can't be made.
    """
    uri = chosen_uri(default_home)
    if _HERE.get() is None and not os.environ.get(URI, "").strip():
        try:
            Path(default_home).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(f"{default_home}: can't be made ({error.strerror}); name another place in {URI}") from None
    return uri


def chosen_uri(default_home: str | Path = "mlruns") -> str:
    """Return what `tracking_uri` returns, and make nothing."""
    # Absolute: MLflow keeps a store open by its name, and a process may change its working folder.
    return _HERE.get() or os.environ.get(URI, "").strip() or _store_in(default_home)


@contextmanager
def store_at(folder: str | Path) -> Iterator[str]:
    """Keep all runs and models in a folder's own store, whatever `MLFLOW_TRACKING_URI` names; yield its address.

    For what must not touch a registry that serves anybody.

    Raises
    ------
    ModelError
        The folder can't be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"{folder}: can't be made ({error.strerror}); name another place") from None
    before = _HERE.set(_store_in(folder))
    try:
        yield _store_in(folder)
    finally:
        _HERE.reset(before)


def _store_in(folder: str | Path) -> str:
    return f"{SQLITE}{Path(folder).absolute().as_posix()}/mlflow.db"


def store_path(uri: str) -> Path | None:
    """Return the file of a SQLite store, or None for any other kind.

    >>> store_path("sqlite:///mlruns/mlflow.db"), store_path("http://127.0.0.1:5000")
    (PosixPath('mlruns/mlflow.db'), None)
    """
    return Path(uri.removeprefix(SQLITE).split("?")[0]) if uri.startswith(SQLITE) else None


def same_store(uri: str) -> str:
    """Return a name of the store that does not depend on how its address is spelt.

    >>> same_store("http://LocalHost:5000/") == same_store("http://me:secret@127.0.0.1:5000")
    True
    """
    store = store_path(uri)
    if store is not None:
        return str(store.resolve())
    parts = urlparse(uri)
    try:
        port = parts.port or PORTS[parts.scheme]
    except (KeyError, ValueError):  # another kind of address, or none at all
        return uri
    host = parts.hostname or ""
    return f"{LOOPBACK[0] if host in LOOPBACK else host}:{port}{parts.path.rstrip('/')}"


def shown_uri(uri: str) -> str:
    """Return an address without the user and the password that may stand in it.

    >>> shown_uri("https://me:secret@mlflow.example.com/team")
    'https://***@mlflow.example.com/team'
    """
    user, at, _ = urlparse(uri).netloc.rpartition("@")
    return uri.replace(f"{user}@", "***@", 1) if at else uri


def artifact_home(uri: str) -> str | None:
    """Return where a new experiment keeps its files: beside a SQLite store; None where a server decides."""
    store = store_path(uri)
    return None if store is None else (store.parent / "artifacts").resolve().as_uri()


def import_mlflow(module: str = "mlflow") -> Any:
    """Import MLflow, or a part of it, with telemetry and progress bars off.

    It takes seconds, so it happens when first needed. The wishes stand in the environment, where MLflow and the
    processes that it starts read them; a wish that the user has set stays as it is.
    """
    for name, value in WISHES.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        # MLflow warns about its own type hints when it is imported.
        warnings.simplefilter("ignore", UserWarning)
        return importlib.import_module(module)


def open_client(uri: str) -> Any:
    """Return an MLflow client for `uri`; it changes nothing that is global to the process."""
    return import_mlflow("mlflow.tracking").MlflowClient(
        tracking_uri=uri, registry_uri=(None if _HERE.get() else os.environ.get("MLFLOW_REGISTRY_URI")) or uri
    )


@contextmanager
def speaking_to(uri: str) -> Iterator[Any]:
    """Open a client, keep MLflow quiet meanwhile, and turn its refusals into one line.

    Raises
    ------
    ModelError
        Nothing answers at `uri`, or MLflow refuses, or lacks a package.
    """
    _require_answer(uri)
    exceptions = import_mlflow("mlflow.exceptions")
    from sqlalchemy.exc import SQLAlchemyError  # comes with MLflow, and is only met beside it

    loggers = [
        (logging.getLogger(name), level) for name, level in (("mlflow", logging.ERROR), ("alembic", logging.ERROR))
    ]
    before = [logger.level for logger, _ in loggers]
    try:
        for logger, level in loggers:
            logger.setLevel(level)
        with warnings.catch_warnings():
            # What MLflow warns of here is about how hitfinder calls it, which no user can mend.
            warnings.simplefilter("ignore")
            yield open_client(uri)
    except (exceptions.MlflowException, SQLAlchemyError, OSError) as error:
        # MLflow's own words may name the address as it stands.
        why = _first_line(error).replace(uri.rstrip("/"), shown_uri(uri).rstrip("/"))
        raise ModelError(f"{shown_uri(uri)}: MLflow refused ({why}); mend that, or change {URI}") from error
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        package = PACKAGES.get(module, module or "it")
        raise ModelError(
            f"{shown_uri(uri)}: to reach what it keeps, MLflow needs a package that is not installed here ({error}); "
            f"pip install {package}"
        ) from error
    finally:
        for (logger, _), level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _require_answer(uri: str) -> None:
    """Ask once, briefly: MLflow itself tries for minutes before it says that there is no server."""
    parts = urlparse(uri)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.hostname):
        return  # the way there leads over a proxy, which MLflow knows how to ask
    try:
        port = parts.port or PORTS[parts.scheme]
        socket.create_connection((parts.hostname, port), timeout=10).close()
    except (OSError, ValueError) as error:
        raise ModelError(f"{shown_uri(uri)}: no MLflow server answers ({error}); start it, or change {URI}") from None


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
