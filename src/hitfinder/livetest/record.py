"""The record of live tests: the decisions file, read and appended to by one call at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hitfinder.admission import admit
from hitfinder.deciding import lists_of, standing
from hitfinder.errors import DataError, HitfinderError
from hitfinder.livetest.files import write_whole
from hitfinder.livetest.rounds import SCHEMA
from hitfinder.locks import only_one
from hitfinder.tables import DECISIONS
from hitfinder.warehouse import open_warehouse

__all__ = ["Record", "open_record"]

LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Record:
    """The decisions file as it was read, and the way to append to it; valid while its lock is held."""

    path: Path
    table: pa.Table

    def rounds(self, test: str) -> dict[int, pd.DataFrame]:
        """Return the rows of each decided round of a test.

        Raises
        ------
        DataError
            A round has more or fewer rows than were decided.
        """
        reasons = pd.Series(self.table.column("reason").to_pylist(), dtype=object)
        found = reasons.str.extract(r"^test=([^;]*);round=(\d{1,18})/\d+(?:;.*?\bskus=(\d+))?")
        names = {name: unquote(name) for name in found[0].dropna().unique()}
        mine = found[found[0].map(names) == test]
        rounds = {}
        for number, rows in mine.groupby(mine[1].astype(int)):
            declared = rows[2].dropna().astype(int)
            if len(declared) and not (declared == len(rows)).all():
                raise DataError(
                    f"{self.path}: expected {declared.iloc[0]} rows for round {number} of {test}, got {len(rows)}; "
                    "rows were lost or added: restore the file"
                )
            rounds[int(str(number))] = self.table.take(pa.array(rows.index)).to_pandas()
        return rounds

    def by_lists(self, sku_ids: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return which of the SKUs decided lists have stopped, and which a coin keeps on trial.

        A stop is final unless a person calls the SKU back. Those that were drawn stand for those that were passed over,
        and could not if a round stopped them.
        """
        lists = lists_of(self.table.to_pandas())
        held = standing(lists[lists["sku_id"].isin(sku_ids)])
        stopped = sorted(sku_id for sku_id, last in held.items() if last["action"] == "stop")
        return stopped, sorted(sku_id for sku_id in held.keys() - {*stopped} if held[sku_id]["drawn"])

    def append(self, rows: pa.Table) -> None:
        """Write the file anew with more rows; after a crash it is the old one or the new one, whole."""
        table = pa.concat_tables([self.table, rows])
        content = io.BytesIO()
        if self.path.suffix.lower() == ".parquet":
            pq.write_table(table, content, compression="zstd")
        else:
            # Moments in full and texts as they are: this file is for programs.
            text = table.to_pandas(integer_object_nulls=True).to_csv(index=False, lineterminator="\r\n")
            content.write(text.encode("utf-8-sig"))
        write_whole(self.path, content.getvalue())


@contextmanager
def open_record(path: str | Path) -> Iterator[Record]:
    """Open the decisions file for one call alone.

    Parameters
    ----------
    path
        A ``.parquet`` or ``.csv`` file; it need not be there yet. Its lock is ``.<name>.lock`` beside it. That file
        stays, empty; the operating system lets go of the lock when a process ends, however it ends.

    Raises
    ------
    DataError
        Another suffix, columns that `decisions` has not, or a row that breaks a rule: it could be a round's.
    HitfinderError
        The folder can't be written, or another call is at work for longer than a minute.
    """
    # A link's lock and its new content belong beside the file that it leads to.
    path = Path(path).resolve()
    if path.suffix.lower() not in (".parquet", ".csv"):
        raise DataError(f"{path}: expected a name that ends in .parquet or .csv, got {path.suffix or 'no suffix'!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HitfinderError(f"{path}: can't be written ({error.strerror}); choose another place") from None
    with only_one(path.with_name(f".{path.name}.lock"), what=str(path), seconds=LOCK_SECONDS):
        yield Record(path, _read(path))


def _read(path: Path) -> pa.Table:
    if not path.exists():
        return SCHEMA.empty_table()
    con = open_warehouse(threads=1)
    try:
        admission = admit(con, DECISIONS, str(path))
        if admission.rejects or admission.ignored_columns:
            raise DataError(
                f"{path}: expected only rows and columns of the table decisions, got {admission}; nothing may be lost "
                "from this file: mend it, or give another"
            )
        rows = con.sql(f"select {', '.join(DECISIONS.column_names)} from decisions order by decided_at, sku_id")
        return rows.to_arrow_table().cast(SCHEMA)
    finally:
        con.close()
