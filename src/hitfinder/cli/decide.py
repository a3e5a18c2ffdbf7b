"""Decisions and what became of them: `decide` and `hindsight`."""

from __future__ import annotations

from pathlib import Path

import click

from hitfinder.cli.options import (
    a_model,
    as_of_option,
    check_record,
    duration_of,
    language_option,
    moment_of,
    outcomes_option,
    path_out,
    settings_or_champions,
    settings_or_models,
    signals_and_skus,
    tables_of,
    working,
    write_lists,
    wrote,
)

__all__ = ["decide", "hindsight"]

the_record = click.option(
    "--decisions", type=path_out, required=True, help="The record of decisions: a .parquet or .csv file."
)


@click.command()
@signals_and_skus
@a_model
@click.option(
    "--settings",
    "settings_path",
    type=path_out,
    help="Settings (TOML); without, those beside the data, else those that the model was fitted with.",
)
@as_of_option
@click.option("--batch", default="newest", show_default=True, help="Whose list is decided; `newest`: launched last.")
@click.option("--overrides", type=path_out, help="What people decided: .csv, .parquet or .xlsx with sku_id, action, "
              "decided_by, reason.")  # fmt: skip
@the_record
@click.option("--decided-at", help="The moment of the decision, UTC; default: now.")
@language_option
@click.option("--out", type=path_out, multiple=True, help="Write the decided list: .html, .xlsx, .csv, .parquet.")
def decide(
    data: Path | None,
    signals: str | None,
    skus: str | None,
    model: str,
    settings_path: Path | None,
    as_of: str | None,
    batch: str,
    overrides: Path | None,
    decisions: Path,
    decided_at: str | None,
    language: str,
    out: tuple[Path, ...],
) -> None:
    """Decide a batch's list, once: the model's word, people's, and a few stopped SKUs kept on by chance to learn."""
    from hitfinder.decided import decide_once
    from hitfinder.deciding import PERSON
    from hitfinder.overrides import read_overrides
    from hitfinder.ranking import only_batch
    from hitfinder.ranking import rank as put_in_order
    from hitfinder.registry import load_model
    from hitfinder.report.forms import check_out

    signals, skus = tables_of(data, signals, skus)
    check_out(out, read=(signals, skus, decisions, overrides))
    moment, decided = moment_of(as_of), moment_of(decided_at)
    if overrides is not None:
        read_overrides(str(overrides), None)  # what is wrong with it is said before the work
    fitted = load_model(model)
    settings = settings_or_models(settings_path, data, fitted)
    with working("Deciding"):
        ranked = put_in_order(fitted, signals, skus, as_of=moment, language=language)
        ranked = only_batch(ranked, skus, batch)
        done = decide_once(
            ranked,
            settings,
            decisions=decisions,
            overrides=None if overrides is None else str(overrides),
            decided_at=decided,
            language=language,
        )
    click.echo(done.say(language))
    stopped = int(((done.decisions["action"] == "stop") & (done.decisions["because"] == PERSON)).sum())
    lists = write_lists(fitted, done.ranked, skus, out, language, stopped_by_people=stopped)
    wrote([*([decisions] if done.written else []), *lists])


@click.command()
@signals_and_skus
@click.option(
    "--settings",
    "settings_path",
    type=path_out,
    help="Settings (TOML); without, those beside the data, else the champion's, else the defaults.",
)
@the_record
@outcomes_option
@as_of_option
@click.option("--since", default="4w", show_default=True, help="How far back: lists that closed within this stretch.")
@language_option
@click.option("--out", type=path_out, multiple=True, help="Write it: .html, .json, .csv or .txt; repeatable.")
def hindsight(
    data: Path | None,
    signals: str | None,
    skus: str | None,
    settings_path: Path | None,
    decisions: Path,
    outcomes: str | None,
    as_of: str | None,
    since: str,
    language: str,
    out: tuple[Path, ...],
) -> None:
    """Hold past lists against what happened: hits found and missed, false alarms, money, what people changed."""
    from hitfinder.hindsight import hindsight as look_back
    from hitfinder.hindsight import judged_by
    from hitfinder.report.forms import check_out
    from hitfinder.report.hindsight import check_form, write_hindsight

    signals, skus = tables_of(data, signals, skus)
    check_out(out, read=(signals, skus, decisions, outcomes), check=check_form)
    check_record(decisions)
    duration_of(since, "--since")  # else what is no duration would be refused as data are
    settings, whose = settings_or_champions(settings_path, data)
    with working("Looking back"):
        done = look_back(
            str(decisions),
            signals,
            skus,
            settings,
            outcomes=outcomes,
            as_of=moment_of(as_of),
            since=since,
        )
    click.echo(judged_by(settings, whose, language))
    click.echo(done.say(language))
    wrote([write_hindsight(done.to_dict(), path, language=language) for path in out])
