from __future__ import annotations

import json
import threading
from pathlib import Path

import pandas as pd
import pytest

from hitfinder.errors import DataError
from hitfinder.ingest import folder as folder_module
from hitfinder.ingest import ingest
from hitfinder.locks import BusyError, only_one
from hitfinder.settings import Settings, parse_settings

HEADER = "event_time,event_type,product_id,user_id\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, table: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{table}.parquet")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def day(tmp: Path, n: int, skus: str = "7") -> Path:
    lines = "".join(f"2019-10-{n:02d} 0{h}:00:00 UTC,view,{sku},u{h}\n" for h in range(3) for sku in skus)
    return write(tmp / f"day{n}.csv", HEADER + lines + f"2019-10-{n:02d} 00:00:00 UTC,view,,u\n")


def test_the_same_file_twice_changes_nothing_under_any_name(tmp_path):
    out = tmp_path / "out"
    log = day(tmp_path, 1)
    ingest(log, into=out, settings=Settings())
    before = content(out)
    copy = write(tmp_path / "copy.csv", log.read_text())
    again = ingest([log, copy], into=out, settings=Settings())
    assert content(out) == before
    assert again.already == (str(copy), str(log))
    assert again.paths == ()


def test_the_next_day_is_added_and_a_day_already_there_is_skipped(tmp_path):
    out = tmp_path / "out"
    ingest(day(tmp_path, 1), into=out, settings=Settings())
    day(tmp_path, 2, skus="78")
    done = ingest(tmp_path / "day*.csv", into=out, settings=Settings())
    rows = read(out, "signals")
    assert list(zip(rows.sku_id, rows.period_start.dt.day, strict=True)) == [("7", 1), ("7", 2), ("8", 2)]
    assert rows.visitors.tolist() == [3, 3, 3]
    assert len(read(out, "rejects")) == 2
    assert done.already == (str(tmp_path / "day1.csv"),)
    assert (done.first, done.last) == (pd.Timestamp("2019-10-02"), pd.Timestamp("2019-10-02"))


def test_two_files_of_one_period_count_a_visitor_once_in_one_call_and_are_refused_in_two(tmp_path):
    a = write(tmp_path / "a.csv", HEADER + "2019-10-01 01:00:00 UTC,view,7,u\n2019-10-01 01:30:00 UTC,view,7,v\n")
    b = write(tmp_path / "b.csv", HEADER + "2019-10-01 02:00:00 UTC,view,7,u\n")
    ingest([a, b], into=tmp_path / "one", settings=Settings())
    row = read(tmp_path / "one", "signals").iloc[0]
    assert (row.clicks, row.visitors) == (3, 2)
    ingest(a, into=tmp_path / "two", settings=Settings())
    before = content(tmp_path / "two")
    with pytest.raises(DataError, match="together"):
        ingest(b, into=tmp_path / "two", settings=Settings())
    assert content(tmp_path / "two") == before


SIGNALS = "sku_id,period_start,clicks{}\n"


def test_a_report_issued_again_later_adds_a_revision(tmp_path):
    out = tmp_path / "out"
    first = write(tmp_path / "1.csv", "sku_id,period_start,clicks\n7,2025-01-06,3\n8,2025-01-06,1\n")
    second = write(tmp_path / "2.csv", "sku_id,period_start,clicks\n7,2025-01-06,5\n8,2025-01-06,1\n")
    ingest(first, into=out, settings=Settings())
    contradicted = ingest(second, into=out, settings=Settings())
    assert contradicted.rejects == {"already_reported_otherwise": 1}
    assert contradicted.left_out == {"signals that the folder has already": 1}
    assert contradicted.admissions[0].kept == 1
    later = ingest(second, into=out, settings=Settings(), known_at=pd.Timestamp("2025-01-20"))
    assert later.rejects == {}
    seven = read(out, "signals").query("sku_id == '7'")
    assert seven.clicks.tolist() == [3, 5]
    assert seven.known_at.tolist() == [pd.Timestamp("2025-01-07"), pd.Timestamp("2025-01-20")]


def test_skus_first_seen_in_the_burn_in_are_old_stock_now_and_later(tmp_path):
    out = tmp_path / "out"
    day(tmp_path, 1, "7")
    day(tmp_path, 10, "78")
    done = ingest(tmp_path / "day*.csv", into=out, settings=Settings(), burn_in=pd.Timedelta(days=7))
    assert read(out, "skus").sku_id.tolist() == ["8"]
    assert read(out, "signals").sku_id.tolist() == ["8"]
    assert done.left_out == {"signals of old stock": 2, "skus of old stock": 1}
    ingest(day(tmp_path, 11, "789"), into=out, settings=Settings())
    assert read(out, "skus").sku_id.tolist() == ["8", "9"]
    with pytest.raises(DataError, match="burn-in"):
        ingest(day(tmp_path, 12), into=out, settings=Settings(), burn_in=pd.Timedelta(days=8))


