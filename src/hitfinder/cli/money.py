"""The money: `ledger` and `what-if`."""

from __future__ import annotations

from pathlib import Path

import click

from hitfinder.cli.options import (
    as_of_option,
    duration_of,
    language_option,
    moment_of,
    path_out,
    settings_file,
    settings_of,
    signals_and_skus,
    tables_of,
    working,
    wrote,
)

__all__ = ["ledger", "what_if"]


@click.command()
@signals_and_skus
@settings_file
@as_of_option
@click.option(
    "--by", default="sku_id", show_default=True,
    help="What each line is about: sku_id, batch_id, style_id, category, channel, creative_id, period_start; several "
    "with commas.",
)  # fmt: skip
@click.option("--every", help="With period_start: gather periods into stretches of this length, such as 7d.")
@language_option
@click.option(
    "--out", type=path_out, multiple=True, help="A .html, .xlsx, .csv or .parquet file; repeatable. Without: the sums."
)
def ledger(
    data: Path | None,
    signals: str | None,
    skus: str | None,
    settings_path: Path | None,
    as_of: str | None,
    by: str,
    every: str | None,
    language: str,
    out: tuple[Path, ...],
) -> None:
    """Show where the money went: revenue, refunds, every cost, and what is left.

    Rates come from [costs] in the settings; a cost that nobody gave is named, not taken for 0.
    """
    from hitfinder.ledger import ledgers
    from hitfinder.report.forms import check_out
    from hitfinder.report.ledger import ledger_paper
    from hitfinder.report.tables import write_paper

    signals, skus = tables_of(data, signals, skus)
    check_out(out, read=(signals, skus))
    length = duration_of(every, "--every")
    columns = tuple(name.strip() for name in by.split(",") if name.strip())
    with working("Adding up"):
        table, total = ledgers(
            signals,
            skus,
            settings_of(settings_path, data),
            moment_of(as_of),
            by=(columns, ()),
            every=length,
        )
        paper = ledger_paper(table, total, language)
        written = [write_paper(paper, path) for path in out]
    for text in paper.says:
        click.echo(text)
    wrote(written)


@click.command("what-if")
@signals_and_skus
@settings_file
@as_of_option
@click.option("--commission", type=float, default=0.0, help="Points added to the commission: -0.03 for three less.")
@click.option("--coupons", type=float, default=0.0, help="Points added to coupons and subsidies.")
@click.option("--price", type=float, default=0.0, help="Relative change of the prices: 0.05 for 5 % more.")
@click.option("--traffic", type=float, default=0.0, help="Relative change of the visitors: 0.10 for 10 % more.")
@click.option("--spend", type=float, default=0.0, help="Money added to the ad spend of the stretch.")
@click.option("--elasticity", type=float, help="Of demand for the price; default: learned where prices varied.")
@click.option("--only", multiple=True, help="Which SKUs: column=value, such as category=dress; repeatable.")
@click.option("--stretch", help="The weeks asked about, back from the moment, such as 4w; default: outcome window.")
@language_option
@click.option("--out", type=path_out, multiple=True, help="A .html, .xlsx, .csv or .parquet file; repeatable.")
def what_if(
    data: Path | None,
    signals: str | None,
    skus: str | None,
    settings_path: Path | None,
    as_of: str | None,
    commission: float,
    coupons: float,
    price: float,
    traffic: float,
    spend: float,
    elasticity: float | None,
    only: tuple[str, ...],
    stretch: str | None,
    language: str,
    out: tuple[Path, ...],
) -> None:
    """Say what another commission, coupon, price, traffic or ad spend would do to profit, and where it breaks even."""
    from hitfinder.report.forms import check_out
    from hitfinder.report.tables import write_paper
    from hitfinder.report.whatif import answer_paper
    from hitfinder.whatif import Change
    from hitfinder.whatif import what_if as answer_of

    signals, skus = tables_of(data, signals, skus)
    check_out(out, read=(signals, skus))
    about: dict[str, list[str]] = {}
    for text in only:
        column, equals, value = text.partition("=")
        if not equals or not column or not value:
            raise click.BadParameter(f"expected column=value such as category=dress, got {text!r}", param_hint="--only")
        about.setdefault(column, []).append(value)
    length = duration_of(stretch, "--stretch")
    change = Change(commission, coupons, price, traffic, spend, elasticity)
    with working("Reckoning"):
        answer = answer_of(
            signals,
            skus,
            settings_of(settings_path, data),
            change,
            moment_of(as_of),
            only=about or None,
            stretch=length,
        )
        paper = answer_paper(answer, language)
        written = [write_paper(paper, path) for path in out]
    for text in paper.says:
        click.echo(text)
    wrote(written)
