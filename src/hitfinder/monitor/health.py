"""Health: every check of inputs, reports, outcomes and promises as of a moment, and what to do about each alarm."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.admission import admit, admit_signals_and_skus
from hitfinder.errors import DataError, SettingsError
from hitfinder.features import moment_of_knowledge, set_scope
from hitfinder.labels import label
from hitfinder.models.hit_model import HitModel
from hitfinder.monitor.checks import (
    COLUMNS,
    SHARES,
    outcome_rows,
    promise_rows,
    rows_of,
    silence_row,
    undated_row,
)
from hitfinder.monitor.drift import batch_track, same_skus_track
from hitfinder.monitor.looks import Looks, look
from hitfinder.monitor.outcomes import Outcomes, judge_outcomes, lost_by_decisions, seen_outcomes
from hitfinder.monitor.reports import (
    late_track,
    missing_track,
    rejects_track,
    silence,
    silent_skus,
    undated_rejects,
)
from hitfinder.monitor.sentences import sentences, words_of
from hitfinder.monitor.shift import Judged, Track, judge_together
from hitfinder.tables import DECISIONS
from hitfinder.warehouse import TableLike, open_warehouse

__all__ = ["Health", "monitor"]

# So many subjects of one check are told one by one.
MAX_TOLD = 8


@dataclass(frozen=True)
class Health:
    """What a look found.

    Attributes
    ----------
    as_of, batch, model_version, model_as_of, false_alarm
        What was looked at, with which chance of any false alarm.
    checks
        One row per check and subject, the quiet ones included: `check, kind, subject, measure, value, usual, shift`
        (in what is usual from week to week), `threshold` (of the shift, or of the figure itself), `p_value` (in the
        checks of weeks against weeks adjusted for all of their subjects), `allowed` (chance of a false alarm of the
        check; the checks of weeks against weeks have one between them; NaN where a limit is fixed), `state` (`alarm`,
        `quiet`, `short`: too little history for a promise, `none`: nothing to judge), `severity`, `n_history`.
    drift
        The rows about drift, with the stability index `psi` beside the test, and `usual_psi` of past batches.
    weeks
        Each check's largest shift at each past look: `check, moment, top, p_value`.
    shifts
        The same for each subject: `check, kind, subject, measure, moment, shift`.
    outcomes
        What became of batches closed since the fit.
    bets
        `check, batch_id, wealth`: of betting against the promise.
    delays
        What came of each week and channel, for the picture of reports.
    fit_curve
        The calibration curve of the fit, out of time.
    """

    as_of: pd.Timestamp
    batch: str
    model_version: str
    model_as_of: pd.Timestamp | None
    false_alarm: float
    checks: pd.DataFrame
    drift: pd.DataFrame
    weeks: pd.DataFrame
    shifts: pd.DataFrame
    outcomes: Outcomes
    bets: pd.DataFrame
    delays: pd.DataFrame
    fit_curve: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no alarm was raised."""
        return not bool((self.checks["state"] == "alarm").any())

    @property
    def alarms(self) -> pd.DataFrame:
        """The alarms in English; see `told`."""
        return self.told("en")

    def told(self, language: str = "en") -> pd.DataFrame:
        """Return the alarms: check, subject, value, threshold, p_value, severity, what_happened, what_to_do.

        Of one check's subjects the farthest out are told, and how many more there are.

        Raises
        ------
        SettingsError
            For another language than `en` and `zh`.
        """
        raised = self.checks[self.checks["state"] == "alarm"]
        rows = []
        for check, group in raised.groupby("check", sort=False):
            far = group["shift"].abs().sort_values(ascending=False, kind="stable", na_position="first")
            ordered = group.loc[far.index]
            for place, row in enumerate(ordered.head(MAX_TOLD).to_dict("records")):
                more = len(group) - MAX_TOLD if place + 1 == MAX_TOLD else 0
                about = {str(name): value for name, value in row.items()}
                what, do = sentences({**about, "batch": self.batch, "more": max(more, 0)}, language)
                rows.append(
                    {
                        "check": check,
                        "subject": row["subject"],
                        "value": row["value"],
                        "threshold": row["threshold"],
                        "p_value": row["p_value"],
                        "severity": row["severity"],
                        "what_happened": what,
                        "what_to_do": do,
                    }
                )
        names = ["check", "subject", "value", "threshold", "p_value", "severity", "what_happened", "what_to_do"]
        return pd.DataFrame(rows, columns=names)

    def say(self, language: str = "en") -> str:
        """Return the whole in a few lines."""
        words = words_of(language)
        told = self.told(language)
        head = words["head_quiet" if self.ok else "head_alarm"].format(
            n=len(told),
            as_of=f"{self.as_of:%Y-%m-%d %H:%M}",
            model=self.model_version,
            chance=f"{self.false_alarm:.1%}",
        )
        lines = [head]
        for check, group in told.groupby("check", sort=False):
            lines.extend(f"- [{words[f'check_{check}']}] {said}" for said in group["what_happened"])
            lines.extend(f"  -> {said}" for said in dict.fromkeys(group["what_to_do"]))
        short = self.checks.loc[self.checks["state"] == "short", "check"].unique()
        if len(short):
            named = words["and"].join(words[f"check_{name}"] for name in short)
            lines.append(words["short"].format(checks=named))
        if self.blind:
            named = words["and"].join(words[f"check_{name}"] for name in self.blind)
            lines.append(words["blind"].format(checks=named))
        return "\n".join(lines)

    @property
    def blind(self) -> list[str]:
        """The checks that can't be judged: SKUs were stopped, and nobody was kept on by chance to stand in for them."""
        return self.checks.loc[self.checks["kind"] == "blind", "check"].tolist()

    def stale(self, language: str = "en", *, now: pd.Timestamp | None = None) -> str | None:
        """Say how old the look is by the clock, where that is more than usual for the feed; else None.

        A look as of its newest signal can't see that none came since.
        """
        old = ((_now() if now is None else now) - self.as_of) / pd.Timedelta(days=1)
        limit = float(self.checks.loc[self.checks["kind"] == "silent", "threshold"].max())
        if old < 1 or old <= limit:  # an unknown limit is none
            return None
        return words_of(language)["stale"].format(n=int(old))


