"""Look whether data and market are still what the champion was made for: a page, a JSON, a run in MLflow.

The files go to a folder named by the day of the look. The run has a step for each check. Exit status: 0 quiet; 1 on
an alarm, which is said on stdout and written to the page and the JSON; 1 too where data or model are refused, which is
one line `error: ...` on stderr; 2 wrong usage. In a scheduler give `--as-of now`: a look as of the newest signal can't
see that none came since.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import hitfinder as hf
from hitfinder.monitor import monitor
from hitfinder.report.health import record_health, write_health


def moment(text: str) -> pd.Timestamp | str:
    """Return the moment that is meant; `now` is left to the look."""
    return text if text == "now" else pd.Timestamp(text)


def parser() -> argparse.ArgumentParser:
    """Return the script's arguments."""
    out = argparse.ArgumentParser(
        description="Look whether data and market are still what the champion was made for.",
        epilog="Exit status: 0 quiet; 1 on an alarm (said on stdout, written to page and JSON) or where data or model "
        "are refused (one line `error: ...` on stderr); 2 wrong usage.",
    )
    out.add_argument("--signals", required=True, help="a Parquet or CSV file, or a glob for many")
    out.add_argument("--skus", required=True, help="a Parquet or CSV file, or a glob for many")
    out.add_argument("--outcomes", help="where they can't be computed from signals")
    out.add_argument("--decisions", help="what was decided, to hold the stopping promise against that as well")
    out.add_argument("--model", default="models:/hitfinder@champion", help="(%(default)s)")
    out.add_argument(
        "--as-of", type=moment, help="the moment of knowledge, UTC, or `now`; default: the newest signal's"
    )
    out.add_argument("--false-alarm", type=float, default=0.05, help="chance of any false alarm (%(default)s)")
    out.add_argument("--language", choices=["en", "zh"], default="en", help="(%(default)s)")
    out.add_argument("--experiment", default="hitfinder", help="in MLflow (%(default)s)")
    out.add_argument("--out", type=Path, default=Path("health"), help="folder that gets a folder a day (%(default)s)")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status: 0 quiet, 1 alarm or refused."""
    given = parser().parse_args(arguments)
    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
    try:
        model = hf.load_model(given.model)
        health = monitor(
            model, given.signals, given.skus, decisions=given.decisions, outcomes=given.outcomes, as_of=given.as_of,
            false_alarm=given.false_alarm,
        )  # fmt: skip
        print(health.say(given.language))
        old = health.stale(given.language) if given.as_of is None else None
        if old:
            print(f"note: {old}", file=sys.stderr)
        paths = write_health(health, given.out / f"{health.as_of:%Y-%m-%d}", language=given.language)
        print(f"recorded as run {record_health(health, paths, experiment=given.experiment)}")
    except hf.HitfinderError as refused:
        print(f"error: {' '.join(str(refused).split())}", file=sys.stderr)
        return 1
    for path in paths:
        print(f"wrote {path}")
    return 0 if health.ok else 1


if __name__ == "__main__":
    sys.exit(main())
