"""The folder that ingest writes to: what it holds already, how new rows join it, and how a crash leaves it whole."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from hitfinder.errors import DataError
from hitfinder.locks import only_one
from hitfinder.tables import SIGNALS, SKUS
from hitfinder.warehouse import literal, literal_file, quoted

__all__ = [
    "Folder",
    "add_bare_skus",
    "begin",
    "commit",
    "join_signals",
    "join_skus",
    "leave_out_old_stock",
    "open_folder",
    "ordered",
    "refuse_split_periods",
]

PENDING = ".pending"
WRITING = ".writing-"
LOCK = ".ingest.lock"
LOCK_SECONDS = 60.0
RECORD = "ingested.json"
TABLE_FILES = ("rejects", "old_stock", "skus", "signals")


class Folder:
    """A folder's record as it was when opened."""

    def __init__(self, path: Path, text: bytes | None) -> None:
        self.path = path
        self.text = text
        self.record: dict[str, Any] = {"version": 1, "sources": []} if text is None else _record_of(text)

    def holds(self, table: str) -> bool:
        """Tell whether the table's file is there."""
        return (self.path / f"{table}.parquet").exists()

    def select(self, table: str) -> str:
        """Return the SQL that reads one of its tables."""
        return f"select * from read_parquet({literal_file(str(self.path / f'{table}.parquet'))})"


def _record_of(text: bytes) -> dict[str, Any]:
    """Read a record.

    Raises
    ------
    ValueError
        It is no JSON, or none of ours.
    """
    record = json.loads(text.decode("utf-8"))
    needed = {"name", "format", "content", "key"}
    sources = record.get("sources") if isinstance(record, dict) else None
    if not isinstance(sources, list) or not all(isinstance(one, dict) and needed <= one.keys() for one in sources):
        raise ValueError(f"no list of sources with {', '.join(sorted(needed))}")
    for name, inside in (("attribution", {"model"}), ("burn_in", {"length", "until"})):
        if name in record and not (isinstance(record[name], dict) and inside <= record[name].keys()):
            raise ValueError(f"{name} without {', '.join(sorted(inside))}")
    return dict(record)


def open_folder(into: str | Path) -> Folder:
    """Open (or make) the folder, and finish what an ingest that crashed had decided.

    Raises
    ------
    DataError
        `into` is a file, can't be written, or holds a record that is none of ours.
    BusyError
        Another ingest has been writing to it for a minute.
    """
    path = Path(into)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            _roll_forward(path)
            for left in path.glob(f"{WRITING}*"):  # who writes holds the lock: this one was killed
                shutil.rmtree(left, ignore_errors=True)
            text = _held(path)
    except FileExistsError:
        raise DataError(f"{path}: expected a folder to write to, got a file") from None
    except OSError as error:
        raise DataError(f"{path}: can't be written ({error.strerror}); give another folder") from None
    strangers = [t for t in TABLE_FILES if (path / f"{t}.parquet").exists()]
    if text is None and strangers:
        raise DataError(
            f"{path}: holds {strangers[0]}.parquet and no {RECORD}; give a folder that ingest made, or a new one"
        )
    try:
        return Folder(path, text)
    except ValueError as error:
        raise DataError(
            f"{path / RECORD}: expected the record that ingest wrote, got another ({error}); restore it, or ingest "
            "into a new folder"
        ) from None


def commit(con: Any, folder: Folder, tables: dict[str, str], record: dict[str, Any]) -> list[Path]:
    """Write all tables (name: ordered select) and the record, as one step.

    Everything is written beside the folder's files first and becomes valid by the renaming of one folder; whoever
    opens the folder after a crash finishes the rest. One call does so at a time: between the look at the record and the
    renaming, nobody else can add to the folder what this call does not know of.

    Raises
    ------
    DataError
        Another ingest has written to the folder since it was opened.
    BusyError
        Another ingest has been writing to it for a minute.
    """
    try:
        with _alone(folder.path):
            _write(con, folder, tables, record)
    except OSError as error:
        raise DataError(f"{folder.path}: can't be written ({error.strerror}); mend that and run it again") from None
    return [*(folder.path / f"{name}.parquet" for name in tables), folder.path / RECORD]


