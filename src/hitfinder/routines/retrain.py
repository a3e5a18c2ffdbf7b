"""Retraining: new signals to challenger, gate, champion, in one recorded run that can be left alone.

The newest closed batches are what a challenger has to be judged on, and what the next champion has to learn from. So
the same recipe is fitted twice: first blind to those batches, and held against the champion on them; then on all that
is known. The second is what is registered, and the first is the evidence for it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from hitfinder.admission import Admission, admit_signals_and_skus, say_where_ids_differ
from hitfinder.errors import NotRegisteredError, UnreadableModelError
from hitfinder.features import moment_of_knowledge
from hitfinder.gate import MIN_UNSEEN, Verdict, gate_admitted, last_open, unseen_batches
from hitfinder.locks import BusyError, only_one
from hitfinder.models.hit_model import HitModel
from hitfinder.ranking import describe_admitted
from hitfinder.registry.checks import Check, check_version
from hitfinder.registry.facts import code_facts, data_facts
from hitfinder.registry.loading import load_model, open_champion
from hitfinder.registry.promotion import promote, standing
from hitfinder.registry.recording import Registered, point_to, register_admitted
from hitfinder.registry.runs import Run, find_finished, recorded
from hitfinder.registry.tracking import same_store, store_path, tracking_uri
from hitfinder.settings import Settings
from hitfinder.training import fit_admitted
from hitfinder.warehouse import TableLike, open_warehouse

__all__ = ["Retrained", "lock_of", "retrain"]

# The two fits of one recipe may disagree about SKUs, as far as a few weeks' learning goes.
LEAST_AGREEMENT = 0.5


@dataclass(frozen=True)
class Retrained:
    """What became of a retraining.

    Attributes
    ----------
    outcome
        `busy`: another one is at work, this one left. `unchanged`: one with the same data, settings and code has
        finished before. `first`: the first version, champion by default. `waiting`: registered, but too few batches
        have closed that the champion has not seen. `refused`, `promoted`: by the gate.
    reason
        In one sentence.
    version, champion
        The version that was registered, and the champion's after all; None where there is none.
    run_id
        The run that holds the steps.
    changes
        What is different from the champion before: name, before, after.
    """

    outcome: str
    reason: str
    version: str | None = None
    champion: str | None = None
    run_id: str | None = None
    changes: tuple[tuple[str, object, object], ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.outcome}: {self.reason}"]
        lines += [f"  {name}: {before} -> {after}" for name, before, after in self.changes]
        return "\n".join(lines)


@dataclass(frozen=True)
class Work:
    """What the steps of one retraining share: the admitted tables, the recipe, where it goes, whom to tell."""

    con: Any
    settings: Settings
    moment: pd.Timestamp
    admissions: list[Admission]
    given: dict[str, bool]
    min_batches: int
    home: Path
    relabel: Callable[[pd.DataFrame], pd.DataFrame] | None
    tell: Callable[[str], None]

    def fit(self, as_of: pd.Timestamp) -> HitModel:
        """Fit the recipe on what was known at a moment."""
        return fit_admitted(self.con, self.settings, as_of, self.admissions, relabel=self.relabel, **self.given)


@dataclass(frozen=True)
class Champion:
    """The version that a challenger is held against; where it can't be opened, `model` is None and `note` says why."""

    version: str
    model: HitModel | None
    note: str | None

    @property
    def number(self) -> str:
        """Of the version."""
        return self.version.rpartition("/")[2]

    def said(self, reason: str) -> str:
        """Add the note to a reason."""
        return reason if self.note is None else f"{reason}; {self.note}"


