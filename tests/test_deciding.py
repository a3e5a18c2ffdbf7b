"""Decisions about a list: the coin is fair, thrown once in a life, logged with its chance, and written down once."""

from __future__ import annotations

import warnings

import numpy as np
import openpyxl
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest

from hitfinder import decided
from hitfinder.admission import admit
from hitfinder.decided import decide_once
from hitfinder.deciding import DRAWN, MODEL, PASSED, PERSON, STAYS, STILL, coin, decide, lists_of
from hitfinder.errors import DataError, HitfinderError
from hitfinder.livetest import open_record
from hitfinder.livetest.rounds import Round, decisions_of
from hitfinder.overrides import read_overrides
from hitfinder.settings import parse_settings
from hitfinder.tables import DECISIONS
from hitfinder.warehouse import open_warehouse

MONDAY = pd.Timestamp("2025-03-10")
WEEK = pd.Timedelta(days=7)


def settings_of(share=0.3, seed=0):
    return parse_settings({"seed": seed, "policy": {"explore_share": share}})


def list_of(actions, *, as_of=MONDAY, batch="2025-W10", version="hitfinder/1"):
    """A ranked list: one SKU for each action, named 000, 001, ..."""
    n = len(actions)
    return pd.DataFrame(
        {
            "rank": range(1, n + 1),
            "sku_id": [f"{i:03}" for i in range(n)],
            "batch_id": batch,
            "hit_probability": np.linspace(0.9, 0.001, n),
            "hit_probability_low": 0.0,
            "hit_probability_high": 1.0,
            "expected_value": np.linspace(90, 1, n),
            "action": actions,
            "reason_1": "sells",
            "reason_2": "cheap",
            "reason_3": None,
            "model_version": version,
            "as_of": as_of,
        }
    )


def told(*rows):
    return pd.DataFrame(rows, columns=["sku_id", "action", "decided_by", "reason"])


def by_sku(decisions):
    return lists_of(decisions).set_index("sku_id")


LONG = list_of(["scale"] * 3 + ["test"] * 20 + ["stop"] * 177)


def test_the_coin_is_uniform_and_heads_come_as_often_as_the_share_says():
    numbers = [coin(0, f"batch {i % 7}", f"sku {i}") for i in range(4000)]
    assert min(numbers) >= 0
    assert max(numbers) < 1
    assert kstest(numbers, "uniform").pvalue > 0.01
    # The seed, the batch and the SKU each throw another coin.
    for other in ([coin(1, f"batch {i % 7}", f"sku {i}") for i in range(4000)],
                  [coin(0, f"batch {i % 7 + 1}", f"sku {i}") for i in range(4000)]):  # fmt: skip
        assert abs(np.corrcoef(numbers, other)[0, 1]) < 0.06
    heads = sum(
        (by_sku(decide(LONG, None, settings_of(0.05, seed), decided_at=MONDAY))["because"] == DRAWN).sum()
        for seed in range(12)
    )
    assert binomtest(int(heads), 12 * 177, 0.05).pvalue > 0.01


def test_no_id_and_batch_can_be_taken_for_another():
    assert coin(0, "a", "b,c") != coin(0, "a,b", "c")
    assert coin(0, "1", "2") != coin(0, "12", "")
    assert coin(0, "上新", "货") == coin(0, "上新", "货")


def test_a_first_list_logs_each_action_with_the_chance_it_had():
    decisions = decide(LONG, None, settings_of(0.3), decided_at=MONDAY)
    assert list(decisions.columns) == list(DECISIONS.column_names)
    assert decisions["sku_id"].tolist() == LONG["sku_id"].tolist()
    assert decisions["exposures"].isna().all()
    rows = by_sku(decisions)
    assert set(rows["decided_by"]) == {"hitfinder decide"}
    assert rows["model_action"].tolist() == LONG["action"].tolist()
    assert rows["hit_probability"].tolist() == LONG["hit_probability"].tolist()  # every digit
    assert rows["expected_value"].tolist() == LONG["expected_value"].tolist()
    own = rows[rows["model_action"] != "stop"]
    assert (own["action"] == own["model_action"]).all()
    assert (own["propensity"] == 1).all()
    assert set(own["because"]) == {MODEL}
    drawn, passed = rows[rows["because"] == DRAWN], rows[rows["because"] == PASSED]
    assert len(drawn) + len(passed) == 177
    assert 20 < len(drawn) < 90
    assert (set(drawn["action"]), set(drawn["propensity"])) == ({"test"}, {0.3})
    assert (set(passed["action"]), set(passed["propensity"])) == ({"stop"}, {0.7})
    heads = {sku_id for sku_id in LONG["sku_id"][23:] if coin(0, "2025-W10", sku_id) < 0.3}
    assert set(drawn.index) == heads


