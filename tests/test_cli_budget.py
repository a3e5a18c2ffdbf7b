"""`hitfinder budget`: what it writes in each form and language, and what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace

import openpyxl
import pandas as pd
import pytest

from hitfinder.budget import PLAN_COLUMNS, split_budget
from hitfinder.report.budget import budget_paper
from hitfinder.report.drawings import draw_bars, draw_curve
from hitfinder.report.words import load_words
from hitfinder.settings import load_settings
from hitfinder.simulate import simulate, write_market

AS_OF = "2025-02-17"
TUNED = "[model]\nthreads = 1\n[costs]\nplatform_fee = 0.05\n[budget]\ndraws = 300\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with a market's tables and settings; one title would be run as a formula."""
    folder = tmp_path_factory.mktemp("a shop 小店")
    made = simulate(weeks=7, skus_per_week=15, hits_per_week=2, complete=True, seed=6)
    skus = made.skus[made.skus["launched_at"] <= AS_OF].reset_index(drop=True)
    # Refunds are not what is looked at here; without any, nothing is waited for.
    signals = made.signals[made.signals["known_at"] <= AS_OF].assign(refunds=0.0)
    write_market(replace(made, signals=signals, skus=skus.assign(title="=1+1 <b>裙</b>")), folder)
    with (folder / "hitfinder.toml").open("a", encoding="utf-8") as settings:
        settings.write(TUNED)
    return folder


@pytest.fixture
def ask(run, shop):
    def call(*more, total=3000):
        return run("budget", "--data", shop, "--as-of", AS_OF, "--total", total, *more)

    return call


def test_every_form_holds_the_plan_and_each_is_named(ask, tmp_path):
    outs = [tmp_path / "new" / f"plan.{suffix}" for suffix in ("csv", "xlsx", "html", "parquet")]
    status, said, err = ask("--target-roi", 2, *(part for out in outs for part in ("--out", out)))
    assert (status, err) == (0, "")
    assert said.splitlines()[-4:] == [f"wrote {out}" for out in outs]
    assert "The target of 2 is met on average" in said
    assert "Unknown costs, left out of every profit here: " in said
    plan = pd.read_parquet(outs[3])
    assert tuple(plan.columns) == PLAN_COLUMNS
    assert 0 < plan["spend"].sum() <= 3000
    written = pd.read_csv(outs[0], encoding="utf-8-sig", dtype={"sku_id": str})
    assert written["sku_id"].tolist() == plan["sku_id"].tolist()
    assert written["spend"].tolist() == pytest.approx(plan["spend"].tolist(), abs=0.005)
    assert written["title"].str.startswith("'=1+1").all()
    book = openpyxl.load_workbook(outs[1])
    assert book.sheetnames == ["Plan", "Other totals", "Notes"]
    assert [row[0].value for row in book["Plan"].iter_rows(min_row=2)] == plan["sku_id"].tolist()
    page = outs[2].read_text(encoding="utf-8")
    assert all(f"<td>{sku}</td>" in page for sku in plan["sku_id"])
    assert page.count("<svg") == 2
    assert not re.search(r'(?:src|href)\s*=\s*"', page)


def test_the_page_speaks_chinese_too(ask, tmp_path):
    status, said, _ = ask("--target-roi", 2, "--cautious", 0.6, "--language", "zh", "--out", tmp_path / "plan.html")
    assert status == 0
    assert "达到目标 2 的概率为" in said
    page = (tmp_path / "plan.html").read_text(encoding="utf-8")
    assert '<html lang="zh-CN">' in page
    assert "下周预算" in page
    assert "Where the money goes" not in page


