"""Fit on the history so far and register the model as challenger; where nothing changed, register nothing.

Run it as often as you like: the same tables and settings give the same model, and the same model is not registered
twice. Stopped at any moment, it can simply be started again.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

import pandas as pd

import hitfinder as hf
from hitfinder.registry import register


def parser() -> argparse.ArgumentParser:
    """Return the script's arguments."""
    out = argparse.ArgumentParser(description="Fit on the history so far and register the model as challenger.")
    out.add_argument("--signals", required=True, help="a Parquet or CSV file, or a glob for many")
    out.add_argument("--skus", required=True, help="a Parquet or CSV file, or a glob for many")
    out.add_argument("--settings", required=True, help="the TOML file of settings")
    out.add_argument("--outcomes", help="where they can't be computed from signals")
    out.add_argument("--as-of", type=pd.Timestamp, help="the moment of knowledge, UTC; default: the newest signal's")
    out.add_argument("--name", default="hitfinder", help="of the registered model (%(default)s)")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status: 0 done, 1 refused."""
    given = parser().parse_args(arguments)
    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
    try:
        settings = hf.load_settings(given.settings)
        model = hf.fit(given.signals, given.skus, settings, outcomes=given.outcomes, as_of=given.as_of)
        before = challenger(given.name)
        if before is not None and before.digest() == model.digest():
            print(f"nothing changed: {before.version} is this model; nothing registered")
            return 0
        after, registered = register(model, given.signals, given.skus, name=given.name)
    except hf.HitfinderError as refused:
        print(f"error: {' '.join(str(refused).split())}", file=sys.stderr)
        return 1
    print(f"registered {after.version} ({', '.join(registered.aliases)}) in {registered.tracking_uri}")
    was, now = facts(before), facts(after)
    for name in now:
        if was.get(name) != now[name]:
            print(f"  {name}: {was.get(name, 'none')} -> {now[name]}")
    print(f"  {after.report['note']}")
    return 0


def challenger(name: str) -> hf.HitModel | None:
    """Return the version that was registered last, or None before the first."""
    try:
        return hf.load_model(f"models:/{name}@challenger")
    except hf.ModelError:  # a registry that doesn't answer is refused by `register` next
        return None


def facts(model: hf.HitModel | None) -> dict[str, object]:
    """Return what is worth a line when it changes."""
    if model is None:
        return {}
    report = model.report
    figures = report["metrics"].get(report["ranked_by"], {})
    return {
        "version": model.version,
        "settings": model.settings.digest(),
        "SKUs learned from": report["n_skus"],
        "hits among them": report["n_hits"],
        "ranked by": report["ranked_by"],
        "average precision, out of time": round(figures.get("average_precision", float("nan")), 3),
    }


if __name__ == "__main__":
    sys.exit(main())