def test_what_the_merchant_says_of_a_sku_wins_over_what_events_say(tmp_path):
    log = write(
        tmp_path / "l.csv",
        "event_time,event_type,product_id,user_id,brand,price\n2019-10-01,view,7,u,acme,5\n2019-10-01,view,8,u,bolt,6\n",
    )
    skus = write(tmp_path / "s.csv", "sku_id,price,colour,launched_at,customer_id\n7,4,red,2019-09-30,someone\n")
    done = ingest(log, into=tmp_path / "out", settings=Settings(), skus=skus)
    rows = read(tmp_path / "out", "skus").set_index("sku_id")
    assert float(rows.loc["7"].price) == 4
    assert (rows.loc["7"].brand, rows.loc["7"].colour) == ("acme", "red")
    assert rows.loc["7"].launched_at == pd.Timestamp("2019-09-30")
    assert float(rows.loc["8"].price) == 6
    assert "customer_id" not in rows
    assert done.dropped_columns == ("customer_id",)


def test_signals_and_skus_are_recognised_in_one_call(tmp_path):
    write(tmp_path / "a.csv", "sku_id,period_start,clicks\n7,2025-01-06,3\n")
    write(tmp_path / "b.csv", "sku_id,weight\n7,3\n")
    done = ingest([tmp_path / "a.csv", tmp_path / "b.csv"], into=tmp_path / "out", settings=Settings())
    assert set(done.formats) == {"signals", "skus"}
    assert read(tmp_path / "out", "skus").weight.tolist() == ["3"]


@pytest.mark.parametrize("survivors", [0, 1, 2, 3])
def test_a_crash_while_files_are_renamed_is_finished_by_the_next_call(tmp_path, monkeypatch, survivors):
    out = tmp_path / "out"
    ingest(day(tmp_path, 1), into=out, settings=Settings())
    day(tmp_path, 2)
    real, moved = Path.replace, []

    def failing(self, target):
        if len(moved) == survivors:
            raise KeyboardInterrupt
        moved.append(target)
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", failing)
        with pytest.raises(KeyboardInterrupt):
            ingest(tmp_path / "day2.csv", into=out, settings=Settings())
    again = ingest(tmp_path / "day2.csv", into=out, settings=Settings())
    assert again.already == (str(tmp_path / "day2.csv"),)
    ingest([tmp_path / "day1.csv"], into=tmp_path / "plain", settings=Settings())
    ingest([tmp_path / "day2.csv"], into=tmp_path / "plain", settings=Settings())
    assert content(out) == content(tmp_path / "plain")


def test_a_crash_before_the_decision_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    out = tmp_path / "out"
    ingest(day(tmp_path, 1), into=out, settings=Settings())
    before = content(out)

    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fail)
        with pytest.raises(KeyboardInterrupt):
            ingest(day(tmp_path, 2), into=out, settings=Settings())
    assert content(out) == before


def test_an_ingest_that_was_overtaken_by_another_is_refused(tmp_path, monkeypatch):
    out = tmp_path / "out"
    ingest(day(tmp_path, 1), into=out, settings=Settings())
    real = folder_module.open_folder

    def overtaken(into):
        opened = real(into)
        record = json.loads((out / "ingested.json").read_text())
        (out / "ingested.json").write_text(json.dumps(record | {"other": 1}))
        return opened

    monkeypatch.setattr("hitfinder.ingest.run.open_folder", overtaken)
    with pytest.raises(DataError, match="another ingest"):
        ingest(day(tmp_path, 2), into=out, settings=Settings())
    assert [path.name for path in out.glob(".*")] == [".ingest.lock"]


def test_an_ingest_that_another_one_meets_in_its_last_step_loses_nothing(tmp_path, monkeypatch):
    """The other comes after the look at the record and before the renaming, and has to wait until all is done."""
    out = tmp_path / "out"
    ingest(day(tmp_path, 1), into=out, settings=Settings())
    real, said, others = Path.rename, [], []

    def other():
        try:
            ingest(day(tmp_path, 2), into=out, settings=Settings())
            said.append("done")
        except DataError as refused:
            said.append(str(refused))

    def meeting(self, target):
        if not others:
            others.append(threading.Thread(target=other))
            others[0].start()
            others[0].join(timeout=2)  # it can't be done before this one is
        return real(self, target)

    monkeypatch.setattr(Path, "rename", meeting)
    ingest(day(tmp_path, 3), into=out, settings=Settings())
    others[0].join()
    # It either read the folder before, and is told to come again, or after, and has added its day to this one's.
    if said != ["done"]:
        assert "another ingest wrote to it meanwhile" in said[0]
        ingest(tmp_path / "day2.csv", into=out, settings=Settings())
    assert read(out, "signals").period_start.dt.day.tolist() == [1, 2, 3]
    assert len(json.loads((out / "ingested.json").read_text())["sources"]) == 3


def test_a_folder_that_another_ingest_writes_to_for_long_is_given_up_on(tmp_path, monkeypatch):
    out = tmp_path / "out"
    ingest(day(tmp_path, 1), into=out, settings=Settings())
    before = content(out)
    monkeypatch.setattr(folder_module, "LOCK_SECONDS", 0.1)
    with only_one(out / ".ingest.lock", what="out", seconds=0), pytest.raises(BusyError, match="try again later"):
        ingest(day(tmp_path, 2), into=out, settings=Settings())
    assert content(out) == before


