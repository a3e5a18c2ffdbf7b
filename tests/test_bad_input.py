"""Bad input of every kind, from real files: a clear refusal or a counted reject, never a traceback or a silent loss."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from small_market import fitted, newest_batch

import hitfinder as hf
from hitfinder.admission import RejectedRowsWarning
from hitfinder.cli import main

HEAD = "sku_id,period_start,impressions,clicks\n"
DAY = "2025-02-25"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    signals, skus, _ = newest_batch()
    signals.to_csv(folder / "signals.csv", index=False)
    skus.to_csv(folder / "skus.csv", index=False)
    fitted()[1].save(folder / "model")
    return folder


def good_rows():
    return HEAD + "".join(f"{sku},{DAY},100,5\n" for sku in newest_batch()[1]["sku_id"])


@pytest.fixture
def rank(shop, tmp_path, monkeypatch, capfd):
    """Return `rank(signals=..., skus=...)`: write the bytes to files, rank them, return (status, stderr, list)."""

    def call(suffix=".csv", **tables):
        paths = {"signals": shop / "signals.csv", "skus": shop / "skus.csv"}
        for name, content in tables.items():
            paths[name] = tmp_path / f"{name}{suffix}"
            paths[name].write_bytes(content if isinstance(content, bytes) else content.encode())
        out = tmp_path / "list.parquet"
        options = {**paths, "model": shop / "model", "as-of": newest_batch()[2], "out": out}
        words = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        monkeypatch.setattr(sys, "argv", ["hitfinder", "rank", *words])
        with pytest.raises(SystemExit) as left:
            main()
        err = capfd.readouterr().err
        assert "Traceback" not in err
        assert len(err) < 1000
        return left.value.code, err, pd.read_parquet(out) if out.exists() else None

    return call


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty file"),
        ("\n \n", "empty file"),
        (b"\0\0\0\0", "empty file"),
        ("a,b\n1,2\n", "expected the column sku_id, period_start, got a, b"),
        ("sku_id,period_start\nA,2025-02-25\n", "at least one of impressions"),
        (HEAD + f"A,{DAY},many,few\nB,{DAY},lots,none\n", "expected whole numbers"),
        (HEAD + "A,soon,1,1\nB,later,1,1\n", "expected timestamps"),
    ],
)
def test_signals_that_can_not_be_understood_are_refused_in_one_line(rank, content, said):
    status, err, found = rank(signals=content)
    assert status == 1
    assert found is None
    assert err.startswith("error: signals")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (f"zz,{DAY},-5,1", "impressions_negative"),
        (f"zz,{DAY},5,10", "clicks_above_impressions"),
        (f"zz,{DAY},nan,1", "impressions_unreadable"),
        (f"zz,{DAY},inf,1", "impressions_unreadable"),
        (f"zz,{DAY},5,1.5", "clicks_unreadable"),
        (f"zz,{DAY},1e300,1", "impressions_unreadable"),
        ("zz,2190-01-01,5,1", "period_start_in_the_future"),
        ("zz,1970-01-01,5,1", "period_start_before_2000"),
        ("zz,soon,5,1", "period_start_unreadable"),
        (f",{DAY},5,1", "sku_id_missing"),
        (f"zz,{DAY},,", "nothing_counted"),
        (f"zz,{DAY},5", "torn_line"),
        (f"zz,{DAY},5,1,9,9", "torn_line"),
        ("x" * 10_000_000 + f",{DAY},5,1", "sku_id_too_long"),
        ('"' + "x\n" * 5_000_000 + f'",{DAY},5,1', "sku_id_too_long"),
    ],
    ids=lambda text: text[:30].replace("\n", " "),
)
def test_a_bad_row_is_counted_under_its_rule_and_the_rest_goes_on(rank, row, rule):
    status, err, found = rank(signals=good_rows() + row + "\n")
    assert status == 0
    assert err == f"note: signals: 38 of 39 rows kept; set aside: {rule} 1\n"
    pd.testing.assert_frame_equal(found, rank(signals=good_rows())[2])


def test_a_repeated_row_and_a_repeated_key_are_told_apart(rank):
    rows = good_rows()
    first = rows.splitlines()[1]
    status, err, found = rank(signals=rows + first + "\n" + first + "\n" + first.replace(",5", ",4") + "\n")
    assert status == 0
    assert "38 of 41 rows kept; set aside: duplicate_key 1, duplicate_row 2" in err
    pd.testing.assert_frame_equal(found, rank(signals=rows)[2])


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("gb18030"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: b"".join(line.encode(("utf-8", "gb18030")[i % 2]) for i, line in enumerate(text.splitlines(True))),
    ],
    ids=["mark", "utf-16", "gb18030", "windows", "mixed"],
)
def test_every_encoding_says_the_same(rank, encode):
    signals = good_rows().replace("K", "裙子")
    skus = "sku_id,category\n" + "".join(f"{sku.replace('K', '裙子')},连衣裙\n" for sku in newest_batch()[1]["sku_id"])
    expected = rank(signals=signals, skus=skus)
    assert expected[:2] == (0, "")
    status, err, found = rank(signals=encode(signals), skus=encode(skus))
    assert (status, err) == (0, "")
    pd.testing.assert_frame_equal(found, expected[2])


def test_what_only_looks_like_parquet_is_refused(rank):
    for content in ("", "sku_id\nA\n", b"PAR1" + b"\0" * 40 + b"PAR1"):
        status, err, _ = rank(suffix=".parquet", signals=content)
        assert status == 1
        assert "can't be read as .parquet" in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "kept", "said"),
    [
        ("sku_id\n", 0, ""),
        ("sku_id,price\nA,1\nA,2\n", 1, "duplicate_key 1"),
        ("sku_id,price\nA,inf\nB,-3\nC,1\n", 1, "price_negative 1, price_unreadable 1"),
        ("sku_id,title\nA," + "x" * 10_000_000 + "\nB,t\n", 1, "title_too_long 1"),
        ("sku_id,launched_at\nA,1970-01-01\nB,soon\nC,2025-02-25\n", 1, "launched_at_unreadable 1"),
        ("sku_id,launched_at\nA,2199-01-01\n", 1, "1 of 1 SKUs have no signal"),
    ],
    ids=lambda text: str(text)[:30],
)
def test_bad_skus_are_counted_and_the_good_ones_ranked(rank, content, kept, said):
    status, err, found = rank(skus=content)
    assert status == 0
    assert len(found) == kept
    assert said in err
    assert (err == "") == (said == "")


def test_an_id_that_is_a_number_here_and_a_text_there_is_one_id():
    signals, skus, as_of = newest_batch()
    number = pd.Series(range(1, len(skus) + 1), index=skus["sku_id"])
    model = fitted()[1]
    mine = signals.assign(sku_id=signals["sku_id"].map(number))
    forms = [
        lambda ids: ids.astype("int64"),
        lambda ids: ids.astype("float64"),
        lambda ids: ids.astype(str),
        lambda ids: pd.Series([int(v) if i % 2 else str(v) for i, v in enumerate(ids)], index=ids.index, dtype=object),
    ]
    expected = hf.rank(model, mine, skus.assign(sku_id=number.to_numpy()), as_of)
    assert expected["hit_probability"].nunique() > 5
    for form in forms:
        theirs = skus.assign(sku_id=form(pd.Series(number.to_numpy())))
        pd.testing.assert_frame_equal(hf.rank(model, mine.assign(sku_id=form(mine["sku_id"])), theirs, as_of), expected)
        pd.testing.assert_frame_equal(hf.rank(model, mine, theirs, as_of), expected)


@pytest.mark.parametrize("bad", [None, 3, [1], {}, object(), np.zeros(3), pd.DataFrame()])
def test_what_is_no_table_is_refused(bad):
    signals, skus, as_of = newest_batch()
    with pytest.raises(hf.DataError, match="signals: expected a"):
        hf.rank(fitted()[1], bad, skus, as_of)
    with pytest.raises(hf.DataError, match="skus: expected a"):
        hf.rank(fitted()[1], signals, bad, as_of)


def test_fit_and_rank_warn_of_what_was_set_aside_and_the_report_keeps_it():
    market, model = fitted()
    bad = market.signals.assign(clicks=market.signals["clicks"].mask(market.signals.index == 7, -1))
    with pytest.warns(RejectedRowsWarning, match="clicks_negative 1"):
        hf.rank(model, bad, market.skus)
    with pytest.warns(RejectedRowsWarning, match="clicks_negative 1"), pytest.raises(hf.NotEnoughHistoryError):
        hf.fit(bad, market.skus, model.settings, as_of="2025-01-20")


def test_a_refusal_is_one_line_on_stderr_and_status_1_of_the_real_program(shop, tmp_path):
    (tmp_path / "empty.csv").write_bytes(b"")
    command = [sys.executable, "-m", "hitfinder.cli", "train", "--signals", tmp_path / "empty.csv"]
    done = subprocess.run([*command, "--skus", shop / "skus.csv"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: signals: {tmp_path / 'empty.csv'}: expected a header line, got an empty file\n"
    assert [p.name for p in tmp_path.iterdir()] == ["empty.csv"]