def test_without_exploration_nothing_is_drawn():
    rows = by_sku(decide(LONG, None, settings_of(0), decided_at=MONDAY))
    assert rows["action"].tolist() == LONG["action"].tolist()
    assert set(rows["propensity"]) == {1.0}
    assert set(rows["because"]) == {MODEL}


@checked(max_examples=8, deadline=None)
@given(st.data())
def test_what_else_is_on_the_list_and_in_which_order_decides_nobody_else(data):
    kept = data.draw(st.lists(st.integers(0, len(LONG) - 1), unique=True, min_size=1))
    some = by_sku(decide(LONG.iloc[kept], None, settings_of(), decided_at=MONDAY))
    whole = by_sku(decide(LONG, None, settings_of(), decided_at=MONDAY)).loc[some.index]
    pd.testing.assert_frame_equal(some, whole)


@checked(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from(["scale", "test", "stop"]), min_size=1, max_size=4),
    st.floats(0, 0.95),
    st.integers(0, 2**31 - 1),
)
def test_the_product_of_a_skus_propensities_is_the_chance_of_its_whole_path(says, share, seed):
    """Whatever the lists say from week to week: heads and tails are the only two paths, and their chances add up.

    Tails ends it: what the lists say after that changes nothing, so nobody comes back beside those drawn for it.
    """
    paths = {}
    for wanted in (True, False):
        # A seed under which the coin falls as wanted.
        found = next(
            (s for s in range(seed, seed + 500) if (coin(s % 2**31, "2025-W10", "000") < share) == wanted), None
        )
        if found is None:
            continue
        earlier, path = None, []
        for week, action in enumerate(says):
            moment = MONDAY + week * WEEK
            now = decide(list_of([action], as_of=moment), earlier, settings_of(share, found % 2**31), decided_at=moment)
            earlier = now if earlier is None else pd.concat([earlier, now])
            path.append((now["action"].iloc[0], float(now["propensity"].iloc[0])))
        paths[wanted] = path
    chances = [float(np.prod([p for _, p in path])) for path in paths.values()]
    if "stop" not in says or share == 0:
        assert all(chance == 1 for chance in chances)
        return
    expected = {True: share, False: 1 - share}
    for wanted, path in paths.items():
        assert np.prod([p for _, p in path]) == pytest.approx(expected[wanted])
        assert sum(p != 1 for _, p in path) <= 1  # thrown once
        for week, action in enumerate(a for a, _ in path):
            if "stop" in says[: week + 1] and not wanted:
                assert action == "stop"
            else:
                assert action == ("test" if says[week] == "stop" else says[week])


def test_what_was_kept_on_stays_on_and_what_was_stopped_stays_stopped_whatever_the_list_says():
    first = decide(LONG, None, settings_of(), decided_at=MONDAY)
    was = by_sku(first)
    again = decide(LONG.assign(as_of=MONDAY + WEEK), first, settings_of(0.9, seed=5), decided_at=MONDAY + WEEK)
    rows = by_sku(again)
    stopped = was["model_action"] == "stop"
    assert rows["action"].tolist() == was["action"].tolist()  # another share and seed throw no coin anew
    assert set(rows["propensity"]) == {1.0}
    assert set(rows.loc[stopped & (was["action"] == "test"), "because"]) == {STILL}
    assert set(rows.loc[stopped & (was["action"] == "stop"), "because"]) == {STAYS}

    better = LONG.assign(as_of=MONDAY + WEEK, action="scale")
    rows = by_sku(decide(better, first, settings_of(), decided_at=MONDAY + WEEK))
    stays = was["action"] == "stop"
    assert 0 < stays.sum() < len(rows)
    for part, expected in ((rows[~stays], ("scale", 1.0, MODEL)), (rows[stays], ("stop", 1.0, STAYS))):
        assert set(zip(part["action"], part["propensity"], part["because"], strict=True)) == {expected}