def _now() -> pd.Timestamp:
    """Return the clock's moment, naive UTC."""
    return pd.Timestamp.now("UTC").tz_localize(None).floor("s")


def monitor(
    model: HitModel,
    signals: TableLike,
    skus: TableLike,
    *,
    decisions: TableLike | None = None,
    outcomes: TableLike | None = None,
    as_of: Any = None,
    false_alarm: float = 0.05,
) -> Health:
    """Look whether the data and the market are still what the model was made for.

    The newest batch is compared with earlier ones at the same age, the newest week with earlier weeks, all as they
    were known at the same distance; what became of batches that closed since the fit is held against what the model
    said of them. Where nothing changed, a look is made to raise any alarm with a chance of at most `false_alarm`, over
    all checks, features and channels together. Most of it is spent on weeks against weeks, by the place of the newest
    among the past ones: that is exact where weeks are exchangeable and some thirty are known. Of fewer, the tail is
    estimated, and the chance is as simulations show (see `hitfinder.monitor.shift`). Rejects that name no period have a
    fixed limit, of which no chance is stated. Weeks are compared with the weeks before them rather than with the
    training period, so an alarm fades within some weeks as the new becomes the usual, whether or not the model was
    fitted anew.

    Parameters
    ----------
    model
        Whose inputs, probabilities, ranking and promise are looked at.
    signals, skus, outcomes
        Tables of the contract, history included: some twenty weeks tell well, twelve are the least.
    decisions
        What was decided: outcomes that a stop cut off are left out, those that chance kept on are weighed for them, and
        the promise is held against what was decided as well.
    as_of
        The moment of knowledge, UTC, or `now`; default: when the newest signal was known. That moment stands still when
        the feed does, so only with a moment is it seen that signals no longer come.
    false_alarm
        Chance of any false alarm in this look, between 0 and 1.

    Returns
    -------
    Health

    Raises
    ------
    DataError
        A table can't be understood.
    SettingsError
        `false_alarm` is not between 0 and 1.
    """
    if not 0 < false_alarm < 1:
        raise SettingsError(f"false_alarm: expected a chance between 0 and 1, such as 0.05, got {false_alarm}")
    settings = model.settings
    con = open_warehouse(threads=settings.model.threads)
    try:
        admissions = admit_signals_and_skus(con, signals, skus, period=settings.signals.period, outcomes=outcomes)
        if decisions is not None:
            admit(con, DECISIONS, decisions)
        moment = moment_of_knowledge(con, _now() if isinstance(as_of, str) and as_of == "now" else as_of)
        set_scope(con, settings, moment)
        fitted = _fitted_at(model)
        labels = _closed_since(con, model, moment, fitted, outcomes_given=outcomes is not None)
        kept = seen_outcomes(con, labels, settings, decisions_given=decisions is not None)
        looks = look(con, model, moment, kept.labels["sku_id"].tolist())
        spent = {name: share * false_alarm for name, share in SHARES.items()}
        tracks, psi = _tracks(con, model, looks)
        judged = judge_together(tracks, spent["weekly"])
        found = judge_outcomes(model, looks.later, kept)
        lost = lost_by_decisions(kept, settings) if decisions is not None else None
        silent = silence(con, moment, settings.signals.period, spent["silent"])
        undated = undated_rejects(con, model.report.get("admissions", []), sum(a.kept for a in admissions[:2]))
    finally:
        con.close()
    checks = [rows_of(name, tracks[name], judged[name], spent["weekly"]) for name in tracks]
    promised, bets = promise_rows(model, found, lost, spent)
    checks += [silence_row(silent, spent["silent"]), undated_row(undated)]
    checks += [*outcome_rows(model, found, spent), *promised]
    table = pd.concat([rows for rows in checks if len(rows)], ignore_index=True)[list(COLUMNS)]
    return Health(
        as_of=moment,
        batch="" if looks.batches.empty else str(looks.batches["batch_id"].iloc[-1]),
        model_version=model.version,
        model_as_of=fitted,
        false_alarm=float(false_alarm),
        checks=table,
        drift=_drift_of(table, psi),
        weeks=_weeks_of(tracks, judged),
        shifts=_shifts_of(tracks, judged),
        outcomes=found,
        bets=bets,
        delays=looks.reports.merge(looks.weeks, on="week").sort_values(["moment", "channel"], ignore_index=True),
        fit_curve=dict(model.report.get("curves", {}).get("calibration", {})),
    )


