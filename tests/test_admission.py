from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.admission import RejectedRowsWarning, admit, admit_signals_and_skus, rejected_rows
from hitfinder.errors import DataError
from hitfinder.tables import DECISIONS, OUTCOMES, SIGNALS, SKUS, TABLES
from hitfinder.warehouse import frame, open_warehouse


@pytest.fixture
def con():
    connection = open_warehouse()
    yield connection
    connection.close()


GOOD = {"sku_id": "a", "period_start": "2025-01-06", "impressions": "10", "clicks": "2"}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"sku_id": ""}, "sku_id_missing"),
        ({"sku_id": "x" * 501}, "sku_id_too_long"),
        ({"period_start": "soon"}, "period_start_unreadable"),
        ({"period_start": "0"}, "period_start_unreadable"),
        ({"period_start": "1970-01-01"}, "period_start_before_2000"),
        ({"period_start": "2190-01-01"}, "period_start_in_the_future"),
        ({"period_start": "infinity"}, "period_start_after_2200"),
        ({"known_at": "2025-01-05"}, "known_before_it_began"),
        ({"clicks": "-1"}, "clicks_negative"),
        ({"clicks": "1.5"}, "clicks_unreadable"),
        ({"clicks": "nan"}, "clicks_unreadable"),
        ({"clicks": "1e300"}, "clicks_unreadable"),
        ({"clicks": "11"}, "clicks_above_impressions"),
        ({"revenue": "inf"}, "revenue_unreadable"),
        ({"revenue": "-0.01"}, "revenue_negative"),
        ({"impressions": "", "clicks": ""}, "nothing_counted"),
    ],
)
def test_a_signal_that_breaks_a_rule_is_set_aside_whole(con, change, rule):
    table = pd.DataFrame([GOOD | {"sku_id": "b"}, GOOD | {"sku_id": "c"}, GOOD | change])
    done = admit(con, SIGNALS, table)
    assert (done.rows, done.kept, done.rejects) == (3, 2, {rule: 1})
    rejects = rejected_rows(con)
    assert rejects.rule.tolist() == [rule]
    came = json.loads(rejects.content[0])
    for name, value in change.items():
        assert came[name] == value


EDGE = 2**53
WHOLE = st.one_of(st.integers(-3, 50), st.integers(EDGE - 3, EDGE + 3), st.integers(-EDGE - 3, 3 - EDGE))
ANY = st.one_of(WHOLE.map(float), st.floats(), st.sampled_from([0.1, 1e-7, 99_999_999_999.99995, 1e22, -0.0]))


@settings(max_examples=25, deadline=None)
@given(
    clicks=st.one_of(
        st.lists(st.none() | WHOLE, min_size=3, max_size=12).map(lambda v: pa.array(v, pa.int64())),
        st.lists(st.none() | st.integers(0, 255), min_size=3, max_size=12).map(lambda v: pa.array(v, pa.uint8())),
        st.lists(st.none() | ANY, min_size=3, max_size=12).map(lambda v: pa.array(v, pa.float64())),
    )
)
@pytest.mark.parametrize("column", ["clicks", "revenue"])
def test_a_column_of_numbers_is_read_as_the_same_numbers_in_text_are(column, clicks):
    """Two good rows are among them: a column in which nothing is readable is refused altogether."""
    con = open_warehouse()
    values = pa.concat_arrays([clicks, pa.array([1, 2], clicks.type)])
    told = {"sku_id": [f"s{i:02}" for i in range(len(values))], "period_start": ["2025-01-06"] * len(values)}
    con.register("numbers", pa.table({"n": values}))
    text = con.sql("select cast(n as varchar) as n from numbers").to_arrow_table()["n"]
    read = []
    for source in (values, text):
        done = admit(con, SIGNALS, pa.table({**told, column: source}))
        read.append((done, frame(con, "select * from signals order by sku_id")))
    con.close()
    assert read[0][0] == read[1][0]
    pd.testing.assert_frame_equal(read[0][1], read[1][1], check_exact=True)


def test_a_signal_is_typed_and_known_at_the_end_of_its_period_in_utc(con):
    table = pd.DataFrame([GOOD | {"period_start": "2025-01-06T08:00:00+08:00", "revenue": "1.23456"}])
    admit(con, SIGNALS, table, period=pd.Timedelta(hours=1))
    row = frame(con, "select * from signals").iloc[0]
    assert row.period_start == pd.Timestamp("2025-01-06")
    assert row.known_at == pd.Timestamp("2025-01-06 01:00")
    assert row.revenue == pytest.approx(1.2346)
    assert pd.isna(row.orders)


