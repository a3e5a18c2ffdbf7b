"""Ingest of an event log: hitfinder beside the same aggregation in plain pandas, seconds and peak memory.

The peer only counts. hitfinder also checks every row, sets bad ones aside, spills what does not fit, and drops persons.
Both read the same file, write Parquet, and must come to the same table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

COUNTED = ["clicks", "carts", "orders", "units", "revenue", "visitors"]


def write_log(path: Path, events: int, seed: int = 0) -> None:
    """Write a log with the header of REES46: views, carts and purchases of many SKUs over 60 days, most seen rarely."""
    rng = np.random.default_rng(seed)
    sku = np.minimum(rng.pareto(1.1, events) * 50, 50_000).astype(np.int64)
    user = rng.integers(0, events // 10, events)
    minute = np.sort(rng.integers(0, 60 * 24 * 60, events))
    stamps = pd.Timestamp("2025-01-06") + pd.to_timedelta(minute, unit="min")
    log = pd.DataFrame(
        {
            "event_time": stamps.strftime("%Y-%m-%d %H:%M:%S UTC"),
            "event_type": rng.choice(["view", "cart", "purchase"], events, p=[0.93, 0.05, 0.02]),
            "product_id": 1_000_000 + sku,
            "category_id": 2_000_000 + sku % 97,
            "category_code": np.char.add("goods.", (sku % 97).astype(str)),
            "brand": np.char.add("brand", (sku % 311).astype(str)),
            "price": np.round(5 + (sku * 37 % 1000) / 10, 2),
            "user_id": user,
            "user_session": np.char.add("s", (user * 1000 + minute // 240).astype(str)),
        }
    )
    log.to_csv(path, index=False)


def with_hitfinder(log: Path, folder: Path) -> None:
    """Ingest as a user would."""
    from hitfinder.ingest import ingest
    from hitfinder.settings import Settings

    ingest(log, into=folder, settings=Settings())


def with_pandas(log: Path, folder: Path) -> None:
    """Count the same, in the plainest pandas."""
    kinds = {"view": "clicks", "cart": "carts", "purchase": "orders"}
    came = pd.read_csv(log, dtype={"product_id": str, "category_id": str, "user_session": str})
    came["event_time"] = pd.to_datetime(came["event_time"], format="%Y-%m-%d %H:%M:%S UTC")
    came["period_start"] = came["event_time"].dt.floor("D")
    came["kind"] = came["event_type"].map(kinds)
    keys = ["product_id", "period_start"]
    counted = came.groupby([*keys, "kind"]).size().unstack(fill_value=0)  # noqa: PD010 - pivot_table counts no faster
    counted = counted.rename(columns={"orders": "units"})
    bought = came[came["kind"] == "orders"].groupby(keys)
    counted["orders"] = bought["user_session"].nunique().reindex(counted.index, fill_value=0)
    counted["revenue"] = bought["price"].sum().reindex(counted.index, fill_value=0.0)
    counted["visitors"] = came.groupby(keys)["user_id"].nunique()
    signals = counted.reset_index().rename(columns={"product_id": "sku_id"})
    signals["known_at"] = signals["period_start"] + pd.Timedelta(days=1)
    skus = came.sort_values("event_time").groupby("product_id")[["category_code", "category_id", "brand", "price"]]
    folder.mkdir(parents=True)
    signals.to_parquet(folder / "signals.parquet", index=False)
    skus.first().reset_index().to_parquet(folder / "skus.parquet", index=False)


WAYS = {"hitfinder": with_hitfinder, "pandas": with_pandas}


def peak_memory() -> float:
    """Return this process's peak so far, in MB. Not getrusage: that starts at what the parent had."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def run_once(way: str, log: Path, folder: Path) -> None:
    """Do it in this process and print what it took; imports are not counted in the seconds, but are in the memory."""
    import hitfinder.ingest  # noqa: F401 - both ways start from the same process

    began = time.perf_counter()
    WAYS[way](log, folder)
    print(json.dumps({"seconds": time.perf_counter() - began, "memory": peak_memory()}))


def require_same(folders: list[Path]) -> None:
    """Refuse to compare two answers that differ."""
    one, other = (
        pd.read_parquet(folder / "signals.parquet")[["sku_id", "period_start", *COUNTED]]
        .sort_values(["sku_id", "period_start"], ignore_index=True)
        .astype(dict.fromkeys(COUNTED, float))
        for folder in folders
    )
    pd.testing.assert_frame_equal(one, other, check_dtype=False, check_names=False)


def parser() -> argparse.ArgumentParser:
    """Return the script's arguments."""
    out = argparse.ArgumentParser(description=__doc__)
    out.add_argument("--events", type=int, default=1_000_000)
    out.add_argument("--repeats", type=int, default=3)
    out.add_argument("--once", nargs=3, help=argparse.SUPPRESS)
    return out


def main() -> None:
    """Print the table."""
    given = parser().parse_args()
    if given.once:
        run_once(given.once[0], Path(given.once[1]), Path(given.once[2]))
        return
    took: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log.csv"
        write_log(log, given.events)
        print(f"{given.events} events, {log.stat().st_size / 2**20:.0f} MB of CSV, median of {given.repeats} runs")
        for turn in range(given.repeats):
            folders = [Path(place) / f"{way}-{turn}" for way in WAYS]
            for way, folder in zip(WAYS, folders, strict=True):
                command = [sys.executable, __file__, "--once", way, str(log), str(folder)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                took[way].append(json.loads(done.stdout))
            require_same(folders)
    middle = {way: {k: statistics.median(t[k] for t in runs) for k in runs[0]} for way, runs in took.items()}
    print(f"{'':12}{'seconds':>10}{'peak MB':>10}")
    for way, figures in middle.items():
        print(f"{way:12}{figures['seconds']:>10.2f}{figures['memory']:>10.0f}")
    ours, theirs = middle["hitfinder"], middle["pandas"]
    print(f"{'ratio':12}{ours['seconds'] / theirs['seconds']:>10.2f}{ours['memory'] / theirs['memory']:>10.2f}")


if __name__ == "__main__":
    main()