def _fitted_at(model: HitModel) -> pd.Timestamp | None:
    said = model.report.get("as_of")
    return None if said is None else pd.Timestamp(said)


def _closed_since(
    con: Any, model: HitModel, moment: pd.Timestamp, fitted: pd.Timestamp | None, *, outcomes_given: bool
) -> pd.DataFrame:
    """Return the labels of batches of which the model's fit knew no outcome."""
    try:
        labels = label(con, model.settings, outcomes_given=outcomes_given)
    except DataError:  # the metric was not measured: there is nothing to hold against
        return pd.DataFrame(columns=["sku_id", "within_group", "batch", "launched_at", "value", "hit"])
    usable = labels[labels["problem"].isna()]
    if fitted is None or fitted > moment:
        return usable.head(0)
    first = usable.groupby("batch")["known_at"].transform("min")
    return usable[first > fitted].reset_index(drop=True)


def _tracks(con: Any, model: HitModel, looks: Looks) -> tuple[dict[str, Track], pd.DataFrame]:
    batch, psi = batch_track(looks, model.design.columns)
    tracks = {
        "batch_drift": batch,
        "same_skus": same_skus_track(looks),
        "missing": missing_track(looks, silent_skus(con, looks), model.settings.signals.period),
        "late": late_track(looks),
        "rejects": rejects_track(con, looks),
    }
    return tracks, psi


def _drift_of(table: pd.DataFrame, psi: pd.DataFrame) -> pd.DataFrame:
    drift = table[table["check"].isin(["batch_drift", "same_skus"])].drop(columns=["n_history"])
    beside = psi.rename(columns={"usual": "usual_psi"})
    return drift.merge(beside, on=["kind", "subject"], how="left").reset_index(drop=True)


def _weeks_of(tracks: dict[str, Track], judged: dict[str, Judged]) -> pd.DataFrame:
    rows = [
        pd.DataFrame({"check": name, "moment": tracks[name].moments, "top": j.top, "p_value": j.p_weeks})
        for name, j in judged.items()
    ]
    return pd.concat(rows, ignore_index=True)


def _shifts_of(tracks: dict[str, Track], judged: dict[str, Judged]) -> pd.DataFrame:
    parts = []
    for name, track in tracks.items():
        n = len(track.moments)
        about = track.about.loc[track.about.index.repeat(n)].reset_index(drop=True)
        about.insert(0, "check", name)
        parts.append(
            about.assign(moment=np.tile(track.moments, len(track.about)), shift=judged[name].shift.T.reshape(-1))
        )
    return pd.concat(parts, ignore_index=True)
