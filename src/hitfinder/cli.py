"""The command line: each verb reads files, calls the public functions, and says what it wrote."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import click
import pandas as pd
from rich.console import Console
from rich.text import Text

from hitfinder.errors import HitfinderError
from hitfinder.settings import Settings, load_settings
from hitfinder.tables import COUNTS, MONEY

__all__ = ["main"]

F = TypeVar("F", bound=Callable[..., Any])

MERITS = [name for name in (*COUNTS, *MONEY) if name != "impressions"]

path_out = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(metadata.version("hitfinder"), prog_name="hitfinder")
def cli() -> None:
    """Find the few hits among many long-tail SKUs from the early signals of small test batches."""


def _shares(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Read shares such as 0.05,0.1."""
    if text is None:
        return None
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share <= 1 for share in shares) or len(set(shares)) < len(shares):
        raise click.BadParameter(f"expected different shares above 0 and up to 1, such as 0.05,0.1, got {text!r}")
    return shares


# What several verbs take.
_a_model = click.option(
    "--model", default="models:/hitfinder@champion", show_default=True, help="A registered model, or a model's folder."
)
_as_of = click.option("--as-of", help="The moment of knowledge, UTC; default: when the newest signal was known.")
_settings_file = click.option(
    "--settings", "settings_path", type=path_out, help="Settings (TOML); without, the defaults."
)
_outcomes = click.option("--outcomes", help="Outcomes, where they can't be computed from signals.")
_experiment = click.option("--experiment", default="hitfinder", show_default=True, help="MLflow experiment.")
_language = click.option("--language", type=click.Choice(["en", "zh"]), default="en", show_default=True)


def _signals_and_skus(command: F) -> F:
    """Give a verb the two tables, as files or as the folder that `ingest` wrote."""
    for option in (
        click.option("--skus", help="SKUs: a Parquet or CSV file, or a glob for many."),
        click.option("--signals", help="Signals: a Parquet or CSV file, or a glob for many."),
        click.option("--data", type=click.Path(path_type=Path), help="A folder with signals.parquet and skus.parquet."),
    ):
        command = option(command)
    return command


@cli.command()
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

    with _working("Simulating"):
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
    _wrote(written)


@cli.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("--into", type=path_out, required=True, help="Folder to write or to add to.")
@click.option("--format", "form", default="auto", show_default=True, help="What the files are; auto looks at them.")
@click.option("--settings", "settings_path", type=path_out, help="Settings; their period is that of the rows.")
@click.option("--mapping", type=path_out, help="TOML that names other columns, events or headers.")
@click.option("--burn-in", help="SKUs first seen this early in the log (such as 28d) are old stock, not launches.")
@click.option("--channel", help="The channel to write where the files name none.")
@click.option("--skus", help="A table of SKUs beside an event log or report.")
def ingest(
    sources: tuple[str, ...],
    into: Path,
    form: str,
    settings_path: Path | None,
    mapping: Path | None,
    burn_in: str | None,
    channel: str | None,
    skus: str | None,
) -> None:
    """Turn logs, reports and invoices into signals, SKUs and rejects."""
    from hitfinder.ingest import ingest as read
    from hitfinder.settings import parse_duration

    with _working("Reading"):
        done = read(
            list(sources),
            format=form,
            into=into,
            settings=_settings(settings_path),
            mapping=mapping,
            burn_in=parse_duration(burn_in) if burn_in else None,
            channel=channel,
            skus=skus,
        )
    click.echo(str(done))
    _wrote(done.paths)


@cli.command()
@_signals_and_skus
@_settings_file
@_outcomes
@_as_of
@click.option("--name", default="hitfinder", show_default=True, help="Name in the registry.")
@_experiment
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

    signals, skus = _tables(data, signals, skus)
    with _working("Fitting, and judging out of time"):
        model = fit(signals, skus, _settings(settings_path, data), outcomes=outcomes, as_of=_moment(as_of))
    _say_report(model.report)
    with _working("Registering"):
        model, registered = register(model, signals, skus, name=name, experiment=experiment)
    click.echo(
        f"registered {registered.name} version {registered.version} ({', '.join(registered.aliases)}) "
        f"in {registered.tracking_uri}, run {registered.run_id}"
    )
    if out is not None:
        _wrote([model.save(out)])