def test_without_a_coin_too_a_stop_is_for_good():
    first = decide(LONG, None, settings_of(0), decided_at=MONDAY)
    better = LONG.assign(as_of=MONDAY + WEEK, action="test")
    rows = by_sku(decide(better, first, settings_of(0), decided_at=MONDAY + WEEK))
    assert set(rows["action"][23:]) == {"stop"}
    assert set(rows["model_action"]) == {"test"}  # the record says what the list said
    assert set(rows["action"][:23]) == {"test"}


def test_only_a_person_calls_back_whom_a_coin_passed_over_and_then_the_list_says():
    share = 0.5
    seed = next(s for s in range(99) if coin(s, "2025-W10", "199") >= share)
    first = decide(LONG, None, settings_of(share, seed), decided_at=MONDAY)
    second = decide(LONG.assign(as_of=MONDAY + WEEK), first, settings_of(share, seed), decided_at=MONDAY + WEEK,
                    overrides=told(("199", "test", "Li", None)))  # fmt: skip
    earlier = pd.concat([first, second])
    moment = MONDAY + 2 * WEEK
    for says, expected in (("scale", ["scale", 1.0, MODEL]), ("stop", ["stop", 1.0, STAYS])):
        now = LONG.assign(as_of=moment, action=LONG["action"].where(LONG["sku_id"] != "199", says))
        rows = by_sku(decide(now, earlier, settings_of(share, seed), decided_at=moment))
        assert rows.loc["199", ["action", "propensity", "because"]].tolist() == expected


@pytest.mark.parametrize(("language", "said"), [
    ("en", "Stopped before, and only a person calls it back; the list says Scale."),
    ("zh", "此前已停测，仅可由人工恢复；榜单建议：放量。"),
])  # fmt: skip
def test_the_list_says_why_a_sku_stays_stopped_against_it(tmp_path, language, said):
    path = tmp_path / "d.parquet"
    decide_once(LONG, settings_of(), decisions=path, decided_at=MONDAY)
    better = LONG.assign(as_of=MONDAY + WEEK, action="scale")
    done = decide_once(better, settings_of(), decisions=path, decided_at=MONDAY + WEEK, language=language)
    stays = done.ranked["action"] == "stop"
    assert stays.sum() > 50
    assert set(done.ranked.loc[stays, "reason_1"]) == {said}
    assert set(done.ranked.loc[~stays, "reason_1"]) == {"sells"}


def test_decisions_of_rounds_and_of_others_are_no_lists():
    table = LONG[["sku_id", "hit_probability"]].assign(exposures=5, action="stop")
    a_round = Round("2025-W10", 1, 6, 1000, 0, 0, 10, 1000, MONDAY, MONDAY, "hitfinder/1", table)
    others = pd.DataFrame({"sku_id": ["000"], "decided_at": [MONDAY], "action": ["stop"], "reason": ["lists=bad"]})
    earlier = pd.concat([decisions_of(a_round).to_pandas(), others])
    assert lists_of(earlier).empty
    fresh = decide(LONG, None, settings_of(), decided_at=MONDAY + WEEK)
    pd.testing.assert_frame_equal(decide(LONG, earlier, settings_of(), decided_at=MONDAY + WEEK), fresh)
    assert lists_of(others.drop(columns="reason")).empty


def test_a_torn_reason_is_refused_and_not_taken_for_nothing():
    rows = decide(LONG, None, settings_of(), decided_at=MONDAY)
    rows.loc[5, "reason"] = "list=2025-W10;as_of=some day"
    with pytest.raises(DataError, match="restore the file"):
        lists_of(rows)


