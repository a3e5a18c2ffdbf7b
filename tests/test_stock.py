"""What to order again: counts against slow loops, the regression against a known truth, the list and its files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scipy import integrate, stats
from small_market import fitted, newest_batch

from hitfinder.errors import DataError, ModelError, SettingsError
from hitfinder.models.demand import Demand, Outlook, fit_demand
from hitfinder.models.hit_model import open_model
from hitfinder.report.stock import stock_paper
from hitfinder.settings import StockSettings, parse_settings
from hitfinder.sold import sold_in_windows
from hitfinder.stock import ALERTS, STOCK_COLUMNS, of_batch, stock

DAY = pd.Timedelta(days=1)
pytestmark = pytest.mark.filterwarnings("ignore:skus.stock")


@pytest.fixture(scope="module")
def shelves():
    """Return (model, signals, skus with stock, as_of): the newest batch in mid-test, and what the batch before sold."""
    market, model = fitted()
    rng = np.random.default_rng(3)
    batches = sorted(market.skus["batch_id"].unique())[-3:]
    skus = market.skus[market.skus["batch_id"].isin(batches)].reset_index(drop=True)
    skus = skus.assign(stock=pd.array(rng.integers(5, 200, len(skus)), dtype="Int64"))
    skus.loc[0, "stock"] = pd.NA
    signals = market.signals[market.signals["sku_id"].isin(skus["sku_id"])].reset_index(drop=True)
    return model, signals, skus, skus["launched_at"].max() + 4 * DAY


@pytest.fixture(scope="module")
def listed(shelves):
    return stock(*shelves)


def test_every_sku_comes_back_once_the_most_urgent_first(shelves, listed):
    _, _, skus, as_of = shelves
    assert tuple(listed.columns) == STOCK_COLUMNS
    assert sorted(listed["sku_id"]) == sorted(skus["sku_id"])
    urgency = listed["alert"].map({name: place for place, name in enumerate(ALERTS)})
    assert urgency.is_monotonic_increasing
    assert listed.groupby("alert")["cover_days"].apply(lambda days: days.dropna().is_monotonic_increasing).all()
    assert (listed["as_of"] == as_of).all()
    assert {"low", "reorder", "unknown"} <= set(listed["alert"])


def test_units_sold_and_stock_left_are_what_a_slow_loop_counts(shelves, listed):
    _, signals, skus, as_of = shelves
    table = listed.set_index("sku_id")
    for sku in skus.to_dict("records"):
        rows = signals[(signals["sku_id"] == sku["sku_id"]) & (signals["known_at"] <= as_of)]
        sold = sum(int(units) for units in rows["units"])
        row = table.loc[sku["sku_id"]]
        assert row["units_sold"] == sold
        if pd.isna(sku["stock"]):
            assert (row["alert"], row["unknown"]) == ("unknown", "stock")
        elif row["alert"] == "sold_out":
            assert row["stock_left"] == 0
            assert sold >= sku["stock"]
        elif sold > sku["stock"]:
            assert np.isnan(row["stock_left"])
            assert (row["alert"], row["unknown"]) == ("unknown", "stock_sold_over")
        else:
            assert row["stock_left"] == sku["stock"] - sold
            assert row["unknown"] == ""


def test_alert_cover_and_reorder_follow_from_the_forecast(shelves, listed):
    model = shelves[0]
    days = model.settings.label.outcome_window / DAY
    known = listed[(listed["unknown"] == "") & (listed["alert"] != "sold_out")]
    low = known["stock_left"] < 0.2 * known["demand"]
    later = np.where(known["reorder"] > 0, "reorder", "enough")
    assert (known["alert"] == np.where(low, "low", later)).all()
    np.testing.assert_allclose(known["cover_days"], known["stock_left"] / known["demand"] * days)
    assert (known["demand_low"] <= known["demand"]).all()
    assert (known["demand"] <= known["demand_high"] + 1).all()
    assert (known["reorder"] >= 0).all()
    assert (known["reorder"] % 1 == 0).all()
    empty = known[known["stock_left"] < known["demand"]]
    assert (empty["reorder"] + empty["stock_left"] >= empty["demand"].round()).all()


@pytest.mark.parametrize(("less", "more"), [(0.5, 0.8), (0.8, 0.99)])
def test_a_higher_service_level_and_a_longer_wait_order_no_less(shelves, less, more):
    first, second = (stock(*shelves, level).set_index("sku_id")["reorder"] for level in (less, more))
    assert (second.reindex(first.index).dropna() >= first.dropna()).all()
    assert second.sum() > first.sum()
    waiting = stock(*shelves, less, settings=StockSettings(lead_time=28 * DAY)).set_index("sku_id")["reorder"]
    assert (waiting.reindex(first.index).dropna() >= first.dropna()).all()


def test_later_rows_change_nothing(shelves, listed):
    model, signals, skus, as_of = shelves
    then = signals[(signals["known_at"] <= as_of) & (signals["period_start"] < as_of)]
    assert len(then) < len(signals)
    pd.testing.assert_frame_equal(stock(model, then, skus, as_of=as_of), listed)


def test_a_stock_that_was_not_given_is_warned_of(shelves):
    with pytest.warns(UserWarning, match="skus.stock: not given for 1 of"):
        stock(*shelves)


def test_a_name_in_a_model_s_place_is_refused_with_how_to_load_it(shelves):
    with pytest.raises(ModelError, match=r"load it with hf.load_model\('models:/hitfinder@champion'\)"):
        stock("models:/hitfinder@champion", *shelves[1:3])


def test_the_threshold_comes_from_the_settings(shelves, listed):
    never = stock(*shelves, settings=StockSettings(alert_share=1e-9))
    always = stock(*shelves, settings=StockSettings(alert_share=10.0))
    counts = [(table["alert"] == "low").sum() for table in (never, listed, always)]
    assert counts[0] < counts[1] < counts[2]


def test_who_sold_out_is_told_and_forecast_by_its_time_in_stock(shelves):
    model, signals, skus, _ = shelves
    as_of = skus["launched_at"].min() + 14 * DAY  # the oldest batch is a week into its outcome window
    oldest = skus["launched_at"] == skus["launched_at"].min()
    sku = signals[signals["sku_id"].isin(skus.loc[oldest, "sku_id"])].groupby("sku_id")["units"].sum().idxmax()
    mine = (signals["sku_id"] == sku).to_numpy()
    until = skus.loc[oldest, "launched_at"].iloc[0] + 10 * DAY
    cut = signals.copy()
    late = mine & (cut["period_start"] >= until).to_numpy()
    cut.loc[late, ["orders", "units"]] = 0
    cut.loc[late, "revenue"] = 0.0
    sold = int(cut.loc[mine & (cut["known_at"] <= as_of).to_numpy(), "units"].sum())
    some = skus.assign(stock=skus["stock"].where(skus["sku_id"] != sku, sold))
    row = stock(model, cut, some, as_of=as_of).set_index("sku_id").loc[sku]
    assert (row["alert"], row["stock_left"]) == ("sold_out", 0)
    assert row["reorder"] > 0
    blind = stock(model, cut, some.assign(stock=10**6), as_of=as_of).set_index("sku_id").loc[sku]
    assert row["demand"] > 1.2 * blind["demand"]


def test_a_history_without_units_forecasts_nothing_and_says_so(shelves):
    model, signals, skus, as_of = shelves
    with pytest.warns(UserWarning, match="too few units"):
        table = stock(replace(model, demand=None), signals, skus, as_of=as_of)
    assert table[["demand", "demand_low", "demand_high", "cover_days", "reorder"]].isna().all().all()
    assert table["unknown"].str.startswith("history").all()
    assert set(table["alert"]) <= {"unknown", "sold_out"}
    assert table["stock_left"].notna().any()


def test_units_that_were_not_measured_leave_the_stock_unknown(shelves):
    model, signals, skus, as_of = shelves
    table = stock(model, signals.drop(columns="units"), skus, as_of=as_of)
    seen = table["sku_id"].isin(signals.loc[signals["known_at"] <= as_of, "sku_id"])
    assert table.loc[seen, "stock_left"].isna().all()
    assert table.loc[seen, "unknown"].str.contains("units").all()
    assert table["demand"].notna().all()


def test_a_batch_without_signals_has_the_forecast_of_what_is_known_of_all(shelves):
    model, _, _, _ = shelves
    signals, skus, as_of = newest_batch()
    table = stock(model, signals, skus.assign(stock=100), as_of=as_of).set_index("sku_id")
    unseen = table.loc[skus["sku_id"].iloc[3]]
    assert (unseen["units_sold"], unseen["stock_left"]) == (0, 100)
    assert unseen["demand"] > 0


@pytest.mark.parametrize("level", [0, 1, -0.1, 1.5])
def test_a_service_level_that_is_no_chance_is_refused(shelves, level):
    with pytest.raises(SettingsError, match="service_level: expected a chance"):
        stock(*shelves, level)


def test_a_batch_can_be_asked_for_alone(listed):
    batch = listed["batch_id"].iloc[0]
    assert set(of_batch(listed, batch)["batch_id"]) == {batch}
    with pytest.raises(DataError, match="batch: expected one of"):
        of_batch(listed, "none such")


def test_a_saved_model_forecasts_the_same_and_one_without_demand_still_opens(shelves, listed, tmp_path):
    model, signals, skus, as_of = shelves
    folder = model.save(tmp_path / "model")
    pd.testing.assert_frame_equal(stock(open_model(folder), signals, skus, as_of=as_of), listed)
    text = folder / "model.json"
    values = json.loads(text.read_text("utf-8"))
    del values["demand"]
    text.write_text(json.dumps(values), "utf-8")
    assert open_model(folder).demand is None


def test_the_fit_says_how_many_labels_it_completed():
    _, model = fitted()
    assert model.report["labels_completed"] == 0
    assert model.demand.facts["skus"] >= 40
    assert Demand.from_dict(json.loads(json.dumps(model.demand.to_dict()))) == model.demand


def drawn(seed, n=1500, noise=0.5):
    """SKUs of a known truth: pace gamma around exp(3 + 0.6 log rate + 0.5 standing), variance `noise` squared."""
    rng = np.random.default_rng(seed)
    rate, standing = np.exp(rng.normal(-3, 0.7, n)), rng.normal(0, 1, n)
    spread = rng.uniform(0.3, 1.0, n)
    mean = np.exp(3 + 0.6 * np.log(rate) + 0.5 * standing)
    shape = np.exp(-(np.log(noise**2) + 1.0 * (spread - 0.6)))
    table = pd.DataFrame({"sku_id": [f"s{i}" for i in range(n)], "r.sku_rate": rate, "r.spread": spread})
    pace = rng.gamma(shape, mean / shape)
    in_stock = np.where(rng.random(n) < 0.3, rng.uniform(0.1, 1, n), 1.0)
    return table, standing, pace, in_stock, rng


def test_the_regression_finds_a_planted_truth_and_its_intervals_hold():
    table, standing, pace, in_stock, rng = drawn(4)
    units = rng.poisson(pace * in_stock).astype(float)
    folds = np.arange(len(table)) % 5
    demand = fit_demand(table, "r", standing, units, in_stock, np.ones(len(table)), folds)
    assert demand.coefficients == pytest.approx((3, 0.6, 0.5, 0), abs=0.12)
    assert demand.dispersion[0] + 0.6 * demand.dispersion[1] == pytest.approx(np.log(0.25), abs=0.35)
    assert demand.facts == {"skus": 1500, "sold_out": int((in_stock < 1).sum())}
    table, standing, pace, _, rng = drawn(5, n=4000)
    nothing = np.full(len(table), np.nan)
    ahead = demand.outlook(table, standing, nothing, np.zeros(len(table)), 1.0)
    units = rng.poisson(pace)
    inside = (units >= ahead.quantile(0.1)) & (units <= ahead.quantile(0.9))
    # Units are whole: the interval holds a little more than it has to.
    assert 0.79 < inside.mean() < 0.93
    # Half a window later, by what was sold meanwhile.
    half = rng.poisson(pace / 2).astype(float)
    later = demand.outlook(table, standing, half, np.full(len(table), 0.5), 1.0)
    again = rng.poisson(pace)
    inside = (again >= later.quantile(0.1)) & (again <= later.quantile(0.9))
    assert 0.79 < inside.mean() < 0.93
    assert np.mean(np.log1p(later.mean) - np.log1p(again)) == pytest.approx(0.06, abs=0.1)
    assert np.std(np.log1p(later.mean) - np.log1p(again)) < np.std(np.log1p(ahead.mean) - np.log1p(again))


def test_a_sku_that_sold_out_is_learned_from_for_the_time_that_it_was_in_stock():
    table, standing, pace, _, rng = drawn(6)
    in_stock = np.where(np.arange(len(table)) % 2, 0.25, 1.0)
    units = rng.poisson(pace * in_stock).astype(float)
    weight, folds = np.ones(len(table)), np.arange(len(table)) % 5
    right = fit_demand(table, "r", standing, units, in_stock, weight, folds)
    blind = fit_demand(table, "r", standing, units, np.ones(len(table)), weight, folds)
    truth = float(np.log(pace).mean())
    level = [float(np.log(d.pace(table, standing)[0]).mean()) for d in (right, blind)]
    assert abs(level[0] - truth) < 0.25
    assert level[1] < level[0] - 0.3


def test_too_little_sold_is_learned_nothing_from():
    table, standing, _, in_stock, _ = drawn(7, n=100)
    folds = np.arange(100) % 5
    weight = np.ones(100)
    assert fit_demand(table, "r", standing, np.zeros(100), in_stock, weight, folds) is None
    assert fit_demand(table, "r", standing, np.full(100, np.nan), in_stock, weight, folds) is None
    assert fit_demand(table[:20], "r", standing[:20], np.full(20, 9.0), in_stock[:20], weight[:20], folds[:20]) is None


@effort(max_examples=20, deadline=None)
@given(
    mean=st.floats(0.5, 200), alpha=st.floats(0.05, 2), sold=st.integers(0, 60), time=st.floats(0.05, 2),
    windows=st.floats(0.5, 2),
)  # fmt: skip
def test_what_is_ahead_is_what_bayes_says_by_integration(mean, alpha, sold, time, windows):
    demand = Demand("r", (float(np.log(mean)), 0.0, 0.0, 0.0), (float(np.log(alpha)), 0.0), {})
    table = pd.DataFrame({"sku_id": ["a"], "r.sku_rate": [1.0], "r.spread": [0.5]})
    ahead = demand.outlook(table, np.zeros(1), np.array([float(sold)]), np.array([time]), windows)
    prior, shape = stats.gamma(1 / alpha, scale=mean * alpha), 1 / alpha
    top = stats.gamma((shape + sold), scale=1 / (shape / mean + time)).ppf(1 - 1e-9)

    def weigh(what):
        def density(pace):
            return prior.pdf(pace) * stats.poisson.pmf(sold, pace * time) * what(pace)

        return integrate.quad(density, 0, top, limit=300, points=[top / 20, top / 5])[0]

    whole = weigh(lambda _: 1.0)
    assert float(ahead.mean[0]) == pytest.approx(windows * weigh(lambda pace: pace) / whole, rel=1e-3)
    for share in (0.1, 0.9):
        units = float(ahead.quantile(share)[0])
        chance = [weigh(lambda p, u=u: stats.poisson.cdf(u, p * windows)) / whole for u in (units, units - 1)]
        assert chance[0] >= share - 1e-4
        assert chance[1] < share + 1e-4


def test_an_unknown_mean_has_unknown_quantiles():
    ahead = Outlook(np.array([np.nan, 5.0]), np.array([np.nan, 2.0]))
    assert np.isnan(ahead.quantile(0.5)[0])
    assert ahead.quantile(0.5)[1] == stats.nbinom.ppf(0.5, 2, 2 / 7)


def test_units_of_windows_are_what_a_slow_loop_counts(known_warehouse, shelves):
    market, _ = fitted()
    settings = parse_settings({"label": {"outcome_window": "14d"}})
    as_of = market.signals["known_at"].max()
    con = known_warehouse(market.signals, market.skus, settings, as_of)
    told = sold_in_windows(con).set_index("sku_id")
    con.close()
    for sku in market.skus.iloc[::29].to_dict("records"):
        opens = sku["launched_at"] + 7 * DAY
        rows = market.signals[market.signals["sku_id"] == sku["sku_id"]]
        inside = rows[(rows["period_start"] >= opens) & (rows["period_start"] < opens + 14 * DAY)]
        assert told.loc[sku["sku_id"], "stretch_units"] == inside["units"].sum()
        assert told.loc[sku["sku_id"], "in_stock"] == 1.0


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_paper_says_what_matters(listed, shelves, language):
    words = {"alert_share": 0.2, "window": "14d", "lead_time": "7d", "service_level": 0.95}
    paper = stock_paper(listed, skus=shelves[2], language=language, **words)
    assert f"{listed['reorder'].sum():,.0f}" in paper.says[0]
    assert len(paper.says) == 2  # and what is unknown
    counts = listed["alert"].value_counts()
    assert all(str(n) in paper.says[0] for n in counts)
    assert paper.columns["cover_days"].kind == "days"
    assert "95%" in paper.columns["reorder"].meaning
    assert len(paper.marks) == len(paper.table) == len(listed)
    clean = listed[listed["unknown"] == ""]
    assert len(stock_paper(clean, language=language, **words).says) == 1
    with pytest.raises(SettingsError, match="language"):
        stock_paper(listed, language="fr", **words)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_command_writes_the_list(run, shelves, tmp_path):
    model, signals, skus, as_of = shelves
    model.save(tmp_path / "model")
    (tmp_path / "data").mkdir()
    signals.to_parquet(tmp_path / "data" / "signals.parquet")
    skus.to_parquet(tmp_path / "data" / "skus.parquet")
    outs = [tmp_path / f"stock.{suffix}" for suffix in ("csv", "xlsx", "html", "parquet")]
    arguments = ["stock", "--data", tmp_path / "data", "--model", tmp_path / "model", "--as-of", as_of.isoformat()]
    named = [part for out in outs for part in ("--out", out)]
    status, out, _ = run(*arguments, *named, "--language", "zh")
    assert status == 0
    assert [line for line in out.splitlines() if line.startswith("wrote ")] == [f"wrote {path}" for path in outs]
    assert "建议补货" in out
    table = pd.read_csv(outs[0])
    assert tuple(table.columns) == STOCK_COLUMNS
    pd.testing.assert_frame_equal(table, pd.read_csv(outs[0]))
    assert set(pd.read_parquet(outs[3])["alert"]) <= set(ALERTS)
    assert "需要补货" in outs[2].read_text("utf-8")
    status, out, _ = run(*arguments, "--batch", "newest", "--service-level", "0.5")
    assert status == 0
    status, _, err = run(*arguments, "--batch", "none such")
    assert (status, err.startswith("error: batch: expected one of")) == (1, True)
    assert run(*arguments, "--service-level", "1.5")[0] == 2
    assert run(*arguments, "--out", tmp_path / "stock.doc")[0] == 1
    shutil.rmtree(tmp_path / "data")
