"""The registry's champion: `promote`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from hitfinder.cli.options import (
    as_of_option,
    decisions_option,
    experiment_option,
    moment_of,
    outcomes_option,
    path_out,
    settings_of,
    signals_and_skus,
    tables_of,
    working,
)

__all__ = ["promote"]


@click.command()
@signals_and_skus
@click.option("--settings", "settings_path", type=path_out, help="Settings (TOML); without, the challenger's own.")
@outcomes_option
@decisions_option
@as_of_option
@click.option("--name", default="hitfinder", show_default=True, help="Name in the registry.")
@experiment_option
@click.option("--challenger", help="The version to judge, such as models:/hitfinder/3.  [default: @challenger]")
@click.option("--dry-run", is_flag=True, help="Judge, but change nothing in the registry.")
@click.option(
    "--rollback", is_flag=True, help="Give `champion` back to the version that had it before; no data needed."
)
def promote(
    data: Path | None,
    signals: str | None,
    skus: str | None,
    settings_path: Path | None,
    outcomes: str | None,
    decisions: str | None,
    as_of: str | None,
    name: str,
    experiment: str,
    challenger: str | None,
    dry_run: bool,
    rollback: bool,
) -> None:
    """Make the challenger champion, where closed batches that it has not seen carry it."""
    if rollback:
        if challenger is not None:
            raise click.UsageError("give either --challenger or --rollback: a roll-back knows where to go")
        _roll_back(name, experiment, dry_run=dry_run)
        return
    tables = tables_of(data, signals, skus)
    moment = moment_of(as_of)
    from hitfinder.errors import ModelError
    from hitfinder.gate import gate
    from hitfinder.registry import load_model
    from hitfinder.registry.loading import open_champion
    from hitfinder.registry.promotion import promote as move
    from hitfinder.registry.promotion import standing

    stands = standing(name)
    number = _number(challenger, name) if challenger is not None else stands.challenger
    if number is None:
        raise ModelError(f"{name}: no version is challenger; run `hitfinder train`, or name one with --challenger")
    if number == stands.champion:
        click.echo(f"{name} version {number} is champion already; nothing was moved")
        return
    if challenger is None and stands.rolled_back:
        raise ModelError(
            f"not promoted: {name} version {number} was rolled back ({stands.rolled_back}); train another, or name it "
            f"with --challenger models:/{name}/{number} to judge it again"
        )
    with working("Judging") as tell:
        tell("loading the models")
        candidate = load_model(f"models:/{name}/{number}")
        champion, unopened = open_champion(name, stands.champion) if stands.champion is not None else (None, None)
        own = settings_path is None and not (data is not None and (data / "hitfinder.toml").is_file())
        settings = candidate.settings if own else settings_of(settings_path, data)
        verdict = gate(
            candidate, champion, *tables, settings, outcomes=outcomes, decisions=decisions, as_of=moment, progress=tell
        )
        if unopened is not None:
            verdict = replace(verdict, notes=(*verdict.notes, unopened))
        done = move(
            name,
            number,
            verdict,
            champion=stands.champion,
            dry_run=dry_run,
            experiment=experiment,
            progress=tell,
        )
    _say(verdict, done)
    if not done.promoted:
        raise ModelError(f"not promoted: {name} version {number}: {done.reason}")
    what = "would be" if dry_run else "is"
    before = f"in place of version {stands.champion}" if stands.champion is not None else "the first"
    click.echo(f"{name} version {number} {what} champion now, {before}")
    if done.run_id is not None:
        click.echo(f"evidence: run {done.run_id}")


def _say(verdict: Any, done: Any) -> None:
    click.echo(verdict.say())
    for check in done.checks:
        click.echo(str(check))


def _number(source: str, name: str) -> str:
    """Return the version that a name means, which has to be of the model that is promoted."""
    from hitfinder.errors import ModelError
    from hitfinder.registry import load_model

    version = load_model(source).version
    if not version.startswith(f"{name}/"):
        raise ModelError(f"{source}: expected a version of {name}, got {version}; register it, or change --name")
    return version.removeprefix(f"{name}/")


def _roll_back(name: str, experiment: str, *, dry_run: bool) -> None:
    from hitfinder.registry.promotion import roll_back

    with working("Rolling back"):
        was, now = roll_back(name, dry_run=dry_run, experiment=experiment)
    what = "would be" if dry_run else "is"
    click.echo(f"{name} version {now} {what} champion again, in place of version {was}")