def test_a_list_from_after_the_decision_is_refused():
    with pytest.raises(DataError, match="decided_at: expected a moment after"):
        decide(LONG, None, settings_of(), decided_at=MONDAY - pd.Timedelta(days=2))
    with pytest.raises(DataError, match="decided_at: expected a moment such as"):
        decide(LONG, None, settings_of(), decided_at="soon")
    with pytest.raises(DataError, match="each sku_id once, 1 came again, such as '000'"):
        decide(pd.concat([LONG, LONG.head(1)]), None, settings_of(), decided_at=MONDAY)
    with pytest.raises(DataError, match="missing: action, as_of"):
        decide(LONG.drop(columns=["action", "as_of"]), None, settings_of(), decided_at=MONDAY)


def test_a_decision_from_the_future_is_refused_and_hides_nothing(tmp_path):
    now = pd.Timestamp.now(tz="UTC").tz_localize(None)
    for moment in ("2250-01-01", now + pd.Timedelta(days=2), str((now + pd.Timedelta(days=2)).tz_localize("UTC"))):
        with pytest.raises(DataError, match="decided_at: expected a moment that has come, got 2") as refused:
            decide_once(LONG, settings_of(), decisions=tmp_path / "d.parquet", decided_at=moment)
        assert "\n" not in str(refused.value)
        with pytest.raises(DataError, match="decided_at: expected a moment that has come"):
            decide(LONG, None, settings_of(), decided_at=moment)
    assert not (tmp_path / "d.parquet").exists()
    # Clocks differ by some hours.
    later = now + pd.Timedelta(hours=20)
    assert decide_once(LONG, settings_of(), decisions=tmp_path / "d.parquet", decided_at=later).written == len(LONG)


def test_a_record_that_holds_the_future_can_be_read_and_not_added_to(tmp_path):
    path = tmp_path / "d.parquet"
    decide_once(LONG, settings_of(), decisions=path, decided_at=MONDAY)
    pd.read_parquet(path).assign(decided_at=pd.Timestamp("2190-01-01")).to_parquet(path, index=False)
    before = path.read_bytes()
    assert decide_once(LONG, settings_of(), decisions=path).written == 0
    with pytest.raises(DataError, match=r"a moment that has come, got 2190.* mend the record"):
        decide_once(LONG.assign(as_of=MONDAY + WEEK), settings_of(), decisions=path)
    assert path.read_bytes() == before


def test_people_have_the_last_word_and_no_propensity():
    note = "too dear; like=last year, 100% sure\nask 老王"
    people = told(("199", "scale", "Li 李", note), ("000", "stop", "Ana", None))
    rows = by_sku(decide(LONG, None, settings_of(), decided_at=MONDAY, overrides=people))
    assert rows.loc["199", ["action", "decided_by", "note", "model_action", "because"]].tolist() == [
        "scale", "Li 李", note, "stop", PERSON,
    ]  # fmt: skip
    assert rows.loc[["199", "000"], "propensity"].isna().all()
    assert rows.loc["000", ["action", "note", "model_action"]].tolist() == ["stop", "", "scale"]
    rest = by_sku(decide(LONG, None, settings_of(), decided_at=MONDAY)).drop(index=["199", "000"])
    pd.testing.assert_frame_equal(rows.drop(index=["199", "000"]), rest)


