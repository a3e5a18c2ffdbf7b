"""Tuning: other settings for the trees, judged by the value captured at k, out of time."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from hitfinder.admission import admit_signals_and_skus, say_where_ids_differ
from hitfinder.comparison import MIN_BATCHES
from hitfinder.errors import SettingsError
from hitfinder.features import moment_of_knowledge
from hitfinder.history import History, know
from hitfinder.registry.facts import data_facts
from hitfinder.settings import Settings
from hitfinder.tuning.folds import TuningFold, tuning_folds
from hitfinder.tuning.search import Search, members_of, trees_of
from hitfinder.tuning.space import space_around
from hitfinder.tuning.study import FINISHED, open_study
from hitfinder.tuning.verdict import judge, said
from hitfinder.warehouse import TableLike, open_warehouse

__all__ = ["Tuned", "tune", "tune_on"]

# Changes whenever a trial's value would come out differently on the same data.
FORMAT = 1
# With fewer trials a forest knows nothing about seven parameters.
MIN_FOR_IMPORTANCE = 12


@dataclass(frozen=True)
class Tuned:
    """What tuning came to.

    `settings` is what to fit with: those that were given, with other `trees` where that helped. `report` says what was
    found in plain values, `trials` has a row for each trial, with its settings.
    """

    settings: Settings
    report: dict[str, Any]
    trials: pd.DataFrame

    def for_report(self, ranked_by: str) -> dict[str, Any]:
        """Return what a fitted model's report should say of the search that its settings come from."""
        told: dict[str, Any] = dict(self.report)
        told = {name: told[name] for name in ("helped", "note", "study", "search", "out_of_time") if name in told}
        if ranked_by not in ("boosted", "ranker"):
            remark = f"the list is ranked by {ranked_by}, which has no trees: tuning changes nothing in it"
        elif told["helped"]:
            remark = (
                "the search has seen the folds that the fit is judged on, but for the newest: those figures flatter "
                "the tuned trees a little, the gain out of time does not"
            )
        else:
            remark = "the fit is what it would have been without tuning"
        return {**told, "remark": remark}


