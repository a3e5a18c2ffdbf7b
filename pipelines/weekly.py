"""Rank, decide and diagnose the newest batch with the champion, look back on last month's lists, write this week's.

The files go to a folder named by the day of the list's knowledge: page, workbook, CSV and Parquet. A list is decided
once, so the same inputs give the same bytes and a second run changes nothing. Each file is written whole or not at all,
the Parquet file last: where that stands, all do. Each run is one in MLflow, its steps below it.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import click
import pandas as pd

import hitfinder as hf
from hitfinder.cli.options import moment_of
from hitfinder.decided import decide_once
from hitfinder.deciding import PERSON
from hitfinder.errors import DataError, NotEnoughHistoryError
from hitfinder.hindsight import hindsight
from hitfinder.ranking import only_batch, sku_columns
from hitfinder.registry.runs import recorded
from hitfinder.report import summary_of, write_list
from hitfinder.report.diagnosis import diagnosis_paper, with_diagnosis
from hitfinder.report.hindsight import write_hindsight
from hitfinder.report.tables import write_paper


def moment(text: str) -> pd.Timestamp | None:
    """Return the moment that is meant, UTC; `now` too."""
    try:
        return moment_of(text)
    except click.BadParameter as wrong:
        raise argparse.ArgumentTypeError(wrong.message) from None


def parser() -> argparse.ArgumentParser:
    """Return the script's arguments."""
    out = argparse.ArgumentParser(description="Rank, decide and write this week's list, and look back on last month's.")
    out.add_argument("--signals", required=True, help="a Parquet or CSV file, or a glob for many")
    out.add_argument("--skus", required=True, help="a Parquet or CSV file, or a glob for many")
    out.add_argument("--model", default="models:/hitfinder@champion", help="(%(default)s)")
    out.add_argument("--settings", help="the TOML file of settings; default: those that the model was fitted with")
    out.add_argument("--outcomes", help="where they can't be computed from signals")
    out.add_argument("--overrides", help="what people decided: CSV, Parquet or workbook")
    out.add_argument("--decisions", type=Path, help="the record; default: decisions.parquet in the folder of --out")
    out.add_argument(
        "--as-of", type=moment, help="do what would have been done then, UTC, or `now`; default: newest signal"
    )
    out.add_argument(
        "--diagnose",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="beside each SKU of page and workbook its tier and what to change first (%(default)s)",
    )
    out.add_argument("--language", choices=["en", "zh"], default="en", help="(%(default)s)")
    out.add_argument("--out", type=Path, default=Path("lists"), help="folder that gets a folder a day (%(default)s)")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status: 0 done, 1 refused."""
    given = parser().parse_args(arguments)
    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
    try:
        model = hf.load_model(given.model)
        settings = hf.load_settings(given.settings) if given.settings else model.settings
        beside = sku_columns(given.skus)
        if beside.empty:
            raise hf.DataError(f"{given.skus}: expected SKUs to rank, got none; give the table that holds the batch")
        tags = {"model_version": model.version, "settings": settings.digest(), "seed": str(settings.seed)}
        with recorded("weekly", kind="weekly", tags=tags) as run:
            with run.step("rank") as step:
                ranked = hf.rank(model, given.signals, given.skus, as_of=given.as_of, language=given.language)
                ranked = only_batch(ranked, given.skus, "newest")
                batch, as_of = str(ranked["batch_id"].iloc[0]), ranked["as_of"].iloc[0]
                step.log(metrics={"skus": len(ranked), "hits_expected": float(ranked["hit_probability"].sum())})
            run.log(tags={"batch": batch, "as_of": as_of.isoformat()})
            print(f"batch {batch}: {len(ranked)} SKUs, ranked by {model.version}")

            with run.step("decide", batch=batch) as step:
                record = given.decisions or given.out / "decisions.parquet"
                done = decide_once(
                    ranked,
                    settings,
                    decisions=record,
                    overrides=given.overrides,
                    decided_at=given.as_of,  # None: now
                    language=given.language,
                )
                step.log(metrics={"written": done.written, **done.decisions["action"].value_counts().to_dict()})
            print(done.say(given.language))

            folder, readable = given.out / f"{as_of:%Y-%m-%d}", done.ranked
            paths = []
            if given.diagnose:
                with run.step("diagnose") as step, warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # `rank` has said it
                    # Last week's tiers, so that they keep still; not those of a first run of this day.
                    before = [p for p in given.out.glob("*/diagnosis.parquet") if p.parent.name < folder.name]
                    try:
                        found = hf.diagnose(
                            model,
                            given.signals,
                            given.skus,
                            as_of=as_of,
                            previous=max(before, default=None),
                            language=given.language,
                            settings=settings,
                        )
                    except (DataError, NotEnoughHistoryError) as error:  # the list is decided, and has to be written
                        print(f"no tier and diagnosis beside the list: {error}")
                    else:
                        paths.append(write_paper(diagnosis_paper(found), folder / "diagnosis.parquet"))
                        readable = with_diagnosis(done.ranked, found, given.language)
                        step.log(metrics=readable["tier"].value_counts().add_prefix("tier_").to_dict())

            with run.step("hindsight") as step:
                # As of the list's own moment: nothing on its page was known later.
                past = hindsight(
                    str(record), given.signals, given.skus, settings, outcomes=given.outcomes, as_of=as_of
                ).to_dict()
                step.log(metrics={k: v for k, v in (past["all"] or {}).items() if k != "list"})
                step.values(past, "hindsight.json")

            with run.step("list", batch=batch) as step:
                told = past if past["all"] is not None else None
                paths += [write_hindsight(told, folder / "hindsight.json")] if told else []
                by_people = ((done.decisions["action"] == "stop") & (done.decisions["because"] == PERSON)).sum()
                summary = {**summary_of(model), "stopped_by_people": int(by_people)}
                more = {"skus": beside, "language": given.language, "summary": summary, "hindsight": told}
                lists = {"html": readable, "xlsx": readable, "csv": done.ranked, "parquet": done.ranked}
                paths += [write_list(table, folder / f"list.{suffix}", **more) for suffix, table in lists.items()]
                for path in paths:
                    step.file(path)
                    print(f"wrote {path}")
    except hf.HitfinderError as refused:
        print(f"error: {' '.join(str(refused).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
