"""Live tests: a round is decided once, whatever crashes or runs beside it, and the budget holds over all rounds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openpyxl
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.admission import admit
from hitfinder.decided import decide_once
from hitfinder.deciding import coin
from hitfinder.errors import DataError, HitfinderError, SettingsError
from hitfinder.livetest import open_record, plan_round, planning, record
from hitfinder.livetest.rounds import Round, decisions_of, in_order, round_of
from hitfinder.promise import StopPromise
from hitfinder.settings import parse_settings
from hitfinder.tables import DECISIONS
from hitfinder.warehouse import open_warehouse

# Signals that come late are the rule here; what is said of them has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore:earlier rounds decided", "ignore:.* stay unspent")

PROMISE = StopPromise(threshold=0.03, max_hits_lost=0.1, confidence=0.9, n_batches=24, needed=9)
MODEL = SimpleNamespace(
    promises={"plan_stop": PROMISE},
    settings=parse_settings({"model": {"threads": 1}}),
    rates=pd.DataFrame({"rate": ["clicks_per_impression"]}),
    version="stub/1",
)
LAUNCH = pd.Timestamp("2025-03-03")
SKUS = pd.DataFrame(
    {
        "sku_id": ["007", "b", "c", "d", "old"],
        "batch_id": ["B2", "B2", "B2", "B2", "B1"],
        "launched_at": [LAUNCH] * 4 + [LAUNCH - pd.Timedelta(days=7)],
    }
)


def signals_of(shown, day=0):
    """Return signals: one day's impressions of each SKU."""
    start = LAUNCH + pd.Timedelta(days=day)
    rows = [{"sku_id": sku_id, "period_start": start, "impressions": n, "clicks": 0} for sku_id, n in shown.items()]
    return pd.DataFrame(rows, columns=["sku_id", "period_start", "impressions", "clicks"])


OLD = signals_of({"old": 5_000}, day=-7)


