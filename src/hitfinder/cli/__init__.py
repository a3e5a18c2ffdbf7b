"""The command line: each verb reads files, calls the public functions, and says what it wrote."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

import click

from hitfinder.cli.budget import budget
from hitfinder.cli.decide import decide, hindsight
from hitfinder.cli.diagnose import diagnose
from hitfinder.cli.logs import ingest
from hitfinder.cli.models import rank, train
from hitfinder.cli.money import ledger, what_if
from hitfinder.cli.monitor import monitor
from hitfinder.cli.practice import demo, simulate
from hitfinder.cli.promote import promote
from hitfinder.cli.stock import stock
from hitfinder.cli.traffic import plan, replay
from hitfinder.errors import HitfinderError

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(metadata.version("hitfinder"), prog_name="hitfinder")
def cli() -> None:
    """Find the few hits among many long-tail SKUs from the early signals of small test batches."""


for verb in (
    demo,
    simulate,
    ingest,
    train,
    rank,
    plan,
    replay,
    promote,
    decide,
    hindsight,
    monitor,
    diagnose,
    ledger,
    what_if,
    budget,
    stock,
):
    cli.add_command(verb)


def _plainly(command: Callable[[], Any]) -> Callable[[], int]:
    """Turn refusals into one line and an exit status."""

    @functools.wraps(command)
    def run() -> int:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_args, **_kwargs: click.echo(f"note: {message}", err=True)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            try:
                left = command()
            except click.exceptions.Exit as leave:
                return leave.exit_code
            except click.ClickException as wrong:
                wrong.show()
                return wrong.exit_code
            except click.Abort:
                click.echo("stopped", err=True)
                return 130
            except HitfinderError as refused:
                click.echo(f"error: {' '.join(str(refused).split())}", err=True)
                return 1
        # Where click does not leave by itself, it returns the status that a verb asked to leave with.
        return left if isinstance(left, int) else 0

    return run


def main() -> None:
    """Run the command line and leave with its exit status: 0 done, 1 refused, 2 wrong usage."""
    sys.exit(_plainly(lambda: cli(prog_name="hitfinder", standalone_mode=False))())
