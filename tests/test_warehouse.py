from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from hitfinder.admission import prepare
from hitfinder.errors import DataError
from hitfinder.warehouse import fetch, frame, open_warehouse, scan


@pytest.fixture
def con():
    connection = open_warehouse()
    prepare(connection)
    yield connection
    connection.close()


def rows(con):
    return con.execute("select * from t order by all").fetchall()


TABLE = {"a": [1, 2], "b": ["x", None]}


@pytest.mark.parametrize(
    "source",
    [
        pd.DataFrame(TABLE),
        pl.DataFrame(TABLE),
        pa.table(TABLE),
        pd.DataFrame(TABLE, index=[5, 5]),
        duckdb.connect().sql("select * from (values (1, 'x'), (2, null)) as v(a, b)"),
    ],
    ids=["pandas", "polars", "arrow", "pandas with an odd index", "relation"],
)
def test_every_kind_of_table_in_memory_is_read_alike(con, source):
    scan(con, source, "t")
    assert rows(con) == [(1, "x"), (2, None)]


def test_a_relation_whose_connection_is_busy_is_refused_with_what_to_do(con):
    with duckdb.connect() as theirs:
        relation = theirs.sql("select 1 as a")
        theirs.execute("select * from range(1000000)").fetchone()
        with pytest.raises(DataError, match="finish what its connection was doing"):
            scan(con, relation, "t")


def test_files_of_a_glob_are_put_together_by_name(con, tmp_path):
    (tmp_path / "1.csv").write_text("a,b\n1,x\n")
    (tmp_path / "2.csv").write_text("b,a\ny,2\n")
    scan(con, tmp_path / "*.csv", "t")
    assert rows(con) == [("1", "x"), ("2", "y")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_is_read_in_any_encoding_and_leaves_no_copy_behind(con, tmp_path, monkeypatch, encoding, delimiter, end):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    (tmp_path / "x.csv").write_bytes(end.join([f"名{delimiter}b", f"裙{delimiter}1", ""]).encode(encoding))
    scan(con, tmp_path / "x.csv", "t")
    assert [c[0] for c in con.execute("describe t").fetchall()] == ["名", "b"]
    assert rows(con) == [("裙", "1")]
    assert list((tmp_path / "temp").iterdir()) == []


def test_one_unclosed_quote_does_not_cost_the_whole_file(con, tmp_path):
    (tmp_path / "x.csv").write_text('a,b\n1,x\n2,"never closed\n')
    scan(con, tmp_path / "x.csv", "t")
    assert rows(con) == [("1", "x")]
    line, content = con.execute("select line, content from torn_lines").fetchone()
    assert (line, "never closed" in content) == (3, True)


def test_line_ends_of_two_systems_in_one_file_are_read(con, tmp_path):
    (tmp_path / "x.csv").write_bytes(b"a,b\r\n1,x\n2,y\r\n")
    scan(con, tmp_path / "x.csv", "t")
    assert rows(con) == [("1", "x"), ("2", "y")]


def test_torn_lines_are_kept_with_their_place_and_a_field_of_ten_megabytes_is_read(con, tmp_path):
    (tmp_path / "x.csv").write_text(f"a,b\n1\n2,y\n3,y,z\n4,{'w' * 10_000_000}\n6,z\n")
    scan(con, tmp_path / "x.csv", "t")
    assert [(a, len(b)) for a, b in rows(con)] == [("2", 1), ("4", 10_000_000), ("6", 1)]
    torn = con.execute("select line, why from torn_lines order by line").fetchall()
    assert torn == [(2, "missing columns"), (4, "too many columns")]


def test_a_line_that_the_reader_would_pass_over_in_silence_is_refused(con, tmp_path):
    (tmp_path / "x.csv").write_text(f"a,b\n1,x\n2,{'w' * 40_000_000}\n3,y\n")
    with pytest.raises(DataError, match="at line 3"):
        scan(con, tmp_path / "x.csv", "t")


@pytest.mark.parametrize("place", [5, 100_000])
def test_a_quote_that_swallows_more_than_can_be_kept_is_refused_with_its_line(con, tmp_path, place):
    lines = [f"{i},xxxxxxxx\n" for i in range(200_000)]
    lines[place] = f'{place},"xxxxxxxx\n'
    (tmp_path / "x.csv").write_text("a,b\n" + "".join(lines))
    with pytest.raises(DataError, match=f"at line {place + 2} that is not"):
        scan(con, tmp_path / "x.csv", "t")


def test_names_that_come_twice_or_are_empty_are_told_apart(con, tmp_path):
    (tmp_path / "x.csv").write_text("a,A,,b\n1,2,3,4\n")
    scan(con, tmp_path / "x.csv", "t")
    assert [c[0] for c in con.execute("describe t").fetchall()] == ["a", "A_again", "column_3", "b"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (7, "got int"),
        (pd.DataFrame(), "without any column"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "a more than once"),
        ("nowhere/*.csv", "no such file"),
    ],
)
def test_what_is_no_table_is_refused_with_what_came(con, source, message):
    with pytest.raises(DataError, match=message):
        scan(con, source, "t")


