"""The SQL is written for DuckDB and has to stay readable for Spark; sqlglot translates it here."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import sqlglot
from sqlglot import exp
from sqlglot.optimizer.qualify import qualify

import hitfinder
from hitfinder.features import RATES, count_pairs, features, look_back
from hitfinder.funnel import count_steps, measured_steps
from hitfinder.labels import label
from hitfinder.ledger import set_ledger
from hitfinder.refunds import fit_refunds
from hitfinder.settings import Settings, parse_settings
from hitfinder.sold import sold_lately
from hitfinder.warehouse import load_sql

SQL = Path(hitfinder.__file__).parent / "sql"
CORE = sorted(path.stem for path in SQL.glob("*.sql"))
# Raw exports are read where DuckDB runs; beyond them everything has to go to Spark as well.
INGEST = sorted(f"ingest/{path.stem}" for path in (SQL / "ingest").glob("*.sql"))
FILLED = {
    "numerator": "revenue",
    "reports": "reports_in_stock",
    "denominator": "null::bigint",
    "period": "interval 86400 seconds",
    "click_kind": "clicks",
    "units": "quantity",
    "measured": "counted.clicks",
    "attributes": "arg_min(title, happened_at) as title",
    "top": "orders",
    "below": "clicks",
    "day_seconds": 86400.0,
    "patience": 7,
    "reach": 70,
    "days_per_week": 7,
    "history": 56,
    "value": "revenue",
    "sold": "orders",
    "window_days": 28.0,
    "growth_days": 7.0,
    "now": "2026-01-01 00:00:00",
    "max_id": 500,
    "max_title": 10_000,
    "attribute_rules": "",
    "quantity_counts": "true",
    "price_counts": "true",
    "model": "position",
    "window": "interval 86400 seconds",
    "visit_gap": "interval 1800 seconds",
    "half_life": 86_400_000_000,
    "first_share": 400_000_000,
    "last_share": 400_000_000,
    "middle_share": 200_000_000,
    "most_visits": 1000,
}
TEMPLATES = {"labels", "funnel_days", "funnel_cells", "tier_values", *INGEST}

# What Spark 4 has, of what sqlglot may leave in the text. A function that is new here is looked up in Spark's list
# (https://spark.apache.org/docs/latest/api/sql/) before it is added.
SPARK_FUNCTIONS = {
    "CAST", "CEIL", "COALESCE", "CONCAT_WS", "COUNT", "DATE_TRUNC", "EXP", "EXTRACT", "FLOOR", "GREATEST", "LEAD",
    "LEAST", "LN", "LPAD", "MAX", "MEDIAN", "MIN", "NULLIF", "RANK", "SQRT", "SUM", "TIMESTAMP_MICROS",
    "UNIX_TIMESTAMP",
}  # fmt: skip
# Same name, another meaning or another form: weekdays from 1, patterns of Java instead of C, text instead of a moment.
NOT_THE_SAME = (
    r"\b(DOW|ISODOW|DAYOFWEEK|ISOYEAR|EPOCH|STRFTIME|DATE_FORMAT|FROM_UNIXTIME|TO_TIMESTAMP|RANGE|TRY_CAST)\b"
)
NO_CALL = {"OVER", "FILTER", "AND", "OR", "AS", "IN", "BY", "WHEN", "THEN", "WHERE", "ON", "NOT", "DECIMAL", "ELSE"}


def text_of(name):
    text = load_sql(name)
    return text.format(**FILLED) if name in TEMPLATES else text


def to_spark(name):
    [spark] = sqlglot.transpile(text_of(name), read="duckdb", write="spark", unsupported_level=sqlglot.ErrorLevel.RAISE)
    return spark


def without_comments(text):
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


@pytest.mark.parametrize("name", CORE + INGEST)
def test_every_file_is_one_select_that_sparks_parser_reads(name):
    [statement] = sqlglot.parse(to_spark(name), read="spark")
    assert isinstance(statement, exp.Select)


@pytest.mark.parametrize("name", CORE)
def test_no_function_is_left_that_spark_lacks_or_understands_differently(name):
    text = re.sub(r"'[^']*'", "''", without_comments(to_spark(name)))
    called = set(re.findall(r"\b([A-Z_]\w*)\s*\(", text)) - NO_CALL
    assert called <= SPARK_FUNCTIONS
    assert not re.findall(NOT_THE_SAME, text)


@pytest.mark.parametrize("name", CORE)
def test_no_form_is_used_that_only_duckdb_has(name):
    tree = sqlglot.parse_one(text_of(name), read="duckdb")
    assert not list(tree.find_all(exp.Lateral, exp.Qualify, exp.Unnest, exp.Pivot, exp.Columns))
    for join in tree.find_all(exp.Join):
        assert join.method.upper() != "ASOF"
        assert join.side in ("", "LEFT")
        assert join.kind in ("", "CROSS", "INNER")
    for star in tree.find_all(exp.Star):
        assert not any(star.args.values())  # no exclude, no replace


@pytest.mark.parametrize("name", CORE + INGEST)
def test_every_order_says_where_nulls_go(name):
    text = re.sub(r"--.*", "", load_sql(name))
    orders = re.findall(r"order by ([^()]*)\)", text)
    assert len(orders) == len(re.findall(r"order by", text))
    for order in orders:
        for part in order.split(","):
            assert re.search(r" (asc|desc) nulls (first|last)\s*$", part), order


def test_every_order_says_where_nulls_go_in_sparks_words_too():
    """Spark puts NULL first by default, DuckDB last: what is not said changes sides."""
    for name in CORE:
        for ordered in sqlglot.parse_one(to_spark(name), read="spark").find_all(exp.Ordered):
            # sqlglot leaves out what is Spark's default: a descending order has its NULLs last.
            assert ordered.args.get("nulls_first") is False


@pytest.fixture(scope="module")
def filled(draw_log, draw_rates, known_warehouse):
    """A connection in which every SQL file has been built, the columns of each table, and the labels' own view."""
    signals, skus = draw_log(3, measured=["clicks", "impressions", "revenue", "orders", "units"])
    # As much stock as was sold by the newest reports: some SKUs have sold out.
    known = signals.assign(known_at=signals["known_at"].fillna(signals["period_start"] + pd.Timedelta(days=1)))
    newest = known.sort_values("known_at").drop_duplicates(
        ["sku_id", "period_start", "channel", "creative_id"], keep="last"
    )
    skus = skus.assign(stock=skus["sku_id"].map(newest.groupby("sku_id")["units"].sum()))
    con = known_warehouse(signals, skus, Settings(), pd.Timestamp("2025-03-20"))
    label(con, parse_settings({"label": {"metric": "profit"}}), outcomes_given=False)
    label(con, Settings(), outcomes_given=False)
    set_ledger(con, Settings().costs)
    con.execute("create temp table stretch as select 2419200.0 as seconds")
    sold_lately(con)
    fit_refunds(con).forecast(con)
    count_steps(con, Settings(), measured_steps(con)[-1])
    look_back(con)
    names = sorted(name for group in RATES.values() for name in group)
    count_pairs(con, names)
    features(con, draw_rates(0, names))
    tables = con.execute(
        "select table_name, column_name, data_type from duckdb_columns() where not internal"
    ).fetchall()
    schema = {}
    for table, column, kind in tables:
        schema.setdefault(table, {})[column] = kind
    yield con, schema
    con.close()


