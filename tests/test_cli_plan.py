"""`hitfinder plan` with a real model: what it writes and says, what it refuses, and with which exit status."""

from __future__ import annotations

import re

import openpyxl
import pandas as pd
import pytest
from small_market import fitted

from hitfinder.testplan import plan as plan_directly


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with signals.parquet, skus.parquet and a saved model; the newest batch; its launch."""
    folder = tmp_path_factory.mktemp("shop")
    market, model = fitted()
    newest = market.skus["batch_id"].max()
    launch = market.skus.loc[market.skus["batch_id"] == newest, "launched_at"].max()
    market.signals.to_parquet(folder / "signals.parquet")
    market.skus.to_parquet(folder / "skus.parquet")
    model.save(folder / "model")
    return folder, newest, launch


@pytest.fixture
def plan(run, shop, tmp_path):
    """Return `plan(number, *more, **changes)`: the verb, on the day that the round falls on."""
    folder, _, launch = shop

    def call(number, *more, **changes):
        values = {
            "data": folder,
            "model": folder / "model",
            "as-of": launch + pd.Timedelta(days=number - 1),
            "round": number,
            "rounds": 6,
            "budget": 60_000,
            "decisions": tmp_path / "decisions.parquet",
            "out": tmp_path / "plan.csv",
            **changes,
        }
        return run("plan", *(part for name, value in values.items() for part in (f"--{name}", value)), *more)

    return call


def assert_refused(done, said):
    status, out, err = done
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(said, err)


def test_a_round_is_what_the_planner_says_and_every_path_is_told(plan, shop, tmp_path):
    _, newest, launch = shop
    status, out, err = plan(1, "--out", tmp_path / "plan.xlsx")
    assert (status, err) == (0, "")
    market, model = fitted()
    mine = market.skus[market.skus["batch_id"] == newest]
    expected = plan_directly(model, market.signals, mine, launch, exposures=60_000, rounds_left=6).set_index("sku_id")
    csv = pd.read_csv(tmp_path / "plan.csv", index_col="sku_id")
    assert list(csv) == ["exposures", "action", "hit_probability"]
    pd.testing.assert_frame_equal(csv.loc[expected.index], expected, check_dtype=False, atol=1e-6)
    assert csv["exposures"].is_monotonic_decreasing
    spent, some = csv["exposures"].sum(), (csv["exposures"] > 0).sum()
    assert 0 < spent <= 10_000
    assert out.splitlines() == [
        f"test {newest}: 0 of 60,000 exposures spent before, by the decisions (the signals show 0)",
        f"round 1 of 6: {spent:,} exposures for {some} of {len(mine)} SKUs; {60_000 - spent:,} of 60,000 left",
        f"Promise about stopping: {model.promises['plan_stop'].sentence()}",
        f"wrote {tmp_path / 'decisions.parquet'}",
        f"wrote {tmp_path / 'plan.csv'}",
        f"wrote {tmp_path / 'plan.xlsx'}",
    ]
    rows = pd.read_parquet(tmp_path / "decisions.parquet").set_index("sku_id")
    assert rows["exposures"].to_dict() == expected["exposures"].to_dict()
    assert set(rows["model_version"]) == {model.version}


def test_the_same_call_again_is_refused_and_with_again_writes_the_same(plan, tmp_path):
    assert plan(1)[0] == 0
    rows, csv = ((tmp_path / name).read_bytes() for name in ("decisions.parquet", "plan.csv"))
    assert_refused(plan(1), r"was planned on .*--again")
    status, out, err = plan(1, "--again")
    assert (status, err) == (0, "")
    assert out.splitlines()[1].startswith("the round was decided before, on ")
    assert out.splitlines()[-1] == f"wrote {tmp_path / 'plan.csv'}"
    assert (tmp_path / "decisions.parquet").read_bytes() == rows
    assert (tmp_path / "plan.csv").read_bytes() == csv


def test_a_crash_before_the_files_is_finished_by_the_same_call(plan, tmp_path):
    assert plan(1)[0] == 0
    rows, csv = ((tmp_path / name).read_bytes() for name in ("decisions.parquet", "plan.csv"))
    (tmp_path / "plan.csv").unlink()
    status, out, err = plan(1)
    assert (status, err) == (0, "")
    assert "nothing was decided anew" in out
    assert (tmp_path / "decisions.parquet").read_bytes() == rows
    assert (tmp_path / "plan.csv").read_bytes() == csv


def test_a_whole_test_stays_within_its_budget_and_its_cap(plan, shop, tmp_path):
    market, _ = fitted()
    _, newest, launch = shop
    budget, cap = 4_000, 200
    mine = market.skus[market.skus["batch_id"] == newest]
    every = market.signals[~market.signals["sku_id"].isin(mine["sku_id"])]
    rate = mine["sku_id"].map(lambda sku_id: 0.02 + int(sku_id[-1]) / 100)
    signals = tmp_path / "signals.parquet"
    for number in range(1, 4):
        every.to_parquet(signals)
        status, out, err = plan(number, "--signals", signals, rounds=3, budget=budget, cap=cap)
        assert (status, err) == (0, "")
        shown = mine["sku_id"].map(pd.read_csv(tmp_path / "plan.csv", index_col="sku_id")["exposures"])
        start = launch + pd.Timedelta(days=number - 1)
        fresh = {
            "sku_id": mine["sku_id"],
            "period_start": start,
            "impressions": shown,
            "clicks": (shown * rate).round(),
        }
        every = pd.concat([every, pd.DataFrame(fresh)], ignore_index=True)
    rows = pd.read_parquet(tmp_path / "decisions.parquet")
    left = budget - rows["exposures"].sum()
    assert len(rows) == 3 * len(mine)
    assert 0 <= left < budget / 4
    assert rows.groupby("sku_id")["exposures"].sum().max() <= cap
    assert f"; {left:,} of {budget:,} left" in out
    assert f"{budget - left - shown.sum():,} of {budget:,} exposures spent before, by the decisions" in out


def test_the_next_week_s_batch_is_no_later_round_of_this_week_s(plan, shop):
    _, newest, _ = shop
    assert_refused(plan(3), rf"round 3 of {newest}: .* holds no round 1, 2 of it; check --batch, --round")
    assert plan(3, "--allow-gap")[0] == 0


def test_a_batch_can_be_named_and_one_that_is_none_is_refused(plan, shop):
    _, newest, _ = shop
    assert plan(1, batch=newest)[0] == 0
    assert_refused(plan(1, batch="2031-W01"), "batch: expected one of .*, got '2031-W01'")


def test_a_folder_gets_csv_and_workbook_in_chinese_where_asked(plan, shop, tmp_path):
    _, newest, _ = shop
    status, out, _ = plan(1, out=tmp_path / "plans", language="zh")
    name = tmp_path / "plans" / f"plan-{newest}-round-1"
    promise = fitted()[1].promises["plan_stop"].sentence("zh")
    assert status == 0
    assert f"停测承诺：{promise}" in out.splitlines()
    assert out.splitlines()[-2:] == [f"wrote {name}.csv", f"wrote {name}.xlsx"]
    book = openpyxl.load_workbook(f"{name}.xlsx")
    assert ("停测承诺", promise) in [(row[0].value, row[1].value) for row in book["说明"].iter_rows()]
    sheet = book["投放计划"]
    assert [cell.value for cell in sheet[1]] == ["SKU 编号", "本轮曝光", "建议动作", "爆款概率"]
    assert isinstance(sheet["B2"].value, int)


@pytest.mark.parametrize(
    "more",
    [
        {"round": 7},
        {"round": 0},
        {"budget": 0},
        {"budget": "much"},
        {"slots": 0},
        {"cap": -1},
        {"as-of": "soon"},
        {"language": "fr"},
    ],
)
def test_wrong_usage_leaves_with_2(plan, tmp_path, more):
    status, out, err = plan(1, **more)
    assert (status, out) == (2, "")
    assert err.count("Error:") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left_out", ["--round", "--rounds", "--budget", "--decisions", "--out"])
def test_what_money_depends_on_has_no_default(run, left_out):
    values = {"--round": 1, "--rounds": 6, "--budget": 100, "--decisions": "d.parquet", "--out": "p.csv"}
    status, _, err = run("plan", "--data", "x", *(part for n, v in values.items() if n != left_out for part in (n, v)))
    assert status == 2
    assert f"'{left_out}'" in err


def test_what_can_not_be_written_is_refused_in_one_line(plan, tmp_path):
    assert_refused(plan(1, out=tmp_path / "plan.html"), r"ends in \.csv or \.xlsx, or a folder")
    assert_refused(plan(1, decisions=tmp_path / "d.json"), r"ends in \.parquet or \.csv")
    assert_refused(plan(1, model=tmp_path / "nowhere"), "no whole model there")
    assert list(tmp_path.iterdir()) == []
