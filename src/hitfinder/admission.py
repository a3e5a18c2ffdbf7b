"""Admission: a raw table in, a checked table out, and what broke a rule in `rejects` with the rule and its content."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hitfinder.errors import DataError
from hitfinder.tables import DECISIONS, OUTCOMES, SIGNALS, SKUS, Column, Table
from hitfinder.warehouse import TableLike, execute, quoted, scan

__all__ = [
    "Admission",
    "RejectedRowsWarning",
    "admit",
    "admit_incoming",
    "admit_signals_and_skus",
    "prepare",
    "rejected_rows",
]

# Types whose values are what a double says of them, and those of them that are whole. Other numbers are read as text.
INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
NUMBERS = (*INTEGERS, "DOUBLE")
# Whole numbers up to here are exact as doubles.
MAX_EXACT = 2**53 - 1


class RejectedRowsWarning(UserWarning):
    """Rows were set aside; the message counts them by rule."""


@dataclass(frozen=True)
class Admission:
    """What became of one table: rows that came, rows kept, rejects by rule, and columns that were not understood."""

    table: str
    rows: int
    kept: int
    rejects: dict[str, int]
    ignored_columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.table}: {self.kept} of {self.rows} rows kept"
        if self.rejects:
            text += "; set aside: " + ", ".join(f"{rule} {n}" for rule, n in self.rejects.items())
        if self.ignored_columns:
            text += f"; columns not used: {', '.join(self.ignored_columns)}"
        return text


def admit(
    con: Any, table: Table, source: TableLike, *, now: pd.Timestamp | None = None, period: pd.Timedelta | None = None
) -> Admission:
    """Read `source`, check it against `table`'s rules, and make the temporary table `table.name` of what passes.

    Parameters
    ----------
    con
        A connection from `open_warehouse`.
    table
        What is expected; every declared column is there afterwards, NULL throughout where `source` has none.
    source
        Any table (see `warehouse.scan`). Column order and letter case of the names do not matter.
    now
        The clock that rules about the future use; default: this machine's, with a day's grace.
    period
        Fills `known_at` of signals with the end of the period; default one day.

    Returns
    -------
    Admission
        The counts. The rows set aside are in the table `rejects(table_name, rule, content)`; `content` is the row
        as JSON, whole.

    Raises
    ------
    DataError
        A required column is missing, or a column holds nothing that could be its type.
    """
    prepare(con)
    try:
        scan(con, source, "incoming")
    except DataError as error:
        raise DataError(f"{table.name}: {error}") from None
    return admit_incoming(con, table, now=now, period=period)


def prepare(con: Any) -> None:
    """Make the tables that a scan and an admission write to: `rejects` (if not there) and an empty `torn_lines`."""
    execute(con, "create temp table if not exists rejects (table_name varchar, rule varchar, content varchar)")
    execute(con, "create or replace temp table torn_lines (source varchar, line bigint, content varchar, why varchar)")


def admit_incoming(
    con: Any, table: Table, *, now: pd.Timestamp | None = None, period: pd.Timedelta | None = None
) -> Admission:
    """Do what `admit` does, for a source that stands ready as the view `incoming` (after `prepare`)."""
    now = now if now is not None else pd.Timestamp.now(tz="UTC").tz_localize(None) + pd.Timedelta(days=1)
    period = period if period is not None else pd.Timedelta(days=1)
    # What pandas writes beside a table to remember its row numbers by.
    rows = execute(con, "describe incoming").fetchall()
    physical = {row[0]: row[1] for row in rows if re.fullmatch(r"__index_level_\d+__", row[0]) is None}
    came = _match_names(table, list(physical))
    _require_columns(table, came, list(physical))
    others = [name for name in physical if name not in came.values()]
    if taken := [name for name in others if name.lower().startswith("__")]:
        raise DataError(f"{table.name}: names that begin with __ are reserved, got {_some(taken)}; rename them")
    kept_others = others if table.keeps_other_columns else []
    _judge(con, table, came, physical, _casts(table, came, physical, period), kept_others, now)
    counts, keys = _counts(con, table)
    _refuse_wrong_types(con, table, came, counts)
    if keys < counts.get(None, 0):
        _judge_duplicates(con, table, kept_others)
        counts, _ = _counts(con, table)
    columns = ", ".join(quoted(name) for name in (*table.column_names, *kept_others))
    execute(con, f"create or replace temp table {table.name} as select {columns} from judged where __rule is null")
    rejects = {rule: counts[rule] for rule in sorted(filter(None, counts))}
    if rejects:
        _set_aside(con, table)
    execute(con, "drop table judged")
    execute(con, "drop view incoming")
    ignored = () if table.keeps_other_columns else tuple(others)
    return Admission(table.name, sum(counts.values()), counts.get(None, 0), rejects, ignored)


def admit_signals_and_skus(
    con: Any,
    signals: TableLike,
    skus: TableLike,
    *,
    period: pd.Timedelta,
    outcomes: TableLike | None = None,
    decisions: TableLike | None = None,
    warn: bool = True,
    stacklevel: int = 3,
) -> list[Admission]:
    """Admit the tables; with `warn`, say with a RejectedRowsWarning what was set aside."""
    done = [admit(con, SIGNALS, signals, period=period), admit(con, SKUS, skus)]
    if outcomes is not None:
        done.append(admit(con, OUTCOMES, outcomes))
    if decisions is not None:
        done.append(admit(con, DECISIONS, decisions))
    for admission in done:
        if admission.rejects and warn:
            warnings.warn(str(admission), RejectedRowsWarning, stacklevel=stacklevel)
    return done


def say_where_ids_differ(con: Any, *, allowed: float, refuse: bool = False) -> None:
    """Warn where SKUs have no signal while signals name SKUs that are not there: ids may be spelt in two ways.

    Parameters
    ----------
    con
        With both tables admitted.
    allowed
        The share of SKUs without a signal up to which nothing is said: a new batch has few signals yet, and a list of
        one batch knows only some of the SKUs that the signals name.
    refuse
        Where no SKU at all has a signal nothing can come of it, so that is refused.

    Raises
    ------
    DataError
        With `refuse`, no SKU has a signal while signals name others.
    """
    n_skus, n_silent, a_sku = execute(
        con,
        "select (select count(*) from skus), count(*), min(sku_id) from skus "
        "where sku_id not in (select sku_id from signals)",
    ).fetchone()
    if n_silent <= allowed * n_skus:
        return
    n_strange, a_stranger = execute(
        con, "select count(distinct sku_id), min(sku_id) from signals where sku_id not in (select sku_id from skus)"
    ).fetchone()
    if n_strange and refuse and n_silent == n_skus:
        raise DataError(
            f"none of the {n_skus:,} SKUs (such as {a_sku!r}) is among those that signals name (such as "
            f"{a_stranger!r}); check that both spell the ids alike"
        )
    if n_strange:
        warnings.warn(
            f"{n_silent} of {n_skus} SKUs have no signal (such as {a_sku!r}), and signals name {n_strange} SKUs that "
            f"are not among them (such as {a_stranger!r}); check that both spell the ids alike",
            UserWarning,
            stacklevel=4,
        )


def rejected_rows(con: Any) -> pd.DataFrame:
    """Return every reject so far: table_name, rule, content."""
    rows: pd.DataFrame = con.execute("select table_name, rule, content from rejects order by all").df()
    return rows


def _match_names(table: Table, names: list[str]) -> dict[str, str]:
    """Map declared columns to the source's spelling. A byte order mark, case and outer blanks do not matter."""
    plain = {name.strip().lstrip("\ufeff").lower(): name for name in reversed(names)}
    return {c.name: plain[c.name] for c in table.columns if c.name in plain}