def test_after_a_persons_stop_no_coin_is_thrown_and_after_a_persons_keep_the_coin_decides():
    people = told(("199", "stop", "Li", None), ("198", "test", "Li", None))
    share = 0.5
    seed = next(s for s in range(99) if coin(s, "2025-W10", "199") < share and coin(s, "2025-W10", "198") < share)
    first = decide(LONG, None, settings_of(share, seed), decided_at=MONDAY, overrides=people)
    rows = by_sku(decide(LONG.assign(as_of=MONDAY + WEEK), first, settings_of(share, seed), decided_at=MONDAY + WEEK))
    assert rows.loc["199", ["action", "propensity", "because"]].tolist() == ["stop", 1.0, STAYS]
    assert rows.loc["198", ["action", "propensity", "because"]].tolist() == ["test", share, DRAWN]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("zzz", "stop", "Li", None), ("000", "stop", "Li", None)], r"1 are not on it: 'zzz'"),
        ([("000", "sell", "Li", None)], r"scale, test, stop, got 'sell' for '000'"),
        ([("000", "stop", None, None)], r"decided_by_missing 1"),
        ([("000", "stop", "Li", None), ("000", "scale", "Li", None)], r"each SKU once.*duplicate_key 1"),
    ],
)
def test_an_override_that_can_not_be_meant_is_refused_by_name(rows, said):
    with pytest.raises(DataError, match=said):
        decide(LONG, None, settings_of(), decided_at=MONDAY, overrides=told(*rows))


def test_overrides_come_from_csv_and_workbook_with_the_words_of_either_language(tmp_path):
    rows = [("007", "放量", "李", "好看"), ("8", "Keep testing", "Ana", None), ("9", "stop", "Ana", "=1+1")]
    expected = {
        "007": {"action": "scale", "decided_by": "李", "note": "好看"},
        "8": {"action": "test", "decided_by": "Ana", "note": ""},
        "9": {"action": "stop", "decided_by": "Ana", "note": "=1+1"},
    }
    told(*rows).to_csv(tmp_path / "o.csv", index=False, encoding="utf-8-sig")
    assert read_overrides(str(tmp_path / "o.csv"), set(expected)) == expected
    book = openpyxl.Workbook()
    book.active.append(["sku_id", "action", "decided_by", "reason"])
    for row in [("007", *rows[0][1:]), (8, *rows[1][1:]), ("9", *rows[2][1:3], "'=1+1"), (None,) * 4]:
        book.active.append(row)
    book.save(tmp_path / "o.XLSX")
    expected["9"]["note"] = "'=1+1"
    assert read_overrides(tmp_path / "o.XLSX", set(expected)) == expected


def test_a_workbook_that_is_none_is_refused_in_words(tmp_path):
    (tmp_path / "o.xlsx").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"o\.xlsx: can't be read as a workbook"):
        read_overrides(tmp_path / "o.xlsx", {"a"})
    with pytest.raises(DataError, match=r"none\.xlsx: can't be read"):
        read_overrides(tmp_path / "none.xlsx", {"a"})


def test_a_reason_too_long_for_the_record_is_refused():
    with pytest.raises(DataError, match="reason of at most"):
        decide(LONG, None, settings_of(), decided_at=MONDAY, overrides=told(("000", "stop", "Li", ";" * 9_000)))


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_the_same_list_is_decided_once(tmp_path, suffix):
    path = tmp_path / f"decisions.{suffix}"
    first = decide_once(LONG, settings_of(), decisions=path, decided_at=MONDAY)
    assert first.written == len(LONG)
    before = path.read_bytes()
    # Another day, share, seed and model: what was decided stays.
    with pytest.warns(UserWarning, match=r"decided with hitfinder/1, and stays so"):
        again = decide_once(
            LONG.assign(model_version="hitfinder/2", action="scale"), settings_of(0.9, 4), decisions=path
        )
    assert again.written == 0
    assert path.read_bytes() == before
    pd.testing.assert_frame_equal(again.decisions, first.decisions)
    assert again.ranked["action"].tolist() == first.ranked["action"].tolist()
    con = open_warehouse(threads=1)
    try:
        assert not admit(con, DECISIONS, str(path)).rejects
    finally:
        con.close()


def test_the_record_holds_what_decide_says(tmp_path):
    path = tmp_path / "d.csv"
    people = told(("199", "test", "Li", 'a, "b"\r\n;c'), ("001", "stop", "Ana", None))
    done = decide_once(LONG, settings_of(), decisions=path, decided_at=MONDAY, overrides=people)
    expected = lists_of(decide(LONG, None, settings_of(), decided_at=MONDAY, overrides=people))
    with open_record(path) as record:
        held = lists_of(record.table.to_pandas())
    pd.testing.assert_frame_equal(held, expected, check_dtype=False)
    pd.testing.assert_frame_equal(
        done.decisions.sort_values("sku_id", ignore_index=True), expected, check_dtype=False, check_like=True
    )


