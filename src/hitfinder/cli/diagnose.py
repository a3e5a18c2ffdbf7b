"""What is weak, and what to change first: `diagnose`."""

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

__all__ = ["diagnose"]


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
@click.option("--previous", help="Last week's diagnosis (.csv or .parquet): tiers change only past a margin.")
@language_option
@click.option(
    "--out", type=path_out, multiple=True, required=True, help="A .html, .xlsx, .csv or .parquet file; repeatable."
)
def diagnose(
    data: Path | None,
    signals: str | None,
    skus: str | None,
    model: str,
    settings_path: Path | None,
    as_of: str | None,
    previous: str | None,
    language: str,
    out: tuple[Path, ...],
) -> None:
    """Tell each SKU's tier, the weak step of its funnel, and what to change first."""
    from hitfinder.diagnosis import diagnose as look
    from hitfinder.ranking import sku_columns
    from hitfinder.registry import load_model
    from hitfinder.report.diagnosis import diagnosis_paper
    from hitfinder.report.forms import check_out
    from hitfinder.report.tables import write_paper
    from hitfinder.report.words import agreeing, load_words

    signals, skus = tables_of(data, signals, skus)
    check_out(out, read=(signals, skus))
    fitted = load_model(model)
    settings = settings_or_models(settings_path, data, fitted)
    with working("Looking at every step"):
        found = look(
            fitted, signals, skus, as_of=moment_of(as_of), previous=previous, language=language, settings=settings
        )
    counts = found["weak_step"].value_counts()
    weak = sum(int(counts.get(step, 0)) for step in ("click", "cart", "order", "return"))
    click.echo(
        agreeing(
            load_words(language, "diagnosis_words.toml")["said"].format(
                n=f"{len(found):,}",
                weak=f"{weak:,}",
                nothing=f"{counts.get('nothing', 0):,}",
                little=f"{counts.get('too_little', 0):,}",
            )
        )
    )
    paper = diagnosis_paper(
        found,
        skus=sku_columns(skus),
        language=language,
        model_version=fitted.version,
        false_share=settings.diagnosis.false_share,
    )
    wrote([write_paper(paper, path) for path in out])