def _alone(path: Path) -> AbstractContextManager[None]:
    return only_one(path / LOCK, what=str(path), seconds=LOCK_SECONDS)


def _held(path: Path) -> bytes | None:
    return (path / RECORD).read_bytes() if (path / RECORD).exists() else None


def _write(con: Any, folder: Folder, tables: dict[str, str], record: dict[str, Any]) -> None:
    _roll_forward(folder.path)
    if _held(folder.path) != folder.text:
        raise DataError(f"{folder.path}: another ingest wrote to it meanwhile; run this one again")
    writing = Path(tempfile.mkdtemp(prefix=WRITING, dir=folder.path))
    try:
        for name, select in tables.items():
            target = literal(str(writing / f"{name}.parquet"))
            con.execute(f"copy ({select}) to {target} (format parquet, compression zstd)")
        text = json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        (writing / RECORD).write_text(text, encoding="utf-8")
        writing.rename(folder.path / PENDING)
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    _roll_forward(folder.path)


def _roll_forward(path: Path) -> None:
    pending = path / PENDING
    if not pending.exists():
        return
    for name in (*(f"{t}.parquet" for t in TABLE_FILES), RECORD):
        with suppress(FileNotFoundError):  # it was moved before the crash
            (pending / name).replace(path / name)
    with suppress(FileNotFoundError):
        pending.rmdir()


def refuse_split_periods(con: Any, folder: Folder, period_text: str) -> None:
    """Refuse event signals for a period that the folder has already: distinct visitors can't be added up.

    Raises
    ------
    DataError
        A period and channel of the new events is there already.
    """
    n, first, last = con.execute(
        "with held as (select distinct period_start, channel from all_signals), "
        "fresh as (select distinct period_start, channel from event_signals) "
        "select count(*), min(fresh.period_start), max(fresh.period_start) from fresh join held "
        "on held.period_start = fresh.period_start and held.channel is not distinct from fresh.channel"
    ).fetchone()
    if n:
        raise DataError(
            f"{folder.path}: has signals of the periods from {first} to {last} ({period_text} each) already; visitors "
            "of a period can't be added up over two calls: ingest all files of a period together, into a new folder "
            "(or under another channel)"
        )


def begin(con: Any, folder: Folder) -> None:
    """Make `all_signals` and `all_skus`, of what the folder holds; new rows join them."""
    for table, declared in (("signals", SIGNALS), ("skus", SKUS)):
        nothing = ", ".join(f"cast(null as {c.sql_type}) as {c.name}" for c in declared.columns)
        select = folder.select(table) if folder.holds(table) else f"select {nothing} where false"
        con.execute(f"create or replace temp table all_{table} as {select}")


def join_signals(con: Any) -> tuple[int, int]:
    """Add the table `signals` to `all_signals`; return how many rows were there already, and how many contradicted.

    A row of the same grain with other values is set aside: which of the two is right can't be told without a
    `known_at`.
    """
    columns = ", ".join(SIGNALS.column_names)
    same_key = " and ".join(f"held.{name} is not distinct from fresh.{name}" for name in SIGNALS.grain)
    values = [name for name in SIGNALS.column_names if name not in SIGNALS.grain]
    same = " and ".join(f"held.{name} is not distinct from fresh.{name}" for name in values)
    shown = ", ".join(f"{literal(c)}: {c}" for c in SIGNALS.column_names)
    con.execute(
        f"create or replace temp table met as select fresh.*, ({same}) as __same "
        f"from signals as fresh join all_signals as held on {same_key}"
    )
    con.execute(
        "insert into rejects select 'signals', 'already_reported_otherwise', cast(to_json(row_content) as varchar) "
        f"from (select {{{shown}}} as row_content from met where not __same)"
    )
    there, otherwise = con.execute(
        "select count(*) filter (where __same), count(*) filter (where not __same) from met"
    ).fetchone()
    con.execute(
        f"insert into all_signals by name select {columns} from signals as fresh "
        f"anti join all_signals as held on {same_key}"
    )
    con.execute("drop table met")
    return there, otherwise


