"""Diagnosis: counts against slow ones, statistics against known truths, planted causes, and what is said of them."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from openpyxl import load_workbook
from scipy import stats
from small_market import fitted

import hitfinder
from hitfinder.admission import admit_signals_and_skus
from hitfinder.cli import cli
from hitfinder.diagnosis import DIAGNOSIS_COLUMNS, diagnose, examine
from hitfinder.errors import DataError, SettingsError
from hitfinder.features import set_scope
from hitfinder.funnel import Step, Waits, count_steps, find_weak, fit_peers, measured_steps, needed, power, ratios
from hitfinder.funnel.weakness import tail
from hitfinder.report.diagnosis import diagnosis_paper
from hitfinder.report.tables import write_paper
from hitfinder.settings import DiagnosisSettings, Settings, parse_settings
from hitfinder.simulate import break_steps, simulate
from hitfinder.simulate.traffic import _delay_chances
from hitfinder.warehouse import open_warehouse

SETTINGS = parse_settings({"model": {"threads": 1}})
ASKED = DiagnosisSettings()
START = pd.Timestamp("2025-01-06")
CLICK, ORDER, RETURN = (
    Step("click", "clicks", "impressions"), Step("order", "orders", "clicks"), Step("return", "refunds", "orders")
)  # fmt: skip


def opened(signals, skus, as_of, settings=SETTINGS):
    con = open_warehouse(threads=1)
    admit_signals_and_skus(con, signals, skus, period=settings.signals.period)
    set_scope(con, settings, as_of)
    return con


@cache
def looked_at():
    """A market of which every SKU sees much, a quarter with a broken step, and what was found in it."""
    market = simulate(weeks=8, skus_per_week=40, complete=True, seed=5, test_impressions=3000)
    market, broken = break_steps(market, share=0.25, seed=5)
    con = opened(market.signals, market.skus, START + pd.Timedelta(days=63))
    return market, broken, examine(con, SETTINGS)


@cache
def diagnosed():
    market, model = fitted()
    return diagnose(model, market.signals, market.skus, as_of="2025-02-24T12:00")


# --- counting ---------------------------------------------------------------------------------------------------------


def test_the_cells_are_what_a_slow_count_gives():
    """Reports that are late, revised, without a channel, or with a side that was not measured."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "sku_id": f"K{rng.integers(4)}",
            "period_start": START + pd.Timedelta(days=int(rng.integers(30))),
            "channel": [None, "feed", "ads"][rng.integers(3)],
            "creative_id": ["x", None][rng.integers(2)],
            "impressions": 1000,
            "clicks": int(rng.integers(0, 20)),
            "orders": int(rng.integers(0, 4)),
        }
        for _ in range(300)
    ]
    signals = pd.DataFrame(rows).drop_duplicates(["sku_id", "period_start", "channel", "creative_id"])
    signals["known_at"] = signals["period_start"] + pd.to_timedelta(rng.choice([1, 1, 1, 4], len(signals)), unit="D")
    signals["orders"] = signals["orders"].astype("Int64").mask(rng.random(len(signals)) < 0.2)
    revised = signals.sample(30, random_state=0)
    revised = revised.assign(known_at=revised["known_at"] + pd.Timedelta(days=2), clicks=revised["clicks"] + 1)
    signals = pd.concat([signals, revised], ignore_index=True)
    skus = pd.DataFrame({"sku_id": [f"K{i}" for i in range(4)], "category": ["a", "a", "b", None]})
    as_of = START + pd.Timedelta(days=29)
    settings = parse_settings({"diagnosis": {"history": "21d", "order_wait": "3d"}})
    con = opened(signals, skus, as_of, settings)
    assert [s.name for s in measured_steps(con)] == ["click", "order"]
    cells, waits = count_steps(con, settings, ORDER)
    assert waits.share.sum() == pytest.approx(1)

    known = signals[(signals["known_at"] <= as_of) & (signals["period_start"] < as_of)].sort_values("known_at")
    keys = ["sku_id", "period_start", "channel", "creative_id"]
    known = known.groupby(keys, dropna=False).tail(1)
    known = known[known["orders"].notna()].fillna({"channel": "", "creative_id": ""})
    newest = known.groupby("channel")["period_start"].max()
    expected = {}
    for _, row in known.iterrows():
        back = (newest[row["channel"]] - row["period_start"]).days
        key = (row["sku_id"], row["channel"], row["creative_id"])
        if back < 21:
            num, den = expected.get((*key, back // 7), (0, 0))
            expected[(*key, back // 7)] = (num + row["orders"], den)
        for days, share in enumerate(waits.share):
            due = back - days
            if 0 <= due < 21 and share > 0:
                num, den = expected.get((*key, due // 7), (0, 0))
                expected[(*key, due // 7)] = (num, den + row["clicks"] * share)
    expected = {k: v for k, v in expected.items() if v[0] > 0 or v[1] > 0}
    got = {
        (r.sku_id, r.channel, r.creative_id, r.week): (r.num, r.den) for r in cells.itertuples()
    }  # fmt: skip
    assert set(got) == set(expected)
    for key, pair in expected.items():
        assert got[key] == pytest.approx(pair, abs=1e-6)


def test_how_long_orders_and_refunds_take_is_read_off_the_signals():
    """Against the market's own waits: of orders day by day, of refunds 7 days and a gamma after them."""
    market = simulate(weeks=10, skus_per_week=40, complete=True, seed=3)
    con = opened(market.signals, market.skus, START + pd.Timedelta(days=70))
    steps = {s.name: s for s in measured_steps(con)}
    _, orders = count_steps(con, SETTINGS, steps["order"])
    true = np.cumsum(_delay_chances())
    assert np.abs(np.cumsum(orders.share)[:15] - true).max() < 0.12
    _, refunds = count_steps(con, SETTINGS, steps["return"])
    days = np.arange(46)
    # An order of the middle of a day comes back floor(gamma) days later, 7 at least and 28 at most.
    gamma = np.where(days >= 28, 1.0, stats.gamma.cdf(days - 7 + 1, 2.0, scale=3.0) * (days >= 7))
    assert np.abs(np.cumsum(refunds.share) - gamma).max() < 0.12


def test_what_has_come_due_is_what_the_waits_say():
    waits = Waits(np.array([0.5, 0.3, 0.2]))
    assert waits.due(np.array([-1, 0, 1, 2, 9])).tolist() == pytest.approx([0, 0.5, 0.8, 1, 1])


def test_orders_are_counted_on_clicks_where_many_skip_the_cart_and_steps_without_counts_are_left_out():
    signals = pd.DataFrame(
        {"sku_id": "a", "period_start": pd.date_range(START, periods=5), "clicks": 10, "carts": 1, "orders": 2}
    )
    skus = pd.DataFrame({"sku_id": ["a"]})
    con = opened(signals, skus, START + pd.Timedelta(days=9))
    assert measured_steps(con) == [Step("cart", "carts", "clicks"), Step("order", "orders", "clicks")]
    con = opened(signals.assign(carts=3), skus, START + pd.Timedelta(days=9))
    assert measured_steps(con)[-1] == Step("order", "orders", "carts")
    con = opened(signals[["sku_id", "period_start", "orders"]], skus, START + pd.Timedelta(days=9))
    assert measured_steps(con) == []
    found = examine(con, SETTINGS)
    assert found.skus["weak_step"].tolist() == ["too_little"]


# --- statistics -------------------------------------------------------------------------------------------------------


def drawn_cells(seed, n=300, rate=0.02, den=4000.0, spread=0.3, categories=4):
    rng = np.random.default_rng(seed)
    own = rng.normal(0, spread, n)
    level = rng.normal(0, 0.4, categories)
    category = rng.integers(0, categories, n)
    rows = []
    for channel, effect in (("search", 0.0), ("feed", -0.5)):
        for week in range(3):
            # Nobody is shown alike: who gets the poor channel must not look poor.
            share = den * rng.uniform(0.1, 1.9, n) / 6
            mean = share * rate * np.exp(own + level[category] + effect + 0.1 * week)
            rows.append(
                pd.DataFrame({"sku_id": [f"K{i:04d}" for i in range(n)], "category": category.astype(str),
                              "channel": channel, "week": week, "num": rng.poisson(mean), "den": share})
            )  # fmt: skip
    return pd.concat(rows, ignore_index=True), own, level[category]


def test_the_peers_and_the_spread_are_found_whatever_the_mix_of_channels():
    cells, own, _ = drawn_cells(1)
    peers = fit_peers(cells)
    assert peers.spread == pytest.approx(own.std(), rel=0.15)
    assert peers.dispersion == pytest.approx(1.0, abs=0.08)
    estimated = np.log(ratios(peers)["ratio"].to_numpy())
    assert np.corrcoef(estimated, own)[0, 1] > 0.85
    assert (estimated - own).mean() == pytest.approx(0, abs=0.06)
    held = ratios(peers)
    assert 0.84 < ((np.log(held["ratio_low"]) <= own) & (own <= np.log(held["ratio_high"]))).mean() < 0.96


def test_one_giant_is_not_the_measure_of_its_category():
    cells, _, _ = drawn_cells(2, n=60, categories=3, spread=0.1)
    giant = cells["sku_id"] == "K0000"
    big = cells.assign(
        num=cells["num"].where(~giant, cells["num"] * 200), den=cells["den"].where(~giant, cells["den"] * 50)
    )
    sisters = cells.loc[giant, "category"].iloc[0]

    def typical(given):
        skus = fit_peers(given).skus.set_index("sku_id").drop("K0000")
        return skus.loc[skus["category"] == sisters, "typical"]

    before, after = typical(cells), typical(big)
    assert (after / before).to_numpy() == pytest.approx(1, abs=0.25)  # by exposure it would be 3


def test_more_scatter_than_by_chance_is_seen_and_believed():
    cells, _, _ = drawn_cells(3)
    rng = np.random.default_rng(0)
    # Each click comes as two: variance over mean is 2.
    doubled = cells.assign(num=2 * rng.binomial(cells["num"], 0.5))
    peers = fit_peers(doubled)
    assert peers.dispersion == pytest.approx(2, abs=0.25)


def test_the_shrunk_ratio_is_the_integral_it_stands_for():
    cells, _, _ = drawn_cells(4, n=80)
    peers = fit_peers(cells)
    row = peers.skus.iloc[7]
    step = 0.02
    logs = np.arange(-4.5, 4.5, step)
    usual = stats.norm.pdf(logs, peers.centre, peers.spread)
    prior = 0.95 * usual + 0.05 * stats.norm.pdf(logs, peers.centre, np.hypot(peers.spread, 0.7))
    mean = row["mean"] * np.exp(logs)
    variance = peers.dispersion * mean + row["doubt"] * mean**2 + 1e-7 * mean
    chance = stats.nbinom.pmf(int(row["num"]), mean**2 / (variance - mean), mean / variance)
    posterior = np.cumsum(chance * prior)
    median = np.interp(0.5, posterior / posterior[-1], logs + step / 2)
    assert ratios(peers).iloc[7]["ratio"] == pytest.approx(np.exp(median - peers.centre), rel=0.02)


counts = st.integers(0, 60)
means = st.floats(0.2, 60)


@effort(deadline=None, max_examples=50)
@given(counts, means)
def test_without_other_scatter_the_test_is_poissons_exact_one(count, mean):
    low = tail(np.array([float(count)]), np.array([mean]), 1.0, np.zeros(1), upper=False)[0]
    high = tail(np.array([float(count)]), np.array([mean]), 1.0, np.zeros(1), upper=True)[0]
    assert low == pytest.approx(stats.poisson.cdf(count, mean), abs=1e-5)
    assert high == pytest.approx(stats.poisson.sf(count - 1, mean), abs=1e-5)


@effort(deadline=None, max_examples=50)
@given(counts, means, st.floats(1, 4), st.floats(0, 0.3))
def test_more_doubt_and_a_count_between_two_are_the_careful_side(count, mean, dispersion, doubt):
    """A sum of money turned into orders is no whole number: taken as the whole one nearer the middle."""
    several = tail(
        np.array([count, count + 0.5, count + 1.0]), np.full(3, mean), dispersion, np.full(3, doubt), upper=False
    )
    assert several[0] <= several[1] == several[2]
    rising = tail(
        np.array([count, count + 0.5, count + 1.0]), np.full(3, mean), dispersion, np.full(3, doubt), upper=True
    )
    assert rising[0] == rising[1] >= rising[2]


@pytest.mark.parametrize("step", [CLICK, RETURN])
def test_the_power_is_how_often_the_test_finds_a_sku_that_is_half_as_good(step):
    rng = np.random.default_rng(0)
    typical, level = 30.0, 0.01
    stated = power(step, np.array([typical]), 1.5, np.zeros(1), level, ASKED)[0]
    true = typical * (2.0 if step is RETURN else 0.5)
    size = true / 0.5
    draws = rng.negative_binomial(size, size / (size + true), 20_000).astype(float)
    edge = typical * (1.25 if step is RETURN else 0.8)
    found = tail(draws, np.full(len(draws), edge), 1.5, np.zeros(len(draws)), upper=step is RETURN) <= level
    assert found.mean() == pytest.approx(stated, abs=0.015)


def test_what_is_needed_is_enough_and_not_far_too_much():
    least = needed(CLICK, 1.2, 0.001, 0.005, ASKED)
    assert power(CLICK, np.array([least * 1.02]), 1.2, np.array([0.001]), 0.005, ASKED)[0] >= ASKED.power
    assert power(CLICK, np.array([least * 0.85]), 1.2, np.array([0.001]), 0.005, ASKED)[0] < ASKED.power
    assert needed(CLICK, 1.0, 1.0, 0.005, ASKED) == np.inf  # peers of whom so little is known settle nothing


def test_weak_steps_are_those_that_benjamini_and_hochberg_find():
    _, _, found = looked_at()
    steps = found.steps
    # Judged are those that a SKU half as good would fail one test in ten with, at the level not yet adjusted.
    judged = steps[steps["adjusted"] < 1].sort_values("p_value").reset_index(drop=True)
    n = (steps["adjusted"] < 1).sum()
    by_hand = [min(judged["p_value"].iloc[j] * n / (j + 1) for j in range(i, n)) for i in range(0, n, 25)]
    # Rows whose adjusted value is 1 for want of power are not in n; those whose value is 1 by chance are, and are none.
    assert (judged["adjusted"].iloc[::25].to_numpy() >= np.array(by_hand) - 1e-12).all()
    assert steps.loc[steps["weak"], "adjusted"].max() <= ASKED.false_share
    assert (steps.loc[steps["weak"] & (steps["step"] != "return"), "ratio"] <= 0.8).all()


@pytest.mark.parametrize("seed", [1, 2])
def test_where_all_skus_are_alike_nearly_nothing_is_called_weak(seed):
    market = simulate(weeks=6, skus_per_week=40, complete=True, seed=seed, appeal_scale=0.0)
    found = examine(opened(market.signals, market.skus, START + pd.Timedelta(days=42)), SETTINGS)
    # Prices differ all the same, and with them orders and returns.
    assert found.steps.loc[found.steps["step"].isin(["click", "cart"]), "weak"].sum() <= 1
    assert found.steps["weak"].sum() <= 4


def test_no_more_of_the_steps_called_weak_are_none_than_stated():
    """By the market's own rates; a SKU is typical where its log rate is its category's mean."""
    market, _, found = looked_at()
    truth = market.truth.merge(market.skus[["sku_id", "category"]], on="sku_id").set_index("sku_id")
    wrong = called = 0
    for step, column in (
        ("click", "click_rate"),
        ("cart", "cart_rate"),
        ("order", "close_rate"),
        ("return", "return_rate"),
    ):
        part = found.steps[found.steps["step"] == step].set_index("sku_id")
        logs = np.log(truth.loc[part.index, column])
        apart = logs - logs.groupby(truth.loc[part.index, "category"]).transform("mean")
        truly = apart > np.log(1.25) if step == "return" else apart < np.log(0.8)
        wrong, called = wrong + (part["weak"] & ~truly).sum(), called + part["weak"].sum()
    assert called > 50
    assert stats.binomtest(int(wrong), int(called), ASKED.false_share, alternative="greater").pvalue > 0.01


def test_broken_steps_are_found_where_enough_was_seen():
    _, broken, found = looked_at()
    steps = found.steps.assign(broken=found.steps["sku_id"].map(broken))
    ours = steps[steps["broken"] == steps["step"]]
    seen = ours[ours["power"] >= 0.8]
    assert len(seen) >= 15
    assert seen["weak"].mean() > 0.5  # a broken step of a strong SKU may be as good as its peers'
    assert seen["weak"].mean() > 3 * steps.loc[steps["broken"].isna(), "weak"].mean()
    first = found.skus.set_index("sku_id").loc[ours.loc[ours["weak"], "sku_id"], "weak_step"]
    assert (first == broken[first.index]).mean() > 0.6


def test_the_market_with_broken_steps_has_the_rates_that_its_truth_says():
    market = simulate(weeks=3, skus_per_week=60, complete=True, seed=8)
    other, broken = break_steps(market, share=0.8, seed=1)
    old, new = (
        m.signals.groupby("sku_id")[["impressions", "clicks", "carts", "orders", "revenue", "refunds"]].sum()
        for m in (market, other)
    )
    for step, top, below, factor in (
        ("click", "clicks", "impressions", 0.5), ("cart", "carts", "clicks", 0.5), ("order", "orders", "carts", 0.5),
        ("return", "refunds", "revenue", 2.0),
    ):  # fmt: skip
        ids = broken.index[broken == step]
        change = [t.loc[ids, top].sum() / t.loc[ids, below].sum() for t in (new, old)]
        assert change[0] / change[1] == pytest.approx(factor, rel=0.12), step
    same = old.index.difference(broken.index)
    pd.testing.assert_frame_equal(old.loc[same], new.loc[same])
    assert (other.signals["clicks"] <= other.signals["impressions"]).all()
    assert not other.signals.duplicated(["sku_id", "period_start", "channel", "creative_id"]).any()
    with pytest.raises(SettingsError, match="share: expected 0 to 1, got 2"):
        break_steps(market, share=2)


def test_what_became_known_later_and_the_order_of_rows_change_nothing():
    market, _, _ = looked_at()
    as_of = START + pd.Timedelta(days=40)
    one = examine(opened(market.signals, market.skus, as_of), SETTINGS)
    before = market.signals[market.signals["known_at"] <= as_of].sample(frac=1, random_state=1)
    other = examine(opened(before, market.skus.sample(frac=1, random_state=2), as_of), SETTINGS)
    pd.testing.assert_frame_equal(one.skus, other.skus)
    pd.testing.assert_frame_equal(one.steps, other.steps)


# --- what is said -----------------------------------------------------------------------------------------------------


def test_every_sku_comes_back_once_with_the_columns_promised():
    market, _ = fitted()
    table = diagnosed()
    assert tuple(table.columns) == DIAGNOSIS_COLUMNS
    assert sorted(table["sku_id"]) == sorted(market.skus["sku_id"])
    weak = table["weak_step"].isin(["click", "cart", "order", "return"])
    assert weak.any()
    assert table["weakness"].notna().equals(weak)
    assert (table.loc[weak, "weakness_low"] <= table.loc[weak, "weakness"]).all()
    assert (table.loc[weak, "weakness"] <= table.loc[weak, "weakness_high"]).all()
    assert (table["advice"].str.len() > 10).all()
    # Launched the day before as of: nothing can be said yet, but how much it would take.
    unseen = table[table["own_appeal"].isna()]
    assert len(unseen)
    assert (unseen["weak_step"] == "too_little").all()
    assert unseen["advice"].str.contains(r"About [\d,]+ more impressions would tell of picture or title").all()


def test_without_creatives_and_with_orders_alone_it_still_answers():
    market, model = fitted()
    keys = ["sku_id", "period_start", "channel"]
    few = market.signals.groupby(keys, as_index=False)[["orders", "revenue", "refunds"]].sum()
    table = diagnose(model, few, market.skus, as_of="2025-02-24T12:00")
    assert table["own_appeal"].isna().all()
    assert table["picture"].isna().all()
    assert set(table["weak_step"]) <= {"return", "too_little"}


def test_both_languages_hold_the_same_sentences_with_the_same_places():
    for path in ("diagnosis/words.toml", "report/diagnosis_words.toml"):
        words = tomllib.loads((Path(hitfinder.__file__).parent / path).read_text(encoding="utf-8"))
        assert set(words["en"]) == set(words["zh"])
        for key, text in words["en"].items():
            assert set(re.findall(r"{(\w+)}", text)) == set(re.findall(r"{(\w+)}", words["zh"][key])), key


def test_another_language_is_refused():
    market, model = fitted()
    with pytest.raises(SettingsError, match="language: expected en or zh, got 'de'"):
        diagnose(model, market.signals, market.skus, language="de")


def test_last_weeks_file_is_this_weeks_previous(tmp_path):
    market, model = fitted()
    table = diagnosed()
    for name in ("d.csv", "d.parquet"):
        path = write_paper(diagnosis_paper(table.assign(tier="hot")), tmp_path / name)
        steady = diagnose(model, market.signals, market.skus, as_of="2025-02-24T12:00", previous=path)
        # Who was hot and clearly is not any more follows the plain rules; who is near the edge stays.
        assert (steady["tier"] == "hot").sum() > (table["tier"] == "hot").sum()
        assert set(steady.loc[table["tier"] == "hot", "tier"]) == {"hot"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_says_everything_and_runs_nothing(language, tmp_path):
    market, _ = fitted()
    evil = diagnosed().assign(sku_id=lambda t: t["sku_id"].where(t.index != 0, "<script>alert(1)</script>"))
    page = write_paper(diagnosis_paper(evil, language=language), tmp_path / "e.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert '<td class="several"><span>&lt;script&gt;' in page
    assert "&lt;script&gt;alert(1)" in page
    assert all(sku in page for sku in diagnosed()["sku_id"][1:])
    assert not re.search(r"(src|href)=", page)
    path = write_paper(diagnosis_paper(diagnosed(), skus=market.skus, language=language), tmp_path / "d.html")
    assert market.skus["title"].iloc[0] in path.read_text(encoding="utf-8")


def test_the_workbook_holds_every_row_and_no_formula(tmp_path):
    market, _ = fitted()
    table = diagnosed().assign(advice=lambda t: t["advice"].where(t.index != 0, "=1+1"))
    paper = diagnosis_paper(table, skus=market.skus)
    path = write_paper(paper, tmp_path / "d.xlsx")
    sheet = load_workbook(path).active
    assert sheet.max_row == len(table) + 1
    headings = [cell.value for cell in sheet[1]]
    cell = sheet.cell(2, headings.index("What to change first") + 1)
    assert cell.value == "=1+1"
    assert cell.data_type == "s"
    assert write_paper(paper, tmp_path / "e.xlsx").read_bytes() == path.read_bytes()


def test_a_file_of_another_kind_and_another_table_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected a name that ends in"):
        write_paper(diagnosis_paper(diagnosed()), tmp_path / "d.doc")
    with pytest.raises(DataError, match="tier missing"):
        diagnosis_paper(diagnosed().drop(columns="tier"))


def test_the_verb_writes_what_it_says(tmp_path):
    market, model = fitted()
    model.save(tmp_path / "model")
    market.signals.to_parquet(tmp_path / "signals.parquet")
    market.skus.to_parquet(tmp_path / "skus.parquet")
    out = tmp_path / "d.csv"
    done = CliRunner().invoke(
        cli,
        [
            "diagnose",
            "--data",
            str(tmp_path),
            "--model",
            str(tmp_path / "model"),
            "--as-of",
            "2025-02-24T12:00",
            "--out",
            str(out),
        ],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    assert f"wrote {out}" in done.output
    written = pd.read_csv(out)
    assert written["weak_step"].tolist() == diagnosed()["weak_step"].tolist()
    said = diagnosed()["weak_step"].value_counts()
    assert f"{said['too_little']} seen too little to say" in done.output


def test_rank_says_it_to_people_and_to_machines_only_when_asked(tmp_path, run):
    market, model = fitted()
    model.save(tmp_path / "model")
    market.signals.to_parquet(tmp_path / "signals.parquet")
    market.skus.to_parquet(tmp_path / "skus.parquet")

    def rank(*more):
        place = ("--data", tmp_path, "--model", tmp_path / "model", "--as-of", "2025-02-24T12:00", "--batch", "newest")
        status, out, err = run("rank", *place, *more)
        assert (status, err) == (0, "")
        return out

    rank("--out", tmp_path / "a.csv", "--out", tmp_path / "a.html")
    rank("--no-diagnose", "--out", tmp_path / "b.html", "--out", tmp_path / "b.csv")
    rank("--diagnose", "--out", tmp_path / "c.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    asked = pd.read_csv(tmp_path / "c.csv")
    assert {*asked.columns} - {*pd.read_csv(tmp_path / "a.csv").columns} == {"tier", "diagnosis"}
    expected = diagnosed().set_index("sku_id").loc[asked["sku_id"]]
    assert asked["tier"].tolist() == expected["tier"].tolist()
    assert set(asked.loc[(expected["weak_step"] == "too_little").to_numpy(), "diagnosis"]) == {
        "Too little evidence to say."
    }
    pages = [(tmp_path / name).read_text(encoding="utf-8").count('<td class="mend">') for name in ("a.html", "b.html")]
    assert pages == [len(asked), 0]


def test_settings_that_can_never_be_met_are_refused():
    with pytest.raises(SettingsError, match="worth_finding below"):
        parse_settings({"diagnosis": {"tolerance": 0.6}})
    assert Settings().diagnosis.worth_finding < 1 - Settings().diagnosis.tolerance


def test_no_step_at_all_is_no_reason_to_fail():
    peers = fit_peers(drawn_cells(5, n=3)[0])
    assert len(find_weak([(CLICK, peers)], ASKED)) == 3


def test_last_week_s_tiers_are_checked_before_the_work_begins(tmp_path):
    (tmp_path / "last.csv").write_text("sku_id,tier\na,lukewarm\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"previous: expected tiers hot, .*, got 'lukewarm'"):
        diagnose(fitted()[1], "nowhere.parquet", "nowhere.parquet", previous=str(tmp_path / "last.csv"))
