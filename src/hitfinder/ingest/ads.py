"""Daily product reports of ad platforms: find the header line, read its names, clean its cells."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from hitfinder.errors import DataError
from hitfinder.ingest.mappings import shipped
from hitfinder.ingest.sources import head_lines, names_a_person, text_of
from hitfinder.tables import COUNTS, MONEY, SIGNALS
from hitfinder.warehouse import is_parquet, literal, load_file, quoted

__all__ = ["find_header", "load_reports", "plain_name"]

UNIT = re.compile(r"\((元|人民币|次|个|件|人|笔|单|¥|\$|€|£|[a-z]{3})\)$")
# Excel turns a long id into 6.12E+11: which product it was can't be told any more.
MANGLED = r"^[0-9](\.[0-9]+)?[eE]\+[0-9]+$"
DATES = ["%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%Y.%m.%d", "%Y年%m月%d日", "%b %d, %Y", "%d %b %Y"]


def plain_name(header: str) -> str:
    """Bring a header to the form in which names are compared.

    >>> plain_name("消耗（元）"), plain_name("Amount spent (USD)")
    ('消耗', 'amount spent')
    """
    text = unicodedata.normalize("NFKC", header).lstrip("\ufeff").strip().strip("\"'").strip().lower()
    return UNIT.sub("", " ".join(text.split())).strip()


def find_header(path: str, extra: dict[str, Any] | None = None) -> tuple[int, list[str]] | None:
    """Return which line holds the header and its cells, or None where no line names a day, a product and a count."""
    for place, line in enumerate(head_lines(path)):
        delimiter = max(",\t;|", key=line.count)
        try:
            cells = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            continue
        found = _assign(cells, extra)
        if {"period_start", "sku_id"} <= set(found) and set(found) & set(COUNTS + MONEY):
            return place, cells
    return None


def load_reports(
    con: Any, paths: Sequence[str], extra: dict[str, Any] | None, *, channel: str | None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Make the view `incoming` of several reports, in the columns of signals, all text, and return two things.

    The first: rows set aside already, by rule. The second: columns that name a person, and were dropped.

    Raises
    ------
    DataError
        No header line can be found.
    """
    selects: list[str] = []
    persons: set[str] = set()
    for place, path in enumerate(paths):
        part = f"report_{place}"
        if is_parquet(path):
            load_file(con, path, part)
        else:
            header = find_header(path, extra)
            if header is None:
                raise DataError(
                    f"{path}: expected a header line that names a date, a product id and a count, found none in the "
                    "first 60 lines; add its names with a mapping file"
                )
            load_file(con, path, part, skip=header[0])
        physical = {row[0]: row[1] for row in con.execute(f"describe {quoted(part)}").fetchall()}
        dropped = [name for name in physical if names_a_person(name)]
        persons.update(dropped)
        selects.append(_report(part, {n: t for n, t in physical.items() if n not in dropped}, extra, channel, path))
    con.execute("update torn_lines set source = parse_filename(source)")
    if persons:
        con.execute("update torn_lines set content = null")
    con.execute("create or replace temp table reports as " + "\nunion all by name\n".join(selects))
    con.execute("create or replace temp view incoming as select * exclude (__rule) from reports where __rule is null")
    con.execute(
        "insert into rejects select 'signals', __rule, cast(to_json(reports) as varchar) "
        "from reports where __rule is not null"
    )
    early = dict(
        con.execute("select __rule, count(*) from reports where __rule is not null group by 1 order by 1").fetchall()
    )
    return early, tuple(sorted(persons))


def _names(extra: dict[str, Any] | None) -> dict[str, list[str]]:
    known, own = shipped("ad_reports")["headers"], (extra or {}).get("headers", {})
    unknown = sorted(set(own) - set(SIGNALS.column_names))
    if unknown or not all(isinstance(v, list) for v in own.values()):
        raise DataError(
            f"mapping [headers]: expected lists of names for {', '.join(SIGNALS.column_names)}, "
            f"got {', '.join(unknown) or 'something else'}"
        )
    # Names in the user's file take a name away from the column that has it here.
    taken = {plain_name(name) for names in own.values() for name in names}
    return {
        column: [plain_name(n) for n in own.get(column, [])]
        + [plain_name(n) for n in names if plain_name(n) not in taken]
        for column, names in known.items()
    }


def _words(extra: dict[str, Any] | None, key: str) -> list[str]:
    return [word.lower() for word in [*(extra or {}).get(key, []), *shipped("ad_reports")[key]]]


def _assign(cells: Sequence[str], extra: dict[str, Any] | None) -> dict[str, str]:
    """Map our columns to the report's: the first known name that is there."""
    plain = {plain_name(cell): cell for cell in reversed(cells)}
    found = {}
    for ours, names in _names(extra).items():
        name = next((n for n in names if n in plain), None)
        if name is not None:
            found[ours] = plain[name]
    return found


def _report(part: str, physical: dict[str, str], extra: dict[str, Any] | None, channel: str | None, path: str) -> str:
    found = _assign(list(physical), extra)
    if "period_start" not in found or "sku_id" not in found:
        raise DataError(f"{path}: expected columns for a date and a product id, got {', '.join(physical)}")
    nothing = ", ".join(literal(word) for word in _words(extra, "not_measured"))

    def text(ours: str) -> str:
        raw = text_of(found[ours], physical[found[ours]])
        # Exports guard long ids against Excel: ="123", '123, or a tab before it.
        bare = f"trim(regexp_replace(regexp_replace({raw}, '^=\"(.*)\"$', '\\1'), '^[''\\s]+|\\s+$', '', 'g'))"
        return f"case when lower({bare}) in ({nothing}) then null else nullif({bare}, '') end"

    def number(ours: str) -> str:
        return f"regexp_replace(nfc_normalize({text(ours)}), '[,，\\s￥¥$€£]', '', 'g')"

    def date(ours: str) -> str:
        formats = ", ".join(literal(f) for f in DATES)
        return f"coalesce(cast(try_strptime({text(ours)}, [{formats}]) as varchar), {text(ours)})"

    columns = {ours: number(ours) if ours in COUNTS + MONEY else text(ours) for ours in found}
    columns |= {ours: date(ours) for ours in ("period_start", "known_at") if ours in found}
    if channel is not None:
        columns["channel"] = literal(channel)
    sums = ", ".join(literal(word) for word in _words(extra, "summary_words"))
    rule = (
        f"case when rtrim(lower({text('period_start')}), ':：') in ({sums}) "
        f"or rtrim(lower({text('sku_id')}), ':：') in ({sums}) then 'summary_row' "
        f"when regexp_matches({text('sku_id')}, '{MANGLED}') then 'sku_id_mangled' end"
    )
    others = [name for name in physical if name not in found.values() and name.lower() not in columns]
    listed = [f"{sql} as {quoted(ours)}" for ours, sql in columns.items()] + [
        f"cast({quoted(name)} as varchar) as {quoted(name)}" for name in others
    ]
    return f"select {', '.join(listed)}, {rule} as __rule from {quoted(part)}"
