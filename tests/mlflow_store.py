"""Empty MLflow stores. MLflow makes one by running all its migrations, which takes seconds: here that is done once."""

from __future__ import annotations

import logging
import os
import sqlite3
import warnings
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock

from hitfinder.registry.tracking import import_mlflow

NAME = "an empty store.db"


def shared_folder(tmp_path_factory):
    """Return the folder that the workers of one test run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def copy_to(place, folder):
    """Write an empty store to `place`; `folder` keeps the one that MLflow made."""
    made = _made_in(Path(folder))
    with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(place)) as target:
        source.backup(target)


def begin_as_copies(patch, folder):
    """Let MLflow in this process begin an empty SQLite store as a copy of the one that it made before."""
    with _quiet():
        databases, registry = map(
            import_mlflow, ("mlflow.store.db.utils", "mlflow.store.model_registry.sqlalchemy_store")
        )
    migrate = databases._initialize_tables

    def begin(engine):
        place = engine.url.database
        plain = engine.url.get_backend_name() == "sqlite" and place and Path(place).name != NAME
        if not plain or not databases._is_empty_database(engine):
            migrate(engine)
            return
        try:
            copy_to(place, folder)
        except sqlite3.Error:  # a place that can't be written: MLflow says so in its own words
            migrate(engine)
        assert databases._all_tables_exist(engine)

    for module in (databases, registry):
        patch.setattr(module, "_initialize_tables", begin)


@contextmanager
def _quiet():
    """Keep MLflow from telling of each migration: whoever needs the first store may look at what was said."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def _made_in(folder):
    made = folder / NAME
    with FileLock(folder / "an empty store.lock"):
        if not made.exists():
            databases = import_mlflow("mlflow.store.db.utils")
            half = folder / "half made" / NAME
            half.parent.mkdir(exist_ok=True)
            half.unlink(missing_ok=True)
            engine = databases.create_sqlalchemy_engine(f"sqlite:///{half}")
            with _quiet():
                databases._initialize_tables(engine)
            engine.dispose()
            half.replace(made)
    return made