def join_skus(con: Any, *, fresh_wins: bool) -> None:
    """Add the table `skus` to `all_skus`: one row per SKU; where both say something of one, one of them wins."""
    first, second = ("skus", "all_skus") if fresh_wins else ("all_skus", "skus")
    kinds = [{row[0]: row[1] for row in con.execute(f"describe {part}").fetchall()} for part in (first, second)]
    lower = [{name.lower(): name for name in kind} for kind in kinds]
    extras = sorted({n.lower() for kind in kinds for n in kind} - set(SKUS.column_names))
    columns = []
    for name in (*SKUS.column_names[1:], *extras):
        sides = [(t, lower[i][name], kinds[i][lower[i][name]]) for i, t in enumerate("ab") if name in lower[i]]
        text = len({kind for _, _, kind in sides}) > 1  # a number in one file and a text in another is a text
        shown = [f"cast({t}.{quoted(c)} as varchar)" if text else f"{t}.{quoted(c)}" for t, c, _ in sides]
        columns.append(f"coalesce({', '.join(shown)}) as {quoted(sides[0][1])}")
    con.execute(
        f"create or replace temp table joined as select sku_id, {', '.join(columns)} "
        f"from {first} as a full join {second} as b using (sku_id)"
    )
    con.execute("create or replace temp table all_skus as select * from joined")
    con.execute("drop table joined")


def add_bare_skus(con: Any) -> None:
    """Give every SKU that has signals a row in `all_skus`, be it an empty one."""
    con.execute(
        "insert into all_skus by name select distinct sku_id from all_signals anti join all_skus using (sku_id)"
    )


def leave_out_old_stock(
    con: Any, folder: Folder, burn_in: pd.Timedelta | None, record: dict[str, Any]
) -> dict[str, int]:
    """Take SKUs that were there when the log began out of `all_signals` and `all_skus`; remember who they were.

    Raises
    ------
    DataError
        The folder began without a burn-in, or with another one.
    """
    began = record.get("burn_in")
    wanted = str(burn_in) if burn_in is not None else None
    if wanted is not None and folder.text is not None and wanted != (began or {}).get("length"):
        raise DataError(
            f"{folder.path}: began with a burn-in of {(began or {}).get('length', 'none')}, got {wanted}; "
            "a log's burn-in is given once, with its first file: ingest into a new folder"
        )
    if burn_in is not None and began is None:
        start = con.execute("select min(period_start) from all_signals").fetchone()[0]
        if start is None:
            return {}
        record["burn_in"] = began = {"length": wanted, "until": str(pd.Timestamp(start) + burn_in)}
    if began is None:
        return {}
    known = f"union select sku_id from ({folder.select('old_stock')})" if folder.holds("old_stock") else ""
    con.execute(
        "create or replace temp table old_stock as "
        f"select distinct sku_id from all_signals where period_start < timestamp '{began['until']}' {known}"
    )
    counts = {}
    for table in ("signals", "skus"):
        n = con.execute(f"select count(*) from all_{table} semi join old_stock using (sku_id)").fetchone()[0]
        con.execute(
            f"create or replace temp table all_{table} as select * from all_{table} anti join old_stock using (sku_id)"
        )
        if n:
            counts[f"{table} of old stock"] = n
    return counts


def ordered(con: Any, table: str) -> str:
    """Return the select of a table in an order that does not depend on threads."""
    names: Iterable[str] = (row[0] for row in con.execute(f"describe {table}").fetchall())
    listed = ", ".join(quoted(name) for name in names)
    return f"select {listed} from {table} order by all nulls first"
