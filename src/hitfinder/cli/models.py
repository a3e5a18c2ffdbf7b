"""The model and its list: `train` and `rank`."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click

from hitfinder.cli.options import (
    a_model,
    as_of_option,
    decisions_option,
    duration_of,
    experiment_option,
    language_option,
    moment_of,
    outcomes_option,
    path_out,
    say_report,
    settings_file,
    settings_of,
    settings_or_models,
    signals_and_skus,
    tables_of,
    working,
    write_lists,
    wrote,
)
from hitfinder.errors import DataError, NotEnoughHistoryError

__all__ = ["rank", "train"]


@click.command()
@signals_and_skus
@settings_file
@outcomes_option
@decisions_option
@as_of_option
@click.option("--name", default="hitfinder", show_default=True, help="Name in the registry.")
@experiment_option
@click.option("--out", type=path_out, help="Write the model to this folder as well.")
@click.option(
    "--trials", type=click.IntRange(min=1), help="Look for better settings of the trees first, in so many tries."
)
@click.option("--time-budget", help="Begin no further trial after this long, such as 30m or 2h.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Trials side by side.")
@click.option(
    "--study", type=path_out, help="File of the trials, gone on with after a stop; default: beside MLflow's database."
)
def train(
    data: Path | None,
    signals: str | None,
    skus: str | None,
    settings_path: Path | None,
    outcomes: str | None,
    decisions: str | None,
    as_of: str | None,
    name: str,
    experiment: str,
    out: Path | None,
    trials: int | None,
    time_budget: str | None,
    workers: int,
    study: Path | None,
) -> None:
    """Fit a model, hold it against every simple rule, and register it as challenger.

    With --trials it tunes first: every trial is judged by the value captured at k, out of time, and the settings that
    were given stay unless others do better beyond chance.
    """
    from hitfinder.registry import register
    from hitfinder.registry.runs import recorded
    from hitfinder.registry.tracking import shown_uri
    from hitfinder.registry.tuned import log_tuning, study_beside_store, tag_fit
    from hitfinder.training import fit

    if trials is None and (time_budget is not None or study is not None or workers != 1):
        raise click.UsageError("--time-budget, --workers and --study belong to --trials; give --trials as well")
    budget = duration_of(time_budget, "--time-budget")
    signals, skus = tables_of(data, signals, skus)
    settings, moment = settings_of(settings_path, data), moment_of(as_of)
    with ExitStack() as stack:
        run = tuned = None
        if trials is not None:
            from hitfinder.tuning import tune

            run = stack.enter_context(recorded("tuning", kind="tuning", experiment=experiment))
            with working("Tuning") as tell:
                tuned = tune(
                    signals,
                    skus,
                    settings,
                    outcomes,
                    moment,
                    trials=trials,
                    time_budget=budget,
                    workers=workers,
                    study=study or study_beside_store(),
                    decisions=decisions,
                    progress=tell,
                )
                log_tuning(run, tuned)
            settings = tuned.settings
            click.echo(f"   {tuned.report['note']}")
        with working("Fitting, and judging out of time"):
            model = fit(signals, skus, settings, outcomes=outcomes, decisions=decisions, as_of=moment)
        if tuned is not None:
            model = replace(model, report={**model.report, "tuning": tuned.for_report(model.winner)})
        say_report(model.report)
        with working("Registering"):
            model, registered = register(model, signals, skus, name=name, experiment=experiment, parent=run)
            if run is not None and tuned is not None:
                tag_fit(run, registered, tuned)
    click.echo(
        f"registered {registered.name} version {registered.version} ({', '.join(registered.aliases)}) "
        f"in {shown_uri(registered.tracking_uri)}, run {registered.run_id}"
    )
    if tuned is not None:
        click.echo(f"   {model.report['tuning']['remark']}")
    if out is not None:
        wrote([model.save(out)])


@click.command()
@signals_and_skus
@a_model
@as_of_option
@click.option(
    "--by",
    type=click.Choice(["hit_probability", "expected_value"]),
    default="hit_probability",
    show_default=True,
    help="What is best first.",
)
@click.option("--batch", help="Only this batch; `newest` for the one launched last.")
@click.option(
    "--diagnose/--no-diagnose",
    default=None,
    help="Say each SKU's tier and, in a short sentence, what is weak and what to change first.  [default: on pages and "
    "in workbooks only; --diagnose: in every file]",
)
@language_option
@click.option(
    "--out", type=path_out, multiple=True, required=True, help="A .html, .xlsx, .csv or .parquet file; repeatable."
)
def rank(
    data: Path | None,
    signals: str | None,
    skus: str | None,
    model: str,
    as_of: str | None,
    by: str,
    batch: str | None,
    diagnose: bool | None,
    language: str,
    out: tuple[Path, ...],
) -> None:
    """Rank SKUs and write the list, with each SKU's tier and diagnosis beside it on pages and in workbooks."""
    from hitfinder.diagnosis import diagnose as look
    from hitfinder.ranking import only_batch
    from hitfinder.ranking import rank as put_in_order
    from hitfinder.registry import load_model
    from hitfinder.report.diagnosis import with_diagnosis
    from hitfinder.report.forms import check_out

    signals, skus = tables_of(data, signals, skus)
    check_out(out, read=(signals, skus))
    fitted, moment = load_model(model), moment_of(as_of)
    with working("Ranking"):
        ranked = put_in_order(fitted, signals, skus, as_of=moment, language=language, by=by, intervals=True)
        ranked = only_batch(ranked, skus, batch) if batch is not None else ranked
    told = [path for path in out if diagnose or (diagnose is None and path.suffix.lower() in (".html", ".xlsx"))]
    beside = ranked
    if told:
        settings = settings_or_models(None, data, fitted)
        try:
            with working("Looking at every step"), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of the tables, which `rank` has just said
                found = look(fitted, signals, skus, as_of=moment, language=language, settings=settings)
            beside = with_diagnosis(ranked, found, language)
        except (DataError, NotEnoughHistoryError) as error:  # such as a batch of which nothing is known yet
            warnings.warn(f"no tier and diagnosis beside the list: {error}", UserWarning, stacklevel=2)
    for path in out:
        wrote(write_lists(fitted, beside if path in told else ranked, skus, [path], language))
