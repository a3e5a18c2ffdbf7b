"""Rank the newest batch with the champion and write this week's list: page, workbook, CSV and Parquet.

The files go to a folder named by the day of the list's knowledge. The same inputs give the same bytes, so a second run
changes nothing. Each file is written whole or not at all, the Parquet file last: where that stands, all four do.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import hitfinder as hf
from hitfinder.ranking import only_batch, sku_columns
from hitfinder.report import summary_of, write_list


def parser() -> argparse.ArgumentParser:
    """Return the script's arguments."""
    out = argparse.ArgumentParser(description="Rank the newest batch with the champion and write this week's list.")
    out.add_argument("--signals", required=True, help="a Parquet or CSV file, or a glob for many")
    out.add_argument("--skus", required=True, help="a Parquet or CSV file, or a glob for many")
    out.add_argument("--model", default="models:/hitfinder@champion", help="(%(default)s)")
    out.add_argument("--as-of", type=pd.Timestamp, help="the moment of knowledge, UTC; default: the newest signal's")
    out.add_argument("--language", choices=["en", "zh"], default="en", help="(%(default)s)")
    out.add_argument("--out", type=Path, default=Path("lists"), help="folder that gets a folder a day (%(default)s)")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status: 0 done, 1 refused."""
    given = parser().parse_args(arguments)
    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
    try:
        model = hf.load_model(given.model)
        beside = sku_columns(given.skus)
        if beside.empty:
            raise hf.DataError(f"{given.skus}: expected SKUs to rank, got none; give the table that holds the batch")
        ranked = hf.rank(model, given.signals, given.skus, as_of=given.as_of, language=given.language)
        ranked = only_batch(ranked, given.skus, "newest")
        folder = given.out / f"{ranked['as_of'].iloc[0]:%Y-%m-%d}"
        summary = summary_of(model)
        print(f"batch {ranked['batch_id'].iloc[0]}: {len(ranked)} SKUs, ranked by {model.version}")
        for suffix in ("html", "xlsx", "csv", "parquet"):
            path = folder / f"list.{suffix}"
            print(f"wrote {write_list(ranked, path, skus=beside, language=given.language, summary=summary)}")
    except hf.HitfinderError as refused:
        print(f"error: {' '.join(str(refused).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