def retrain(
    signals: TableLike,
    skus: TableLike,
    settings: Settings,
    *,
    outcomes: TableLike | None = None,
    decisions: TableLike | None = None,
    as_of: Any = None,
    name: str = "hitfinder",
    experiment: str = "hitfinder",
    folder_for_store: str | Path = "mlruns",
    min_batches: int = MIN_UNSEEN,
    wait: float = 0.0,
    parent: Run | None = None,
    relabel: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Retrained:
    """Fit, judge, register, and promote where the evidence carries.

    Parameters
    ----------
    signals, skus, settings, outcomes, decisions, as_of
        As for `fit`.
    name, experiment, folder_for_store
        As for `register`.
    min_batches
        It takes so many closed batches that the champion has not learned from.
    wait
        Seconds to wait for another retraining of the same model on this machine before leaving.
    parent
        A run that this is a step of.
    relabel
        Changes the labels before anything is learned from them: what a control wants.
    progress
        Called with a few words before each step.

    Returns
    -------
    Retrained

    Raises
    ------
    HitfinderError
        The data, the settings or the registry refuse; the run is ended as failed.

    Notes
    -----
    Run twice with the same data, settings and code, it does nothing the second time. Killed at any moment, it leaves
    the registry whole, and the next call starts over; a version that had been registered already is not registered
    again. Two at once on one machine: the second waits, or leaves. On two machines: both may register, and the second
    to promote finds another champion than it was held against, and is refused.

    Where the champion can't be opened any more, such as after a change of the format, the recipe is held against the
    best simple rule alone, on the newer half of the closed batches, and the reason says so.
    """
    tell = progress or _say_nothing
    home = Path(folder_for_store)
    with ExitStack() as stack:
        try:
            stack.enter_context(only_one(lock_of(name, home), what=f"models:/{name}", seconds=wait))
        except BusyError as busy:
            return Retrained("busy", str(busy))
        con = stack.enter_context(closing(open_warehouse(threads=settings.model.threads)))
        tell("reading")
        admissions = admit_signals_and_skus(
            con, signals, skus, period=settings.signals.period, outcomes=outcomes, decisions=decisions
        )
        say_where_ids_differ(con, allowed=0.02)
        moment = moment_of_knowledge(con, as_of)
        given = {"outcomes_given": outcomes is not None, "decisions_given": decisions is not None}
        work = Work(con, settings, moment, admissions, given, min_batches, home, relabel, tell)
        return _retrain(work, name, experiment, parent)


def lock_of(name: str, folder_for_store: str | Path = "mlruns") -> Path:
    """Return the lock of a registered model: beside a store in a file, else in this machine's temporary folder.

    Raises
    ------
    ModelError
        The store's folder can't be made.
    """
    uri = tracking_uri(folder_for_store)
    store = store_path(uri)
    folder = Path(tempfile.gettempdir()) if store is None else store.resolve().parent
    return folder / f".retrain-{hashlib.sha256(repr((same_store(uri), name)).encode()).hexdigest()[:16]}.lock"


def _retrain(work: Work, name: str, experiment: str, parent: Run | None) -> Retrained:
    tags = _tags(work, name)
    store: dict[str, Any] = {"experiment": experiment, "folder_for_store": work.home}
    number = _champion(name, work.home)
    before = find_finished("retrain", {"model_name": name, "retrain_key": tags["retrain_key"]}, **store)
    if before is not None and number is not None:
        reason = f"run {before} had the same data, settings and code; nothing was done"
        return Retrained("unchanged", reason, champion=number, run_id=before)
    opened = (
        recorded("retrain", kind="retrain", tags=tags, **store)
        if parent is None
        else parent.step("retrain", kind="retrain", **tags)
    )
    with opened as run:
        judged = None
        if number is not None:
            champion = Champion(f"{name}/{number}", *open_champion(name, number, folder_for_store=work.home))
            judged = (champion, *_judge_recipe(run, work, champion))
        work.tell("fitting on all that is known")
        model = work.fit(work.moment)
        work.tell("registering")
        challenger, number = _register_once(model, work, name, run, tags["data_digest"])
        done = _decide(run, work, judged, challenger, number)
        run.log(tags={"outcome": done.outcome, "reason": done.reason, "version": challenger.version})
        run.text(str(done), "what_changed.txt")
    return done


def _tags(work: Work, name: str) -> dict[str, str]:
    """Stamp code, data, settings and seed, and one key of all that the retraining depends on."""
    tags = {
        **code_facts(),
        **data_facts(work.con),
        "settings_digest": work.settings.digest(),
        "seed": str(work.settings.seed),
        "as_of": work.moment.isoformat(),
        "model_name": name,
    }
    # A control is not what it controls.
    depends = {**tags, "relabelled": str(work.relabel is not None), "least": str(work.min_batches)}
    key = hashlib.sha256(repr(sorted(depends.items())).encode()).hexdigest()[:24]
    return {**tags, "retrain_key": key}


def _judge_recipe(run: Run, work: Work, champion: Champion) -> tuple[HitModel | None, Verdict | str]:
    """Fit the recipe blind to the batches that the champion has not seen, and hold it against the champion on them."""
    known = [] if champion.model is None else [champion.model]
    batches = unseen_batches(work.con, work.settings, known, work.moment, **work.given).batches
    if len(batches) < work.min_batches:
        which = "" if champion.model is None else f" that {champion.version} has not seen"
        return None, champion.said(f"{len(batches)} batches have closed{which}, it takes {work.min_batches}")
    if champion.model is None:  # then all are unseen, and the blind fit has to learn from some
        batches = batches[-max(work.min_batches, len(batches) // 2) :]
    blind = last_open(_first_launch(work.con, batches), work.settings)
    with run.step("fit, blind to the newest batches", kind="retrain-blind", as_of=blind.isoformat()) as step:
        work.tell(f"fitting blind to the newest {len(batches)} batches")
        held = work.fit(blind)
        step.values(held.report, "report.json")
    with run.step("gate", kind="retrain-gate") as step:
        verdict = gate_admitted(
            work.con,
            held,
            champion.model,
            work.settings,
            work.moment,
            min_batches=work.min_batches,
            progress=work.tell,
            **work.given,
        )
        if champion.note is not None:
            verdict = replace(verdict, notes=(*verdict.notes, champion.note))
        step.log(metrics=verdict.metrics(), tags={"gate": "passed" if verdict.passed else "refused"})
        step.values(verdict.to_dict(), "evidence.json")
        step.text(verdict.say(), "evidence.txt")
    return held, verdict


def _first_launch(con: Any, batches: Sequence[str]) -> pd.Timestamp:
    asked = "select min(launched_at) from catalog where list_contains(?, batch_id)"
    return pd.Timestamp(con.execute(asked, [list(batches)]).fetchone()[0])


def _register_once(model: HitModel, work: Work, name: str, run: Run, digest: str) -> tuple[HitModel, str]:
    """Register the model, unless a call that was killed has done so already."""
    try:
        newest = load_model(f"models:/{name}@challenger", folder_for_store=work.home)
    except (NotRegisteredError, UnreadableModelError):
        newest = None
    if newest is not None and newest.digest() == model.digest():
        number = newest.version.rpartition("/")[2]
        point_to(name, number, folder_for_store=work.home)  # it may have been killed between the two aliases
        return newest, number
    registered: Registered
    model, registered = register_admitted(
        work.con,
        model,
        name=name,
        folder_for_store=work.home,
        parent=run,
        data_description={"digest_of_all": digest},
    )
    return model, registered.version


def _decide(
    run: Run,
    work: Work,
    judged: tuple[Champion, HitModel | None, Verdict | str] | None,
    challenger: HitModel,
    number: str,
) -> Retrained:
    """Move the alias where the evidence carries, and say what became of the challenger, version `number`.

    `judged` holds the champion, the fit that was held against it, and what came of that; None where there was no
    champion.
    """
    about: dict[str, Any] = {"version": challenger.version, "run_id": run.run_id}
    now = standing(challenger.version.rpartition("/")[0], folder_for_store=work.home)
    about["champion"] = now.champion
    if judged is None:
        if now.champion != number:
            reason = f"{challenger.version} is registered; version {now.champion} became champion meanwhile"
            return Retrained("waiting", reason, **about)
        reason = f"{challenger.version} is the first version, so it is champion; {challenger.report['note']}"
        return Retrained("first", reason, changes=_changes(None, challenger), **about)
    champion, held, verdict = judged
    if isinstance(verdict, str) or held is None:
        return Retrained("waiting", f"{challenger.version} is registered; {verdict}", **about)
    if verdict.too_little:
        reason = champion.said(f"{challenger.version} is registered; {verdict.reason}")
        return Retrained("waiting", reason, **about)
    if challenger.version == champion.version:
        return Retrained("unchanged", f"{champion.version} is this model already", **about)
    if now.challenger == number and now.rolled_back:
        reason = f"{challenger.version} was rolled back ({now.rolled_back}); promote it by name where that was wrong"
        return Retrained("refused", reason, **about)
    work.tell("checking the version")
    checks = check_version(now.name, number, folder_for_store=work.home)
    moved = promote(
        now.name,
        number,
        verdict,
        champion=champion.number,
        checks=[*checks, _agreement(held, challenger, work)],
        tags={"gate_evidence_of": f"the same recipe as of {held.report['as_of']}"},
        parent=run,
        folder_for_store=work.home,
    )
    after = standing(now.name, folder_for_store=work.home)
    return Retrained(
        "promoted" if moved.promoted else "refused",
        champion.said(f"{challenger.version}: {moved.reason}"),
        changes=_changes(champion, challenger) if moved.promoted else (),
        **{**about, "champion": after.champion},
    )


def _agreement(held: HitModel, model: HitModel, work: Work) -> Check:
    """Hold the two fits of the recipe against each other on all SKUs that were seen: the evidence is of the first."""
    margins = []
    for each in (held, model):
        table = describe_admitted(work.con, each, work.moment)
        margins.append(each.margin(table[table["age_days"] > 0]))
    # A model that says the same of every SKU agrees with none.
    flat = any(np.ptp(margin) == 0 for margin in margins)
    found = 0.0 if flat else float(spearmanr(*margins).statistic)
    passed = found >= LEAST_AGREEMENT
    said = f"the blind fit and the whole one agree on SKUs (rank correlation {found:.2f})" if passed else (
        f"the blind fit and the whole one disagree on SKUs (rank correlation {found:.2f}, it takes "
        f"{LEAST_AGREEMENT}), so the evidence of the first is none for the second"
    )  # fmt: skip
    return Check("agreement", passed, said, {"rank_correlation": found})


def _champion(name: str, home: Path) -> str | None:
    try:
        return standing(name, folder_for_store=home).champion
    except NotRegisteredError:
        return None


def _changes(before: Champion | None, after: HitModel) -> tuple[tuple[str, object, object], ...]:
    was: dict[str, object] = {}
    if before is not None:
        was = {"champion": before.version} if before.model is None else _facts(before.model)
    now = _facts(after)
    return tuple((name, was.get(name, "none"), now[name]) for name in now if was.get(name) != now[name])


def _facts(model: HitModel) -> dict[str, object]:
    """Return what is worth a line when it changes."""
    report = model.report
    figures = report["metrics"].get(report["ranked_by"], {})
    return {
        "champion": model.version,
        "settings": model.settings.digest(),
        "learned from SKUs": report["n_skus"],
        "hits among them": report["n_hits"],
        "newest launch learned from": report["last_launch"],
        "ranked by": report["ranked_by"],
        "average precision, out of time": round(figures.get("average_precision", float("nan")), 3),
    }


def _say_nothing(_words: str) -> None:
    return