def tune(
    signals: TableLike,
    skus: TableLike,
    settings: Settings,
    outcomes: TableLike | None = None,
    as_of: Any = None,
    *,
    trials: int,
    time_budget: pd.Timedelta | None = None,
    workers: int = 1,
    study: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
    decisions: TableLike | None = None,
) -> Tuned:
    """Search for better settings of the trees; pure but for the study's file.

    A trial's figure is the value captured at k by the boosted model under its settings, by batch, over rolling folds
    with embargo. The newest fold is kept from the search: the gain there is what `report` calls `out_of_time`.

    Parameters
    ----------
    signals, skus, settings, outcomes, as_of, decisions
        As in `fit`. `settings.trees` is what trials are held against.
    trials
        How many are wanted in all, those of an earlier call with the same inputs and study included.
    time_budget
        No trial is begun later than this after the call; one that is running ends with its fold and is not counted.
        The settings that are given are always judged in full.
    workers
        Trials side by side. With one, the same inputs and seed give the same result, on a study that was interrupted
        as well; with more, what is tried depends on which trial ends first.
    study
        A file for the trials, see `open_study`; None keeps them in memory.
    progress
        Is told in words what goes on.

    Returns
    -------
    Tuned

    Raises
    ------
    SettingsError
        A count or a duration that can't be.
    HitfinderError
        The study's file can't be used.
    DataError, NotEnoughHistoryError
        As in `fit`.
    """
    for name, count in (("trials", trials), ("workers", workers)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise SettingsError(f"{name}: expected a whole number from 1 up, got {count!r}")
    if time_budget is not None and not time_budget > pd.Timedelta(0):
        raise SettingsError(f"time_budget: expected a time above 0, got {time_budget}")
    began, tell = time.monotonic(), progress or (lambda _words: None)
    deadline = math.inf if time_budget is None else began + time_budget.total_seconds()
    con = open_warehouse(threads=settings.model.threads)
    try:
        admit_signals_and_skus(
            con, signals, skus, period=settings.signals.period, outcomes=outcomes, decisions=decisions, warn=False
        )
        say_where_ids_differ(con, allowed=0.02)
        moment = moment_of_knowledge(con, as_of)
        history, _ = know(
            con, settings, moment, outcomes_given=outcomes is not None, decisions_given=decisions is not None
        )
        try:
            tell("making the folds")
            folds = tuning_folds(history)
            name = _name_of_study(con, history, moment)
        finally:
            history.close()
    finally:
        con.close()
    tuned = tune_on(
        folds,
        settings,
        name=name,
        about={"settings": settings.to_dict(), "as_of": moment.isoformat()},
        trials=trials,
        deadline=deadline,
        workers=workers,
        study=study,
        progress=tell,
    )
    ready = tuned.report["seconds"]
    seconds = {**ready, "preparing": time.monotonic() - began - ready["total"], "total": time.monotonic() - began}
    return replace(tuned, report={**tuned.report, "as_of": moment.isoformat(), "seconds": seconds})


def tune_on(
    folds: Sequence[TuningFold],
    settings: Settings,
    *,
    name: str,
    trials: int,
    about: Mapping[str, Any] | None = None,
    deadline: float = math.inf,
    workers: int = 1,
    study: str | Path | None = None,
    progress: Callable[[str], None] = lambda _words: None,
) -> Tuned:
    """Search on folds that are made already, the newest last; see `tune`.

    `name` is the study's, and has to change with whatever the folds were made from; `deadline` is on the clock of
    `time.monotonic`.
    """
    began = time.monotonic()
    base: dict[str, Any] = {"helped": False, "study": name, "workers": workers, "members": members_of(settings)}
    n_batches = sum(fold.about["batches"] for fold in folds[:-1])
    if n_batches < MIN_BATCHES:
        note = (
            f"tuning can't be judged: it takes {MIN_BATCHES} batches in forward folds before the newest fold, there "
            f"are {n_batches}; no trial was run, and the settings that were given stay"
        )
        nothing = {**base, "note": note, "trials": _counts([], trials, 0), "seconds": {"total": 0.0}}
        return Tuned(settings, nothing, pd.DataFrame())
    with open_study(None if study is None else Path(study), name, about or {}) as opened:
        before = len(opened.get_trials(deepcopy=False, states=FINISHED))
        Search(opened, folds[:-1], settings, trials, deadline, progress).run(workers)
        done = opened.get_trials(deepcopy=False)
        gains = _gains(done)
        importance = _importance(done, gains, settings.seed)
    complete = [trial for trial in done if trial.state == TrialState.COMPLETE]
    best = max(complete, key=lambda trial: (trial.value, -trial.number))
    progress("judging the best trial on the newest fold")
    fresh = range(members_of(settings), members_of(settings) + settings.model.seeds)
    verdict = judge(folds[:-1], folds[-1], settings.trees, trees_of(best), members=fresh, seed=settings.seed)
    chosen = settings.model_copy(update={"trees": trees_of(best)}) if verdict["helped"] else settings
    seconds = [trial.user_attrs["seconds"] for trial in done if "seconds" in trial.user_attrs]
    report = {
        **base,
        **verdict,
        "note": said(verdict, same=trees_of(best) == settings.trees),
        "trials": _counts(done, trials, before),
        "best_trial": best.number,
        "trees": {
            "given": settings.trees.model_dump(),
            "best": trees_of(best).model_dump(),
            "chosen": chosen.trees.model_dump(),
        },
        "importance": importance,
        "importance_note": _why_no_importance(gains),
        "seconds": {"per_trial": statistics.median(seconds), "total": time.monotonic() - began},
    }
    return Tuned(chosen, report, _table(done, gains))


def _name_of_study(con: Any, history: History, moment: pd.Timestamp) -> str:
    """Name what decides a trial's value: data, labels, settings, the space and the code that fits."""
    settings = history.settings.to_dict()
    settings["model"].pop("threads")
    labels = int(pd.util.hash_pandas_object(history.labels.astype(str), index=False).sum())
    space = {name: repr(one) for name, one in space_around(history.settings.trees).items()}
    versions = {name: metadata.version(name) for name in ("lightgbm", "optuna")}
    parts = [
        FORMAT,
        members_of(history.settings),
        data_facts(con)["data_digest"],
        labels,
        moment.isoformat(),
        settings,
        space,
        versions,
    ]
    return "trees-" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _counts(done: list[FrozenTrial], wanted: int, before: int) -> dict[str, int]:
    """Count trials; `stopped` are those that a kill or the time cut off, and that were tried again or would be."""
    states = [trial.state for trial in done]
    counts = {
        "complete": states.count(TrialState.COMPLETE),
        "pruned": states.count(TrialState.PRUNED),
        "stopped": states.count(TrialState.FAIL),
    }
    finished = counts["complete"] + counts["pruned"]
    return {"wanted": wanted, "finished": finished, **counts, "of_an_earlier_call": before}


def _gains(done: list[FrozenTrial]) -> dict[int, float]:
    """Return how far each finished trial is above the settings that were given, on the batches that it saw.

    So trials that were pruned at different folds can be held against each other and against complete ones.
    """
    finished = [trial for trial in done if trial.state in FINISHED]
    given = finished[0].intermediate_values  # they go first
    gains = {}
    for trial in finished:
        seen = trial.intermediate_values
        gains[trial.number] = statistics.fmean(value - given[step] for step, value in seen.items())
    return gains


def _why_no_importance(gains: dict[int, float]) -> str:
    if len(gains) < MIN_FOR_IMPORTANCE:
        return f"it takes {MIN_FOR_IMPORTANCE} trials to tell which settings matter, there are {len(gains)}"
    if len(set(gains.values())) < 2:
        return "all trials came to the same figure: no setting matters"
    return ""


def _importance(done: list[FrozenTrial], gains: dict[int, float], seed: int) -> dict[str, float]:
    """Return each parameter's share of the spread between trials (fANOVA); empty where they are too few or alike."""
    if _why_no_importance(gains):
        return {}
    study = optuna.create_study(direction="maximize", storage=optuna.storages.InMemoryStorage())
    study.add_trials(
        [
            optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=gains[trial.number])
            for trial in done
            if trial.number in gains
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    return {k: float(v) for k, v in optuna.importance.get_param_importances(study, evaluator=evaluator).items()}


def _table(done: list[FrozenTrial], gains: dict[int, float]) -> pd.DataFrame:
    """One row per trial: how it ended, its figure (a pruned trial's is over the folds that it saw), its settings."""
    rows = []
    for trial in done:
        told, seen = trial.user_attrs, list(trial.intermediate_values.values())
        by_fold = told.get("value_by_fold", [])
        rows.append(
            {
                "number": trial.number,
                "state": {TrialState.FAIL: "stopped"}.get(trial.state, trial.state.name.lower()),
                "value": sum(seen) / len(seen) if seen and by_fold else math.nan,
                "gain": gains.get(trial.number, math.nan),
                "folds": len(by_fold),
                "known_good": told.get("known_good", False),
                "seconds": told.get("seconds", math.nan),
                **told.get("settings", {}).get("trees", {}),
                **{f"fold_{n}": value for n, value in enumerate(by_fold, start=1)},
            }
        )
    table = pd.DataFrame(rows)
    # A trial that was killed at once has no settings: the others' whole numbers stay whole.
    return table.astype(dict.fromkeys(("rounds", "num_leaves", "min_skus_in_leaf"), "Int64"))
