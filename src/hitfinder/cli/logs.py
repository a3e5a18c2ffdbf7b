"""From raw logs to tables: `ingest`."""

from __future__ import annotations

from pathlib import Path

import click

from hitfinder.cli.options import duration_of, path_out, settings_of, working, wrote
from hitfinder.ingest import FORMATS

__all__ = ["ingest"]


@click.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("--into", type=path_out, required=True, help="Folder to write or to add to.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="auto",
    show_default=True,
    help="What the files are; auto looks at them.",
)
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
    """Turn logs, reports and invoices into signals, SKUs and rejects.

    Files that the folder has already add nothing. With [attribution] in the settings they tell who came from where
    before the orders of the new files, so give the weeks before along.
    """
    from hitfinder.ingest import ingest as read

    length = duration_of(burn_in, "--burn-in")
    with working("Reading"):
        done = read(
            list(sources),
            format=form,
            into=into,
            settings=settings_of(settings_path),
            mapping=mapping,
            burn_in=length,
            channel=channel,
            skus=skus,
        )
    click.echo(str(done))
    wrote(done.paths)