def share_out(model, signals, skus, as_of=None, *, exposures, rounds_left, slots, exposure_cap):
    """Stand in for `hitfinder.plan`: the first SKU by id gets nothing, the others equal parts, blind to signals."""
    ids = sorted(pd.DataFrame(skus.to_pandas())["sku_id"])
    each = min(exposures // rounds_left // (len(ids) - 1), exposure_cap)
    return pd.DataFrame(
        {
            "sku_id": ids,
            "exposures": [0] + [each] * (len(ids) - 1),
            "action": ["stop"] + ["test"] * (len(ids) - 1),
            "hit_probability": np.linspace(0.1, 1 / 3, len(ids)),
        }
    )


def list_of(actions, day=1):
    """Return a list of `rank`: what it says of the SKUs of batch B2."""
    ids = list(actions)
    return pd.DataFrame(
        {"sku_id": ids, "batch_id": "B2", "hit_probability": 0.1, "expected_value": 1.0, "action": [*actions.values()],
         "reason_1": "sells", "reason_2": None, "reason_3": None, "model_version": "stub/1",
         "as_of": LAUNCH + pd.Timedelta(days=day)}
    )  # fmt: skip


def decide_list(path, actions, day=1, share=0.0, people=()):
    """Decide such a list a day later; `share` of those to stop are kept on by a coin."""
    told = pd.DataFrame(list(people), columns=["sku_id", "action", "decided_by", "reason"]) if people else None
    moment = LAUNCH + pd.Timedelta(days=day + 1)
    policy = parse_settings({"policy": {"explore_share": share}})
    return decide_once(list_of(actions, day), policy, decisions=path, decided_at=moment, overrides=told)


def stop_all(model, signals, skus, as_of=None, *, stopped=(), kept=(), **limits):
    """Stand in for `hitfinder.plan`: all are stopped that it may stop, the others get 100 each."""
    ids = sorted(skus.to_pandas()["sku_id"])
    on = [sku_id in set(kept) - set(stopped) for sku_id in ids]
    action = np.where(on, "test", "stop")
    return pd.DataFrame({"sku_id": ids, "exposures": np.where(on, 100, 0), "action": action, "hit_probability": 0.1})


def never(*args, **kwargs):
    raise AssertionError("planned anew")


@pytest.fixture
def plan(tmp_path):
    """Return `plan(number, **changes)`: a round of the test of batch B2, in `tmp_path`."""

    def call(number, **changes):
        values = {
            "signals": OLD,
            "skus": SKUS,
            "decisions": tmp_path / "decisions.parquet",
            "out": [tmp_path / "plan.csv", tmp_path / "plan.xlsx"],
            "rounds": 6,
            "budget": 6_000,
            "slots": 2,
            "planner": share_out,
        }
        return plan_round(**{"model": MODEL, "number": number, **values, **changes})

    return call


def decided(path):
    return pd.read_parquet(path)


# The record


def test_a_round_is_a_decision_for_every_sku_of_the_batch(plan, tmp_path):
    before = pd.Timestamp.now(tz="UTC").tz_localize(None).floor("us")
    plan(1)
    rows = decided(tmp_path / "decisions.parquet").set_index("sku_id")
    assert list(rows.reset_index()) == list(DECISIONS.column_names)
    assert rows["exposures"].to_dict() == {"007": 0, "b": 333, "c": 333, "d": 333}
    assert rows["action"].to_dict() == {"007": "stop", "b": "test", "c": "test", "d": "test"}
    assert set(rows["propensity"]) == {1.0}
    assert set(rows["model_version"]) == {"stub/1"}
    assert set(rows["decided_by"]) == {"hitfinder plan"}
    assert rows["reason"].str.startswith("test=B2;round=1/6;").all()
    assert before <= rows["decided_at"].min() == rows["decided_at"].max() <= before + pd.Timedelta(minutes=5)


def test_a_first_round_whose_budget_the_signals_show_spent_is_not_decided(plan, tmp_path):
    signals = pd.concat([OLD, signals_of({"b": 4_000, "c": 2_000})], ignore_index=True)
    with pytest.raises(DataError, match=r"round 1 of B2: .* the signals show 6,000 .* greater --budget, or name"):
        plan(1, signals=signals)
    assert list(tmp_path.glob("plan*")) == []
    assert not (tmp_path / "decisions.parquet").exists() or len(decided(tmp_path / "decisions.parquet")) == 0
    assert plan(1, signals=signals, budget=6_600).round.exposures > 0


def test_a_later_round_of_a_budget_that_is_used_up_is_an_honest_empty_one(plan):
    plan(1)
    signals = pd.concat([OLD, signals_of({"b": 4_000, "c": 2_000})], ignore_index=True)
    assert plan(2, signals=signals).round.exposures == 0


def test_what_is_written_passes_the_contract_s_rules(plan, tmp_path):
    plan(1)
    plan(2)
    con = open_warehouse(threads=1)
    admission = admit(con, DECISIONS, str(tmp_path / "decisions.parquet"))
    con.close()
    assert (admission.kept, admission.rejects, admission.ignored_columns) == (8, {}, ())


FOREIGN = pd.DataFrame(
    {
        "sku_id": ["b", 'x,"1"', "裙"],
        "decided_at": pd.to_datetime(["2025-01-01 10:00:00.123456", "2025-01-02", "2025-01-03"], format="ISO8601"),
        "action": ["scale", "test", "stop"],
        "exposures": pd.array([90_000, None, 0], dtype="Int64"),
        "propensity": [0.1, None, 1 / 3],
        "model_version": [None, "ours/3", None],
        "decided_by": ["the buyer", None, "店长"],
        "reason": ["test=ad campaign", "looks good; round=2/6", None],
    }
)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_rows_of_others_stay_as_they_are_and_cost_the_test_nothing(plan, tmp_path, suffix):
    path = tmp_path / f"decisions.{suffix}"
    FOREIGN.to_parquet(path, index=False) if suffix == "parquet" else FOREIGN.to_csv(path, index=False)
    done = plan(1, decisions=path)
    plan(2, decisions=path)
    assert done.round.decided == 0
    with open_record(path) as held:
        rows = held.table.to_pandas(integer_object_nulls=True)
    assert len(rows) == 3 + 8
    kept = rows[rows["decided_by"] != "hitfinder plan"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, FOREIGN, check_dtype=False)


def test_a_record_in_csv_serves_as_well_as_one_in_parquet(plan, tmp_path):
    tables = []
    for suffix in ("parquet", "csv"):
        path = tmp_path / f"decisions.{suffix}"
        out = tmp_path / suffix
        assert plan(1, decisions=path, out=[out]).decided_now
        assert plan(2, decisions=path, out=[out]).round.decided == 999
        with pytest.raises(DataError, match="was planned on"):
            plan(2, decisions=path, out=[out])
        with open_record(path) as held:
            tables.append(held.table.drop_columns(["decided_at"]).to_pandas())
    pd.testing.assert_frame_equal(*tables)
    assert (tmp_path / "decisions.csv").read_bytes().startswith(b"\xef\xbb\xbfsku_id,decided_at,action")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"action": ["scale", "keep", "stop"]}, "action_unknown 1"),
        ({"decided_at": [None, *FOREIGN["decided_at"][1:]]}, "decided_at_missing 1"),
        ({"note": ["mine", "", ""]}, "columns not used: note"),
        ({"sku_id": ["b", "b", "c"], "decided_at": [LAUNCH] * 3}, "duplicate_key 1"),
    ],
)
def test_a_record_that_can_not_be_kept_whole_is_refused_and_left_alone(plan, tmp_path, change, said):
    path = tmp_path / "decisions.parquet"
    FOREIGN.assign(**change).to_parquet(path, index=False)
    before = path.read_bytes()
    with pytest.raises(DataError, match=said):
        plan(1)
    assert path.read_bytes() == before
    assert not (tmp_path / "plan.csv").exists()


def test_a_record_that_is_none_is_refused(plan, tmp_path):
    with pytest.raises(DataError, match=r"ends in \.parquet or \.csv"):
        plan(1, decisions=tmp_path / "decisions.xlsx")
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="can't be read"):
        plan(1, decisions=tmp_path / "bad.parquet")
    with pytest.raises(HitfinderError, match="can't be written"):
        plan(1, decisions=tmp_path / "bad.parquet" / "decisions.csv")


def test_a_record_s_name_is_no_pattern(plan, tmp_path):
    plan(1, decisions=tmp_path / "d[1].csv")
    plan(1, decisions=tmp_path / "d1.csv", budget=600, out=[tmp_path])
    plan(1, decisions=tmp_path / "d[1].parquet", out=[tmp_path / "p.csv"])
    plan(1, decisions=tmp_path / "d1.parquet", budget=600, out=[tmp_path / "q.csv"])
    assert plan(2, decisions=tmp_path / "d[1].parquet").round.decided == 999
    assert plan(2, decisions=tmp_path / "d[1].csv", out=[tmp_path]).round.decided == 999


