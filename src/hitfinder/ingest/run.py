"""One call of ingest: recognise, read, check, join what the folder holds, write in one step, say what became of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from hitfinder.admission import Admission, admit_incoming, prepare
from hitfinder.errors import DataError
from hitfinder.ingest.ads import find_header, load_reports
from hitfinder.ingest.attribution import Attribution, way_of_attribution
from hitfinder.ingest.events import read_events
from hitfinder.ingest.folder import (
    Folder,
    add_bare_skus,
    begin,
    commit,
    join_signals,
    join_skus,
    leave_out_old_stock,
    open_folder,
    ordered,
    refuse_split_periods,
)
from hitfinder.ingest.mappings import EventLog, event_logs, read_mapping
from hitfinder.ingest.sources import digest, header_of, is_json, load_files, resolve
from hitfinder.settings import Settings
from hitfinder.tables import COUNTS, MONEY, SIGNALS, SKUS
from hitfinder.warehouse import is_parquet, literal, open_warehouse

__all__ = ["FORMATS", "Ingested", "ingest"]

FORMATS = ("auto", "signals", "skus", "rees46", "retailrocket", "ga4", "uci", "events", "ads")
NO_EVENTS = ("signals", "skus", "ads")
DAY = pd.Timedelta(days=1)


@dataclass(frozen=True)
class Ingested:
    """What one call of `ingest` did.

    Attributes
    ----------
    admissions
        Per table (and for `events`): rows that came, kept, set aside by rule. rows = kept + set aside, and for events
        also + those in `left_out`.
    left_out
        What was counted and kept nowhere, by what it was.
    first, last
        The first and last period of the signals that this call added; None where it added none.
    persons
        How many distinct persons the events named; None where the format tells none.
    attribution
        What went to other channels than it was logged under; None without attribution.
    already
        Files whose content the folder has: skipped, but for what `looked_back` says.
    looked_back
        Those of them that were read again for who came from where before the new orders.
    """

    folder: Path
    formats: tuple[str, ...]
    admissions: tuple[Admission, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    first: pd.Timestamp | None = None
    last: pd.Timestamp | None = None
    persons: int | None = None
    attribution: Attribution | None = None
    dropped_columns: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()
    already: tuple[str, ...] = ()
    looked_back: tuple[str, ...] = ()

    @property
    def rejects(self) -> dict[str, int]:
        """Rows set aside in this call, by rule, all tables together."""
        counts: dict[str, int] = {}
        for admission in self.admissions:
            for rule, n in admission.rejects.items():
                counts[rule] = counts.get(rule, 0) + n
        return dict(sorted(counts.items()))

    def __str__(self) -> str:
        lines = [f"format: {', '.join(self.formats)}"] if self.formats else []
        lines += [str(admission) for admission in self.admissions]
        if self.first is not None:
            lines.append(f"periods: {self.first} to {self.last}")
        lines += [f"left out: {what} {n}" for what, n in self.left_out.items()]
        if self.persons is not None:
            lines.append(f"persons: {self.persons} counted, none kept")
        if self.attribution is not None:
            lines.append(str(self.attribution))
        if self.dropped_columns:
            lines.append(f"columns that name a person, dropped: {', '.join(self.dropped_columns)}")
        if self.looked_back:
            lines.append(f"ingested before, read again for what led to the new orders: {', '.join(self.looked_back)}")
        if skipped := [path for path in self.already if path not in self.looked_back]:
            lines.append(f"ingested before, skipped: {', '.join(skipped)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Call:
    """What holds for all files of one call."""

    settings: Settings
    log: EventLog | None
    names: dict[str, Any] | None
    channel: str | None
    known_at: pd.Timestamp | None
    now: pd.Timestamp


def ingest(
    sources: str | Path | Sequence[str | Path],
    *,
    format: str = "auto",  # noqa: A002 - the name that the command line has
    into: str | Path,
    settings: Settings,
    mapping: str | Path | None = None,
    burn_in: pd.Timedelta | None = None,
    channel: str | None = None,
    skus: str | Path | Sequence[str | Path] | None = None,
    known_at: pd.Timestamp | None = None,
    now: pd.Timestamp | None = None,
    memory: str | None = None,
) -> Ingested:
    """Read files into the folder `into`: signals.parquet, skus.parquet, rejects.parquet and ingested.json.

    Parameters
    ----------
    sources
        Paths and globs of Parquet, CSV or (GA4) newline-delimited JSON files, all of one format. Files that the folder
        has already add nothing; with attribution they tell what led to the orders of the new ones.
    format
        One of `FORMATS`; `auto` recognises it from the header.
    into
        The folder; what it holds already stays, and a file that it has seen is skipped.
    settings
        `signals.period` is the length of a period; `attribution` says which channels an event log's orders go to. A
        folder has one of each.
    mapping
        A TOML file with the names that another system has: an event log's, or an ad report's.
    burn_in
        SKUs first seen this soon after the log began are old stock, not launches, and are left out.
    channel
        Goes into the column `channel` throughout.
    skus
        Files with what is known of the SKUs.
    known_at
        When reports without a `known_at` of their own were exported; default: the end of each period.
    now
        The clock for rules about the future; default: this machine's, with a day's grace.
    memory
        A ceiling such as `4GB`; what does not fit spills to disk.

    Raises
    ------
    DataError
        A file can't be understood at all, a period of an event log comes a second time, or the folder has another
        period, attribution or burn-in. Single bad rows are set aside instead.
    """
    if format not in FORMATS:
        raise DataError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    now = now if now is not None else pd.Timestamp.now(tz="UTC").tz_localize(None) + DAY
    log, names = read_mapping(mapping) if mapping is not None else (None, None)
    goes_with = "events" if log is not None else "ads"
    if mapping is not None and format not in ("auto", goes_with):
        raise DataError(f"{mapping}: goes with the format {goes_with}, got {format}; leave out the one or the other")
    call = _Call(settings, log, names, channel, known_at, now)
    con = open_warehouse(memory=memory)
    try:
        con.execute("set preserve_insertion_order = false")
        folder = open_folder(into)
        groups = _groups(con, resolve(sources), format, call)
        if skus is not None:
            groups.setdefault("skus", []).extend(resolve(skus))
        return _run(con, folder, groups, call, burn_in, Path(mapping) if mapping is not None else None)
    finally:
        con.close()


def _groups(con: Any, paths: list[str], format: str, call: _Call) -> dict[str, list[str]]:  # noqa: A002
    groups: dict[str, list[str]] = {}
    for path in paths:
        name = _recognise(con, path, call) if format == "auto" else format
        groups.setdefault(name, []).append(path)
    if len(set(groups) - {"skus"}) > 1:
        raise DataError(
            f"expected files of one format (and skus), got {', '.join(sorted(groups))}; give each format its own call"
        )
    if "events" in groups and call.log is None:
        raise DataError("events: expected a mapping file with [columns] and [events], got none; give --mapping")
    return groups


def _recognise(con: Any, path: str, call: _Call) -> str:
    if call.log is not None:
        return "events"
    header = header_of(con, path)
    lower = {name.strip().lower() for name in header}
    if {"sku_id", "period_start"} <= lower and lower & set(COUNTS + MONEY):
        return "signals"
    for name, log in event_logs().items():
        if log.header and {column.lower() for column in log.header} <= lower:
            return name
    if not is_parquet(path) and not is_json(path) and find_header(path, call.names) is not None:
        return "ads"
    if "sku_id" in lower and "period_start" not in lower:
        return "skus"
    known = "; ".join(f"{n} ({', '.join(log.header)})" for n, log in event_logs().items())
    shown = ", ".join(name[:60] for name in header[:20])
    raise DataError(
        f"{path}: expected the header of signals (sku_id, period_start, a count); skus (sku_id); {known}; or ads "
        f"(a date, a product id, a count), got {shown}; name the format, or give a mapping file"
    )


def _run(
    con: Any,
    folder: Folder,
    groups: dict[str, list[str]],
    call: _Call,
    burn_in: pd.Timedelta | None,
    mapping: Path | None,
) -> Ingested:
    record = json.loads(json.dumps(folder.record))
    period_text = call.settings.to_dict()["signals"]["period"]
    if record.setdefault("period", period_text) != period_text:
        raise DataError(
            f"{folder.path}: has periods of {record['period']}, got settings with {period_text}; give a new folder"
        )
    if set(groups) - set(NO_EVENTS):
        way_of_attribution(record, call.settings.attribution, folder.path, NO_EVENTS)
    fresh, already, twice = _fresh(record, groups, call, mapping)
    done = Ingested(
        folder.path, tuple(groups), already=(*(path for paths in already.values() for path in paths), *twice)
    )
    if not any(fresh.values()):
        return done
    con.execute("create temp table all_rejects (table_name varchar, rule varchar, content varchar, source varchar)")
    con.execute("create temp table old_stock (sku_id varchar)")
    begin(con, folder)
    for name in sorted(fresh, key=lambda n: n == "skus"):
        if not fresh[name]:
            continue
        done = _read(con, folder, name, fresh[name], already[name], call, period_text, done)
        shown = ", ".join(Path(path).name for path in fresh[name][:5]) + (" ..." if len(fresh[name]) > 5 else "")
        con.execute("insert into all_rejects select *, ? from rejects", [shown])
        con.execute("delete from rejects")
    add_bare_skus(con)
    done = replace(done, left_out=done.left_out | leave_out_old_stock(con, folder, burn_in, record))
    tables = {"rejects": "all_rejects", "skus": "all_skus", "signals": "all_signals"}
    if record.get("burn_in"):
        tables["old_stock"] = "old_stock"
    if folder.holds("rejects"):
        con.execute(f"insert into all_rejects {folder.select('rejects')}")
    record["tables"] = {n: con.execute(f"select count(*) from {t}").fetchone()[0] for n, t in tables.items()}
    record["rejects"] = dict(con.execute("select rule, count(*) from all_rejects group by 1 order by 1").fetchall())
    paths = commit(con, folder, {name: ordered(con, table) for name, table in tables.items()}, record)
    return replace(done, paths=tuple(paths))


def _fresh(
    record: dict[str, Any], groups: dict[str, list[str]], call: _Call, mapping: Path | None
) -> tuple[dict[str, list[str]], dict[str, list[str]], list[str]]:
    """Tell files to read from those whose content was read before, in the same way; note the former in the record.

    Files with the content of another of this call come last: they are in neither.
    """
    before = {source["key"] for source in record["sources"]}
    seen = set(before)
    way = mapping.read_text(encoding="utf-8-sig") if mapping is not None else ""
    fresh: dict[str, list[str]] = {name: [] for name in groups}
    already: dict[str, list[str]] = {name: [] for name in groups}
    twice: list[str] = []
    for name, paths in groups.items():
        for path in paths:
            content = digest(path)
            how = json.dumps([content, name, "" if name == "skus" else [way, call.channel, str(call.known_at)]])
            key = hashlib.sha256(how.encode()).hexdigest()
            if key in seen:
                (already[name] if key in before else twice).append(path)
                continue
            seen.add(key)
            fresh[name].append(path)
            record["sources"].append({"name": Path(path).name, "format": name, "content": content, "key": key})
    return fresh, already, twice


def _read(
    con: Any,
    folder: Folder,
    name: str,
    paths: list[str],
    already: list[str],
    call: _Call,
    period_text: str,
    done: Ingested,
) -> Ingested:
    """Read the files of one format, and let their rows join the folder's; `already` are those that it has."""
    prepare(con)
    period = call.settings.signals.period
    if name == "skus":
        dropped = load_files(con, paths, "incoming")
        admission = admit_incoming(con, SKUS, now=call.now, period=period)
        _refuse_no_rows(admission, paths)
        join_skus(con, fresh_wins=True)
        return replace(
            done, admissions=(*done.admissions, admission), dropped_columns=(*done.dropped_columns, *dropped)
        )
    if name in ("signals", "ads"):
        return _read_reports(con, name, paths, call, done)
    log = call.log if name == "events" else event_logs()[name]
    assert log is not None
    attribution = call.settings.attribution
    looked_back = already if attribution.model != "none" else []  # what the folder had before this call
    read = read_events(
        con,
        paths,
        log,
        period=period,
        now=call.now,
        channel=call.channel,
        attribution=attribution,
        read_before=looked_back,
    )
    refuse_split_periods(con, folder, period_text)
    con.execute("create or replace temp view incoming as select * from event_signals")
    signals = admit_incoming(con, SIGNALS, now=call.now, period=period)
    done = _join_signals(con, signals, done)
    con.execute("create or replace temp view incoming as select * from event_skus")
    skus = admit_incoming(con, SKUS, now=call.now, period=period)
    join_skus(con, fresh_wins=False)
    return replace(
        done,
        admissions=(read.admission, *done.admissions, skus),
        left_out=read.left_out | done.left_out,
        persons=read.persons if "person" in log.columns else None,
        attribution=read.attribution,
        looked_back=tuple(looked_back) if read.attribution is not None and read.attribution.impossible is None else (),
    )


