"""What several verbs share: their options, how tables are named, and how a verb speaks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import pandas as pd
from rich.console import Console
from rich.text import Text

from hitfinder.errors import DataError, NotRegisteredError, SettingsError
from hitfinder.settings import Settings, load_settings, parse_duration

__all__ = [
    "a_model",
    "as_of_option",
    "check_record",
    "decisions_option",
    "duration_of",
    "experiment_option",
    "language_option",
    "moment_of",
    "outcomes_option",
    "path_out",
    "say_report",
    "settings_file",
    "settings_of",
    "settings_or_champions",
    "settings_or_models",
    "shares",
    "signals_and_skus",
    "tables_of",
    "working",
    "write_lists",
    "wrote",
]

F = TypeVar("F", bound=Callable[..., Any])

path_out = click.Path(path_type=Path)


def shares(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[float, ...] | None:
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


CHAMPION = "models:/hitfinder@champion"
# What several verbs take.
a_model = click.option("--model", default=CHAMPION, show_default=True, help="A registered model, or a model's folder.")
as_of_option = click.option("--as-of", help="The moment of knowledge, UTC; default: when the newest signal was known.")
settings_file = click.option(
    "--settings", "settings_path", type=path_out, help="Settings (TOML); without, those beside the data, else defaults."
)
decisions_option = click.option(
    "--decisions", help="What was decided: outcomes that a stop cut off are left out, others weighed for them."
)
outcomes_option = click.option("--outcomes", help="Outcomes, where they can't be computed from signals.")
experiment_option = click.option("--experiment", default="hitfinder", show_default=True, help="MLflow experiment.")
language_option = click.option("--language", type=click.Choice(["en", "zh"]), default="en", show_default=True)


def signals_and_skus(command: F) -> F:
    """Give a verb the two tables, as files or as the folder that `ingest` wrote."""
    for option in (
        click.option("--skus", help="SKUs: a Parquet or CSV file, or a glob for many."),
        click.option("--signals", help="Signals: a Parquet or CSV file, or a glob for many."),
        click.option("--data", type=click.Path(path_type=Path), help="A folder with signals.parquet and skus.parquet."),
    ):
        command = option(command)
    return command


def tables_of(data: Path | None, signals: str | None, skus: str | None) -> tuple[str, str]:
    """Return the two tables' paths; a folder's where they are not named."""
    if data is not None:
        signals = signals or str(data / "signals.parquet")
        skus = skus or str(data / "skus.parquet")
    if signals is None or skus is None:
        raise click.UsageError("give --signals and --skus, or --data with a folder that holds both")
    return signals, skus


def _settings_named(path: Path | None, data: Path | None) -> Path | None:
    """Return the file of the settings asked for; else that beside the data, if there is one."""
    beside = None if data is None else data / "hitfinder.toml"
    return path if path is not None or beside is None or not beside.is_file() else beside


def settings_of(path: Path | None, data: Path | None = None) -> Settings:
    """Return the settings asked for; else those beside the data, else the defaults."""
    named = _settings_named(path, data)
    return Settings() if named is None else load_settings(named)


def settings_or_models(path: Path | None, data: Path | None, model: Any) -> Settings:
    """Return the settings asked for; else those beside the data, else those that the model was fitted with."""
    named = _settings_named(path, data)
    return model.settings if named is None else load_settings(named)


def settings_or_champions(path: Path | None, data: Path | None) -> tuple[Settings, str]:
    """Return the settings that a verb with the champion would take, and whose they are; the defaults without one."""
    from hitfinder.registry import load_model

    named = _settings_named(path, data)
    if named is not None:
        return load_settings(named), str(named)
    try:
        champion = load_model(CHAMPION)
    except NotRegisteredError as error:
        warnings.warn(f"no settings given and no champion to take them from ({error})", UserWarning, stacklevel=2)
        return Settings(), "the defaults"
    return champion.settings, champion.version


def moment_of(text: str | None) -> pd.Timestamp | None:
    if text is None:
        return None
    if text == "now":
        return pd.Timestamp.now(tz="UTC").tz_localize(None)
    try:
        return pd.Timestamp(text)
    except ValueError:
        raise click.BadParameter(f"expected a moment such as 2025-01-06 or 2025-01-06T10:00, got {text!r}") from None


def duration_of(text: str | None, option: str) -> pd.Timedelta | None:
    """Read a duration such as 7d; `option` is what it was given for."""
    try:
        return None if text is None else parse_duration(text)
    except SettingsError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def check_record(decisions: str | Path | None) -> None:
    """Refuse a record of decisions that is not there.

    Raises
    ------
    DataError
        So it is.
    """
    if decisions is not None and not {*str(decisions)} & {*"*?["} and not Path(decisions).exists():
        raise DataError(f"decisions: expected a record, {decisions} is not there; run `hitfinder decide` first")


def write_lists(model: Any, ranked: pd.DataFrame, skus: Any, out: Any, language: str, **more: Any) -> list[Path]:
    from hitfinder.ranking import sku_columns
    from hitfinder.report import summary_of, write_list

    beside = sku_columns(skus)
    summary = {**summary_of(model), **more}
    return [write_list(ranked, path, skus=beside, language=language, summary=summary) for path in out]


def say_report(report: dict[str, Any]) -> None:
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
    if report.get("unknown_costs"):
        click.echo(f"   costs that nobody gave, so not in the profit: {report['unknown_costs']}")


def wrote(paths: Any) -> None:
    for path in paths:
        click.echo(f"wrote {path}")


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Show that work goes on, on a terminal only; what is yielded says which step it is at."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _words: None
        return
    with console.status(what) as status:
        # Not markup: a name may hold brackets.
        yield lambda words: status.update(Text(f"{what}: {words}"))