def _require_columns(table: Table, came: dict[str, str], names: list[str]) -> None:
    missing = [name for name in table.required if name not in came]
    if missing:
        raise DataError(
            f"{table.name}: expected the column {', '.join(missing)}, got {_some(names)}; rename or add it"
            f"{_or_ingest(table)}"
        )
    if table.any_of and not any(name in came for name in table.any_of):
        raise DataError(
            f"{table.name}: expected at least one of {', '.join(table.any_of)}, got {_some(names)}{_or_ingest(table)}"
        )


def _or_ingest(table: Table) -> str:
    return ", or run `hitfinder ingest FILE --into FOLDER` first" if table in (SIGNALS, SKUS) else ""


def _casts(table: Table, came: dict[str, str], physical: dict[str, str], period: pd.Timedelta) -> dict[str, str]:
    """For each declared column: the SQL that reads it from `incoming`."""
    casts = {}
    for column in table.columns:
        if column.name in came:
            casts[column.name] = _value(column, quoted(came[column.name]), physical[came[column.name]])
        else:
            casts[column.name] = _nothing(column)
    if table is SIGNALS:
        end = f"{casts['period_start']} + interval ({int(period / pd.Timedelta(microseconds=1))}) microseconds"
        casts["known_at"] = f"coalesce({casts['known_at']}, {end})"
    return casts