@cli.command()
@_signals_and_skus
@_a_model
@_as_of
@click.option("--batch", help="Only this batch; `newest` for the one launched last.")
@_language
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

    signals, skus = _tables(data, signals, skus)
    for path in out:
        check_suffix(path)
    fitted = load_model(model)
    with _working("Ranking"):
        ranked = put_in_order(fitted, signals, skus, as_of=_moment(as_of), language=language)
        ranked = only_batch(ranked, skus, batch) if batch is not None else ranked
    _wrote(_write_lists(fitted, ranked, skus, out, language))


@cli.command()
@_signals_and_skus
@_a_model
@_as_of
@click.option("--batch", default="newest", show_default=True, help="The batch on test; `newest`: launched last.")
@click.option("--round", "number", type=click.IntRange(1), required=True, help="Which round this is, from 1.")
@click.option("--rounds", type=click.IntRange(1), required=True, help="How many rounds the test has in all.")
@click.option("--budget", type=click.IntRange(1), required=True, help="Exposures of the whole test.")
@click.option("--slots", type=click.IntRange(1), default=10, show_default=True, help="SKUs that can be scaled.")
@click.option("--cap", type=click.IntRange(1), default=1_000, show_default=True, help="Most exposures of a SKU in all.")
@click.option("--decisions", type=path_out, required=True, help="The record: a .parquet or .csv file, made if missing.")
@click.option("--again", is_flag=True, help="Write a decided round's files once more; nothing is decided anew.")
@click.option("--allow-gap", is_flag=True, help="Earlier rounds were left out, or run without hitfinder.")
@_language
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

    signals, skus = _tables(data, signals, skus)
    if number > rounds:
        raise click.UsageError(f"expected a --round from 1 to {rounds}, got {number}")
    fitted = load_model(model)
    with _working("Planning"):
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
            as_of=_moment(as_of),
            language=language,
            again=again,
            allow_gap=allow_gap,
        )
    click.echo(done.say(language))
    _wrote(done.paths)


@cli.command()
@_signals_and_skus
@_settings_file
@_outcomes
@_as_of
@click.option("--budgets", callback=_shares, help="Shares of a full test's exposures.  [default: 0.05 to 0.5]")
@click.option("--rounds", type=click.IntRange(1), default=6, show_default=True, help="How often a policy may buy.")
@click.option("--repeats", type=click.IntRange(1), default=2, show_default=True, help="Plays of each test.")
@click.option("--merit", type=click.Choice(MERITS), help="The count that simple policies go by; default: the label's.")
@click.option("--controls/--no-controls", default=True, show_default=True, help="Also play what must fail.")
@_language
@_experiment
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

    signals, skus = _tables(data, signals, skus)
    moment, settings = _moment(as_of), _settings(settings_path, data)
    check_folder(out)
    with _working("Replaying") as tell:
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
    _wrote(files)
    if no_track:
        return
    from hitfinder.registry import record_replay

    with _working("Recording"):
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
    click.echo(f"logged to {recorded.tracking_uri}, run {recorded.run_id}")


@cli.command()
@click.option("--out", type=path_out, default=Path("demo"), show_default=True, help="Folder to write.")
@click.option("--weeks", default=24, show_default=True, help="Weekly batches to simulate.")
@_language
@click.option("--seed", default=0, show_default=True)
def demo(out: Path, weeks: int, language: str, seed: int) -> None:
    """Simulate a market, train, register, and rank this week's batch."""
    from hitfinder.ranking import rank as put_in_order
    from hitfinder.registry import register
    from hitfinder.simulate import simulate as make
    from hitfinder.simulate import write_market
    from hitfinder.training import fit

    with _working(f"1 of 4: simulating {weeks} weekly batches"):
        market = make(weeks=weeks, language=language, seed=seed)
        written = write_market(market, out)
    click.echo(
        f"1. A market of {len(market.skus)} SKUs and {len(market.signals)} rows of signals, its truth set aside."
    )
    settings = load_settings(out / "hitfinder.toml")
    with _working("2 of 4: fitting, and judging out of time beside the simple rules"):
        model = fit(market.signals, market.skus, settings)
    click.echo("2. A model, held against the simple rules on batches that it had not seen:")
    _say_report(model.report)
    with _working("3 of 4: registering in MLflow"):
        model, registered = register(model, market.signals, market.skus)
    click.echo(
        f"3. Registered as {registered.model_uri} ({', '.join(registered.aliases)}) in {registered.tracking_uri}."
    )
    newest = market.skus[market.skus["launched_at"] == market.skus["launched_at"].max()]
    with _working("4 of 4: ranking this week's batch"):
        ranked = put_in_order(model, market.signals, newest, language=language)
        paths = [out / f"list.{suffix}" for suffix in ("html", "xlsx", "csv", "parquet")]
        written += _write_lists(model, ranked, newest, paths, language)
    click.echo(f"4. This week's batch, {newest['batch_id'].iloc[0]}, {len(newest)} SKUs; the first ten:")
    _say_top(ranked)
    _say_truth(ranked, market)
    _wrote(written)
    click.echo("See the runs and pictures with: mlflow ui --backend-store-uri " + registered.tracking_uri)