def test_a_file_s_mode_outlives_its_content(plan, tmp_path):
    plan(1)
    (tmp_path / "decisions.parquet").chmod(0o600)
    plan(2)
    assert (tmp_path / "decisions.parquet").stat().st_mode & 0o777 == 0o600


def test_rows_that_were_lost_from_a_round_or_added_to_it_are_noticed(plan, tmp_path):
    plan(1)
    path = tmp_path / "decisions.parquet"
    rows = decided(path)
    for changed in (rows.iloc[1:], pd.concat([rows, rows.iloc[:1].assign(sku_id="more")])):
        changed.to_parquet(path, index=False)
        for number in (1, 2):
            with pytest.raises(DataError, match=rf"expected 4 rows for round 1 of B2, got {len(changed)}"):
                plan(number)


def test_a_round_decided_elsewhere_counts_and_is_not_decided_again(plan, tmp_path):
    theirs = FOREIGN.iloc[:1].assign(reason="test=B2;round=1/6", exposures=1_500)
    theirs.to_parquet(tmp_path / "decisions.parquet", index=False)
    with pytest.raises(DataError, match="decided elsewhere has no files"):
        plan(1)
    done = plan(2, exposure_cap=2_000)
    assert (done.round.decided, done.round.exposures, done.round.left) == (1_500, 900, 6_000 - 1_500 - 900)


def test_a_clock_that_was_set_back_decides_no_sku_twice_at_a_moment(plan, tmp_path):
    plan(1)
    path = tmp_path / "decisions.parquet"
    ahead = pd.Timestamp("2190-01-01")
    decided(path).assign(decided_at=ahead).to_parquet(path, index=False)
    assert plan(2).round.decided_at == ahead + pd.Timedelta(microseconds=1)


names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=12) | st.sampled_from(
    ["a;round=9/9", "50%", "a=b", "%3B", "a b", "=1+1", 'say "x"', "two\nlines", "NULL", "1e5", "007", "上新3月"]
)


@settings(max_examples=25, deadline=None)
@given(
    test=names,
    ids=st.lists(names, min_size=1, max_size=5, unique=True),
    numbers=st.lists(st.integers(0, 10**10), min_size=7, max_size=7),
    probability=st.floats(0, 1),
    suffix=st.sampled_from(["parquet", "csv"]),
    promise=st.sampled_from([PROMISE, replace(PROMISE, threshold=None), replace(PROMISE, withdrawn=True), None]),
)
def test_a_round_comes_back_from_the_record_as_it_went_in(
    tmp_path_factory, test, ids, numbers, probability, suffix, promise
):  # fmt: skip
    table = pd.DataFrame(
        {
            "sku_id": ids,
            "exposures": np.arange(len(ids)) + numbers[0],
            "action": "test",
            "hit_probability": probability,
        }
    )
    there = Round(test, *numbers[:7], LAUNCH, LAUNCH + pd.Timedelta(microseconds=1), "m/1", in_order(table), promise)
    path = tmp_path_factory.mktemp("record") / f"decisions.{suffix}"
    with open_record(path) as held:
        held.append(decisions_of(there))
    with open_record(path) as held:
        [(number, rows)] = held.rounds(test).items()
        assert held.rounds(test + "x") == {}
    back = round_of(rows)
    assert number == there.number
    assert vars(back) | {"table": 0} == vars(there) | {"table": 0}
    pd.testing.assert_frame_equal(back.table, there.table, check_dtype=False)


# Refusing, finishing, doing again