def _judge(
    con: Any,
    table: Table,
    came: dict[str, str],
    physical: dict[str, str],
    casts: dict[str, str],
    others: list[str],
    now: pd.Timestamp,
) -> None:
    """Make `judged`: typed columns, `__rule` (the first that a row breaks, or NULL), `__content` of broken rows."""
    typed = ",\n".join(f"{sql} as {name}" for name, sql in casts.items())
    kept = "".join(f"{quoted(name)}, " for name in others)
    unread = " ".join(
        f"when {c.name} is null and {_given(f'__row.{quoted(came[c.name])}', physical[came[c.name]])} is not null "
        f"then '{c.name}_unreadable'"
        for c in table.columns
        if c.name in came and not _always_readable(c, physical[came[c.name]])
    )
    # A column that is NULL throughout breaks no rule of its own: what is not asked needs no planning.
    absent = {column.name for column in table.columns if casts[column.name] == _nothing(column)}
    rules = [rule for rule in table.all_rules if rule.column not in absent]
    broken = " ".join(f"when not ({rule.holds.format(now='$now')}) then '{rule.name}'" for rule in rules)
    execute(
        con,
        f"""
        create or replace temp table judged as
        with typed as (
            select {typed}, {kept} __source as __row from incoming as __source
        ),
        ruled as (
            select *, case {unread} {broken} end as __rule from typed
        )
        select * exclude (__row), case when __rule is not null then cast(to_json(__row) as varchar) end as __content
        from ruled
        """,
        {"now": now.to_pydatetime(warn=False)} if "$now" in broken else None,
    )


def _counts(con: Any, table: Table) -> tuple[dict[str | None, int], int]:
    """Count what was judged by the rule that it broke, None for what broke none, and the torn lines; and good keys."""
    grain = ", ".join(table.grain)
    rows = execute(
        con,
        f"""
        with keys as (
            select __rule, count(*) as rows from judged group by __rule, {grain}
        )
        select __rule, sum(rows), count(*) from keys group by __rule
        union all
        select 'torn_line', count(*), 0 from torn_lines having count(*) > 0
        """,
    ).fetchall()
    return {rule: int(n) for rule, n, _ in rows}, next((keys for rule, _, keys in rows if rule is None), 0)


def _set_aside(con: Any, table: Table) -> None:
    """Put what broke a rule among the rejects."""
    con.execute(
        f"""
        insert into rejects
        select '{table.name}', __rule, __content from judged where __rule is not null
        union all
        select '{table.name}', 'torn_line',
            json_object('source', source, 'line', line, 'content', content, 'why', why)
        from torn_lines
        """
    )


