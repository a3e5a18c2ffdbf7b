"""Event logs and invoice lines: one row per event in, one row per SKU x period x channel out, and nobody's id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pandas as pd

from hitfinder.admission import Admission
from hitfinder.errors import DataError
from hitfinder.ingest.attribution import Attribution, credit_orders
from hitfinder.ingest.mappings import EventLog
from hitfinder.ingest.sources import is_json, open_files, text_of
from hitfinder.settings import AttributionSettings
from hitfinder.tables import MAX_ID, MAX_TEXT
from hitfinder.warehouse import (
    build_text,
    drop_reader_tables,
    keep_torn_lines,
    literal,
    literal_file,
    load_sql,
    quoted,
)

__all__ = ["EventsRead", "read_events"]

TEXTS = ("category", "title", "channel")
GA4_COLUMNS = ("event_date", "event_timestamp", "event_name", "user_pseudo_id")
UCI_COLUMNS = {
    "InvoiceNo": ("invoiceno", "invoice"),
    "StockCode": ("stockcode",),
    "Description": ("description",),
    "Quantity": ("quantity",),
    "InvoiceDate": ("invoicedate",),
    "UnitPrice": ("unitprice", "price"),
    "CustomerID": ("customerid", "customer id"),
    "Country": ("country",),
}
UCI_NEEDS = ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice")


@dataclass(frozen=True)
class EventsRead:
    """What became of the events; the views `event_signals` and `event_skus` stand ready afterwards."""

    admission: Admission
    left_out: dict[str, int]
    persons: int
    attribution: Attribution | None = None


def read_events(
    con: Any,
    paths: Sequence[str],
    log: EventLog,
    *,
    period: pd.Timedelta,
    now: pd.Timestamp,
    channel: str | None,
    attribution: AttributionSettings,
    read_before: Sequence[str] = (),
) -> EventsRead:
    """Aggregate the events of several files into the temporary tables `event_signals` and `event_skus`.

    The files are streamed: what is kept of an event is a narrow row that spills to disk, persons as hashes. Files
    `read_before` were ingested by an earlier call: attribution sees what they say of who came from where, and nothing
    else does.

    Raises
    ------
    DataError
        A column that the format needs is missing, or no event can be understood.
    """
    kinds = pd.DataFrame({"event": list(log.events), "kind": list(log.events.values())})
    con.execute("create or replace temp table event_kinds (event varchar, kind varchar)")
    con.executemany("insert into event_kinds values (?, ?)", kinds.to_numpy().tolist())
    judged = load_sql("ingest/judged_events").format(
        now=now,
        max_id=MAX_ID,
        max_title=MAX_TEXT["title"],
        period=_interval(period),
        attribute_rules=" ".join(f"when length({quoted(a)}) > {MAX_ID} then '{a}_too_long'" for a in log.attributes),
        quantity_counts=str("quantity" in log.columns).lower(),
        price_counts=str("price" in log.columns).lower(),
    )
    for strict in (True, False):
        plain = [p for p in (*paths, *read_before) if not is_json(p)]
        json_paths = [p for p in (*paths, *read_before) if is_json(p)]
        with open_files(con, plain, strict=strict) as opened:
            names = {row[0]: path for row, path in zip(opened, plain, strict=True)}
            readers = [row[1:] for row in opened] + [_json(path) for path in json_paths]
            selects = [
                f"select *, {str(path in set(read_before)).lower()} as read_before "
                f"from ({_canonical(reader, columns, log, period, channel)})"
                for path, (reader, columns) in zip([*plain, *json_paths], readers, strict=True)
            ]
            con.execute("create or replace temp view came_events as " + "\nunion all\n".join(selects))
            try:
                build_text(con, "all_judged_events", judged)
            except duckdb.InvalidInputException as error:
                drop_reader_tables(con)
                if strict:  # line ends of two systems in one file
                    continue
                raise DataError(f"{paths[0]}: can't be read ({str(error).splitlines()[0]})") from None
            except (duckdb.IOException, duckdb.DataError, duckdb.OutOfMemoryException) as error:
                raise DataError(f"{paths[0]}: can't be read ({str(error).splitlines()[0]})") from None
            keep_torn_lines(con, names)
            con.execute("delete from torn_lines where source in (select unnest(?))", [list(read_before)])
            con.execute(
                "create or replace temp view judged_events as select * from all_judged_events where not read_before"
            )
            if "person" in log.columns or "session" in log.columns:
                con.execute("update torn_lines set content = null")  # a torn line may hold a person anywhere
            read = _count(con, log)
            units = "quantity" if "quantity" in log.columns else "1"
            read = replace(read, attribution=credit_orders(con, attribution, units=units))
            _aggregate(con, log, period, now)
            drop_reader_tables(con)
        break
    con.execute(
        "drop view came_events; drop view judged_events; drop table all_judged_events; drop table order_credits"
    )
    return read


def _json(path: str) -> tuple[str, dict[str, str]]:
    columns = dict.fromkeys(GA4_COLUMNS, "VARCHAR") | dict.fromkeys(("items", "ecommerce", "traffic_source"), "JSON")
    given = ", ".join(f"{name}: '{kind}'" for name, kind in columns.items())
    return f"read_ndjson({literal_file(path)}, columns = {{{given}}}, ignore_errors = true)", columns


def _canonical(reader: str, physical: dict[str, str], log: EventLog, period: pd.Timedelta, channel: str | None) -> str:
    """Return the select that brings one file to the columns that `judged_events.sql` reads."""
    early = "cast(null as varchar)"
    if log.name == "ga4":
        reader, physical, early = _ga4(reader, physical), {}, "early_rule"
    elif log.name == "uci":
        reader, physical, early = _uci(reader, physical), {}, "early_rule"
    lower = {name.strip().lstrip("\ufeff").lower(): name for name in physical}
    theirs = log.columns | log.attributes
    if physical:
        missing = [theirs[ours] for ours in ("time", "event", "sku_id") if theirs[ours].lower() not in lower]
        if missing:
            raise DataError(f"{log.name}: expected the column {', '.join(missing)}, got {', '.join(physical)}")

    def text(ours: str) -> str:
        if ours not in theirs:
            return "cast(null as varchar)"
        if not physical:  # a select of ours, all text
            return f"nullif(trim({quoted(theirs[ours])}), '')"
        name = lower.get(theirs[ours].lower())
        return text_of(name, physical[name]) if name else "cast(null as varchar)"

    private = {theirs[key].lower() for key in ("person", "session") if key in theirs}
    shown = [ours for ours in theirs if theirs[ours].lower() not in private]
    content = ", ".join(f"{literal(theirs[ours])}: {text(ours)}" for ours in shown)
    if log.name == "uci":
        content = content.replace("'Quantity': nullif(trim(\"Quantity\"), '')", "'Quantity': quantity_given")
        content += ", 'Country': Country"
    number = {name: f"try_cast({text(name)} as double)" for name in ("price", "quantity", "amount")}
    day = text("day") if period % pd.Timedelta(days=1) == pd.Timedelta(0) else "cast(null as varchar)"
    named_channel = literal(channel) if channel is not None else text("channel")
    whole = f"{number['quantity']} = floor({number['quantity']}) and abs({number['quantity']}) < 1e15"
    return f"""
        select
            {_moment(text("time"), log)} as happened_at,
            {text("time")} as time_given,
            {text("event")} as event,
            {text("sku_id")} as sku_id,
            {text("person")} as person,
            {text("session")} as session,
            {text("order_id")} as order_id,
            case when isfinite({number["price"]}) then {number["price"]} end as price,
            {text("price")} as price_given,
            case when {whole} then {number["quantity"]} end as quantity,
            {text("quantity")} as quantity_given,
            case when isfinite({number["amount"]}) then {number["amount"]} end as amount,
            {text("amount")} as amount_given,
            {text("category")} as category,
            {text("title")} as title,
            {named_channel} as channel,
            cast(try_strptime({day}, ['%Y%m%d', '%Y-%m-%d']) as date) as day,
            {day} as day_given,
            {"".join(f"{text(a)} as {quoted(a)}, " for a in log.attributes)}
            {early} as early_rule,
            {{{content}}} as content
        from {reader}
    """


def _moment(text: str, log: EventLog) -> str:
    if log.microseconds:
        number = f"try_cast({text} as double)"
        whole = f"cast({number} * {log.microseconds} as bigint)"
        last = 7_258_118_400_000_000 // log.microseconds  # the year 2200
        return f"case when {number} between 0 and {last} then make_timestamp({whole}) end"
    given = f"try_cast(try_cast({text} as timestamptz) as timestamp)"
    if log.name == "uci":  # the CSV that UCI's file is passed on as writes 12/1/2010 8:26
        return f"coalesce({given}, try_strptime({text}, ['%m/%d/%Y %H:%M', '%m/%d/%Y %H:%M:%S']))"
    return given


def _ga4(reader: str, physical: dict[str, str]) -> str:
    lower = {name.lower(): name for name in physical}
    missing = [name for name in ("event_timestamp", "event_name", "items") if name not in lower]
    if missing:
        raise DataError(f"ga4: expected the column {', '.join(missing)}, got {', '.join(physical)}")
    columns = [
        f"{text_of(lower[name], physical[lower[name]]) if name in lower else 'cast(null as varchar)'} as {name}"
        for name in GA4_COLUMNS
    ]

    def inner(outer: str, field: str) -> str:
        return f"json_extract_string(to_json({quoted(lower[outer])}), '$.{field}')" if outer in lower else "null"

    source, medium = inner("traffic_source", "source"), inner("traffic_source", "medium")
    exported = (
        f"select {', '.join(columns)}, to_json({quoted(lower['items'])}) as items, "
        f"cast({inner('ecommerce', 'transaction_id')} as varchar) as transaction_id, "
        f"nullif(concat_ws(' / ', {source}, {medium}), '') as channel from {reader}"
    )
    return "(" + load_sql("ingest/ga4").format().replace("select * from exported\n", exported + "\n") + ")"


def _uci(reader: str, physical: dict[str, str]) -> str:
    lower = {name.strip().lstrip("\ufeff").lower(): name for name in physical}
    columns = []
    for ours, names in UCI_COLUMNS.items():
        name = next((lower[n] for n in names if n in lower), None)
        if name is None and ours in UCI_NEEDS:
            raise DataError(f"uci: expected the column {ours}, got {', '.join(physical)}; rename or add it")
        columns.append(f"{text_of(name, physical[name]) if name else 'cast(null as varchar)'} as {ours}")
    invoices = f"select {', '.join(columns)} from {reader}"
    text = load_sql("ingest/uci").format()
    return "(" + text.replace("with lines as (", f"with invoices as ({invoices}),\n\nlines as (") + ")"


def _count(con: Any, log: EventLog) -> EventsRead:
    rows = con.execute("select count(*) from judged_events").fetchone()[0]
    if rows == 0 and con.execute("select count(*) from torn_lines").fetchone()[0] == 0:
        raise DataError(f"{log.name}: expected at least one event, got only a header")
    for column, rule, example in (
        (log.columns["time"], "event_time_unreadable", "a number since 1970" if log.time_unit else "a timestamp"),
        (log.columns["event"], "event_unknown", "one of " + ", ".join(log.events)),
    ):
        same = con.execute("select count(*) from judged_events where rule = ?", [rule]).fetchone()[0]
        if rows > 1 and same == rows:
            raise DataError(
                f"{log.name}: expected {column} to be {example}, and no row's is; check the mapping or the format"
            )
    con.execute(
        """
        insert into rejects
        select 'events', rule, content from judged_events where rule is not null
        union all
        select 'events', 'torn_line', cast(json_object('source', parse_filename(source), 'line', line,
            'content', content, 'why', why) as varchar) from torn_lines
        """
    )
    con.execute("delete from torn_lines")  # they are accounted for; the tables made of the events have none
    counts = dict(
        con.execute("select rule, count(*) from rejects where table_name = 'events' group by 1 order by 1").fetchall()
    )
    left_out = dict(
        con.execute(
            "select 'events ' || left_out, count(*) from judged_events where left_out is not null group by 1 order by 1"
        ).fetchall()
    )
    kept, persons = con.execute(
        "select count(*), count(distinct case when person_known then person end) "
        "from judged_events where rule is null and left_out is null"
    ).fetchone()
    admission = Admission("events", kept + sum(counts.values()) + sum(left_out.values()), kept, counts)
    return EventsRead(admission, left_out, persons)


def _aggregate(con: Any, log: EventLog, period: pd.Timedelta, now: pd.Timestamp) -> None:
    seen = {row[0] for row in con.execute("select distinct kind from judged_events where rule is null").fetchall()}
    told = {kind for kind in log.events.values() if kind not in log.only_if_seen or kind in seen}
    click_kind = "clicks" if "views" not in told or "clicks" in seen else "views"
    measured = {
        "impressions": "impressions" in told,
        "visitors": "person" in log.columns,
        "clicks": bool(told & {"clicks", "views"}),
        "favorites": "favorites" in told,
        "carts": "carts" in told,
        "orders": "orders" in told,
        "units": "orders" in told and ("quantity" in log.columns or log.one_unit_per_order_event),
        "revenue": "orders" in told and "price" in log.columns,
        "refunds": "refunds" in told and "price" in log.columns,
    }
    columns = [f"counted.{name}" if there else f"null as {name}" for name, there in measured.items()]
    signals = load_sql("ingest/event_signals").format(
        period=_interval(period),
        click_kind=click_kind,
        measured=",\n        ".join(columns),
    )
    build_text(con, "event_signals", signals)
    con.execute("create or replace temp table kept_sku_ids as select distinct sku_id from event_signals")
    texts = [name for name in ("category", "title") if name in log.columns]
    firsts = [
        f"min({{'happened_at': happened_at, 'value': {quoted(name)}}}) filter (where {quoted(name)} is not null "
        f"and length({quoted(name)}) <= {MAX_TEXT.get(name, MAX_ID)}).value as {quoted(name)}"
        for name in (*texts, *log.attributes)
    ]
    if "price" in log.columns:
        firsts.append(
            "min({'happened_at': happened_at, 'value': price}) filter (where price > 0 and price <= 1e9).value as price"
        )
    if firsts:
        build_text(
            con, "event_skus", load_sql("ingest/event_skus").format(attributes=",\n        ".join(firsts), now=now)
        )
    else:
        build_text(con, "event_skus", "select sku_id from kept_sku_ids")


def _interval(period: pd.Timedelta) -> str:
    return f"interval ({int(period / pd.Timedelta(microseconds=1))}) microseconds"