def state(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_second_call_for_a_round_is_refused_and_changes_nothing(plan, tmp_path):
    plan(1)
    before = state(tmp_path)
    with pytest.raises(DataError, match=r"round 1 of 6 of B2 was planned on \d{4}-\d\d-\d\d \d\d:\d\d UTC: 999 "
                                        r"exposures for 3 of 4 SKUs.*--again") as refused:  # fmt: skip
        plan(1, planner=never)
    assert "\n" not in str(refused.value)
    assert state(tmp_path) == before


def test_asked_to_do_it_again_the_same_files_are_written_and_nothing_is_decided(plan, tmp_path):
    plan(1)
    before = state(tmp_path)
    done = plan(1, planner=never, again=True)
    assert state(tmp_path) == before
    assert not done.decided_now
    assert done.paths == [tmp_path / "plan.csv", tmp_path / "plan.xlsx"]
    assert "nothing was decided anew" in str(done)
    # Elsewhere, and of an earlier round, too.
    plan(2)
    plan(1, planner=never, again=True, out=[tmp_path / "old.csv"])
    assert (tmp_path / "old.csv").read_bytes() == before["plan.csv"]


def test_there_is_no_again_before_the_first_time(plan, tmp_path):
    with pytest.raises(DataError, match="not decided yet"):
        plan(1, again=True)
    assert not (tmp_path / "decisions.parquet").exists()


@pytest.mark.parametrize("failing", ["plan.csv", "plan.xlsx"])
def test_a_crash_between_the_decision_and_a_file_is_finished_by_the_same_call(plan, tmp_path, monkeypatch, failing):
    whole = planning.write_whole

    def crash(path, content):
        if path.name == failing:
            raise KeyboardInterrupt
        whole(path, content)

    monkeypatch.setattr(planning, "write_whole", crash)
    with pytest.raises(KeyboardInterrupt):
        plan(1)
    monkeypatch.undo()
    rows = (tmp_path / "decisions.parquet").read_bytes()
    done = plan(1, planner=never, signals=signals_of({"b": 5_999}))
    assert (tmp_path / "decisions.parquet").read_bytes() == rows
    assert not done.decided_now
    assert done.round.exposures == 999
    after_crash = state(tmp_path)
    plan(1, planner=never, again=True)
    assert state(tmp_path) == after_crash
    with pytest.raises(DataError, match="was planned on"):
        plan(1, planner=never)


def test_a_crash_before_the_record_is_whole_decides_nothing(plan, tmp_path, monkeypatch):
    plan(1)
    before = state(tmp_path)

    def no_replace(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_replace)
    with pytest.raises(HitfinderError, match=r"decisions\.parquet: can't be written \(No space left") as refused:
        plan(2)
    assert "is decided" not in str(refused.value)
    monkeypatch.undo()
    assert state(tmp_path) == before
    assert plan(2).decided_now


def test_a_file_that_can_not_be_written_is_said_to_be_of_a_decided_round(plan, tmp_path, monkeypatch):
    replace = Path.replace

    def full(self, target):
        if Path(target).suffix == ".xlsx":
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(HitfinderError, match=r"plan\.xlsx: can't be written .*; the round is decided"):
        plan(1)
    monkeypatch.undo()
    assert sorted(state(tmp_path)) == [".decisions.parquet.lock", "decisions.parquet", "plan.csv"]
    assert not plan(1, planner=never).decided_now


def test_a_file_of_another_round_or_half_a_file_is_written_again(plan, tmp_path):
    plan(1)
    first = (tmp_path / "plan.csv").read_bytes()
    plan(2)
    second = (tmp_path / "plan.csv").read_bytes()
    assert plan(1, planner=never).round.number == 1  # its name held round 2
    assert (tmp_path / "plan.csv").read_bytes() == first
    (tmp_path / "plan.csv").write_bytes(second[:20])
    plan(2, planner=never)
    assert (tmp_path / "plan.csv").read_bytes() == second


def test_a_decided_round_can_not_be_had_with_other_numbers(plan, tmp_path):
    plan(1)
    (tmp_path / "plan.csv").unlink()
    with pytest.raises(DataError, match=r"with budget 6000 \(now 9000\), slots 2 \(now 3\); a decided round stays"):
        plan(1, planner=never, budget=9_000, slots=3)
    with pytest.raises(DataError, match=r"as_of 2025-02-25 00:00:00 \(now 2025-03-04"):
        plan(1, planner=never, as_of="2025-03-04")
    assert not (tmp_path / "plan.csv").exists()
    with pytest.warns(UserWarning, match="with budget 6000 .* and stays so"):
        done = plan(1, planner=never, budget=9_000, again=True)
    assert done.round.budget == 6_000


CALL = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
import pandas as pd
from hitfinder.errors import DataError
from hitfinder.livetest import plan_round, planning
from hitfinder.settings import parse_settings

folder, name, others = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]

def planner(model, signals, skus, *args, **limits):
    (folder / f"planning-{name}").touch()
    time.sleep(0.3)
    return pd.DataFrame({"sku_id": skus["sku_id"].to_pylist(), "exposures": 100, "action": "test",
                         "hit_probability": 0.5})

def stuck(path, content):
    (folder / "decided").touch()
    time.sleep(600)

if name == "stuck":
    planning.write_whole = stuck
(folder / f"ready-{name}").touch()
while not all((folder / f"ready-{other}").exists() for other in others):
    time.sleep(0.01)
model = SimpleNamespace(settings=parse_settings({"model": {"threads": 1}}), version="stub/1", promises={},
                        rates=pd.DataFrame({"rate": ["clicks_per_impression"]}))
try:
    plan_round(model, folder / "signals.parquet", folder / "skus.parquet", decisions=folder / "decisions.parquet",
               out=[folder / "plan.csv"], number=1, rounds=6, budget=6_000, slots=2, planner=planner)
except DataError as refused:
    print(refused)
    sys.exit(1)
