"""What a run remembers: settings, data, code and figures, as MLflow's flat names and values."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from hitfinder.admission import admit_signals_and_skus
from hitfinder.comparison import LEARNED
from hitfinder.errors import ModelError
from hitfinder.models.hit_model import HitModel
from hitfinder.warehouse import quoted

__all__ = ["admit_data", "code_facts", "data_facts", "flat", "metric_values", "requirements", "slug"]

PACKAGE = Path(__file__).resolve().parent.parent


def admit_data(con: Any, model: HitModel, signals: Any, skus: Any) -> None:
    """Make the tables `signals` and `skus`, as `fit` saw them; `fit` has said what was set aside."""
    admit_signals_and_skus(con, signals, skus, period=model.settings.signals.period, warn=False)


TABLES = ("signals", "skus", "outcomes", "decisions")


def data_facts(con: Any, of: Sequence[str] = TABLES) -> dict[str, str]:
    """Describe the admitted data: a digest that knows no order of rows or columns, the sizes and the time range.

    The digest is `of` these tables, as far as they were given.
    """
    n_signals, first, last, known = con.execute(
        "select count(*), min(period_start), max(period_start), max(known_at) from signals"
    ).fetchone()
    n_skus = con.execute("select count(*) from skus").fetchone()[0]
    there = {row[0] for row in con.execute("select table_name from duckdb_tables() where temporary").fetchall()}
    parts = [_table_digest(con, table) for table in TABLES if table in there and table in of]
    facts = {
        "data_digest": hashlib.sha256("\n".join(parts).encode()).hexdigest(),
        "data_signals_rows": n_signals,
        "data_skus": n_skus,
        "data_first_period": first and first.isoformat(),
        "data_last_period": last and last.isoformat(),
        "data_newest_known_at": known and known.isoformat(),
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def _table_digest(con: Any, table: str) -> str:
    """Add up the hashes of the rows: a sum does not depend on the order, and needs no sorting."""
    names = sorted(row[0] for row in con.execute(f"describe {table}").fetchall())
    # JSON keeps NULL, '' and a comma within a text apart.
    row = "cast(json_array(" + ", ".join(f"cast({quoted(name)} as varchar)" for name in names) + ") as varchar)"
    sums = con.execute(
        "select count(*), sum(md5_number_lower(content)), sum(md5_number_upper(content)) "
        f"from (select {row} as content from {table})"
    ).fetchone()
    return f"{table} {names} {sums}"


def code_facts() -> dict[str, str]:
    """Return the version of hitfinder and, in a checkout, the commit and whether something was changed since."""
    facts = {"code_version": _installed("hitfinder")}
    # An installed copy may lie inside somebody else's repository: only a file that git follows tells ours.
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return facts
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", ".")
    if commit:
        facts["git_commit"] = commit
        facts["git_dirty"] = str(changes != "").lower()
    return facts


def requirements() -> list[str]:
    """Return the packages that hitfinder needs, each with the version at hand; its own source travels along."""
    found = [
        re.match(r"[A-Za-z0-9._-]+", line) for line in metadata.requires("hitfinder") or [] if "extra ==" not in line
    ]
    return sorted(f"{name[0]}=={_installed(name[0])}" for name in found if name)


def metric_values(report: dict[str, Any]) -> dict[str, float]:
    """Flatten the report's out-of-time figures into MLflow's names; what was not measured is left out.

    >>> metric_values({"metrics": {"prior": {"hits_at_k": 0.5}, "orders a day": {"hits_at_k": 0.25}}})
    {'model.prior.hits_at_k': 0.5, 'rule.orders_a_day.hits_at_k': 0.25}
    """
    values: dict[str, Any] = {}
    metrics = report.get("metrics", {})
    for name, figures in metrics.items():
        kind = "model" if name in LEARNED else "rule"
        values.update({f"{kind}.{slug(name)}.{figure}": value for figure, value in figures.items()})
    for short, chosen in (("model", "best_kind"), ("best_rule", "best_rule"), ("ranked_by", "ranked_by")):
        figures = metrics.get(report.get(chosen), {})
        values.update({f"{short}.{figure}": value for figure, value in figures.items()})
    values.update({f"lead_over_best_rule.{k}": v for k, v in report.get("lead_over_best_rule", {}).items()})
    values.update({name: report[name] for name in ("n_skus", "n_hits", "n_groups") if name in report})
    numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


OVERRIDES = ("costs.category", "costs.sku")


def flat(values: dict[str, Any], before: str = "") -> dict[str, str]:
    """Flatten nested settings; what is said of single categories or SKUs stays together, under no name of theirs.

    >>> flat({"seed": 0, "costs": {"shipping": 3.0, "category": {"sofa (L)": {"shipping": 40.0}}}})
    {'seed': '0', 'costs.shipping': '3.0', 'costs.category': '{"sofa (L)": {"shipping": 40.0}}'}
    """
    out: dict[str, str] = {}
    for name, value in values.items():
        if f"{before}{name}" in OVERRIDES:
            if value:
                out[f"{before}{name}"] = json.dumps(value, ensure_ascii=False, sort_keys=True)
        elif isinstance(value, dict):
            out.update(flat(value, f"{before}{name}."))
        else:
            out[f"{before}{name}"] = str(value)
    return out


def slug(name: str) -> str:
    """Make a name that MLflow takes as part of a metric's.

    >>> slug("revenue so far (7 days)")
    'revenue_so_far_7_days'
    """
    return re.sub(r"\W+", "_", name).strip("_") or "unnamed"


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        raise ModelError(
            f"{name}: expected an installed package, got none, so a served model could not name what it needs; "
            "install hitfinder with pip"
        ) from None


def _git(*words: str) -> str | None:
    """Ask git about the package's folder; None where there is no git or no repository."""
    command = ["git", "-C", str(PACKAGE), *words]
    try:
        done = subprocess.run(  # noqa: S603 - fixed words, no text of a user
            command,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
