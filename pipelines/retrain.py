"""Retrain: new signals to challenger, gate, champion. Made to be left alone.

Run it as often as you like: with the same data, settings and code nothing happens the second time. Killed at any
moment, it can simply be started again; while another one is at work on the same model, it leaves.
"""

from __future__ import annotations

import argparse
import glob
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import click
import pandas as pd

import hitfinder as hf
from hitfinder.cli.options import moment_of
from hitfinder.errors import DataError, NotRegisteredError
from hitfinder.gate import MIN_UNSEEN
from hitfinder.registry.promotion import standing
from hitfinder.routines.retrain import retrain


def moment(text: str) -> pd.Timestamp | None:
    """Return the moment that is meant, UTC; `now` too."""
    try:
        return moment_of(text)
    except click.BadParameter as wrong:
        raise argparse.ArgumentTypeError(wrong.message) from None


def parser() -> argparse.ArgumentParser:
    """Return the script's arguments."""
    out = argparse.ArgumentParser(description="New signals to challenger, gate, champion.")
    out.add_argument("--signals", required=True, help="a Parquet or CSV file, or a glob for many")
    out.add_argument("--skus", required=True, help="a Parquet or CSV file, or a glob for many")
    out.add_argument("--settings", required=True, help="the TOML file of settings")
    out.add_argument("--outcomes", help="where they can't be computed from signals")
    out.add_argument("--decisions", help="the record that `hitfinder decide` and `plan` keep, or a glob for many")
    out.add_argument(
        "--as-of", type=moment, help="the moment of knowledge, UTC, or `now`; default: the newest signal's"
    )
    out.add_argument("--name", default="hitfinder", help="of the registered model (%(default)s)")
    out.add_argument("--experiment", default="hitfinder", help="that holds the runs (%(default)s)")
    out.add_argument("--min-batches", type=int, default=MIN_UNSEEN,
                     help="closed batches that the champion must not have seen (%(default)s)")  # fmt: skip
    out.add_argument("--wait", type=float, default=0.0, help="seconds to wait for another retraining (%(default)s)")
    return out


def record_of(decisions: str | None, name: str) -> str | None:
    """Return the record; None where it can't be there yet, since no model of that name was ever registered.

    Raises
    ------
    DataError
        It is not there: to learn as if nothing had been decided would be another model.
    """
    if decisions is None or Path(decisions).exists() or glob.glob(decisions, recursive=True):  # noqa: PTH207 - it may be absolute
        return decisions
    try:
        standing(name)
    except NotRegisteredError:
        print(f"note: {decisions}: not there yet, so nothing was decided before", file=sys.stderr)
        return None
    raise DataError(
        f"decisions: expected a record, {decisions} is not there; mend the path, or leave --decisions out if nothing "
        "was ever decided"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status: 0 done, or left to another one at work; 1 refused."""
    given = parser().parse_args(arguments)
    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
    tell = (lambda words: print(f"... {words}", file=sys.stderr)) if sys.stderr.isatty() else None
    try:
        done = retrain(
            given.signals,
            given.skus,
            hf.load_settings(given.settings),
            outcomes=given.outcomes,
            decisions=record_of(given.decisions, given.name),
            as_of=given.as_of,
            name=given.name,
            experiment=given.experiment,
            min_batches=given.min_batches,
            wait=given.wait,
            progress=tell,
        )
    except hf.HitfinderError as refused:
        print(f"error: {' '.join(str(refused).split())}", file=sys.stderr)
        return 1
    print(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