def test_a_crash_in_the_middle_leaves_nothing_or_all(tmp_path, monkeypatch):
    path = tmp_path / "d.parquet"
    real = decided.open_record

    def crash(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hitfinder.livetest.record.write_whole", crash)
        with pytest.raises(KeyboardInterrupt):
            decide_once(LONG, settings_of(), decisions=path, decided_at=MONDAY)
    assert not path.exists()
    whole = decide_once(LONG, settings_of(), decisions=path, decided_at=MONDAY)
    assert whole.written == len(LONG)
    assert decided.open_record is real
    with monkeypatch.context() as patch:  # after the write, before the list was handed over
        patch.setattr(decided, "_with_actions", crash)
        with pytest.raises(KeyboardInterrupt):
            decide_once(LONG.assign(as_of=MONDAY + WEEK), settings_of(), decisions=path, decided_at=MONDAY + WEEK)
    before = path.read_bytes()
    done = decide_once(LONG.assign(as_of=MONDAY + WEEK), settings_of(), decisions=path)
    assert done.written == 0
    assert path.read_bytes() == before
    assert (done.decisions["decided_at"] == MONDAY + WEEK).all()


def test_what_people_say_later_is_added_once_and_the_models_word_stays_on_record(tmp_path):
    path = tmp_path / "d.parquet"
    first = decide_once(LONG, settings_of(), decisions=path, decided_at=MONDAY)
    people = told(("199", "scale", "Li", "pretty"), ("000", "stop", "Li", None))
    later = decide_once(
        LONG, settings_of(), decisions=path, overrides=people, decided_at=MONDAY
    )  # the clock stood still
    assert later.written == 2
    rows = later.decisions.set_index("sku_id")
    assert rows.loc["199", ["action", "model_action", "because"]].tolist() == ["scale", "stop", PERSON]
    assert rows.loc["000", ["action", "model_action", "because"]].tolist() == ["stop", "scale", PERSON]
    assert (rows.loc[["199", "000"], "decided_at"] > MONDAY).all()
    assert later.ranked.set_index("sku_id").loc["199", "reason_1"] == "Li decided: Scale; the list says Stop. pretty"
    assert decide_once(LONG, settings_of(), decisions=path, overrides=people).written == 0
    changed = told(("199", "scale", "Li", "pretty"), ("000", "test", "Li", "wait"))
    assert decide_once(LONG, settings_of(), decisions=path, overrides=changed).written == 1
    assert first.written == len(LONG)


def test_a_list_that_grew_gets_decisions_for_what_is_new_only(tmp_path):
    path = tmp_path / "d.parquet"
    decide_once(LONG.head(150), settings_of(), decisions=path, decided_at=MONDAY)
    done = decide_once(LONG, settings_of(), decisions=path, decided_at=MONDAY)
    assert done.written == 50
    fresh = lists_of(decide(LONG, None, settings_of(), decided_at=MONDAY)).set_index("sku_id")
    assert done.decisions.set_index("sku_id")["action"].to_dict() == fresh["action"].to_dict()


def test_a_list_older_than_one_that_is_decided_is_refused_but_its_decisions_can_be_read(tmp_path):
    path = tmp_path / "d.parquet"
    decide_once(LONG, settings_of(), decisions=path, decided_at=MONDAY)
    decide_once(LONG.assign(as_of=MONDAY + WEEK), settings_of(), decisions=path, decided_at=MONDAY + WEEK)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"2025-W10 as of 2025-03-12 .*holds its list as of 2025-03-17"):
        decide_once(LONG.assign(as_of=MONDAY + pd.Timedelta(days=2)), settings_of(), decisions=path)
    with pytest.raises(DataError, match="already"):
        decide_once(LONG, settings_of(), decisions=path, overrides=told(("000", "stop", "Li", None)))
    assert decide_once(LONG, settings_of(), decisions=path).written == 0
    assert path.read_bytes() == before
    other = LONG.assign(sku_id="x" + LONG["sku_id"], batch_id="2025-W09")
    assert decide_once(other, settings_of(), decisions=path, decided_at=MONDAY).written == len(LONG)


