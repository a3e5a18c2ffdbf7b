"""Every check as rows of one table: the figure, what is usual, the threshold, and whether the alarm is raised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hitfinder.models.hit_model import HitModel
from hitfinder.monitor.outcomes import TOLERANCE, Outcomes, bet_on_losses, shortfall, wealth_of_decisions
from hitfinder.monitor.reports import MAX_UNDATED, Silence, Undated
from hitfinder.monitor.shift import Judged, Track
from hitfinder.promise import StopPromise

__all__ = ["COLUMNS", "SHARES", "WEEKLY", "outcome_rows", "promise_rows", "rows_of", "silence_row", "undated_row"]

# How the chance of a false alarm is spent. The checks of weeks against weeks are judged together, on one share: parted
# among the five of them, each would have to be so rare that no history of a year says anything about it.
WEEKLY = ("batch_drift", "same_skus", "missing", "late", "rejects")
SHARES = {
    "weekly": 0.725, "silent": 0.025,
    "calibration": 0.05, "hits_found": 0.05, "against_rule": 0.05, "promise": 0.05, "decisions": 0.05,
}  # fmt: skip
# A chance so many times smaller than allowed is no doubtful case.
HIGH = 0.1
COLUMNS = (
    "check", "kind", "subject", "measure", "value", "usual", "shift", "threshold", "p_value", "allowed", "state",
    "severity", "n_history",
)  # fmt: skip


def rows_of(check: str, track: Track, judged: Judged, allowed: float) -> pd.DataFrame:
    """Return one row for each subject; one that stands for the check where there is none."""
    if track.about.empty or not len(track.moments):
        return _row(check, allowed=allowed, state="short")
    rows = track.about.copy()
    rows["value"], rows["usual"], rows["shift"] = track.value[-1], judged.expected, judged.shift[-1]
    rows["p_value"] = judged.p_each
    short = judged.threshold is None
    state = np.where(judged.p_each <= allowed, "alarm", "quiet").astype(object)
    state[~np.isfinite(judged.shift[-1])] = "none"
    if short:
        state[:] = "short"
    rows["state"] = state
    rows["severity"] = np.where(state == "alarm", np.where(judged.p_each <= HIGH * allowed, "high", "medium"), "")
    return rows.assign(
        check=check, threshold=np.nan if short else judged.threshold, allowed=allowed, n_history=judged.n_history
    )


def _row(check: str, **values: Any) -> pd.DataFrame:
    blank: dict[str, Any] = {
        "check": check, "kind": "", "subject": "", "measure": "", "value": np.nan, "usual": np.nan, "shift": np.nan,
        "threshold": np.nan, "p_value": np.nan, "allowed": np.nan, "state": "none", "severity": "", "n_history": 0,
    }  # fmt: skip
    return pd.DataFrame([{**blank, **values}])


def silence_row(silence: Silence, allowed: float) -> pd.DataFrame:
    """Judge how long no signal has come against the gaps before: in days, not in weeks, so that it is seen at once.

    It has a share of the chance of its own, which `silence` made its limit for.
    """
    short = not np.isfinite(silence.limit)
    alarm = not short and silence.days > silence.limit
    return _row(
        "missing", kind="silent", subject="signals", measure="days without any signal", value=silence.days,
        usual=silence.longest, threshold=silence.limit, allowed=allowed, n_history=silence.n_gaps,
        state="short" if short else "alarm" if alarm else "quiet", severity="high" if alarm else "",
    )  # fmt: skip


def undated_row(undated: Undated) -> pd.DataFrame:
    """Hold the share of rejects without a date against a fixed limit: no week tells what is usual, nor how likely."""
    then = 0.0 if undated.then is None else undated.then
    alarm = undated.now > then + MAX_UNDATED
    return _row(
        "rejects", kind="undated", subject="signals and skus", measure="share set aside", value=undated.now, usual=then,
        threshold=then + MAX_UNDATED, state="alarm" if alarm else "quiet",
        severity="high" if alarm else "",
    )  # fmt: skip


def outcome_rows(model: HitModel, found: Outcomes, spent: dict[str, float]) -> list[pd.DataFrame]:
    """Judge sums of hits, hits found, and the lead over the best rule, batch by batch."""
    batches = found.batches
    if batches.empty:
        kind = "blind" if found.n_blind else ""
        return [_row(name, kind=kind, allowed=spent[name]) for name in ("calibration", "hits_found", "against_rule")]
    hits, expected = batches["hits"].to_numpy(dtype=float), batches["expected"].to_numpy(dtype=float)
    too_few = shortfall(hits, expected / (1 + TOLERANCE))
    too_many = shortfall(-hits, -expected * (1 + TOLERANCE))
    both = float(np.minimum(2 * min(too_few, too_many), 1.0))
    rows = [
        _tested(
            "calibration", both, spent, batches, kind="over" if too_few < too_many else "under", subject="hits",
            value=float(hits.sum()), usual=float(expected.sum()),
        )
    ]  # fmt: skip
    due = model.report.get("metrics", {}).get(model.winner, {}).get("hits_at_k")
    got = batches["hits_at_k"].to_numpy(dtype=float)
    if due is not None:
        p = shortfall(got, np.full(len(got), (1 - TOLERANCE) * due))
        value = float(np.nanmean(got)) if np.isfinite(got).any() else np.nan
        rows.append(_tested("hits_found", p, spent, batches, subject="hits at k", value=value, usual=float(due)))
    rule = batches["rule_hits_at_k"].to_numpy(dtype=float)
    if found.rule is not None and np.isfinite(rule).any():
        rows.append(
            _tested("against_rule", shortfall(got, rule), spent, batches, subject=found.rule,
                    value=float(np.nanmean(got)), usual=float(np.nanmean(rule)))
        )  # fmt: skip
    return rows


def _tested(check: str, p: float, spent: dict[str, float], batches: pd.DataFrame, **values: Any) -> pd.DataFrame:
    allowed = spent[check]
    state = "short" if not np.isfinite(p) else "alarm" if p <= allowed else "quiet"
    severity = "" if state != "alarm" else "high" if p <= HIGH * allowed else "medium"
    return _row(
        check, p_value=p, allowed=allowed, state=state, severity=severity, n_history=len(batches), threshold=allowed,
        **values,
    )  # fmt: skip


def promise_rows(
    model: HitModel, found: Outcomes, lost: pd.DataFrame | None, spent: dict[str, float]
) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """Bet against the promise about stopping: by the model's own list, and by what was decided."""
    rows, bets = [], []
    blind = "blind" if found.n_blind else ""
    promise = model.promises.get("stop")
    judged = found.batches[found.batches["hits"] > 0] if len(found.batches) else found.batches
    if isinstance(promise, StopPromise) and promise.holds and len(judged):
        wealth = bet_on_losses(judged["lost_too_much"], promise)
        rows.append(_bet("promise", wealth, spent["promise"], judged, "list"))
        bets.append(pd.DataFrame({"check": "promise", "batch_id": judged["batch_id"].to_numpy(), "wealth": wealth}))
    else:
        kind = blind if isinstance(promise, StopPromise) and promise.holds and found.batches.empty else ""
        rows.append(_row("promise", kind=kind, subject="list", allowed=spent["promise"]))
    if lost is not None and len(lost):
        wealth = wealth_of_decisions(lost, model, spent["decisions"])
        rows.append(_bet("decisions", wealth, spent["decisions"], lost, "decisions"))
        bets.append(pd.DataFrame({"check": "decisions", "batch_id": lost["batch_id"].to_numpy(), "wealth": wealth}))
    else:
        rows.append(_row("decisions", kind=blind, subject="decisions", allowed=spent["decisions"]))
    columns = ["check", "batch_id", "wealth"]
    return rows, pd.concat(bets, ignore_index=True) if bets else pd.DataFrame(columns=columns)


def _bet(check: str, wealth: Any, allowed: float, batches: pd.DataFrame, subject: str) -> pd.DataFrame:
    alarm = bool(wealth.max() >= 1 / allowed)
    broken = int(batches["lost_too_much"].sum())
    return _row(
        check, subject=subject, measure="wealth", value=float(wealth[-1]), usual=float(broken), threshold=1 / allowed,
        p_value=float(min(1.0, 1 / wealth.max())), allowed=allowed, state="alarm" if alarm else "quiet",
        severity="high" if alarm else "", n_history=len(batches),
    )  # fmt: skip
