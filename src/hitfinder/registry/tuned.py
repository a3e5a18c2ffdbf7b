"""Tuning on record: what it found, every trial with its settings, and pictures; the fit is a step of its run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hitfinder.registry.recording import Registered
from hitfinder.registry.runs import Run
from hitfinder.registry.tracking import chosen_uri, store_path

if TYPE_CHECKING:  # Optuna takes half a second that `import hitfinder` need not spend
    from hitfinder.tuning import Tuned

__all__ = ["log_tuning", "study_beside_store", "tag_fit"]


def study_beside_store(default_home: str | Path = "mlruns") -> Path:
    """Return the study's file beside MLflow's database, or in `default_home` where MLflow is a server.

    >>> study_beside_store("mlruns").name
    'tuning.journal'
    """
    store = store_path(chosen_uri(default_home))
    return (Path(default_home) if store is None else store.parent) / "tuning.journal"


def log_tuning(run: Run, tuned: Tuned) -> None:
    """Log what tuning came to: figures, `tuning.json`, `trials.csv`, and pictures of the search."""
    report, settings = tuned.report, tuned.settings
    run.log(
        params={f"trees.{name}": value for name, value in settings.trees.model_dump().items()},
        metrics=_figures(report),
        tags={
            "helped": str(report["helped"]).lower(),
            "note": report["note"],
            "study": report["study"],
            "as_of": report["as_of"],
            "seed": settings.seed,
            "workers": report["workers"],
            "settings_digest": settings.digest(),
        },
    )
    run.values(report, "tuning.json")
    if tuned.trials.empty:
        return
    run.text(tuned.trials.to_csv(index=False, lineterminator="\n"), "trials.csv")
    # Matplotlib takes half a second that `import hitfinder` need not spend.
    from hitfinder.registry.tuning_pictures import draw_tuning

    with tempfile.TemporaryDirectory(prefix="hitfinder-") as scratch:
        for name, png in draw_tuning(tuned.trials, report).items():
            file = Path(scratch) / f"{name}.png"
            file.write_bytes(png)
            run.file(file, "pictures")


def tag_fit(run: Run, registered: Registered, tuned: Tuned) -> None:
    """Say on the fit's own run that its settings come from a search, and what that came to."""
    fitted = Run(registered.run_id, run.experiment, run.tracking_uri)
    told = {"tuned": str(tuned.report["helped"]).lower(), "tuning_run": run.run_id, "tuning_note": tuned.report["note"]}
    fitted.log(tags=told)


def _figures(report: dict[str, Any]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for part in ("search", "out_of_time", "trials", "seconds"):
        figures.update({f"{part}.{name}": value for name, value in report.get(part, {}).items()})
    return figures
