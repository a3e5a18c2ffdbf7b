"""The model and its list: `train` and `rank`."""

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
    say_report,
    settings_file,
    settings_of,
    signals_and_skus,
    tables_of,
    working,
    write_lists,
    wrote,
)

__all__ = ["rank", "train"]


@click.command()
@signals_and_skus
@settings_file
@outcomes_option
@as_of_option
@click.option("--name", default="hitfinder", show_default=True, help="Name in the registry.")
@experiment_option
@click.option("--out", type=path_out, help="Write the model to this folder as well.")
def train(
    data: Path | None,
    signals: str | None,
    skus: str | None,
    settings_path: Path | None,
    outcomes: str | None,
    as_of: str | None,
    name: str,
    experiment: str,
    out: Path | None,
) -> None:
    """Fit a model, hold it against every simple rule, and register it as challenger."""
    from hitfinder.registry import register
    from hitfinder.training import fit

    signals, skus = tables_of(data, signals, skus)
    with working("Fitting, and judging out of time"):
        model = fit(signals, skus, settings_of(settings_path, data), outcomes=outcomes, as_of=moment_of(as_of))
    say_report(model.report)
    with working("Registering"):
        model, registered = register(model, signals, skus, name=name, experiment=experiment)
    click.echo(
        f"registered {registered.name} version {registered.version} ({', '.join(registered.aliases)}) "
        f"in {registered.tracking_uri}, run {registered.run_id}"
    )
    if out is not None:
        wrote([model.save(out)])


@click.command()
@signals_and_skus
@a_model
@as_of_option
@click.option("--batch", help="Only this batch; `newest` for the one launched last.")
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
    batch: str | None,
    language: str,
    out: tuple[Path, ...],
) -> None:
    """Rank SKUs and write the list."""
    from hitfinder.ranking import only_batch
    from hitfinder.ranking import rank as put_in_order
    from hitfinder.registry import load_model
    from hitfinder.report import check_suffix

    signals, skus = tables_of(data, signals, skus)
    for path in out:
        check_suffix(path)
    fitted = load_model(model)
    with working("Ranking"):
        ranked = put_in_order(fitted, signals, skus, as_of=moment_of(as_of), language=language)
        ranked = only_batch(ranked, skus, batch) if batch is not None else ranked
    wrote(write_lists(fitted, ranked, skus, out, language))