def test_what_a_killed_ingest_left_is_swept_by_the_next_and_not_by_one_that_waits(tmp_path, monkeypatch):
    out = tmp_path / "out"
    (out / ".writing-dead").mkdir(parents=True)
    (out / ".writing-dead" / "signals.parquet").write_bytes(b"half")
    monkeypatch.setattr(folder_module, "LOCK_SECONDS", 0.1)
    with only_one(out / ".ingest.lock", what="out", seconds=0), pytest.raises(BusyError):
        ingest(day(tmp_path, 1), into=out, settings=Settings())
    assert (out / ".writing-dead").exists()  # whoever holds the lock may be at work there
    ingest(day(tmp_path, 1), into=out, settings=Settings())
    assert [path.name for path in out.glob(".*")] == [".ingest.lock"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "7",
        '{"version": 1}',
        '{"sources": [{}]}',
        '{"sources": ["a"]}',
        '{"sources": {"key": 1}}',
        '{"sources": [], "attribution": {}}',
        '{"sources": [], "burn_in": "28d"}',
        "no JSON",
        "\udcff",
    ],
)
def test_a_record_that_is_none_of_ours_is_refused_in_one_line_and_left_alone(tmp_path, text):
    out = tmp_path / "out"
    out.mkdir()
    (out / "ingested.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"ingested\.json: expected the record that ingest wrote") as refused:
        ingest(day(tmp_path, 1), into=out, settings=Settings())
    assert "\n" not in str(refused.value)
    assert (out / "ingested.json").read_bytes() == text.encode("utf-8", "surrogateescape")
    assert not list(out.glob("*.parquet"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "", "empty file"),
        ("x.csv", "\n\n", "empty file"),
        ("x.csv", HEADER, "only a header"),
        ("x.csv", "sku_id,period_start,clicks\n", "only a header"),
        ("x.csv", "sku_id\n", "only a header"),
        ("x.csv", "a,b\n1,2\n", "rees46 \\(event_time.*got a, b"),
        ("x.csv", "sku_id,period_start,clicks\n7,2025-01-06,a\n8,2025-01-06,b\n", "expected whole numbers"),
        ("x.csv", HEADER + "2019-10-01,dance,7,u\n2019-10-01,sing,7,u\n", "one of view, cart"),
        ("x.csv", HEADER + "never,view,7,u\nnot,view,7,u\n", "a timestamp"),
        ("x.parquet", "no parquet", "can't be read"),
    ],
)
def test_a_file_that_can_not_be_understood_is_refused_in_one_line(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message) as caught:
        ingest(write(tmp_path / name, text), into=tmp_path / "out", settings=Settings())
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".ingest.lock"]


def test_what_is_no_file_and_no_folder_is_named(tmp_path):
    log = day(tmp_path, 1)
    with pytest.raises(DataError, match="no such file"):
        ingest(tmp_path / "nothing*.csv", into=tmp_path / "out", settings=Settings())
    with pytest.raises(DataError, match="got a folder"):
        ingest(tmp_path, into=tmp_path / "out", settings=Settings())
    with pytest.raises(DataError, match="at least one file"):
        ingest([], into=tmp_path / "out", settings=Settings())
    with pytest.raises(DataError, match="got a file"):
        ingest(log, into=log, settings=Settings())
    with pytest.raises(DataError, match="format: expected one of"):
        ingest(log, format="xml", into=tmp_path / "out", settings=Settings())
    with pytest.raises(DataError, match="mapping file"):
        ingest(log, format="events", into=tmp_path / "out", settings=Settings())


def test_a_folder_has_one_period_and_holds_what_ingest_wrote(tmp_path):
    ingest(day(tmp_path, 1), into=tmp_path / "out", settings=Settings())
    with pytest.raises(DataError, match="periods of 1d"):
        ingest(day(tmp_path, 2), into=tmp_path / "out", settings=parse_settings({"signals": {"period": "1h"}}))
    (tmp_path / "out" / "ingested.json").unlink()
    with pytest.raises(DataError, match="a folder that ingest made"):
        ingest(day(tmp_path, 2), into=tmp_path / "out", settings=Settings())


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--format", "xyz", "'rees46'"),
        ("--burn-in", "abc", "duration"),
        ("--burn-in", "28", "duration"),
        ("--burn-in", "", "duration"),
    ],
)
def test_what_no_option_can_be_is_wrong_usage(run, tmp_path, option, value, said):
    status, out, err = run("ingest", day(tmp_path, 1), "--into", tmp_path / "out", option, value)
    assert (status, out) == (2, "")
    assert option in err
    assert said in err
    assert not (tmp_path / "out").exists()


def test_a_mapping_that_the_format_has_no_use_for_is_refused(tmp_path):
    mapping = write(tmp_path / "m.toml", '[headers]\nsku_id = ["Artikel"]\n')
    with pytest.raises(DataError, match="goes with the format ads, got rees46"):
        ingest(day(tmp_path, 1), format="rees46", mapping=mapping, into=tmp_path / "out", settings=Settings())