def test_the_same_call_writes_the_same_bytes(ask, tmp_path):
    for name in ("one", "two"):
        assert ask("--out", tmp_path / f"{name}.html", "--out", tmp_path / f"{name}.csv")[0] == 0
    for suffix in ("html", "csv"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


def test_limits_are_read_from_a_file(ask, tmp_path):
    ask("--out", tmp_path / "free.parquet")
    row = pd.read_parquet(tmp_path / "free.parquet").iloc[0]
    limits = tmp_path / "limits.csv"
    limits.write_text(f"sku_id,channel,cap,floor\n{row['sku_id']},{row['channel']},1.5,\n", encoding="utf-8")
    status, _, _ = ask("--limits", limits, "--out", tmp_path / "held.parquet")
    assert status == 0
    held = pd.read_parquet(tmp_path / "held.parquet").set_index(["sku_id", "channel"])
    assert held.loc[(row["sku_id"], row["channel"]), "spend"] <= 1.5


@pytest.mark.parametrize(
    ("more", "total", "said"),
    [
        (("--target-roi", 400), 3000, "target_roi 400 clashes with what has to be spent"),
        ((), 10, "total 10.00 clashes with what has to be spent"),
        (("--cautious", 0.9), 3000, "cautious: there is no target"),
        (("--out", "plan.doc"), 3000, "expected a name that ends in"),
    ],
)
def test_what_cant_be_had_is_refused_in_one_line(ask, more, total, said):
    status, out, err = ask(*more, total=total)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_signals_without_spend_are_refused_in_one_line(run, shop, tmp_path):
    pd.read_parquet(shop / "signals.parquet").drop(columns="spend").to_parquet(tmp_path / "s.parquet")
    status, _, err = run("budget", "--signals", tmp_path / "s.parquet", "--skus", shop / "skus.parquet", "--total", 100)
    assert status == 1
    assert re.fullmatch(r"error: signals\.spend: expected what was paid for ads.*give a column spend.*\n", err)


@pytest.mark.parametrize("more", [("--total", 0), ("--total", "much"), ("--total", 5, "--cautious", 1.5)])
def test_a_wrong_call_is_wrong_usage(run, shop, more):
    assert run("budget", "--data", shop, *more)[0] == 2


def test_both_languages_say_the_same_things_with_the_same_figures():
    english, chinese = (load_words(language, "budget_words.toml") for language in ("en", "zh"))
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert sorted(re.findall(r"{(\w+)}", text)) == sorted(re.findall(r"{(\w+)}", chinese[key])), key


def test_what_was_first_spent_last_week_is_drawn_once_and_without_a_file_the_call_says_how_to_write_it(ask, shop):
    status, said, _ = ask("--target-roi", 2)
    assert status == 0
    assert (
        said.splitlines()[-1] == "The plan with every line is not written; add --out budget.html or --out budget.csv."
    )
    assert "100%" not in said
    done = split_budget(
        str(shop / "signals.parquet"), str(shop / "skus.parquet"), load_settings(shop / "hitfinder.toml"), total=3000,
        as_of=AS_OF,
    )  # fmt: skip
    assert done.told["explore_last_week"]["spend"] > 0
    picture = budget_paper(done).pictures[0].drawing
    grey = [float(width) for width in re.findall(r'width="([\d.]+)" height="10"', picture)]
    blue = [float(width) for width in re.findall(r'width="([\d.]+)" height="16"', picture)]
    # Channels in order, then what is not tested yet, on which nothing was spent.
    n = done.plan.loc[done.plan["kind"] == "line", "channel"].nunique()
    assert grey[n] == 0
    lines = done.plan[done.plan["kind"] == "line"]
    assert sum(grey) / sum(blue[:n]) == pytest.approx(done.told["last_spend"] / lines["spend"].sum(), rel=0.01)
    assert "Best by return: " in " ".join(budget_paper(done).says)
    assert "投产比最高的：" in " ".join(budget_paper(done, "zh").says)


def test_channels_that_were_learned_together_are_told_together_and_a_chance_is_never_certain(ask, shop):
    done = split_budget(
        str(shop / "signals.parquet"), str(shop / "skus.parquet"), load_settings(shop / "hitfinder.toml"), total=3000,
        target_roi=0.5, as_of=AS_OF,
    )  # fmt: skip
    paper = budget_paper(replace(done, channels=done.channels.assign(half_at=2.0, curve="pooled"),
                                 told={**done.told, "chance": 1.0}))  # fmt: skip
    [curve] = [text for text in paper.says if text.startswith("Returns diminish on ")]
    assert all(channel in curve for channel in done.channels["channel"])
    assert any("a chance of over 99.9%" in text for text in paper.says)


def test_a_curve_of_one_total_is_no_picture():
    one = pd.DataFrame({"total": [1.0], "profit": [2.0]})
    assert draw_curve(one, (1.0, 2.0), "t", "x", "y") == ""


def test_bars_are_as_long_as_their_amounts_and_names_are_text():
    drawn = draw_bars([("<b>", 50, "#000"), ("other", 100, "#000")], "what & why", [100, 25])
    long = [float(width) for width in re.findall(r'width="([\d.]+)" height="1[06]"', drawn)]
    assert long == pytest.approx([long[3], long[3] / 2, long[3] / 4, long[3]], abs=0.1)
    assert "&lt;b&gt;" in drawn
    assert 'aria-label="what &amp; why"' in drawn
