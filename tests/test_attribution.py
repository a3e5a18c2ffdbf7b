"""Attribution: which channels an order goes to, and that nothing is made or lost on the way."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from attribution_oracle import Event, attributed
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from hitfinder.cli import cli
from hitfinder.errors import DataError, SettingsError
from hitfinder.ingest import ingest
from hitfinder.ingest.attribution import credit_orders
from hitfinder.settings import AttributionSettings, Settings, parse_settings
from hitfinder.warehouse import open_warehouse

MODELS = ("last", "first", "linear", "position", "time_decay")
MONDAY = datetime(2025, 1, 6)  # noqa: DTZ001 - moments are UTC, stored without a zone


def rule(model, **also):
    return parse_settings({"attribution": {"model": model, **also}}).attribution


JUDGED = {
    "kind": pa.string(), "period_start": pa.timestamp("us"), "happened_at": pa.timestamp("us"), "sku_id": pa.string(),
    "channel": pa.string(), "person": pa.uint64(), "person_known": pa.bool_(), "order_key": pa.uint64(),
    "order_known": pa.bool_(), "order_named": pa.bool_(), "quantity": pa.int64(), "amount": pa.decimal128(38, 4),
    "rule": pa.string(),
}  # fmt: skip


def judge(con, events, new_since=MONDAY):
    """Make `all_judged_events` and `judged_events` as ingest does; what came before `new_since` was read before."""
    rows = [
        (
            event.kind, event.period, event.at, event.sku, event.channel,
            event.person if event.person is not None else 999, event.person is not None,
            event.key if event.key is not None else 999, event.key is not None, event.order_id is not None,
            event.units, event.amount, None,
        )
        for event in events
    ]  # fmt: skip
    columns = zip(*rows, strict=True)
    table = pa.table(
        [pa.array(values, kind) for values, kind in zip(columns, JUDGED.values(), strict=True)], list(JUDGED)
    )
    con.register("plain_events", table)
    con.execute(
        f"create or replace temp table all_judged_events as "
        f"select *, happened_at < timestamp '{new_since}' as read_before from plain_events"
    )
    con.execute("create or replace temp view judged_events as select * from all_judged_events where not read_before")


def credited(con, how):
    done = credit_orders(con, how, units="quantity")
    rows = con.execute(
        "select sku_id, period_start, channel, orders, units, cast(revenue * 10000 as hugeint), "
        "cast(refunds * 10000 as hugeint) from order_credits"
    ).fetchall()
    return done, {tuple(row[:3]): tuple(row[3:]) for row in rows if any(row[3:])}


def attribute(events, how, new_since=MONDAY):
    con = open_warehouse(threads=1)
    try:
        judge(con, events, new_since)
        return credited(con, how)
    finally:
        con.close()


def totals(rows):
    sums = {}
    for (sku, period, _), values in rows.items():
        before = sums.get((sku, period), (0, 0, 0, 0))
        sums[sku, period] = tuple(a + b for a, b in zip(before, values, strict=True))
    return sums


def touch(hours, channel, person=1, sku="K", kind="clicks"):
    return Event(MONDAY + timedelta(hours=hours), kind, sku, channel, person)


def order(hours, amount="100", channel="till", person=1, order_id=None, units=1, session=None):
    at = MONDAY + timedelta(hours=hours)
    return Event(at, "orders", "K", channel, person, order_id, session, units, Decimal(amount))


def revenue_of(events, how):
    _, rows = attribute(events, how)
    return {channel: values[2] / 10_000 for (_, _, channel), values in rows.items() if values[2]}


JOURNEY = [touch(0, "a"), touch(24, "b"), touch(48, "c"), touch(72, "a"), order(72)]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("last", {"a": 100}),
        ("first", {"a": 100}),
        ("linear", {"a": 50, "b": 25, "c": 25}),
        ("position", {"a": 80, "b": 10, "c": 10}),
        # a: 1 + 2^-1.5, b: 2^-1, c: 2^-0.5 with a half life of two days
        ("time_decay", {"a": 52.8596, "b": 19.5262, "c": 27.6142}),
    ],
)
def test_a_journey_of_four_visits_is_shared_out_as_the_model_says(model, expected):
    assert revenue_of(JOURNEY, rule(model)) == pytest.approx(expected, abs=0.00011)


def test_two_visits_share_alike_by_position_and_one_takes_all():
    assert revenue_of([touch(0, "a"), touch(2, "b"), order(3)], rule("position")) == {"a": 50, "b": 50}
    assert revenue_of([touch(0, "a"), order(3)], rule("position")) == {"a": 100}
    uneven = rule("position", position_first=0.2, position_last=0.6)
    assert revenue_of([touch(0, "a"), touch(2, "b"), order(3)], uneven) == {"a": 25, "b": 75}


def test_events_of_one_channel_without_a_pause_are_one_visit():
    browsing = [touch(minutes / 60, "a") for minutes in range(0, 300, 10)]
    events = [*browsing, touch(10, "b"), order(11)]
    assert revenue_of(events, rule("linear")) == {"a": 50, "b": 50}
    assert revenue_of(events, rule("linear", visit_gap="9m")) == {"a": 96.7742, "b": 3.2258}


def test_a_visit_is_placed_by_its_first_event_for_first_and_by_its_last_for_last():
    events = [touch(0, "a"), touch(0.2, "b"), touch(0.4, "a"), order(1)]
    assert revenue_of(events, rule("first")) == {"a": 100}
    assert revenue_of(events, rule("last")) == {"a": 100}
    assert revenue_of(events, rule("position")) == {"a": 80, "b": 20}


def test_visits_of_one_moment_share_alike_and_what_is_simultaneous_with_the_order_counts():
    events = [touch(1, "a"), touch(1, "b"), order(1)]
    for model in MODELS:
        assert revenue_of(events, rule(model)) == {"a": 50, "b": 50}


def test_what_comes_after_the_order_or_before_the_window_or_of_others_is_no_touch():
    others = [touch(1, "b", person=2), touch(1, "b", sku="L"), touch(1, "b", person=None), touch(1, None)]
    late = [touch(3.01, "b"), Event(MONDAY, "refunds", "K", "b", 1), Event(MONDAY, "orders", "K", "b", 1)]
    assert revenue_of([*others, *late, order(3)], rule("linear")) == {"till": 100}
    edge = [touch(0, "a"), order(7 * 24)]
    assert revenue_of(edge, rule("last")) == {"a": 100}
    assert revenue_of(edge, rule("last", window="167h")) == {"till": 100}


def test_an_order_of_several_events_is_one_and_dated_by_its_first():
    lines = [order(1, "10", order_id=5), order(3, "20", order_id=5, units=4)]
    done, rows = attribute([touch(0, "a"), touch(2, "b"), *lines], rule("last"))
    assert rows == {("K", MONDAY, "a"): (1, 5, 300_000, 0)}
    assert (done.orders, done.with_touch, done.with_many) == (1, 1, 0)


def test_a_refund_follows_the_order_that_it_names_into_its_own_period():
    back = Event(MONDAY + timedelta(days=3), "refunds", "K", "desk", None, 5, None, 1, Decimal("10.0001"))
    unknown = Event(MONDAY + timedelta(days=3), "refunds", "K", "desk", None, 6, None, 1, Decimal(2))
    by_visit = Event(MONDAY + timedelta(days=3), "refunds", "K", "desk", 1, None, 5, 1, Decimal(3))
    done, rows = attribute(
        [touch(0, "a"), touch(1, "b"), order(2, order_id=5), back, unknown, by_visit], rule("linear")
    )
    refunds = {channel: values[3] for (_, period, channel), values in rows.items() if period != MONDAY}
    assert refunds.pop("desk") == 50_000
    assert sorted(refunds.items(), key=lambda item: item[1])[0][1] == 50_000
    assert (set(refunds), sum(refunds.values())) == ({"a", "b"}, 100_001)
    assert (done.refunds, done.refunds_followed) == (3, 1)


def test_a_refund_from_before_the_order_that_it_names_stays_where_it_is_logged():
    back = Event(MONDAY, "refunds", "K", "desk", None, 5, None, 1, Decimal(10))
    _, rows = attribute([touch(0, "a"), order(2, order_id=5), back], rule("last"))
    assert rows["K", MONDAY, "desk"] == (0, 0, 0, 100_000)


def test_orders_are_whole_and_of_equals_no_channel_is_always_first():
    events = []
    for day in range(100):
        hours = day * 24 * 10
        events += [touch(hours, "a"), touch(hours + 1, "b"), order(hours + 2, "0.0001")]
    done, rows = attribute(events, rule("linear"))
    assert {sum(v[0] for k, v in rows.items() if k[1] == period) for _, period, _ in rows} == {1}
    assert 30 <= done.channels["a"].orders <= 70
    assert done.channels["a"].orders_exactly == done.channels["b"].orders_exactly == 50
    assert done.channels["a"].revenue + done.channels["b"].revenue == Decimal("0.01")


def minutes(last):
    return st.integers(0, last).map(lambda step: MONDAY + timedelta(minutes=10 * step))


SOMETIMES = st.none() | st.integers(1, 3)
AMOUNTS = st.sampled_from([None, *map(Decimal, ("0", "0.0001", "1", "3.3333", "19.9999", "1000000.0001"))])
PERSONS = st.sampled_from([1, 1, 1, 1, 2, None])
SKUS = st.sampled_from(["K", "K", "K", "L"])
CHANNEL = st.sampled_from(["a", "b", "c", "d", None])
TOUCH = st.builds(
    Event,
    at=minutes(120),
    kind=st.sampled_from(["impressions", "clicks", "views", "carts"]),
    sku=SKUS,
    channel=CHANNEL,
    person=PERSONS,
)
BOUGHT = st.builds(
    Event,
    at=minutes(200),
    kind=st.sampled_from(["orders", "orders", "refunds"]),
    sku=SKUS,
    channel=CHANNEL,
    person=PERSONS,
    order_id=SOMETIMES,
    session=st.none() | st.integers(3, 5),
    units=st.integers(1, 9),
    amount=AMOUNTS,
)
EVENTS = st.tuples(st.lists(TOUCH, min_size=8, max_size=25), st.lists(BOUGHT, min_size=3, max_size=10)).map(
    lambda t: t[0] + t[1]
)
HOW = st.builds(
    AttributionSettings,
    model=st.sampled_from(MODELS),
    window=st.sampled_from(["1d", "5h", "4w", "4w"]),
    half_life=st.sampled_from(["1m", "7h", "2d"]),
    visit_gap=st.sampled_from(["10m", "30m", "5h"]),
    position_first=st.sampled_from([0.4, 0.1, 0.35]),
    position_last=st.sampled_from([0.4, 0.6, 0.3]),
)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def as_logged(events):
    return attribute(events, AttributionSettings())[1]


@QUICK
@example(JOURNEY, rule("time_decay"))
@given(EVENTS, HOW)
def test_the_sql_says_what_plain_loops_say_and_every_sum_is_kept(events, how):
    done, rows = attribute(events, how)
    if done.impossible is not None:
        assert rows == as_logged(events)
        return
    assert rows == attributed(events, how)
    assert totals(rows) == totals(as_logged(events))
    assert all(n >= 0 for values in rows.values() for n in values)
    assert sum(credit.orders for credit in done.channels.values()) == done.orders
    assert sum(credit.orders_logged for credit in done.channels.values()) == done.orders
    assert sum(credit.orders_exactly for credit in done.channels.values()) == pytest.approx(done.orders)
    for column in ("revenue", "revenue_logged"):
        told = sum(getattr(credit, column) for credit in done.channels.values())
        assert told * 10_000 == sum(values[2] for values in rows.values())


@settings(QUICK, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS, HOW)
def test_an_order_counts_its_last_visits_and_no_more_than_it_may(monkeypatch, events, how):
    monkeypatch.setattr("hitfinder.ingest.attribution.MOST_VISITS", 2)
    done, rows = attribute(events, how)
    assert done.impossible is not None or rows == attributed(events, how, most=2)


@settings(QUICK, max_examples=10)
@given(EVENTS, HOW, st.integers(1, 2))
def test_what_comes_later_changes_nothing_before(events, how, day):
    until = MONDAY + timedelta(days=day)
    known = [event for event in events if event.at < until]
    _, whole = attribute(events, how)
    _, then = attribute(known, how) if known else (None, {})
    assert {key: values for key, values in whole.items() if key[1] < until} == then


@settings(QUICK, max_examples=15)
@given(EVENTS, HOW, st.integers(1, 2))
def test_days_that_were_read_before_lead_to_orders_and_are_not_counted_again(events, how, day):
    since = MONDAY + timedelta(days=day)
    done, new = attribute(events, how, since)
    whole_done, whole = attribute(events, how)
    assert done.impossible == whole_done.impossible
    assert new == {key: values for key, values in whole.items() if key[1] >= since}
    assert done.orders == (sum(values[0] for values in new.values()) if done.impossible is None else 0)


@settings(QUICK, max_examples=10)
@given(EVENTS, HOW, st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_the_names_of_persons_matter(events, how, random):
    shuffled = [Event(**(vars(e) | {"person": e.person and 77 - e.person})) for e in events]
    random.shuffle(shuffled)
    # Two persons of one order at one moment are told apart by their hashes alone: then their names do matter.
    bought = [(e.at, e.key) for e in events if e.kind == "orders" and e.key is not None]
    assume(len(set(bought)) == len(bought))
    assert attribute(events, how)[1] == attribute(shuffled, how)[1]


MAPPING = """
[columns]
time = "time"
event = "event"
sku_id = "sku"
person = "who"
session = "visit"
order_id = "invoice"
price = "price"
quantity = "n"
channel = "channel"
[events]
click = "clicks"
buy = "orders"
return = "refunds"
leave = "ignored"
"""
HEADER = "time,event,sku,who,visit,invoice,price,n,channel\n"
SHOP = (
    "2025-01-01 10:00:00,click,K,anna-7,v1,,,,search",
    "2025-01-03 10:00:00,click,K,anna-7,v2,,,,mail",
    "2025-01-03 10:00:00,leave,K,anna-7,v2,,,,mail",
    "2025-01-05 10:00:00,click,K,anna-7,v3,,,,video",
    "2025-01-05 10:05:00,buy,K,anna-7,v3,inv-1,10.01,2,video",
    "2025-01-05 11:00:00,buy,K,bert-8,v4,inv-2,10.01,1,mail",
    "2025-01-09 10:00:00,return,K,anna-7,v9,inv-1,10.01,1,desk",
)


def log(folder: Path, *lines: str, name: str = "log.csv") -> Path:
    (folder / "m.toml").write_text(MAPPING)
    (folder / name).write_text(HEADER + "".join(line + "\n" for line in lines))
    return folder / name


def read(folder, table="signals"):
    rows = pd.read_parquet(folder / f"{table}.parquet")
    return rows.set_index(["period_start", "channel"]) if table == "signals" else rows


def run(source, out, model="linear", **also):
    how = parse_settings({"attribution": {"model": model, **also}})
    folder = source[0].parent if isinstance(source, list) else source.parent
    return ingest(source, into=out, settings=how, mapping=folder / "m.toml")


def test_ingest_credits_channels_and_says_what_moved(tmp_path):
    done = run(log(tmp_path, *SHOP), tmp_path / "out")
    rows = read(tmp_path / "out")
    fifth, ninth = pd.Timestamp("2025-01-05"), pd.Timestamp("2025-01-09")
    credit = {channel: rows.loc[(fifth, channel)] for channel in ("search", "mail", "video")}
    assert sum(float(row.revenue) for row in credit.values()) == pytest.approx(30.03)
    assert float(credit["mail"].revenue) == pytest.approx(10.01 + 20.02 / 3, abs=1e-4)
    assert sum(row.orders for row in credit.values()) == 2
    assert sum(row.units for row in credit.values()) == 3
    # search saw nobody that day; video's buyer stays its visitor
    assert (credit["search"].clicks, credit["search"].visitors) == (0, 0)
    assert (credit["video"].clicks, credit["video"].visitors) == (1, 1)
    assert credit["search"].known_at == pd.Timestamp("2025-01-06")
    assert float(rows.loc[ninth].refunds.sum()) == 10.01
    assert float(rows.loc[(ninth, "desk")].refunds) == 0
    text = str(done)
    assert "linear within 7d; of 2 orders 1 (50.0%) had a touch, 1 (50.0%) more than one" in text
    assert "2 orders came within 7d of the log's beginning" in text
    assert "1 of 1 refunds followed their order" in text
    assert "video: orders 1 -> " in text
    assert "revenue 20.02 -> 6.67" in text


@pytest.mark.parametrize("model", MODELS)
def test_ingest_keeps_every_total_that_it_has_without_attribution(tmp_path, model):
    source = log(tmp_path, *SHOP)
    run(source, tmp_path / "plain", "none")
    run(source, tmp_path / "out", model)
    counts = ["impressions", "clicks", "visitors", "orders", "units", "revenue", "refunds"]
    plain, moved = (read(tmp_path / name).groupby("period_start")[counts].sum() for name in ("plain", "out"))
    pd.testing.assert_frame_equal(plain, moved)


def test_nothing_of_a_person_is_left_behind(tmp_path):
    done = run(log(tmp_path, *SHOP), tmp_path / "out", "position")
    for path in (tmp_path / "out").iterdir():
        text = path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            text += pd.read_parquet(path).to_csv()
        assert not any(name in text + str(done) for name in ("anna", "bert"))
        with duckdb.connect() as con:
            for person in ("anna-7", "bert-8"):
                assert str(con.execute("select hash(?)", [person]).fetchall()[0][0]) not in text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda line: line.replace("anna-7", "").replace("bert-8", ""), "its events name nobody"),
        (lambda line: line.rsplit(",", 1)[0] + ",", "its events before an order name no channel"),
        (lambda line: line.rsplit(",", 1)[0] + ",shop", "all its events have one channel"),
        (lambda line: line.replace(",buy,", ",leave,"), "the log holds no orders"),
    ],
)
def test_where_attribution_is_not_possible_the_summary_says_why_and_all_stays_as_logged(tmp_path, change, reason):
    source = log(tmp_path, *map(change, SHOP))
    done = run(source, tmp_path / "out", "first")
    plain = run(source, tmp_path / "plain", "none")
    assert f"attribution: first not possible, {reason}; orders stay as logged" in str(done)
    pd.testing.assert_frame_equal(read(tmp_path / "out"), read(tmp_path / "plain"))
    assert plain.attribution is None
    assert "attribution" not in str(plain)


def test_touches_in_one_file_lead_to_orders_in_another_of_the_same_call(tmp_path):
    before, after = log(tmp_path, *SHOP[:3], name="1.csv"), log(tmp_path, *SHOP[3:], name="2.csv")
    run([before, after], tmp_path / "two")
    run(log(tmp_path, *SHOP), tmp_path / "one")
    pd.testing.assert_frame_equal(read(tmp_path / "one"), read(tmp_path / "two"))


def test_a_second_call_adds_new_periods_and_is_refused_where_a_credit_falls_into_one_that_is_there(tmp_path):
    run(log(tmp_path, *SHOP), tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    # No event of the 5th has the channel search, but an order of that day is credited to it.
    again = log(
        tmp_path,
        "2025-01-02 10:00:00,click,K,carl-9,v1,,,,search",
        "2025-01-05 12:00:00,buy,K,carl-9,v1,inv-7,5,1,radio",
        name="again.csv",
    )
    with pytest.raises(DataError, match="has signals of the periods from 2025-01-05"):
        run(again, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    later = log(tmp_path, "2025-01-12 10:00:00,click,K,anna-7,v1,,,,search", name="later.csv")
    run(later, tmp_path / "out")
    assert read(tmp_path / "out").index.get_level_values(0).max() == pd.Timestamp("2025-01-12")


@pytest.mark.parametrize("model", MODELS)
def test_a_log_that_comes_week_by_week_with_the_weeks_before_it_is_the_log_of_one_call(tmp_path, model):
    parts = [
        log(tmp_path, *SHOP[:3], name="1.csv"),
        log(tmp_path, *SHOP[3:-1], name="2.csv"),
        log(tmp_path, SHOP[-1], name="3.csv"),
    ]
    for n in (1, 2, 3):
        done = run(parts[:n], tmp_path / "weekly", model)
        assert done.already == done.looked_back == tuple(map(str, parts[: n - 1]))
        assert ("read again for what led to the new orders" in str(done)) == (n > 1)
        assert "skipped" not in str(done)
    whole = run(log(tmp_path, *SHOP), tmp_path / "one", model)
    pd.testing.assert_frame_equal(read(tmp_path / "weekly"), read(tmp_path / "one"))
    for name in ("skus", "rejects"):
        shown = [pd.read_parquet(tmp_path / folder / f"{name}.parquet") for folder in ("weekly", "one")]
        pd.testing.assert_frame_equal(*shown)
    # The last file holds one refund, whose order is in the file before it.
    assert (done.attribution.refunds, done.attribution.refunds_followed, done.attribution.orders) == (1, 1, 0)
    assert whole.attribution.refunds_followed == 1
    # Alone it could not tell: the same weeks without those before them leave the orders where they are logged.
    for part in parts:
        run(part, tmp_path / "alone", model)
    assert not read(tmp_path / "alone").equals(read(tmp_path / "one"))


def test_what_is_wrong_with_a_file_that_is_looked_back_into_is_told_once(tmp_path):
    first = log(tmp_path, *SHOP[:3], "2025-01-03 10:00:00,dance,K,x,,,,,radio", "2025-01-03,click", name="1.csv")
    second = log(tmp_path, *SHOP[3:], name="2.csv")
    once = run(first, tmp_path / "out")
    assert once.rejects == {"event_unknown": 1, "torn_line": 1}
    again = run([first, second], tmp_path / "out")
    assert again.rejects == {}
    assert again.admissions[0].rows == len(SHOP) - 3
    assert len(pd.read_parquet(tmp_path / "out" / "rejects.parquet")) == 2


def test_only_what_an_earlier_call_read_is_looked_back_into_and_only_where_it_can_tell_something(tmp_path):
    first, same = log(tmp_path, *SHOP, name="1.csv"), log(tmp_path, *SHOP, name="2.csv")
    done = run([first, same], tmp_path / "out")
    assert (done.already, done.looked_back) == ((str(same),), ())
    assert f"ingested before, skipped: {same}" in str(done)
    nobody = [
        log(tmp_path, *(line.replace("anna-7", "").replace("bert-8", "") for line in lines), name=name)
        for name, lines in (("3.csv", SHOP[:3]), ("4.csv", SHOP[3:]))
    ]
    run(nobody[0], tmp_path / "none")
    done = run(nobody, tmp_path / "none")
    assert "not possible, its events name nobody" in str(done)
    assert done.looked_back == ()


def test_without_attribution_a_file_that_came_before_is_skipped(tmp_path):
    first, second = log(tmp_path, *SHOP[:3], name="1.csv"), log(tmp_path, *SHOP[3:], name="2.csv")
    run(first, tmp_path / "out", "none")
    done = run([first, second], tmp_path / "out", "none")
    assert (done.already, done.looked_back) == ((str(first),), ())
    assert f"ingested before, skipped: {first}" in str(done)


def test_one_folder_has_one_attribution(tmp_path):
    run(log(tmp_path, *SHOP), tmp_path / "out", "time_decay")
    later = log(tmp_path, "2025-01-12 10:00:00,click,K,anna-7,v1,,,,search", name="later.csv")
    for model, also in (("none", {}), ("linear", {}), ("time_decay", {"half_life": "3d"})):
        with pytest.raises(DataError, match=r"attributed by model time_decay, .*half_life 2d.*got settings with model"):
            run(later, tmp_path / "out", model, **also)
    # What the model does not use is no difference; a table of signals has no orders to attribute.
    run(later, tmp_path / "out", "time_decay", position_first=0.3)
    plain = tmp_path / "s.csv"
    plain.write_text("sku_id,period_start,channel,clicks\nK,2025-02-01,radio,3\n")
    ingest(plain, into=tmp_path / "out", settings=Settings())
    run(log(tmp_path, *SHOP), tmp_path / "logged", "none")
    with pytest.raises(DataError, match="attributed by model none, got settings with model last"):
        run(later, tmp_path / "logged", "last")


def test_the_command_line_takes_the_model_from_the_settings_file(tmp_path):
    source = log(tmp_path, *SHOP)
    (tmp_path / "s.toml").write_text('[attribution]\nmodel = "last"\nwindow = "2d"\n')
    given_to_it = [
        f"--into={tmp_path / 'out'}",
        f"--settings={tmp_path / 's.toml'}",
        f"--mapping={tmp_path / 'm.toml'}",
    ]
    told = CliRunner().invoke(cli, ["ingest", str(source), *given_to_it])
    assert told.exit_code == 0, told.output
    assert "attribution: last within 2d; of 2 orders 1 (50.0%) had a touch" in told.output


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "best"}, "attribution.model: .*'time_decay'"),
        ({"position_first": 0.7, "position_last": 0.6}, "add up to at most 1, got 0.7 and 0.6"),
        ({"windows": "7d"}, "unknown key attribution.windows; known here: model, window"),
        ({"half_life": "0d"}, "attribution.half_life: expected a duration"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(SettingsError, match=message):
        parse_settings({"attribution": values})


def test_a_shopper_with_thousands_of_visits_and_orders_goes_through_in_little_memory(tmp_path):
    """A machine that buys again and again is the worst case of the join: every order with every visit before it."""
    n = 300_000
    (tmp_path / "m.toml").write_text(MAPPING)
    with duckdb.connect() as con:
        con.execute(
            f"""
            copy (
                select
                    strftime(timestamp '2025-01-01' + interval (i * 2) seconds, '%Y-%m-%d %H:%M:%S') as time,
                    case when i % 100 = 99 then 'buy' else 'click' end as event,
                    case when i % 2 = 0 then 'K' else 'S' || i % 997 end as sku,
                    case when i % 100 in (0, 99) then 'robot' else 'p' || (i * 31) % 30011 end as who,
                    null as visit, null as invoice, 1.25 as price, 1 as n, 'c' || (i * 7) % 5 as channel
                from range({n}) as t(i)
            ) to '{tmp_path / "big.csv"}' (header)
            """
        )
    how = parse_settings({"attribution": {"model": "time_decay"}})
    done = ingest(
        tmp_path / "big.csv", into=tmp_path / "out", settings=how, mapping=tmp_path / "m.toml", memory="200MB"
    )
    rows = read(tmp_path / "out")
    assert rows.orders.sum() == done.attribution.orders == n / 100
    assert float(rows.revenue.sum()) == n / 100 * 1.25


@pytest.mark.skipif(not os.environ.get("HITFINDER_DATA"), reason="HITFINDER_DATA is not set: no folder of public data")
def test_three_hours_of_a_big_shop_with_channels_dealt_to_its_visits_keep_their_sums(tmp_path):
    """REES46 logs no channels: each visit is dealt one, by its name."""
    events = pd.read_csv(Path(os.environ["HITFINDER_DATA"]) / "rees46_head.csv")
    events["channel"] = pd.util.hash_array(events.user_session.astype(str).to_numpy(dtype=object)) % 4
    events["channel"] = "c" + events.channel.astype(str)
    events.to_csv(tmp_path / "events.csv", index=False)
    (tmp_path / "m.toml").write_text(
        '[columns]\ntime="event_time"\nevent="event_type"\nsku_id="product_id"\nperson="user_id"\n'
        'session="user_session"\nprice="price"\nchannel="channel"\n'
        '[events]\nview="clicks"\ncart="carts"\nremove_from_cart="ignored"\npurchase="orders"\n'
    )
    bought = events[events.event_type == "purchase"]
    for model in MODELS:
        done = run(tmp_path / "events.csv", tmp_path / model, model)
        rows = read(tmp_path / model).reset_index().groupby("sku_id")[["orders", "revenue"]].sum()
        orders = bought.drop_duplicates(["product_id", "user_session"]).groupby("product_id").size()
        revenue = bought.groupby("product_id").price.sum()
        expected = pd.DataFrame({"orders": orders, "revenue": revenue.round(4)})
        expected.index = expected.index.astype(str)
        expected = expected.reindex(rows.index, fill_value=0)
        assert (rows.orders == expected.orders).all()
        assert (rows.revenue.astype(float) - expected.revenue).abs().max() < 1e-6
        assert done.attribution.with_touch > done.attribution.with_many > 0