def _tables(data: Path | None, signals: str | None, skus: str | None) -> tuple[str, str]:
    if data is not None:
        signals = signals or str(data / "signals.parquet")
        skus = skus or str(data / "skus.parquet")
    if signals is None or skus is None:
        raise click.UsageError("give --signals and --skus, or --data with a folder that holds both")
    return signals, skus


def _settings(path: Path | None, data: Path | None = None) -> Settings:
    """Return the settings asked for; else those beside the data, else the defaults."""
    if path is None and data is not None and (data / "hitfinder.toml").is_file():
        path = data / "hitfinder.toml"
    return load_settings(path) if path is not None else Settings()


def _moment(text: str | None) -> pd.Timestamp | None:
    if text is None:
        return None
    try:
        return pd.Timestamp(text)
    except ValueError:
        raise click.BadParameter(f"expected a moment such as 2025-01-06 or 2025-01-06T10:00, got {text!r}") from None


def _write_lists(model: Any, ranked: pd.DataFrame, skus: Any, out: Any, language: str) -> list[Path]:
    from hitfinder.ranking import sku_columns
    from hitfinder.report import summary_of, write_list

    beside = sku_columns(skus)
    summary = summary_of(model)
    return [write_list(ranked, path, skus=beside, language=language, summary=summary) for path in out]


def _say_report(report: dict[str, Any]) -> None:
    click.echo(
        f"   learned from {report['n_skus']} SKUs, {report['n_hits']} hits, {report['n_groups']} batches; "
        f"judged {report['evaluation']}"
    )
    click.echo(f"   {'':24}{'average precision':>18}{'hits at k':>11}{'value at k':>12}")
    metrics = {name: m for name, m in report["metrics"].items() if "average_precision" in m}
    for name, m in sorted(metrics.items(), key=lambda item: -item[1]["average_precision"]):
        mark = "  <- ranks" if name == report["ranked_by"] else ""
        click.echo(f"   {name:24}{m['average_precision']:>18.3f}{m['hits_at_k']:>11.3f}{m['value_at_k']:>12.3f}{mark}")
    click.echo(f"   {report['note']}")


def _say_top(ranked: pd.DataFrame) -> None:
    for row in ranked.head(10).itertuples():
        said = "; ".join(str(r) for r in (row.reason_1, row.reason_2) if isinstance(r, str))
        click.echo(f"   {row.rank:>3}. {row.sku_id}  {row.hit_probability:>4.0%}  {row.action:5}  {said}")


def _say_truth(ranked: pd.DataFrame, market: Any) -> None:
    """Open the envelope: where the true hits stand on the list."""
    truth = ranked.merge(market.truth[["sku_id", "is_hit"]], on="sku_id")
    places = truth.loc[truth["is_hit"], "rank"].tolist()
    click.echo(f"   The truth, which the model never saw: the {len(places)} hits stand at places {places}.")


def _wrote(paths: Any) -> None:
    for path in paths:
        click.echo(f"wrote {path}")


@contextmanager
def _working(what: str) -> Iterator[Callable[[str], None]]:
    """Show that work goes on, on a terminal only; what is yielded says which step it is at."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _words: None
        return
    with console.status(what) as status:
        # Not markup: a name may hold brackets.
        yield lambda words: status.update(Text(f"{what}: {words}"))


def _plainly(command: Callable[[], Any]) -> Callable[[], int]:
    """Turn refusals into one line and an exit status."""

    @functools.wraps(command)
    def run() -> int:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_args, **_kwargs: click.echo(f"note: {message}", err=True)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            try:
                command()
            except click.exceptions.Exit as leave:
                return leave.exit_code
            except click.ClickException as wrong:
                wrong.show()
                return wrong.exit_code
            except click.Abort:
                click.echo("stopped", err=True)
                return 130
            except HitfinderError as refused:
                click.echo(f"error: {' '.join(str(refused).split())}", err=True)
                return 1
        return 0

    return run


def main() -> None:
    """Run the command line and leave with its exit status: 0 done, 1 refused, 2 wrong usage."""
    sys.exit(_plainly(lambda: cli(prog_name="hitfinder", standalone_mode=False))())


if __name__ == "__main__":
    main()