def _judge_duplicates(con: Any, table: Table, others: list[str]) -> None:
    """Keep one row of each grain, the same one whatever the order of the rows; mark the others.

    An identical second row is a `duplicate_row`; one that differs is a `duplicate_key`, and the greatest by value is
    the one kept.
    """
    grain = ", ".join(table.grain)
    keys = f"select {grain} from judged where __rule is null group by {grain}"
    columns = ", ".join(quoted(name) for name in (*table.column_names, *others))
    same_key = " and ".join(f"judged.{name} is not distinct from repeated.{name}" for name in table.grain)
    con.execute(f"create or replace temp table repeated as {keys} having count(*) > 1")
    con.execute(
        f"""
        create or replace temp table judged as
        with ranked as (
            select
                judged.*,
                row_number() over key_order as __place,
                rank() over key_order as __copy
            from judged semi join repeated on {same_key}
            where __rule is null
            window key_order as (partition by {grain} order by ({columns}) desc nulls last)
        )
        select
            * exclude (__place, __copy) replace (
                case
                    when __place = 1 then null
                    when __place > __copy then 'duplicate_row'
                    else 'duplicate_key'
                end as __rule,
                case when __place > 1 then cast(json_array({columns}) as varchar) end as __content
            )
        from ranked
        union all
        select * from judged
        where __rule is not null
        union all
        select judged.* from judged anti join repeated on {same_key}
        where __rule is null
        """
    )
    con.execute("drop table repeated")


def _value(column: Column, raw: str, physical: str) -> str:
    """Return SQL that reads `raw` as the column's kind, NULL where it can't be."""
    text = _text(raw, physical)
    # A number goes by way of its text only where it is one: the way is long, and most columns are numbers already.
    number = f"cast({raw} as double)" if physical in NUMBERS else f"try_cast({text} as double)"
    match column.kind:
        case "text":
            if physical in ("DOUBLE", "FLOAT"):  # an id that pandas turned into 123.0 is 123
                whole = f"cast(try_cast({raw} as hugeint) as varchar)"
                return f"case when {raw} = floor({raw}) then {whole} else {text} end"
            return text
        case "count":
            if physical in INTEGERS:
                return f"case when {raw} between -{MAX_EXACT} and {MAX_EXACT} then cast({raw} as bigint) end"
            exact = f"{number} = floor({number}) and abs({number}) <= {MAX_EXACT}"
            return f"case when {exact} then try_cast({number} as bigint) end"
        case "money":
            return f"case when isfinite({number}) then try_cast({number} as decimal(18, 4)) end"
        case "moment":
            if physical in ("TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S", "DATE"):
                return f"try_cast({raw} as timestamp)"
            if physical.startswith("TIMESTAMP WITH"):
                return f"cast({raw} as timestamp)"
            return f"cast(try_cast({text} as timestamptz) as timestamp)"
        case _:
            return f"case when isfinite({number}) then {number} end"


def _nothing(column: Column) -> str:
    """Return SQL for a column that did not come."""
    return f"cast(null as {column.sql_type})"


def _text(raw: str, physical: str) -> str:
    """Return SQL for `raw` as text, NULL for blanks."""
    return f"nullif(trim({raw if physical == 'VARCHAR' else f'cast({raw} as varchar)'}), '')"


def _given(raw: str, physical: str) -> str:
    """Return SQL that is NULL where nothing was given: numbers are never blank."""
    return raw if physical in NUMBERS else _text(raw, physical)


def _always_readable(column: Column, physical: str) -> bool:
    """Tell whether every value of that type is one of the column's kind."""
    return (column.kind, physical) in (("text", "VARCHAR"), ("moment", "TIMESTAMP"))


def _refuse_wrong_types(con: Any, table: Table, came: dict[str, str], counts: dict[str | None, int]) -> None:
    """Refuse a column in which every value is unreadable: it is the wrong column, not a bad row."""
    for rule, n in counts.items():
        column = next((c for c in table.columns if f"{c.name}_unreadable" == rule), None)
        if column is None or n < 2:
            continue
        raw = f"nullif(trim(cast({quoted(came[column.name])} as varchar)), '')"
        given, example = con.execute(f"select count({raw}), min({raw}) from incoming").fetchone()
        if n == given:
            raise DataError(
                f"{table.name}.{column.name}: expected {column.expected}, got {_short(example)!r} and the like in all "
                f"{n} rows; check which column was given that name"
            )


def _some(names: list[str]) -> str:
    shown = ", ".join(_short(n) for n in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "") if names else "no columns"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