def test_rows_of_rounds_stay_and_their_moments_are_never_used_twice(tmp_path):
    path = tmp_path / "d.parquet"
    table = LONG[["sku_id", "hit_probability"]].assign(exposures=5, action="test")
    a_round = Round("2025-W10", 6, 6, 1000, 0, 0, 10, 1000, MONDAY, MONDAY, "hitfinder/1", table)
    with open_record(path) as record:
        record.append(decisions_of(a_round))
    done = decide_once(LONG, settings_of(), decisions=path, decided_at=MONDAY)
    assert (done.decisions["decided_at"] == MONDAY + pd.Timedelta(microseconds=1)).all()
    with open_record(path) as record:
        assert record.table.num_rows == 2 * len(LONG)
        assert list(record.rounds("2025-W10")) == [6]


@pytest.mark.parametrize(("language", "drawn", "person"), [
    ("en", "Kept on trial to learn", "Li decided: Stop; the list says Scale."),
    ("zh", "留测学习", "Li 决定：停测；榜单建议：放量。"),
])  # fmt: skip
def test_the_list_shows_what_was_decided_and_why(tmp_path, language, drawn, person):
    people = told(("000", "stop", "Li", None))
    done = decide_once(
        LONG, settings_of(), decisions=tmp_path / "d.csv", decided_at=MONDAY, overrides=people, language=language
    )
    rows = done.ranked.set_index("sku_id")
    kept = done.decisions.set_index("sku_id")["because"] == DRAWN
    assert kept.sum() > 10
    assert set(rows.loc[kept, "action"]) == {"test"}
    assert rows.loc[kept, "reason_1"].str.startswith(drawn).all()
    assert rows.loc[kept, ["reason_2", "reason_3"]].drop_duplicates().to_numpy().tolist() == [["sells", "cheap"]]
    assert rows.loc["000", ["action", "reason_1"]].tolist() == ["stop", person]
    others = rows[~kept].drop(index="000")
    assert set(others["reason_1"]) == {"sells"}
    assert list(done.ranked.columns) == list(LONG.columns)
    said = done.say(language)
    assert f"{int(kept.sum())}" in said
    assert "\n" not in said
    assert LONG["reason_1"].eq("sells").all()  # the caller's list stays as it was


def test_a_language_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(HitfinderError, match="language"):
        decide_once(LONG, settings_of(), decisions=tmp_path / "d.csv", language="fr")
    assert not list(tmp_path.iterdir())


def test_an_empty_list_decides_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = decide_once(LONG.head(0), settings_of(), decisions=tmp_path / "d.csv", decided_at=MONDAY)
    assert done.written == 0
    assert done.say() == ""


def test_deciding_the_same_list_anew_in_memory_gives_the_same_answer():
    first = decide(LONG, None, settings_of(), decided_at=MONDAY)
    pd.testing.assert_frame_equal(decide(LONG, first, settings_of(), decided_at=MONDAY), first)


def test_a_clock_that_was_set_back_does_not_put_a_decision_before_an_earlier_one(tmp_path):
    path = tmp_path / "d.parquet"
    decide_once(LONG.head(5), settings_of(), decisions=path, decided_at=MONDAY + WEEK)
    later = decide_once(
        LONG.assign(as_of=MONDAY + pd.Timedelta(days=1), model_version="m/2"),
        settings_of(),
        decisions=path,
        decided_at=MONDAY + pd.Timedelta(days=2),
    )
    assert (later.decisions["decided_at"] > MONDAY + WEEK).all()
    with pytest.warns(UserWarning, match="decided with m/2"):
        done = decide_once(
            LONG.assign(as_of=MONDAY + pd.Timedelta(days=1), model_version="m/3"),
            settings_of(),
            decisions=path,
            overrides=told(("000", "stop", "Li", None)),
        )
    assert set(done.decisions["model_version"]) == {"m/2"}  # what people answered to is the list of that model