def test_an_identical_row_is_a_duplicate_row_and_a_different_one_a_duplicate_key(con):
    table = pd.DataFrame([GOOD, GOOD, GOOD | {"clicks": "3"}, GOOD | {"sku_id": "b"}])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        done = admit(con, SIGNALS, table.iloc[order])
        assert sum(done.rejects.values()) == 2
        assert set(done.rejects) <= {"duplicate_row", "duplicate_key"}
        kept = frame(con, "select clicks from signals where sku_id = 'a'").clicks.tolist()
        assert kept == [3]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "", " a "]),
            st.sampled_from(["2025-01-06", "2025-01-07", "x", ""]),
            st.sampled_from(["0", "3", "-1", "x", "", "9e18", "NaN"]),
            st.sampled_from(["0", "5", "1.5", ""]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_every_row_is_kept_or_set_aside_once(rows):
    table = pd.DataFrame(rows, columns=["sku_id", "period_start", "clicks", "impressions"])
    # A good row each, so that no column is unreadable throughout.
    table.loc[len(table)] = ["z", "2025-01-06", "1", "2"]
    con = open_warehouse()
    try:
        done = admit(con, SIGNALS, table)
        assert done.rows == len(table)
        assert done.kept + sum(done.rejects.values()) == len(table)
        assert con.execute("select count(*) from signals").fetchone()[0] == done.kept
        assert len(rejected_rows(con)) == len(table) - done.kept
        keys = frame(con, "select sku_id, period_start from signals")
        assert not keys.duplicated().any()
    finally:
        con.close()


@pytest.mark.parametrize(
    ("table", "columns", "message"),
    [
        (SIGNALS, {"sku": ["a"], "clicks": [1]}, "expected the column sku_id, period_start, got sku, clicks"),
        (SIGNALS, {"sku_id": ["a"], "period_start": ["2025-01-06"]}, "at least one of impressions"),
        (SKUS, {"name": ["a"]}, "expected the column sku_id"),
        (OUTCOMES, {"sku_id": ["a", "b"], "value": ["x", "y"], "known_at": ["2025-01-06"] * 2}, "expected numbers"),
        (DECISIONS, {"sku_id": ["a"]}, "decided_at, action"),
    ],
)
def test_a_table_that_can_not_be_understood_is_refused(con, table, columns, message):
    with pytest.raises(DataError, match=message):
        admit(con, table, pd.DataFrame(columns))


def test_names_match_whatever_their_case_and_the_unknown_are_named(con):
    done = admit(
        con, SIGNALS, pd.DataFrame([{"\ufeffSKU_ID": "a", " Period_Start ": "2025-01-06", "Clicks": 1, "x": 2}])
    )
    assert done.kept == 1
    assert done.ignored_columns == ("x",)
    assert "columns not used: x" in str(done)


def test_the_row_numbers_that_pandas_writes_are_no_column(con, tmp_path):
    rows = pd.DataFrame({"sku_id": ["a", "b", "c"], "period_start": "2025-01-06", "clicks": 1})
    rows[rows["sku_id"] != "b"].to_parquet(tmp_path / "some.parquet")
    done = admit(con, SIGNALS, tmp_path / "some.parquet")
    assert (done.kept, done.ignored_columns) == (2, ())
    with pytest.raises(DataError, match="reserved, got __mine"):
        admit(con, SIGNALS, rows.assign(__mine=1))


def test_other_columns_of_skus_are_attributes(con):
    done = admit(con, SKUS, pd.DataFrame({"sku_id": [7.0, 8.0], "colour": ["red", None]}))
    assert done.ignored_columns == ()
    assert con.execute("select sku_id, colour from skus order by all").fetchall() == [("7", "red"), ("8", None)]


def test_decisions_and_outcomes_have_rules_of_their_own(con):
    decisions = pd.DataFrame(
        {"sku_id": ["a", "b", "c"], "decided_at": ["2025-01-06"] * 3, "action": ["stop", "sell", "test"]}
    ).assign(propensity=[0.5, 0.5, 1.5])
    assert admit(con, DECISIONS, decisions).rejects == {"action_unknown": 1, "propensity_outside_0_1": 1}
    outcomes = pd.DataFrame({"sku_id": ["a", "b"], "value": [1.0, float("inf")], "known_at": ["2025-01-06"] * 2})
    assert admit(con, OUTCOMES, outcomes).rejects == {"value_unreadable": 1}


def test_both_tables_are_admitted_with_a_warning_that_counts(con):
    signals = pd.DataFrame([GOOD, GOOD | {"clicks": "-1"}])
    with pytest.warns(RejectedRowsWarning, match="clicks_negative 1"):
        done = admit_signals_and_skus(con, signals, pd.DataFrame({"sku_id": ["a"]}), period=pd.Timedelta(days=1))
    assert [admission.table for admission in done] == ["signals", "skus"]


def test_every_rule_has_its_own_name_and_reads_only_declared_columns(con):
    for table in TABLES.values():
        names = [rule.name for rule in table.all_rules]
        assert len(names) == len(set(names))
        columns = ", ".join(f"cast(null as {c.sql_type}) as {c.name}" for c in table.columns)
        for rule in table.all_rules:
            con.execute(f"select {rule.holds.format(now=chr(39) + '2025-01-01' + chr(39))} from (select {columns})")
