"""A look at the model's health as a page with pictures, and as JSON for machines."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from hitfinder.monitor import Health
from hitfinder.monitor.sentences import name_of_measure, name_of_subject
from hitfinder.report.health_pictures import (
    draw_bets,
    draw_delays,
    draw_hits,
    draw_reliability,
    draw_shifts,
    draw_weeks,
)
from hitfinder.report.health_words import page_words
from hitfinder.report.whole import replacing

__all__ = ["health_values", "record_health", "render_health", "write_health"]

# Checks whose figures are shifts from week to week; the others are told by a p-value or by what was won.
TRACKED = ("batch_drift", "same_skus", "missing", "late", "rejects")
BETS = ("promise", "decisions")
# A check is in the first of these states that one of its subjects is in.
STATES = ("alarm", "quiet", "short", "none")


def write_health(health: Health, out: str | Path, *, language: str = "en") -> list[Path]:
    """Write `health.html` and `health.json` to a folder, each whole or not at all.

    Parameters
    ----------
    health
        From `monitor`.
    out
        The folder; made where there is none. Files of the same names are replaced.
    language
        `en` or `zh`.

    Returns
    -------
    list of pathlib.Path
        The files written.

    Raises
    ------
    HitfinderError
        A file can't be written.
    SettingsError
        For another language.
    """
    folder = Path(out)
    values = json.dumps(health_values(health, language), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    contents = {"health.html": render_health(health, language), "health.json": values}
    for name, text in contents.items():
        with replacing(folder / name) as partial:
            folder.mkdir(parents=True, exist_ok=True)
            partial.write_text(text, encoding="utf-8")
    return [folder / name for name in contents]


def health_values(health: Health, language: str = "en") -> dict[str, Any]:
    """Return everything that a look found as plain values: JSON without NaN."""
    return {
        "as_of": health.as_of.isoformat(),
        "ok": health.ok,
        "model_version": health.model_version,
        "model_as_of": None if health.model_as_of is None else health.model_as_of.isoformat(),
        "newest_batch": health.batch,
        "false_alarm": health.false_alarm,
        "alarms": _records(health.told(language)),
        "checks": _records(health.checks),
        "drift": _records(health.drift),
        "weeks": _records(health.weeks),
        "batches_closed_since_fit": _records(health.outcomes.batches),
        "calibration_since_fit": {k: [_plain(v) for v in values] for k, values in health.outcomes.curve.items()},
        "calibration_error_since_fit": _plain(health.outcomes.error),
        "bets": _records(health.bets),
    }


def record_health(health: Health, paths: list[Path], *, experiment: str = "hitfinder") -> str:
    """Leave a run in MLflow, with a step for each check and the files beside them; return the run's id.

    Raises
    ------
    ModelError
        MLflow can't be reached, or refuses.
    """
    from hitfinder.registry.runs import recorded

    raised = int((health.checks["state"] == "alarm").sum())
    tags = {
        "model_version": health.model_version,
        "as_of": health.as_of.isoformat(),
        "alarm": "no" if health.ok else "yes",
        "newest_batch": health.batch,
    }
    with recorded(f"monitor {health.as_of:%Y-%m-%d}", kind="monitor", tags=tags, experiment=experiment) as run:
        run.log(params={"false_alarm": health.false_alarm}, metrics={"alarms": raised, "ok": float(health.ok)})
        for check, group in health.checks.groupby("check", sort=False):
            states = group["state"]
            state = next(s for s in STATES if (states == s).any())
            with run.step(str(check), kind="check", state=state) as step:
                step.log(
                    metrics={
                        "figures": float(len(group)),
                        "alarms": float((states == "alarm").sum()),
                        "smallest_p": float(group["p_value"].min()),
                        "allowed": float(group["allowed"].iloc[0]),
                        "largest_shift": float(group["shift"].abs().max()),
                        "threshold": float(group["threshold"].iloc[0]),
                    }
                )
        run.text(health.say(), "health.txt")
        for path in paths:
            run.file(path)
    return run.run_id


def render_health(health: Health, language: str = "en") -> str:
    """Return the page as HTML: all text escaped, pictures inside, nothing loaded, no script."""
    words = page_words(language)
    told = health.told(language)
    style = _resource("page.css") + _resource("health.css")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True, keep_trailing_newline=True)  # fmt: skip
    title = words["title_one" if len(told) == 1 else "title_alarm" if len(told) else "title"].format(n=len(told))
    closed = len(health.outcomes.batches) > 0
    short = health.checks.loc[health.checks["state"] == "short", "check"].unique()
    return environment.from_string(_resource("health.html.j2")).render(
        words=words,
        title=title,
        facts=_facts(health, words),
        alarms=_alarms(told, words),
        short=words["short"].format(checks=words["and"].join(words[f"check_{c}"] for c in short)) if len(short) else "",
        wide=[
            {"title": words["shifts"], "note": words["shifts_note"], "svg": draw_shifts(health, language, words)},
            {"title": words["weeks"], "note": words["weeks_note"], "svg": draw_weeks(health, words)},
        ],
        pictures=[
            {"title": words["reliability"], "svg": draw_reliability(health, words)},
            {"title": words["hits_by_batch"], "svg": draw_hits(health, words)},
            {"title": words["bets"], "svg": draw_bets(health, words)},
            {"title": words["delays"], "svg": draw_delays(health, words)},
        ],
        no_outcomes="" if closed or health.blind else words["no_outcomes"],
        blind=words["blind"].format(checks=words["and"].join(words[f"check_{c}"] for c in health.blind))
        if health.blind
        else "",
        checks=_checks(health, words),
        drift=_drift(health, language, words),
        style=style,
        policy=f"default-src 'none'; style-src 'sha256-{_digest(style)}'; base-uri 'none'; form-action 'none'",
    )


def _resource(name: str) -> str:
    return resources.files("hitfinder.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _facts(health: Health, words: dict[str, str]) -> list[tuple[str, str]]:
    fitted = words["unknown"] if health.model_as_of is None else f"{health.model_as_of:%Y-%m-%d %H:%M} UTC"
    return [
        (words["as_of"], f"{health.as_of:%Y-%m-%d %H:%M} UTC"),
        (words["model"], health.model_version),
        (words["fitted"], fitted),
        (words["batch"], health.batch or words["unknown"]),
        (words["chance"], f"{health.false_alarm:.1%}"),
    ]


def _alarms(told: pd.DataFrame, words: dict[str, str]) -> list[dict[str, Any]]:
    out = []
    for check, group in told.groupby("check", sort=False):
        severity = "high" if (group["severity"] == "high").any() else "medium"
        out.append(
            {
                "name": words[f"check_{check}"],
                "severity": words[f"severity_{severity}"],
                "happened": group["what_happened"].tolist(),
                "todo": " ".join(dict.fromkeys(group["what_to_do"])),
            }
        )
    return out


def _checks(health: Health, words: dict[str, str]) -> list[dict[str, Any]]:
    """Return one line for each check, told by its farthest subject."""
    rows = []
    for name, group in health.checks.groupby("check", sort=False):
        state = next(s for s in STATES if (group["state"] == s).any())
        p = group["p_value"].min()
        shift, threshold = group["shift"].abs().max(), group["threshold"].iloc[0]
        value = f"{shift:.2f}" if np.isfinite(shift) else "–"
        limit = f"{threshold:.2f}" if np.isfinite(threshold) else "–"
        if name in BETS:
            value = words["wealth_of"].format(value=f"{group['value'].iloc[0]:.2g}") if state != "none" else "–"
        elif name not in TRACKED:
            value, limit = (f"{group['value'].iloc[0]:.3g}", "–") if state != "none" else ("–", "–")
        rows.append(
            {
                "name": words[f"check_{name}"],
                "figures": len(group),
                "state": state,
                "said": words[f"state_{state}"],
                "value": value,
                "threshold": limit,
                "p": _p(p),
                "allowed": f"{group['allowed'].iloc[0]:.2%}",
                "history": f"{int(group['n_history'].max())}",
            }
        )
    return rows


def _drift(health: Health, language: str, words: dict[str, str]) -> list[dict[str, str]]:
    ordered = health.drift.assign(far=health.drift["shift"].abs()).sort_values("far", ascending=False, kind="stable")
    rows = []
    for row in ordered[ordered["far"].notna()].to_dict("records"):
        measure = name_of_measure(str(row["measure"]), language)
        is_psi = row["measure"] == "psi"
        rows.append(
            {
                "subject": name_of_subject({str(k): v for k, v in row.items()}, language),
                "measure": measure,
                "check": words[f"short_{row['check']}"],
                "shift": f"{row['shift']:+.2f}",
                "p": _p(row["p_value"]),
                "psi": f"{row['psi']:.3f}" if is_psi or np.isfinite(row["psi"]) else "",
                "usual_psi": f"{row['usual_psi']:.3f}" if np.isfinite(row["usual_psi"]) else "",
                "state": str(row["state"]),
            }
        )
    return rows


def _p(value: float) -> str:
    return (
        "–"
        if not np.isfinite(value)
        else "<0.0001"
        if value < 1e-4
        else f"{value:.4f}"
        if value < 0.01
        else f"{value:.2f}"
    )


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): _plain(v) for k, v in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    """Return a value that JSON holds: None for what is not known."""
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return None if value is pd.NaT else value
