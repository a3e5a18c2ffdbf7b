"""Is all well? `monitor`."""

from __future__ import annotations

from pathlib import Path

import click

from hitfinder.cli.options import (
    a_model,
    check_record,
    experiment_option,
    language_option,
    moment_of,
    outcomes_option,
    path_out,
    signals_and_skus,
    tables_of,
    working,
    wrote,
)

__all__ = ["monitor"]


@click.command()
@signals_and_skus
@a_model
@outcomes_option
@click.option("--decisions", help="What was decided, to hold the stopping promise against that as well.")
@click.option(
    "--as-of", help="The moment of knowledge, UTC, or `now`; default: when the newest signal was known. In a scheduler "
    "give `now`: else a feed that stopped is not noticed."
)  # fmt: skip
@click.option(
    "--false-alarm", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.05, show_default=True,
    help="Chance of any false alarm in this look, over all checks together.",
)  # fmt: skip
@experiment_option
@click.option("--no-track", is_flag=True, help="Leave no run in MLflow.")
@language_option
@click.option("--out", type=path_out, default=Path("health"), show_default=True, help="Folder for the page and JSON.")
def monitor(
    data: Path | None,
    signals: str | None,
    skus: str | None,
    model: str,
    outcomes: str | None,
    decisions: str | None,
    as_of: str | None,
    false_alarm: float,
    experiment: str,
    no_track: bool,
    language: str,
    out: Path,
) -> None:
    """Look whether data and market are still what the model was made for; exit with 1 on an alarm.

    Exit status: 0 quiet; 1 on an alarm, which is said on stdout and written to the page and the JSON; 1 too where data
    or model are refused, which is one line `error: ...` on stderr, with nothing written; 2 wrong usage.
    """
    from hitfinder.monitor import monitor as look
    from hitfinder.registry import load_model
    from hitfinder.report.health import record_health, write_health

    signals, skus = tables_of(data, signals, skus)
    check_record(decisions)
    fitted = load_model(model)
    with working("Looking at inputs, reports and outcomes"):
        health = look(
            fitted, signals, skus, decisions=decisions, outcomes=outcomes,
            as_of=moment_of(as_of), false_alarm=false_alarm,
        )  # fmt: skip
    click.echo(health.say(language))
    old = health.stale(language) if as_of is None else None
    if old:
        click.echo(f"note: {old}", err=True)
    paths = write_health(health, out, language=language)
    if not no_track:
        with working("Recording"):
            run_id = record_health(health, paths, experiment=experiment)
        click.echo(f"recorded as run {run_id}")
    wrote(paths)
    if not health.ok:
        raise click.exceptions.Exit(1)
