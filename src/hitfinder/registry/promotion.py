"""Promotion: the alias `champion` moves to another version, with the evidence written down first; and back again.

Each version that becomes champion carries the tag `champion_before`, set before the alias moves. A roll-back follows
it, so that it works whenever a promotion was killed, and two of them go two champions back.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from hitfinder.errors import ModelError, NotRegisteredError, UnreadableModelError
from hitfinder.registry.checks import Check, check_version
from hitfinder.registry.loading import load_model
from hitfinder.registry.recording import CHALLENGER, CHAMPION
from hitfinder.registry.runs import LONGEST_TAG, Run, recorded
from hitfinder.registry.tracking import chosen_uri, import_mlflow, speaking_to, store_path

__all__ = ["PREVIOUS", "Evidence", "Promotion", "Standing", "promote", "roll_back", "standing"]

PREVIOUS = "previous"
# Tags of a version.
BEFORE = "champion_before"
ROLLED_BACK = "rolled_back"
PASSED, REFUSED = "passed", "refused"


class Evidence(Protocol):
    """What speaks for a version, such as a gate's `Verdict`."""

    @property
    def passed(self) -> bool:
        """Whether it carries."""

    @property
    def reason(self) -> str:
        """Why, in one sentence."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""

    def metrics(self) -> dict[str, float]:
        """Return the figures."""


@dataclass(frozen=True)
class Standing:
    """Which version each alias of a registered model points to; None where there is no such alias.

    `rolled_back` says of the challenger when and by whom it was rolled back; None where it never was.
    """

    name: str
    challenger: str | None
    champion: str | None
    previous: str | None
    rolled_back: str | None


@dataclass(frozen=True)
class Promotion:
    """What became of a version.

    `promoted` tells whether the evidence carries; in a dry run nothing was moved all the same, and there is no run.
    """

    name: str
    version: str
    champion_before: str | None
    promoted: bool
    reason: str
    checks: tuple[Check, ...]
    run_id: str | None = None


def standing(name: str = "hitfinder", *, folder_for_store: str | Path = "mlruns") -> Standing:
    """Return which version each alias points to.

    Raises
    ------
    NotRegisteredError
        Nothing is registered under that name.
    ModelError
        MLflow can't be reached, or refuses.
    """
    with speaking_to(_existing(folder_for_store)) as client:
        aliases = _aliases(client, name)
        challenger = aliases.get(CHALLENGER)
        tags = client.get_model_version(name, challenger).tags if challenger is not None else {}
    return Standing(name, challenger, aliases.get(CHAMPION), aliases.get(PREVIOUS), tags.get(ROLLED_BACK))


def promote(
    name: str,
    number: str,
    evidence: Evidence,
    *,
    champion: str | None,
    checks: Sequence[Check] | None = None,
    tags: Mapping[str, str] | None = None,
    dry_run: bool = False,
    parent: Run | None = None,
    experiment: str = "hitfinder",
    folder_for_store: str | Path = "mlruns",
    progress: Callable[[str], None] | None = None,
) -> Promotion:
    """Write the evidence to a version, and make it champion where the evidence and the version's checks carry.

    Parameters
    ----------
    name, number
        Of the version.
    evidence
        Such as a `Verdict` of the gate.
    champion
        The version that it was held against, None where there was none: another one by now means a refusal.
    checks
        Of the version; default: `check_version`.
    tags
        More to write to the version, such as which model the evidence is of, where it is not of this one.
    dry_run
        Write nothing and move nothing.
    parent
        A run that this is a step of.
    experiment
        That holds the run with the evidence, where it is no step.
    folder_for_store
        As for `register`.
    progress
        Called with a few words before each longer step.

    Returns
    -------
    Promotion

    Raises
    ------
    ModelError
        There is no such version, or MLflow can't be reached, or refuses.

    Notes
    -----
    Stopped at any moment, `champion` points to a whole version: the evidence is written first (run, then the version's
    tags), then `champion_before` and the alias `previous`, and `champion` last, in one transaction of MLflow's.
    """
    tell = progress or _say_nothing
    uri = _existing(folder_for_store)
    if checks is None:
        tell("loading the version, and asking it")
        checks = check_version(name, number, folder_for_store=folder_for_store)
    failed = [check.said for check in checks if not check.passed]
    promoted = evidence.passed and not failed
    against = [evidence.reason] * (not evidence.passed or promoted) + failed
    done = Promotion(name, number, champion, promoted, "; ".join(against), tuple(checks))
    if dry_run:
        return done
    tell("writing the evidence")
    whole = {**evidence.to_dict(), "checks_of_version": [check.to_dict() for check in checks], "promoted": promoted}
    verdict = PASSED if promoted else REFUSED
    about = {"model_name": name, "version": number, "champion": str(champion), "gate": verdict, **(tags or {})}
    opened = (
        recorded("promote", kind="gate", tags=about, experiment=experiment, folder_for_store=folder_for_store)
        if parent is None
        else parent.step("promote", kind="gate", **about)
    )
    with opened as run:
        figures = {f"version.{check.name}.{key}": value for check in checks for key, value in check.figures.items()}
        run.log(metrics={**evidence.metrics(), **figures}, tags={"gate_reason": done.reason})
        run.values(whole, "evidence.json")
        run.text(_as_text(done, verdict, whole), "evidence.txt")
    told = {
        "gate": verdict,
        "gate_reason": done.reason,
        "gate_at": _now(),
        "gate_against": str(champion),
        "gate_run": run.run_id,
        "gate_evidence": _short(whole),
        **(tags or {}),
    }
    with speaking_to(uri) as client:
        for key, value in told.items():
            client.set_model_version_tag(name, number, key, str(value)[:LONGEST_TAG])
        if promoted:
            _move(client, name, number, champion)
    return Promotion(name, number, champion, promoted, done.reason, done.checks, run.run_id)


def roll_back(
    name: str = "hitfinder",
    *,
    dry_run: bool = False,
    experiment: str = "hitfinder",
    folder_for_store: str | Path = "mlruns",
) -> tuple[str, str]:
    """Give `champion` back to the version that had it before.

    Doing it twice goes two champions back, never forward again: the version that was rolled back is marked so, is
    skipped as a challenger unless it is named, and is no goal of a later roll-back.

    Parameters
    ----------
    name
        Of the registered model.
    dry_run
        Change nothing.
    experiment, folder_for_store
        As for `promote`.

    Returns
    -------
    (str, str)
        The version that was champion, and the one that is.

    Raises
    ------
    ModelError
        There is no champion, none before it, that one is not whole or was rolled back itself; or MLflow refuses.
    """
    uri = _existing(folder_for_store)
    with speaking_to(uri) as client:
        now = _aliases(client, name).get(CHAMPION)
        if now is None:
            raise ModelError(f"{name}: no version is champion, so there is nothing to roll back; run `hitfinder train`")
        goal = client.get_model_version(name, now).tags.get(BEFORE)
        if goal is None:
            raise ModelError(f"{name}: version {now} is champion and knows of none before it; there is no way back")
        tags = _tags_of(client, name, goal)
    if tags.get(ROLLED_BACK):
        raise ModelError(
            f"{name}: the champion before version {now} was version {goal}, which was rolled back itself "
            f"({tags[ROLLED_BACK]}); promote one by name: --challenger models:/{name}/<number>"
        )
    try:  # no alias is ever set to what can't be loaded
        load_model(f"models:/{name}/{goal}", folder_for_store=folder_for_store)
    except UnreadableModelError as error:
        raise ModelError(
            f"{name}: version {goal} was champion before version {now}, but can't be opened ({error}); promote one by "
            f"name: --challenger models:/{name}/<number>"
        ) from None
    if dry_run:
        return now, goal
    about = {"model_name": name, "version": goal, "rolled_back": now}
    with recorded("rollback", kind="rollback", tags=about, experiment=experiment, folder_for_store=folder_for_store):
        pass
    with speaking_to(uri) as client:
        # First the mark: a weekly job that finds the version still challenger must not put it back.
        client.set_model_version_tag(name, now, ROLLED_BACK, f"{_now()} by {_who()}, to version {goal}")
        client.set_registered_model_alias(name, CHAMPION, goal)
        further = tags.get(BEFORE)
        if further is None:
            client.delete_registered_model_alias(name, PREVIOUS)
        else:
            client.set_registered_model_alias(name, PREVIOUS, further)
    return now, goal


def _move(client: Any, name: str, number: str, champion: str | None) -> None:
    now = _aliases(client, name).get(CHAMPION)
    if now != champion:
        raise ModelError(
            f"{name}: version {champion} was champion when this began, now it is version {now}; run it again"
        )
    if champion is not None and champion != number:
        client.set_model_version_tag(name, number, BEFORE, champion)
        client.set_registered_model_alias(name, PREVIOUS, champion)
    if ROLLED_BACK in client.get_model_version(name, number).tags:
        client.delete_model_version_tag(name, number, ROLLED_BACK)
    client.set_registered_model_alias(name, CHAMPION, number)


def _aliases(client: Any, name: str) -> dict[str, str]:
    exceptions = import_mlflow("mlflow.exceptions")
    try:
        found = client.get_registered_model(name).aliases
    except exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise NotRegisteredError(
            f"{name}: nothing is registered under that name; run `hitfinder train` first"
        ) from None
    # A database gives numbers, a server texts.
    return {alias: str(number) for alias, number in found.items()}


def _tags_of(client: Any, name: str, number: str) -> dict[str, str]:
    exceptions = import_mlflow("mlflow.exceptions")
    try:
        return dict(client.get_model_version(name, number).tags)
    except exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ModelError(
            f"{name}: version {number} was champion before, but was deleted; there is no way back"
        ) from None


def _existing(folder_for_store: str | Path) -> str:
    """Return where the registry is; make none."""
    uri = chosen_uri(folder_for_store)
    store = store_path(uri)
    if store is not None and not store.is_file():
        raise NotRegisteredError(f"expected a model registry at {store}, got no such file; run `hitfinder train` first")
    return uri


def _short(whole: Mapping[str, Any]) -> str:
    """Put the evidence into a tag, without the batches one by one; the run holds it whole."""
    checks = [*whole.get("checks", []), *whole["checks_of_version"]]
    figures = {check["name"]: {name: round(value, 4) for name, value in check["figures"].items()} for check in checks}
    kept = {name: whole[name] for name in ("challenger", "champion", "rule", "as_of", "batches") if name in whole}
    text = json.dumps({**kept, "figures": figures}, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_TAG else json.dumps(figures)[:LONGEST_TAG]


def _as_text(done: Promotion, verdict: str, whole: Mapping[str, Any]) -> str:
    head = [f"{done.name}/{done.version} against {done.champion_before}: {verdict}", done.reason, ""]
    checks = [*whole.get("checks", []), *whole["checks_of_version"]]
    lines = [f"{'ok' if check['passed'] else 'NO'}  {check['said']}" for check in checks]
    return "\n".join([*head, *lines, *(f"note: {note}" for note in whole.get("notes", []))]) + "\n"


def _now() -> str:
    return datetime.now(UTC).replace(microsecond=0).isoformat()


def _who() -> str:
    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return "somebody"


def _say_nothing(words: str) -> None:
    del words
