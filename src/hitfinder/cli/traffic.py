"""Tests that cost traffic: `plan` and `replay`."""

from __future__ import annotations

from pathlib import Path

import click

from hitfinder.cli.options import (
    a_model,
    as_of_option,
    experiment_option,
    language_option,
    moment_of,
    outcomes_option,
    path_out,
    settings_file,
    settings_of,
    shares,
    signals_and_skus,
    tables_of,
    working,
    wrote,
)
from hitfinder.tables import COUNTS, MONEY

__all__ = ["plan", "replay"]

MERITS = [name for name in (*COUNTS, *MONEY) if name != "impressions"]


@click.command()
@signals_and_skus
@a_model
@as_of_option
@click.option("--batch", default="newest", show_default=True, help="The batch on test; `newest`: launched last.")
@click.option("--round", "number", type=click.IntRange(1), required=True, help="Which round this is, from 1.")
@click.option("--rounds", type=click.IntRange(1), required=True, help="How many rounds the test has in all.")
@click.option("--budget", type=click.IntRange(1), required=True, help="Exposures of the whole test.")
@click.option("--slots", type=click.IntRange(1), default=10, show_default=True, help="SKUs that can be scaled.")
@click.option("--cap", type=click.IntRange(1), default=1_000, show_default=True, help="Most exposures of a SKU in all.")
@click.option("--decisions", type=path_out, required=True, help="The record: a .parquet or .csv file, made if missing.")
@click.option("--again", is_flag=True, help="Write a decided round's files once more; nothing is decided anew.")
@click.option("--allow-gap", is_flag=True, help="Earlier rounds were left out, or run without hitfinder.")
@language_option
@click.option(
    "--out", type=path_out, multiple=True, required=True, help="A .csv or .xlsx file, or a folder for both; repeatable."
)
def plan(
    data: Path | None,
    signals: str | None,
    skus: str | None,
    model: str,
    as_of: str | None,
    batch: str,
    number: int,
    rounds: int,
    budget: int,
    slots: int,
    cap: int,
    decisions: Path,
    again: bool,
    allow_gap: bool,
    language: str,
    out: tuple[Path, ...],
) -> None:
    """Decide the next round of a running test, once, and write it for the ad platform."""
    from hitfinder.livetest import plan_round
    from hitfinder.registry import load_model

    signals, skus = tables_of(data, signals, skus)
    if number > rounds:
        raise click.UsageError(f"expected a --round from 1 to {rounds}, got {number}")
    fitted = load_model(model)
    with working("Planning"):
        done = plan_round(
            fitted,
            signals,
            skus,
            decisions=decisions,
            out=out,
            number=number,
            rounds=rounds,
            budget=budget,
            slots=slots,
            exposure_cap=cap,
            batch=batch,
            as_of=moment_of(as_of),
            language=language,
            again=again,
            allow_gap=allow_gap,
        )
    click.echo(done.say(language))
    wrote(done.paths)


@click.command()
@signals_and_skus
@settings_file
@outcomes_option
@as_of_option
@click.option("--budgets", callback=shares, help="Shares of a full test's exposures.  [default: 0.05 to 0.5]")
@click.option("--rounds", type=click.IntRange(1), default=6, show_default=True, help="How often a policy may buy.")
@click.option("--repeats", type=click.IntRange(1), default=2, show_default=True, help="Plays of each test.")
@click.option("--merit", type=click.Choice(MERITS), help="The count that simple policies go by; default: the label's.")
@click.option("--controls/--no-controls", default=True, show_default=True, help="Also play what must fail.")
@language_option
@experiment_option
@click.option("--no-track", is_flag=True, help="Log nothing to MLflow.")
@click.option("--out", type=path_out, default=Path("replay"), show_default=True, help="Folder to write.")
def replay(
    data: Path | None,
    signals: str | None,
    skus: str | None,
    settings_path: Path | None,
    outcomes: str | None,
    as_of: str | None,
    budgets: tuple[float, ...] | None,
    rounds: int,
    repeats: int,
    merit: str | None,
    controls: bool,
    language: str,
    experiment: str,
    no_track: bool,
    out: Path,
) -> None:
    """Play policies again on past batches: what each would have cost and found."""
    from hitfinder.replays import BUDGETS
    from hitfinder.replays import replay as play_again
    from hitfinder.report.replay_files import check_folder, say_promises, write_replay

    signals, skus = tables_of(data, signals, skus)
    moment, settings = moment_of(as_of), settings_of(settings_path, data)
    check_folder(out)
    with working("Replaying") as tell:
        done = play_again(
            signals,
            skus,
            settings,
            outcomes,
            moment,
            budgets=budgets or BUDGETS,
            rounds=rounds,
            repeats=repeats,
            merit=merit,
            controls=controls,
            progress=tell,
        )
    text = f"{done.say(language)}\n{say_promises(done.promises, settings.policy.confidence, language)}"
    click.echo(text)
    files = write_replay(done.summary, done.results, done.promises, out)
    wrote(files)
    if no_track:
        return
    from hitfinder.registry import record_replay
    from hitfinder.registry.tracking import shown_uri

    with working("Recording"):
        recorded = record_replay(
            done.summary,
            done.promises,
            signals,
            skus,
            settings,
            files=files,
            text=text,
            played={
                "budgets": ", ".join(f"{share:g}" for share in budgets or BUDGETS),
                "rounds": rounds,
                "repeats": repeats,
                "merit": merit,
                "controls": controls,
                "as_of": as_of,
                "outcomes": outcomes,
            },
            experiment=experiment,
        )
    click.echo(f"logged to {shown_uri(recorded.tracking_uri)}, run {recorded.run_id}")