@pytest.mark.parametrize("name", CORE)
def test_every_column_is_one_of_the_tables_it_is_read_from(filled, name):
    """DuckDB lets a select use a name that it has only just given; other engines don't, or not alike."""
    _, schema = filled
    tree = sqlglot.parse_one(text_of(name), read="duckdb")
    qualified = qualify(
        tree.copy(), schema=schema, dialect="duckdb", expand_alias_refs=False, validate_qualify_columns=True
    )
    assert all(column.table for column in qualified.find_all(exp.Column))


@pytest.mark.parametrize("name", CORE)
def test_the_translation_read_back_says_the_same(filled, name):
    con, _ = filled
    con.execute(
        "create or replace temp table decisions as "
        "select sku_id, launched_at + interval 1 hour as decided_at, 'test' as action, 0.5 as propensity from catalog"
    )
    [back] = sqlglot.transpile(to_spark(name), read="spark", write="duckdb")
    # Spark's UNIX_TIMESTAMP takes a moment as well as a text, of which sqlglot knows only the text.
    back = re.sub(r"STRPTIME\(([\w.]+), '[^']*'\)", r"\1", back).replace("TIMESTAMP_MICROS(", "MAKE_TIMESTAMP(")
    con.execute(f"create or replace temp table before as {text_of(name)}")
    con.execute(f"create or replace temp table after as {back}")
    assert con.execute("select count(*) from before").fetchone()[0] > 0
    columns = [row[0] for row in con.execute("describe before").fetchall()]
    assert columns == [row[0] for row in con.execute("describe after").fetchall()]
    different = con.execute(
        "select count(*) from ((from before except all from after) union all (from after except all from before))"
    ).fetchone()[0]
    assert different == 0
