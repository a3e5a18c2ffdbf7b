"""The coming week's money: `budget`."""

from __future__ import annotations

from pathlib import Path

import click

from hitfinder.cli.options import (
    as_of_option,
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

__all__ = ["budget"]

TO_WRITE = {
    "en": "The plan with every line is not written; add --out budget.html or --out budget.csv.",
    "zh": "计划表未写出；加 --out budget.html 或 --out budget.csv 即可写出。",
}


@click.command()
@signals_and_skus
@settings_file
@as_of_option
@click.option("--total", type=click.FloatRange(0, min_open=True), required=True, help="The most to spend in the week.")
@click.option("--target-roi", type=click.FloatRange(0), help="The least revenue less returns per unit of spend, over "
              "all lines together.  [default: that of the settings]")  # fmt: skip
@click.option("--cautious", type=click.FloatRange(0.5, 1, max_open=True), help="Meet the target with this chance "
              "rather than on average.")  # fmt: skip
@click.option(
    "--model", help="Choose untested SKUs by the hit probability of this model: a registered one, or a folder."
)
@click.option("--limits", type=path_out, help="Floors and caps of single lines: a table sku_id, channel, floor, cap.")
@language_option
@click.option("--out", type=path_out, multiple=True, help="Write the plan: .html, .xlsx, .csv, .parquet; repeatable.")
def budget(
    data: Path | None,
    signals: str | None,
    skus: str | None,
    settings_path: Path | None,
    as_of: str | None,
    total: float,
    target_roi: float | None,
    cautious: float | None,
    model: str | None,
    limits: Path | None,
    language: str,
    out: tuple[Path, ...],
) -> None:
    """Split the coming week's money over SKUs and channels to the greatest expected profit at a target return."""
    from hitfinder.budget import split_budget
    from hitfinder.report.budget import budget_paper
    from hitfinder.report.forms import check_out
    from hitfinder.report.tables import write_paper

    signals, skus = tables_of(data, signals, skus)
    check_out(out, read=(signals, skus, limits))
    fitted = None
    if model is not None:
        from hitfinder.registry import load_model

        fitted = load_model(model)
    with working("Splitting the budget"):
        done = split_budget(
            signals,
            skus,
            settings_of(settings_path, data),
            total=total,
            target_roi=target_roi,
            cautious=cautious,
            model=fitted,
            limits=None if limits is None else str(limits),
            as_of=moment_of(as_of),
        )
    paper = budget_paper(done, language)
    click.echo("\n".join(paper.says))
    if not out:
        click.echo(TO_WRITE[language])
    wrote([write_paper(paper, path) for path in out])