def _read_reports(con: Any, name: str, paths: list[str], call: _Call, done: Ingested) -> Ingested:
    """Read signals as they are, or as an ad platform names them."""
    early: dict[str, int] = {}
    if name == "ads":
        early, dropped = load_reports(con, paths, call.names, channel=call.channel)
        period = DAY
    else:
        dropped = load_files(con, paths, "incoming")
        period = call.settings.signals.period
        if call.channel is not None:
            _add_column(con, "channel", literal(call.channel))
    if call.known_at is not None:
        _add_column(con, "known_at", f"timestamp '{call.known_at}'")
    admission = admit_incoming(con, SIGNALS, now=call.now, period=period)
    counts = dict(sorted((admission.rejects | early).items()))
    admission = replace(admission, rows=admission.rows + sum(early.values()), rejects=counts)
    _refuse_no_rows(admission, paths)
    done = _join_signals(con, admission, done)
    return replace(done, dropped_columns=(*done.dropped_columns, *dropped))


def _add_column(con: Any, name: str, sql: str) -> None:
    """Add a column to `incoming` where it has none of that name."""
    names = [row[0].strip().lower() for row in con.execute("describe incoming").fetchall()]
    if name not in names:
        con.execute(f"create or replace temp table widened as select *, {sql} as {name} from incoming")
        con.execute("create or replace temp view incoming as select * from widened")


def _join_signals(con: Any, admission: Admission, done: Ingested) -> Ingested:
    first, last = con.execute("select min(period_start), max(period_start) from signals").fetchone()
    there, otherwise = join_signals(con)
    if otherwise:
        rejects = dict(sorted((admission.rejects | {"already_reported_otherwise": otherwise}).items()))
        admission = replace(admission, kept=admission.kept - otherwise, rejects=rejects)
    return replace(
        done,
        admissions=(*done.admissions, admission),
        left_out=done.left_out | ({"signals that the folder has already": there} if there else {}),
        first=pd.Timestamp(first) if first is not None else None,
        last=pd.Timestamp(last) if last is not None else None,
    )


def _refuse_no_rows(admission: Admission, paths: list[str]) -> None:
    if admission.rows == 0:
        raise DataError(f"{paths[0]}: expected at least one row, got only a header")
