"""Files: which ones are meant, what they hold, and how a person's columns are kept out."""

from __future__ import annotations

import glob
import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from hitfinder.errors import DataError
from hitfinder.warehouse import (
    as_utf8,
    csv_header,
    csv_reader,
    decode_line,
    is_parquet,
    literal_file,
    load_file,
    quoted,
)

__all__ = ["digest", "header_of", "is_json", "load_files", "names_a_person", "open_files", "resolve", "text_of"]

# Whole names, letters and digits only: `user_id` and `User ID` are one. Counts such as `users` are no person.
PERSON_NAMES = frozenset(
    """
    user userid uid userpseudoid usersession username nickname session sessionid visitor visitorid customer customerid
    customername customeremail person personid client clientid device deviceid member memberid buyer buyerid buyername
    email emailaddress mail phone phonenumber mobile tel openid unionid ip ipaddress useragent
    用户 用户id 用户名 会员 会员id 会员名 买家 买家id 买家昵称 买家会员名 客户 客户id 客户名称 手机 手机号 姓名 收货人
    收货人姓名 邮箱 访客id 设备id
    """.split()  # noqa: SIM905 - a list of words reads best as words
)
HEAD_BYTES = 2**20


def names_a_person(column: str) -> bool:
    """Tell whether a column's name says that it holds a person or a visit of one.

    >>> names_a_person("Customer ID"), names_a_person("visitors")
    (True, False)
    """
    plain = "".join(c for c in unicodedata.normalize("NFKC", column).lower() if c.isalnum())
    return plain in PERSON_NAMES


def is_json(path: str) -> bool:
    """Tell newline-delimited JSON by its name."""
    return Path(path).suffix.lower() in (".json", ".jsonl", ".ndjson")


def resolve(sources: str | Path | Sequence[str | Path]) -> list[str]:
    """Return the files that paths and globs name, each once, in the order of their names.

    Raises
    ------
    DataError
        Nothing is there under one of the names, or it is a folder.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    if not given:
        raise DataError("expected at least one file, got none")
    paths: set[str] = set()
    for one in given:
        pattern = str(one)
        found = [pattern] if Path(pattern).exists() else glob.glob(pattern, recursive=True)  # noqa: PTH207
        files = [p for p in found if Path(p).is_file()]
        if found and not files:
            raise DataError(
                f"{pattern}: expected a file, got a folder; give a glob such as {pattern.rstrip('/')}/*.csv"
            )
        if not files:
            raise DataError(f"{pattern}: no such file; give the path of a Parquet or CSV file, or a glob for many")
        paths.update(files)
    return sorted(paths)


def digest(path: str) -> str:
    """Return a hash of a file's content."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from None


def head_lines(path: str) -> list[str]:
    """Return the first lines of a text file, decoded as well as may be."""
    with open(path, "rb") as file:  # noqa: PTH123
        head = file.read(HEAD_BYTES)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return head.decode("utf-16", "replace").splitlines()[:60]
    lines = head.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:60]
    try:
        return [line.decode("utf-8-sig") for line in lines]
    except UnicodeDecodeError:
        return [decode_line(line) for line in lines]


def header_of(con: Any, path: str) -> list[str]:
    """Return a file's column names.

    Raises
    ------
    DataError
        The file is empty or can't be read.
    """
    if is_parquet(path) or is_json(path):
        reader = (
            f"read_parquet({literal_file(path)})"
            if is_parquet(path)
            else f"read_ndjson({literal_file(path)}, ignore_errors = true)"
        )
        try:
            return [row[0] for row in con.execute(f"describe select * from {reader}").fetchall()]
        except duckdb.Error as error:
            raise DataError(f"{path}: can't be read ({str(error).splitlines()[0]})") from None
    lines = [line for line in head_lines(path) if line.strip()]
    if not lines:
        raise DataError(f"{path}: expected a header line, got an empty file")
    delimiter = max(",\t;|", key=lines[0].count)
    return [cell.strip().strip('"').lstrip("\ufeff") for cell in lines[0].split(delimiter)]


def text_of(column: str, physical: str) -> str:
    """Return SQL that reads a column as text; a number that some tool turned into 123.0 is 123.

    >>> text_of("id", "BIGINT")
    'cast("id" as varchar)'
    """
    raw = quoted(column)
    if physical in ("DOUBLE", "FLOAT"):
        whole = f"cast(try_cast({raw} as hugeint) as varchar)"
        return f"case when isfinite({raw}) and {raw} = floor({raw}) then {whole} else cast({raw} as varchar) end"
    if physical == "VARCHAR":
        return f"nullif(trim({raw}), '')"
    return f"cast({raw} as varchar)"


@contextmanager
def open_files(
    con: Any, paths: Sequence[str], *, strict: bool = True
) -> Iterator[list[tuple[str, str, dict[str, str]]]]:
    """Give, for each file, where it is read from, the SQL that reads it, and its columns with their types.

    Nothing is read yet, and copies in UTF-8 last as long as the context.
    """
    copies: list[str] = []
    opened: list[tuple[str, str, dict[str, str]]] = []
    try:
        for path in paths:
            readable = path
            if is_parquet(path):
                reader = f"read_parquet({literal_file(path)})"
            else:
                readable = as_utf8(path)
                if readable != path:
                    copies.append(readable)
                csv_header(readable, path)
                reader = csv_reader(readable, path, strict=strict)
            try:
                described = con.execute(f"describe select * from {reader}").fetchall()
            except duckdb.Error as error:
                raise DataError(f"{path}: can't be read ({str(error).splitlines()[0]})") from None
            opened.append((readable, reader, {row[0]: row[1] for row in described}))
        yield opened
    finally:
        for copy in copies:
            Path(copy).unlink(missing_ok=True)


def load_files(con: Any, paths: Sequence[str], view: str) -> tuple[str, ...]:
    """Make the view `view` of several files of one table, without columns that name a person; return those.

    A column that is a number in one file and text in another is text.
    """
    kinds: dict[str, set[str]] = {}
    files: list[tuple[str, dict[str, str]]] = []
    for place, path in enumerate(paths):
        part = f"{view}_file_{place}"
        load_file(con, path, part)
        columns = {row[0]: row[1] for row in con.execute(f"describe {quoted(part)}").fetchall()}
        files.append((part, columns))
        for name, physical in columns.items():
            kinds.setdefault(name.lower(), set()).add(physical)
    selects: list[str] = []
    persons: set[str] = set()
    for part, columns in files:
        persons.update(name for name in columns if names_a_person(name))
        kept = [
            f"{text_of(name, physical)} as {quoted(name)}" if len(kinds[name.lower()]) > 1 else quoted(name)
            for name, physical in columns.items()
            if name not in persons
        ]
        if not kept:
            raise DataError(f"expected a table, got only columns that name a person: {', '.join(sorted(persons))}")
        selects.append(f"select {', '.join(kept)} from {quoted(part)}")
    con.execute(f"create or replace temp view {quoted(view)} as " + " union all by name ".join(selects))
    con.execute("update torn_lines set source = parse_filename(source)")
    if persons:  # a torn line may hold a person anywhere
        con.execute("update torn_lines set content = null")
    return tuple(sorted(persons))
