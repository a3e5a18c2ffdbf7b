"""The head of a list: what ranked it, how good that was beside the simple rules, and what is promised."""

from __future__ import annotations

from typing import Any

from hitfinder.comparison import LEARNED
from hitfinder.models.hit_model import HitModel

__all__ = ["summary_of"]


def summary_of(model: HitModel) -> dict[str, Any]:
    """Draw from the model's report what `write_list` says on top of a list."""
    report = model.report
    metrics = report.get("metrics", {})

    def row(name: str) -> dict[str, Any]:
        return {"name": name, **{k: metrics[name][k] for k in ("average_precision", "hits_at_k") if k in metrics[name]}}

    rules = [row(name) for name in metrics if name not in LEARNED and "average_precision" in metrics[name]]
    best = report.get("best_kind", "prior")
    return {
        "promises": {action: model.promises[action] for action in ("scale", "stop") if action in model.promises},
        "ranked_by": "hitfinder" if model.winner in LEARNED else model.winner,
        "note": report.get("note", ""),
        **({"verdict": verdict} if (verdict := _verdict(report)) else {}),
        "metric": report.get("metric", ""),
        **({"unknown_costs": report["unknown_costs"]} if report.get("unknown_costs") else {}),
        "n_trained": report.get("n_skus", 0),
        "rules": sorted(rules, key=lambda r: -r["average_precision"]),
        "model": {**row(best), "name": "hitfinder"} if "average_precision" in metrics.get(best, {}) else {},
    }


def _verdict(report: dict[str, Any]) -> dict[str, Any]:
    """Return how the model did beside the best simple rule, in figures; nothing where that is not known."""
    lead, kind, rule = report.get("lead_over_best_rule"), report.get("best_kind"), report.get("best_rule")
    metrics = report.get("metrics", {})
    if not lead or any("average_precision" not in metrics.get(name, {}) for name in (kind, rule)):
        return {}
    return {
        "rule": rule,
        "ours": metrics[kind]["average_precision"],
        "theirs": metrics[rule]["average_precision"],
        "ranks": report.get("ranked_by") in LEARNED,
        **{name: lead[name] for name in ("mean", "low", "high")},
    }
