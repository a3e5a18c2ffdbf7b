"""What to order again: `stock`."""

from __future__ import annotations

from pathlib import Path

import click

from hitfinder.cli.options import (
    a_model,
    as_of_option,
    language_option,
    moment_of,
    path_out,
    settings_or_models,
    signals_and_skus,
    tables_of,
    working,
    wrote,
)

__all__ = ["stock"]


@click.command()
@signals_and_skus
@a_model
@click.option(
    "--settings",
    "settings_path",
    type=path_out,
    help="Settings (TOML) with [stock]; without, those beside the data, else those that the model was fitted with.",
)
@as_of_option
@click.option("--batch", help="Only this batch; `newest`: launched last. Default: all SKUs.")
@click.option(
    "--service-level", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95, show_default=True,
    help="The chance with which stock and order together shall be enough.",
)  # fmt: skip
@language_option
@click.option("--out", type=path_out, multiple=True, help="A .html, .xlsx, .csv or .parquet file; repeatable.")
def stock(
    data: Path | None,
    signals: str | None,
    skus: str | None,
    model: str,
    settings_path: Path | None,
    as_of: str | None,
    batch: str | None,
    service_level: float,
    language: str,
    out: tuple[Path, ...],
) -> None:
    """List what to order again: stock left, demand ahead with its range, how long it lasts, the most urgent first."""
    from hitfinder.ranking import newest_batch, sku_columns
    from hitfinder.registry import load_model
    from hitfinder.report.forms import check_out
    from hitfinder.report.stock import stock_paper
    from hitfinder.report.tables import write_paper
    from hitfinder.stock import of_batch
    from hitfinder.stock import stock as look_at_stock

    signals, skus = tables_of(data, signals, skus)
    check_out(out, read=(signals, skus))
    fitted = load_model(model)
    rule = settings_or_models(settings_path, data, fitted).stock
    with working("Counting stock"):
        table = look_at_stock(fitted, signals, skus, moment_of(as_of), service_level, settings=rule)
        if batch is not None:
            table = of_batch(table, newest_batch(table, skus) if batch == "newest" and len(table) else batch)
        told = fitted.settings.model_copy(update={"stock": rule}).to_dict()
        paper = stock_paper(
            table,
            alert_share=rule.alert_share,
            window=told["label"]["outcome_window"],
            lead_time=told["stock"]["lead_time"],
            service_level=service_level,
            skus=sku_columns(skus),
            language=language,
        )
        written = [write_paper(paper, path) for path in out]
    for text in paper.says:
        click.echo(text)
    wrote(written)