"""


def start(folder, name, *others):
    """Plan round 1 in a process of its own, together with others."""
    OLD.to_parquet(folder / "signals.parquet")
    SKUS.to_parquet(folder / "skus.parquet")
    command = [sys.executable, "-c", CALL, folder, name, *others]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_of_two_processes_at_once_one_decides_and_the_other_is_refused(tmp_path):
    calls = [start(tmp_path, "one", "two"), start(tmp_path, "two", "one")]
    said = [call.communicate(timeout=120)[0] for call in calls]
    assert sorted(call.returncode for call in calls) == [0, 1]
    assert "was planned on" in "".join(said)
    assert len(list(tmp_path.glob("planning-*"))) == 1
    assert len(decided(tmp_path / "decisions.parquet")) == 4


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_process_killed_after_the_decision_leaves_a_round_to_finish_and_no_lock(plan, tmp_path):
    call = start(tmp_path, "stuck")
    deadline = time.monotonic() + 120
    while not (tmp_path / "decided").exists():
        assert call.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(call.pid, signal.SIGKILL)
    call.communicate()
    assert not (tmp_path / "plan.csv").exists()
    done = plan(1, planner=never, out=[tmp_path / "plan.csv"])
    assert not done.decided_now
    assert (tmp_path / "plan.csv").exists()
    assert len(decided(tmp_path / "decisions.parquet")) == 4


def test_a_record_that_is_held_for_long_is_given_up_on(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "LOCK_SECONDS", 0.1)
    link = tmp_path / "link.parquet"
    link.symlink_to(tmp_path / "decisions.parquet")
    with open_record(tmp_path / "decisions.parquet"):
        for path in ("decisions.parquet", "link.parquet"):  # one record under two names has one lock
            with pytest.raises(HitfinderError, match="another call has been at work"):
                plan(1, decisions=tmp_path / path)
    assert plan(1, decisions=link).decided_now
    assert link.is_symlink()
    assert len(decided(tmp_path / "decisions.parquet")) == 4


# The budget and the order of rounds


def test_spent_is_what_was_decided_or_what_was_seen_whichever_is_larger(plan, tmp_path):
    plan(1)
    less = plan(2, signals=signals_of({"b": 300, "old": 9_999}))
    assert (less.round.decided, less.round.seen, less.round.spent) == (999, 300, 999)
    assert "999 of 6,000 exposures spent before, by the decisions (the signals show 300)" in str(less)
    more = plan(3, signals=signals_of({"b": 900, "007": 4_000}))
    assert (more.round.decided, more.round.seen, more.round.spent) == (1_998, 4_900, 4_900)
    assert "4,900 of 6,000 exposures spent before, by the signals (the decisions 1,998)" in str(more)
    assert more.round.exposures <= 1_100 // 4
    assert more.round.left == 6_000 - 4_900 - more.round.exposures


def test_the_last_line_says_what_the_round_costs_and_what_is_left(plan):
    assert str(plan(1)).splitlines()[-2] == "round 1 of 6: 999 exposures for 3 of 4 SKUs; 5,001 of 6,000 left"


def test_signals_without_impressions_are_counted_in_days_where_history_was(plan):
    days = SimpleNamespace(**{**vars(MODEL), "rates": pd.DataFrame({"rate": ["orders_per_day"]})})
    orders = pd.DataFrame({"sku_id": ["b"], "period_start": [LAUNCH + pd.Timedelta(days=1)], "orders": [1]})
    assert plan(1, model=days, signals=orders).round.seen == 4 * 2


@settings(max_examples=6, deadline=None)
@given(
    budget=st.integers(1, 5_000),
    cap=st.integers(1, 800),
    rounds=st.integers(1, 3),
    delivered=st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.3]), min_size=3, max_size=3),
)
def test_no_test_goes_over_its_budget_and_no_sku_over_the_cap(tmp_path_factory, budget, cap, rounds, delivered):
    folder = tmp_path_factory.mktemp("test")
    signals = OLD
    for number in range(1, rounds + 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rounds that show nothing, and of the cap
            done = plan_round(
                MODEL,
                signals,
                SKUS,
                decisions=folder / "decisions.parquet",
                out=[folder],
                number=number,
                rounds=rounds,
                budget=budget,
                slots=2,
                exposure_cap=cap,
                planner=share_out,
            )
        this = done.round
        assert this.spent + this.exposures <= max(budget, this.seen)
        assert this.left == max(budget - this.spent - this.exposures, 0)
        shown = (done.round.table.set_index("sku_id")["exposures"] * delivered[number - 1]).astype(int)
        signals = pd.concat([signals, signals_of(shown.to_dict(), day=number)], ignore_index=True)
    rows = decided(folder / "decisions.parquet")
    assert len(rows) == 4 * rounds
    assert rows["exposures"].sum() <= budget
    assert rows.groupby("sku_id")["exposures"].sum().max() <= cap


def test_what_is_not_reported_yet_counts_against_the_cap(plan):
    assert plan(1, exposure_cap=400).round.exposures == 999
    with pytest.warns(UserWarning, match="798 exposures of this round stay unspent"):
        done = plan(2, exposure_cap=400)
    assert done.round.table["exposures"].tolist() == [67, 67, 67, 0]


def test_signals_that_show_nothing_of_earlier_rounds_are_noticed(plan):
    plan(1)
    with pytest.warns(UserWarning, match="earlier rounds decided 999 exposures and the signals show none"):
        plan(2)


def test_the_planner_is_asked_for_what_is_left_over_the_rounds_left(plan):
    asked = {}

    def ask(model, signals, skus, as_of, **limits):
        asked.update(limits, as_of=as_of, skus=skus.to_pandas(), signals=signals.to_pandas())
        return share_out(model, signals, skus, as_of, **limits)

    signals = pd.concat([OLD, signals_of({"b": 1_000})])
    plan(2, allow_gap=True, signals=signals, planner=ask, exposure_cap=700)
    assert {n: asked[n] for n in ("exposures", "rounds_left", "slots", "exposure_cap")} == {
        "exposures": 5_000, "rounds_left": 5, "slots": 2, "exposure_cap": 700,
    }  # fmt: skip
    assert asked["as_of"] == LAUNCH + pd.Timedelta(days=1)
    assert asked["skus"]["sku_id"].tolist() == ["007", "b", "c", "d"]
    assert set(asked["signals"]["sku_id"]) == {"b"}


@pytest.mark.parametrize("wrong", ["too much", "less than nothing", "one missing"])
def test_a_planner_that_breaks_its_word_decides_nothing(plan, tmp_path, wrong):
    def bad(*args, **limits):
        planned = share_out(*args, **limits)
        match wrong:
            case "too much":
                planned.loc[1, "exposures"] = 7_000
            case "less than nothing":
                planned.loc[1, "exposures"] = -1
            case _:
                planned = planned.iloc[1:]
        return planned

    with pytest.raises(AssertionError, match="a plan "):
        plan(1, planner=bad)
    assert not (tmp_path / "decisions.parquet").exists()


def test_rounds_go_one_by_one(plan, tmp_path):
    with pytest.raises(DataError, match=r"round 3 of B2: .*decisions\.parquet holds no round 1, 2 of it.*--allow-gap"):
        plan(3)
    plan(1)
    plan(3, allow_gap=True)
    with pytest.raises(DataError, match="round 2 of B2: round 3 is decided already; plan round 4"):
        plan(2, allow_gap=True)
    with pytest.raises(DataError, match="holds no round 2 of it"):
        plan(4)


def test_tests_share_a_record_and_nothing_else(plan, tmp_path):
    plan(1)
    skus = SKUS.assign(batch_id=["B2", "B2", "B2", "B1", "B1"])
    done = plan(1, skus=skus, batch="B1", signals=signals_of({"b": 400}))
    assert (done.round.decided, done.round.seen, len(done.round.table)) == (0, 0, 2)
    assert len(decided(tmp_path / "decisions.parquet")) == 6
    with pytest.raises(DataError, match="expected one of B1, B2, got 'B3'"):
        plan(1, batch="B3")


def test_numbers_that_change_from_round_to_round_are_said(plan):
    plan(1)
    with pytest.warns(UserWarning, match=r"round 1 was planned with rounds 6 \(now 4\), budget 6000 \(now 7000\)"):
        plan(2, rounds=4, budget=7_000)


@pytest.mark.parametrize(
    ("number", "changes", "said"),
    [
        (0, {}, "round: expected a whole number of 1 or more, got 0"),
        (7, {}, "round: expected one from 1 to 6, got 7"),
        (1, {"budget": 0.5}, "budget"),
        (1, {"slots": True}, "slots"),
        (1, {"exposure_cap": -1}, "exposure_cap"),
        (1, {"exposure_cap": 10**400}, "exposure_cap: expected at most 100,000,000,000, got more"),
        (1, {"budget": 10**30}, "budget: expected at most 100,000,000,000"),
        (1, {"language": "fr"}, "language"),
        (1, {"out": []}, "out"),
    ],
)
def test_numbers_and_names_that_can_not_be_are_refused(plan, number, changes, said):
    with pytest.raises(SettingsError, match=re.escape(said)):
        plan(number, **changes)


def test_who_was_stopped_by_a_list_gets_nothing_until_a_person_calls_it_back(plan, tmp_path):
    path, asked = tmp_path / "decisions.parquet", []

    def ask(*args, stopped=(), kept=(), **limits):
        asked.append((list(stopped), list(kept)))
        planned = share_out(*args, **limits)
        gone = planned["sku_id"].isin(stopped)
        return planned.assign(exposures=planned["exposures"].mask(gone, 0), action=planned["action"].mask(gone, "stop"))

    decide_list(path, {"007": "stop", "b": "stop", "c": "scale", "d": "test"})
    with pytest.warns(UserWarning, match=r"2 SKUs \(such as '007'\) were stopped by a decided list .* only a person"):
        table = plan(1, planner=ask).round.table.set_index("sku_id")
    assert table["exposures"].to_dict() == {"c": 333, "d": 333, "007": 0, "b": 0}
    assert table.loc["b", "action"] == "stop"
    decide_list(path, {"b": "test", "c": "test"}, day=2)  # the list alone calls nobody back
    with pytest.warns(UserWarning, match="2 SKUs"):
        plan(2, planner=ask)
    decide_list(path, {"b": "stop", "c": "stop"}, day=3, people=[("b", "test", "Li", "a new picture")])
    with pytest.warns(UserWarning, match="2 SKUs"):
        assert plan(3, planner=ask).round.table.set_index("sku_id").loc["b", "exposures"] > 0
    assert asked == [(["007", "b"], []), (["007", "b"], []), (["007", "c"], [])]


def test_a_plan_that_buys_for_who_is_stopped_decides_nothing(plan, tmp_path):
    path = tmp_path / "decisions.parquet"
    decide_list(path, {"b": "stop"})
    with pytest.warns(UserWarning, match="1 SKUs"), pytest.raises(AssertionError, match="leaves what is stopped alone"):
        plan(1, planner=lambda *a, stopped, kept, **limits: share_out(*a, **limits))
    assert len(decided(path)) == 1


def test_whom_a_coin_keeps_on_trial_the_plan_does_not_stop(plan, tmp_path):
    path = tmp_path / "decisions.parquet"
    coins = {sku_id: coin(0, "B2", sku_id) for sku_id in ("007", "b", "c", "d")}
    drawn = min(coins, key=coins.get)
    done = decide_list(path, dict.fromkeys(coins, "stop"), share=coins[drawn] + 1e-9)
    assert done.decisions.set_index("sku_id")["action"].to_dict() == {
        k: "test" if k == drawn else "stop" for k in coins
    }
    with pytest.warns(UserWarning, match="3 SKUs"):
        table = plan(1, planner=stop_all).round.table.set_index("sku_id")
    assert table.loc[drawn, ["action", "exposures"]].tolist() == ["test", 100]
    assert table["exposures"].sum() == 100
    # A later list keeps it on of its own accord: it still stands for those that were passed over.
    decide_list(path, {drawn: "scale"}, day=2)
    with pytest.warns(UserWarning, match="3 SKUs"):
        assert plan(2, planner=stop_all).round.table["action"].tolist() == ["test", "stop", "stop", "stop"]
    # Until a person stops it.
    decide_list(path, {drawn: "stop"}, day=3, people=[(drawn, "stop", "Li", "")])
    with pytest.warns(UserWarning, match="4 SKUs"):
        assert plan(3, planner=stop_all).round.exposures == 0


@pytest.mark.parametrize("columns", [["launched_at"], []], ids=["launches given", "launches from signals"])
def test_the_newest_batch_is_the_one_launched_last_whatever_its_name(plan, columns):
    skus = SKUS.assign(batch_id=SKUS["batch_id"].map({"B1": "drop-9", "B2": "drop-10"}))
    never_seen = pd.DataFrame({"sku_id": ["dead"], "batch_id": ["drop-3"]})  # launched now, for all that is known
    skus = pd.concat([skus[["sku_id", "batch_id", *columns]], never_seen], ignore_index=True)
    signals = pd.concat([OLD, signals_of({"b": 10, "c": 10})], ignore_index=True)
    assert plan(1, skus=skus, signals=signals).round.test == "drop-10"


# The files


ODD = pd.DataFrame(
    {
        "sku_id": ["007", "=1+1", "@x", "12345678901234567890", "裙子", "-5"],
        "exposures": [0, 10, 30, 30, 1_200, 0],
        "action": ["stop", "test", "test", "test", "scale", "test"],
        "hit_probability": [0.01, 0.25, 0.2, 0.3, 1 / 3, 0.02],
    }
)


@pytest.fixture
def odd(plan, tmp_path):
    """Return `odd(**changes)`: plan a round for ids that spreadsheets like to spoil."""
    skus = pd.DataFrame({"sku_id": ODD["sku_id"], "batch_id": "=B;1", "launched_at": LAUNCH})

    def call(**changes):
        with pytest.warns(UserWarning, match="3 ids begin with a sign"):
            return plan(1, skus=skus, planner=lambda *a, **k: ODD, exposure_cap=5_000, **changes)

    return call


def test_the_csv_lists_who_gets_most_first_and_no_cell_is_a_formula(odd, tmp_path):
    odd()
    raw = (tmp_path / "plan.csv").read_bytes()
    assert raw.decode("utf-8") == (
        "\ufeffsku_id,exposures,action,hit_probability\r\n"
        "裙子,1200,scale,0.333333\r\n"
        "12345678901234567890,30,test,0.300000\r\n"
        "'@x,30,test,0.200000\r\n"
        "'=1+1,10,test,0.250000\r\n"
        "'-5,0,test,0.020000\r\n"
        "007,0,stop,0.010000\r\n"
    )


@pytest.mark.parametrize(
    ("language", "sheets", "head", "actions"),
    [
        ("en", ["Plan", "About"], ["SKU", "Exposures", "Action", "Hit probability"], ["Scale", "Keep testing", "Stop"]),
        ("zh", ["投放计划", "说明"], ["SKU 编号", "本轮曝光", "建议动作", "爆款概率"], ["放量", "继续测款", "停测"]),
    ],
)
def test_the_workbook_holds_texts_as_texts_and_numbers_as_numbers(odd, tmp_path, language, sheets, head, actions):
    odd(language=language)
    book = openpyxl.load_workbook(tmp_path / "plan.xlsx")
    assert book.sheetnames == sheets
    sheet = book.worksheets[0]
    rows = [[cell.value for cell in row] for row in sheet.iter_rows()]
    assert rows[0] == head
    scale, test, stop = actions
    assert rows[1:] == [
        ["裙子", 1_200, scale, 1 / 3],
        ["12345678901234567890", 30, test, 0.3],
        ["@x", 30, test, 0.2],
        ["=1+1", 10, test, 0.25],
        ["-5", 0, test, 0.02],
        ["007", 0, stop, 0.01],
    ]
    assert {row[0].data_type for row in sheet.iter_rows(min_row=2)} == {"s"}
    assert {row[1].data_type for row in sheet.iter_rows(min_row=2)} == {"n"}
    assert sheet.freeze_panes == "B2"
    assert sheet.column_dimensions["A"].width > 20
    with zipfile.ZipFile(tmp_path / "plan.xlsx") as parts:
        assert b"<f>" not in parts.read("xl/worksheets/sheet1.xml")


def test_the_second_sheet_says_what_the_round_was_planned_with(plan, tmp_path):
    plan(1)
    done = plan(2, signals=signals_of({"b": 500}))
    sheet = openpyxl.load_workbook(tmp_path / "plan.xlsx")["About"]
    facts = {row[0].value: row[1].value for row in sheet.iter_rows()}
    decided_at = facts.pop("Decided (UTC)")
    assert abs(decided_at - done.round.decided_at) < pd.Timedelta(seconds=1)
    assert facts == {
        "Test (batch)": "B2",
        "Round": 2,
        "Rounds": 6,
        "Budget of the test, exposures": 6_000,
        "Spent before": 999,
        "… by the decisions": 999,
        "… by the signals": 500,
        "This round": done.round.exposures,
        "Left for later rounds": done.round.left,
        "SKUs that can be scaled": 2,
        "Most exposures of a SKU": 1_000,
        "Model": "stub/1",
        "As of (UTC)": (LAUNCH + pd.Timedelta(days=1)).to_pydatetime(),
        "Promise about stopping": PROMISE.sentence(),
    }


NO_PROMISE = StopPromise(threshold=None, max_hits_lost=0.1, confidence=0.9, n_batches=6, needed=9)
SAID = {
    "en": ["About", "Promise about stopping", ": ", "The record of this round does not say what was promised."],
    "zh": ["说明", "停测承诺", "：", "本轮记录中没有承诺信息。"],
}


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("promise", [PROMISE, NO_PROMISE, None], ids=["promised", "too few batches", "not known"])
def test_a_round_says_what_was_promised_about_stopping_or_that_nothing_was(plan, tmp_path, language, promise):
    model = SimpleNamespace(**{**vars(MODEL), "promises": {} if promise is None else {"plan_stop": promise}})
    done = plan(1, model=model, language=language)
    sheet, name, colon, unknown = SAID[language]
    sentence = unknown if promise is None else promise.sentence(language)
    facts = {row[0].value: row[1].value for row in openpyxl.load_workbook(tmp_path / "plan.xlsx")[sheet].iter_rows()}
    assert facts[name] == sentence
    assert done.say(language).splitlines()[-1] == f"{name}{colon}{sentence}"
    assert done.say() == str(done)
    with pytest.raises(SettingsError, match="en or zh, got 'fr'"):
        done.say("fr")


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "That was learned from tests of 6 rounds at 5 to 40 % of a full test's cost; this test has 3."),
        ("zh", "该承诺由共 6 轮、花费为完整测试 5%～40% 的测试得出；本次测试共 3 轮。"),
    ],
)
def test_a_test_of_other_rounds_says_what_its_promise_was_learned_from(plan, tmp_path, language, said):
    done = plan(1, rounds=3, language=language)
    last = done.say(language).splitlines()[-1]
    assert last.endswith(said)
    assert PROMISE.sentence(language) in last
    book = openpyxl.load_workbook(tmp_path / "plan.xlsx").worksheets[1]
    assert any(str(row[1].value).endswith(said) for row in book.iter_rows())
    assert said not in plan(1, decisions=tmp_path / "other.csv", out=[tmp_path / "o.csv"]).say(language)
    # Where nothing is promised, there is nothing to say of it.
    nothing = SimpleNamespace(**{**vars(MODEL), "promises": {"plan_stop": NO_PROMISE}})
    here = {"decisions": tmp_path / "third.csv", "out": [tmp_path / "t.csv"]}
    assert said not in plan(1, model=nothing, rounds=3, **here).say(language)


def test_what_was_promised_stays_as_it_was_when_the_round_was_decided(plan, tmp_path):
    plan(1)
    whole = (tmp_path / "plan.xlsx").read_bytes()
    later = SimpleNamespace(**{**vars(MODEL), "promises": {"plan_stop": NO_PROMISE}})
    done = plan(1, model=later, again=True)
    assert done.round.promise == PROMISE
    assert (tmp_path / "plan.xlsx").read_bytes() == whole


def test_a_folder_gets_both_kinds_under_names_that_a_disk_can_hold(odd, tmp_path):
    done = odd(out=[tmp_path / "plans", tmp_path / "also.csv", tmp_path / "plans"])
    names = ["plan-=B;1-round-1.csv", "plan-=B;1-round-1.xlsx"]
    assert done.paths == [
        tmp_path / "decisions.parquet", *(tmp_path / "plans" / n for n in names), tmp_path / "also.csv",
    ]  # fmt: skip
    assert sorted(state(tmp_path / "plans")) == names


def test_places_that_can_not_be_written_are_refused_before_anything_is_decided(plan, tmp_path):
    (tmp_path / "file").write_text("x")
    for out, said in [
        ("plan.txt", r"ends in \.csv or \.xlsx"),
        ("file/plan.csv", "can't be written"),
        ("file", "can't be written"),
        ("record.csv", "expected another file than the decisions"),
    ]:
        with pytest.raises(HitfinderError, match=said):
            plan(1, out=[tmp_path / out], decisions=tmp_path / "record.csv")
    assert sorted(state(tmp_path)) == ["file"]


def test_a_plan_never_overwrites_the_tables_that_it_reads(plan, tmp_path):
    OLD.to_csv(tmp_path / "signals-1.csv", index=False)
    SKUS.to_csv(tmp_path / "skus.csv", index=False)
    (tmp_path / "link.csv").symlink_to(tmp_path / "signals-1.csv")
    before = state(tmp_path)
    here = {"signals": str(tmp_path / "signals-*.csv"), "skus": tmp_path / "skus.csv"}
    for name in ("signals-1.csv", "skus.csv", "link.csv"):
        with pytest.raises(DataError, match=f"{name}: expected another file than the signals and SKUs"):
            plan(1, out=[tmp_path / "plan.csv", tmp_path / name], **here)
    assert state(tmp_path) == before
    assert plan(1, **here).decided_now