@pytest.mark.parametrize(
    ("name", "content", "message"), [("x.csv", b"", "empty file"), ("x.parquet", b"no", "can't be read")]
)
def test_a_file_that_is_none_is_refused_by_its_name(con, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        scan(con, tmp_path / name, "t")
    assert name in str(caught.value)


def test_a_column_of_mixed_numbers_and_text_is_text(con):
    scan(con, pd.DataFrame({"a": [7, "A7", None]}), "t")
    assert rows(con) == [("7",), ("A7",), (None,)]


def test_money_comes_out_as_float(con):
    got = frame(con, "select cast(1.5 as decimal(18, 4)) as a, 1 as b")
    assert got.dtypes.astype(str).tolist() == ["float64", "int32"]


def test_a_database_that_is_none_is_refused(tmp_path):
    Path(tmp_path / "x.db").write_text("no database at all, only words")
    with pytest.raises(DataError, match="can't be opened"):
        open_warehouse(tmp_path / "x.db")


@pytest.mark.parametrize("name", ["d[1]", "d[!x]", "d?", "d*", "[d]", "d]"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_is_read_by_its_own_name_even_where_that_looks_like_a_pattern(con, tmp_path, name, suffix):
    for place, stem in enumerate(["d1", "d", "dd", name]):
        table = pd.DataFrame({"a": [str(place)]})
        path = tmp_path / f"{stem}{suffix}"
        table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    scan(con, tmp_path / f"{name}{suffix}", "t")
    assert rows(con) == [("3",)]


def test_a_glob_reads_each_file_that_it_finds_once_though_a_name_looks_like_a_pattern(con, tmp_path):
    (tmp_path / "d1.csv").write_text("a\n1\n")
    (tmp_path / "d[1].csv").write_text("a\n2\n")
    scan(con, tmp_path / "d*.csv", "t")
    assert rows(con) == [("1",), ("2",)]


def test_torn_lines_name_the_file_though_its_name_looks_like_a_pattern(con, tmp_path):
    (tmp_path / "d[1].csv").write_text("a,b\n1\n2,y\n")
    scan(con, tmp_path / "d[1].csv", "t")
    assert con.execute("select source, line from torn_lines").fetchall() == [(str(tmp_path / "d[1].csv"), 2)]


def test_a_folder_whose_name_looks_like_a_pattern_is_read_from(con, tmp_path):
    for folder, value in (("shop 1", 1), ("shop [1]", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.csv").write_bytes(f"名,a\n裙,{value}\n".encode("gb18030"))
    scan(con, tmp_path / "shop [1]" / "x.csv", "t")
    assert rows(con) == [("裙", "2")]


def test_columns_come_as_arrays_without_a_mask_whatever_is_null(con):
    query = (
        "select * from (values (7, 1.5, true, 'x', timestamp '2025-01-06', 1::hugeint), "
        "(null, null, null, null, null, null)) as v(a, b, c, d, e, f)"
    )
    moment = pd.Timestamp("2025-01-06")
    told = pd.DataFrame(fetch(con, f"{query} order by a nulls last"))
    told_by_hand = pd.DataFrame(
        {"a": [7.0, None], "b": [1.5, None], "c": pd.Series([True, None], dtype=object), "d": ["x", None],
         "e": [moment, pd.NaT], "f": [1.0, None]}
    )  # fmt: skip
    pd.testing.assert_frame_equal(told, told_by_hand, check_exact=True)
    whole = fetch(con, f"{query} where a is not null")
    assert [values.dtype.kind for values in whole.values()] == ["i", "f", "b", "O", "M", "f"]


def test_a_warehouse_for_small_tables_is_another_one_and_leaves_the_others_as_they_are():
    ask = "select current_setting('disabled_optimizers'), current_setting('threads')"
    with open_warehouse(small=True) as small, open_warehouse(threads=1) as plain:
        passes, threads = small.execute(ask).fetchone()
        assert "join_order" in passes.split(",")
        assert "filter_pushdown" not in passes.split(",")
        assert threads == 1
        assert plain.execute(ask).fetchone() == ("", 1)
