"""Recording a replay: one run with its table, its picture and its figures; no model comes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hitfinder.admission import admit_signals_and_skus
from hitfinder.promise import count_kept
from hitfinder.registry.facts import data_facts, flat, slug
from hitfinder.registry.runs import recorded
from hitfinder.settings import Settings
from hitfinder.warehouse import TableLike, open_warehouse

__all__ = ["RecordedReplay", "record_replay", "replay_metrics"]

SHARES = ("saved", "hits_share", "hits_vs_full", "value_captured")
EQUAL = ("equal_saved", "equal_saved_low", "equal_saved_high")


@dataclass(frozen=True)
class RecordedReplay:
    """Where a replay was recorded."""

    run_id: str
    tracking_uri: str


def record_replay(
    summary: pd.DataFrame,
    promises: pd.DataFrame,
    signals: TableLike,
    skus: TableLike,
    settings: Settings,
    *,
    files: Sequence[str | Path] = (),
    text: str = "",
    played: Mapping[str, Any] | None = None,
    experiment: str = "hitfinder",
    folder_for_store: str | Path = "mlruns",
) -> RecordedReplay:
    """Log a replay to MLflow as one run, tagged `kind: replay`.

    Parameters
    ----------
    summary, promises
        The attributes of a `ReplayReport`; for the figures.
    signals, skus, settings
        What was replayed.
    files
        The replay's table, results and picture, as they were written; logged under `replay`.
    text
        The table and the headline as a reader sees them; logged as `replay.txt`.
    played
        How it was played, such as `rounds`; logged as parameters `replay.<key>`.
    experiment
        That holds the run.
    folder_for_store
        As for `register`.

    Returns
    -------
    RecordedReplay

    Raises
    ------
    ModelError
        MLflow can't be reached, or refuses.
    DataError
        A table can't be understood.
    """
    con = open_warehouse(threads=settings.model.threads)
    try:
        admit_signals_and_skus(con, signals, skus, period=settings.signals.period, warn=False)
        tags = {**data_facts(con), "settings_digest": settings.digest()}
    finally:
        con.close()
    params = {**flat(settings.to_dict()), **{f"replay.{key}": str(value) for key, value in (played or {}).items()}}
    tests, kept = count_kept(promises)
    promised = settings.policy.confidence
    tags["promise_kept"] = "nothing was promised" if not tests else str(kept >= promised * tests).lower()
    metrics = {**replay_metrics(summary, promises), "promise.confidence": promised}
    with recorded("replay", kind="replay", tags=tags, experiment=experiment, folder_for_store=folder_for_store) as run:
        run.log(params=params, metrics=metrics)
        if text:
            run.text(text, "replay.txt")
        for file in files:
            run.file(file, "replay")
    return RecordedReplay(run.run_id, run.tracking_uri)


def replay_metrics(summary: pd.DataFrame, promises: pd.DataFrame) -> dict[str, float]:
    """Flatten a replay's figures into MLflow's names; what is not known is left out.

    Per policy `<policy>.equal_saved`, with `_low` and `_high`: the share of a full test's exposures that is saved at
    the full test's hits. Per policy and budget `<policy>.budget_<share>.hits_share` and the like. And in how many
    replayed tests the promise about stopping was kept.
    """
    values: dict[str, Any] = {}
    for row in summary.to_dict("records"):
        policy = slug(row["policy"])
        values.update({f"{policy}.{name}": row[name] for name in EQUAL})
        values.update({f"{policy}.budget_{row['budget']:g}.{name}": row[name] for name in SHARES})
    if len(summary):
        values["batches"], values["hits"] = summary["batches"].iloc[0], summary["hits"].iloc[0]
    tests, kept = count_kept(promises)
    values["promise.tests"] = tests
    if tests:
        values["promise.kept_share"] = kept / tests
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
