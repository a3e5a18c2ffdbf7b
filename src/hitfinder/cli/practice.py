"""A market to practise on: `simulate` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pandas as pd

from hitfinder.cli.options import language_option, path_out, say_report, working, write_lists, wrote
from hitfinder.settings import load_settings

__all__ = ["demo", "simulate"]


@click.command()
@click.option("--out", type=path_out, default=Path("market"), show_default=True, help="Folder to write.")
@click.option("--weeks", default=30, show_default=True, help="Weekly batches.")
@click.option("--skus-per-week", default=200, show_default=True, help="SKUs in a batch, about.")
@click.option("--hits-per-week", default=3.0, show_default=True, help="Hits in a batch, about.")
@click.option("--language", type=click.Choice(["en", "zh", "mixed"]), default="en", show_default=True)
@click.option("--complete", is_flag=True, help="Let every outcome window close.")
@click.option("--seed", default=0, show_default=True)
def simulate(
    out: Path, weeks: int, skus_per_week: int, hits_per_week: float, language: str, complete: bool, seed: int
) -> None:
    """Make a market with a known truth to practise on."""
    from hitfinder.simulate import simulate as make
    from hitfinder.simulate import write_market

    with working("Simulating"):
        market = make(
            weeks=weeks,
            skus_per_week=skus_per_week,
            hits_per_week=hits_per_week,
            language=language,
            complete=complete,
            seed=seed,
        )
        written = write_market(market, out)
    click.echo(f"{len(market.skus)} SKUs in {weeks} batches, {len(market.signals)} rows of signals")
    wrote(written)


@click.command()
@click.option("--out", type=path_out, default=Path("demo"), show_default=True, help="Folder to write.")
@click.option("--weeks", default=24, show_default=True, help="Weekly batches to simulate.")
@language_option
@click.option("--seed", default=0, show_default=True)
def demo(out: Path, weeks: int, language: str, seed: int) -> None:
    """Simulate a market, train, register, and rank this week's batch."""
    from hitfinder.ranking import rank as put_in_order
    from hitfinder.registry import register
    from hitfinder.registry.tracking import shown_uri
    from hitfinder.simulate import simulate as make
    from hitfinder.simulate import write_market
    from hitfinder.training import fit

    with working(f"1 of 4: simulating {weeks} weekly batches"):
        market = make(weeks=weeks, language=language, seed=seed)
        written = write_market(market, out)
    click.echo(
        f"1. A market of {len(market.skus)} SKUs and {len(market.signals)} rows of signals, its truth set aside."
    )
    settings = load_settings(out / "hitfinder.toml")
    with working("2 of 4: fitting, and judging out of time beside the simple rules"):
        model = fit(market.signals, market.skus, settings)
    click.echo("2. A model, held against the simple rules on batches that it had not seen:")
    say_report(model.report)
    with working("3 of 4: registering in MLflow"):
        model, registered = register(model, market.signals, market.skus)
    address = shown_uri(registered.tracking_uri)
    click.echo(f"3. Registered as {registered.model_uri} ({', '.join(registered.aliases)}) in {address}.")
    newest = market.skus[market.skus["launched_at"] == market.skus["launched_at"].max()]
    with working("4 of 4: ranking this week's batch"):
        ranked = put_in_order(model, market.signals, newest, language=language)
        paths = [out / f"list.{suffix}" for suffix in ("html", "xlsx", "csv", "parquet")]
        written += write_lists(model, ranked, newest, paths, language)
    click.echo(f"4. This week's batch, {newest['batch_id'].iloc[0]}, {len(newest)} SKUs; the first ten:")
    _say_top(ranked)
    _say_truth(ranked, market)
    wrote(written)
    click.echo("See the runs and pictures with: mlflow ui --backend-store-uri " + address)


def _say_top(ranked: pd.DataFrame) -> None:
    for row in ranked.head(10).itertuples():
        said = "; ".join(str(r) for r in (row.reason_1, row.reason_2) if isinstance(r, str))
        click.echo(f"   {row.rank:>3}. {row.sku_id}  {row.hit_probability:>4.0%}  {row.action:5}  {said}")


def _say_truth(ranked: pd.DataFrame, market: Any) -> None:
    """Open the envelope: where the true hits stand on the list."""
    truth = ranked.merge(market.truth[["sku_id", "is_hit"]], on="sku_id")
    places = truth.loc[truth["is_hit"], "rank"].tolist()
    click.echo(f"   The truth, which the model never saw: the {len(places)} hits stand at places {places}.")
