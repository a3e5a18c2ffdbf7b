"""One round of a running test: never over budget or cap, no state, and nothing that has no business in it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

import hitfinder as hf
from hitfinder.admission import admit_signals_and_skus
from hitfinder.allocation import round_budget
from hitfinder.errors import DataError, ModelError, NotEnoughHistoryError
from hitfinder.features import set_scope
from hitfinder.labels import label
from hitfinder.ranking import described, score
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate
from hitfinder.testplan import PLANNED_COLUMNS, plan
from hitfinder.trial import Pool, play
from hitfinder.trial_table import BeliefPolicy, TrialTable, pool_of, repeat_pool
from hitfinder.warehouse import open_warehouse

KEYS = ["sku_id", "period_start", "channel", "creative_id", "known_at"]
COUNTS = ["impressions", "clicks", "orders"]
SETTINGS = parse_settings(
    {
        "label": {"outcome_window": "14d", "top_share": 0.15, "metric": "orders"},
        "model": {"ages": 2, "seeds": 1, "folds": 2, "threads": 1},
    }
)
DAY = pd.Timedelta(days=1)
ASKED = {"exposures": 6_000, "rounds_left": 3, "slots": 5, "exposure_cap": 3_000}


@cache
def market(seed=2, weeks=8):
    """Return (signals, skus): golden things become hits more often than grey ones."""
    made = simulate(weeks=weeks, skus_per_week=40, complete=True, seed=seed)
    place = made.truth.groupby("batch_id")["expected_orders"].rank(pct=True).to_numpy()
    golden = np.random.default_rng(seed).random(len(place)) < place**3
    kept = ["sku_id", "batch_id", "style_id", "category", "launched_at", "price"]
    skus = made.skus[kept].assign(title=np.where(golden, "golden thing", "grey stuff"))
    return made.signals[[*KEYS, *COUNTS]], skus


@cache
def fitted():
    found = hf.fit(*market(), SETTINGS)
    assert found.content is not None, "the titles must tell something, or renaming them tests nothing"
    return found


@cache
def model():
    """Return the model with thresholds that stop some near the border too, and scale the best of the running batch."""
    margin = score(fitted(), *running())[1]
    stop, scale = np.quantile(margin, [0.7, 0.9])
    return replace(fitted(), thresholds={"stop": -np.inf, "plan_stop": float(stop), "scale": float(scale)})


@cache
def day_model():
    signals, skus = market()
    return hf.fit(signals.drop(columns="impressions"), skus, SETTINGS)


@cache
def running():
    """Return (signals, skus, as_of): a batch two days into its test, with one SKU that nobody has seen."""
    signals, skus = market(seed=5, weeks=1)
    as_of = skus["launched_at"].max() + 2 * DAY
    signals = signals[signals["sku_id"] != skus["sku_id"].iloc[3]]
    return signals[signals["period_start"] < as_of + 3 * DAY].reset_index(drop=True), skus, as_of


def planned(signals=None, skus=None, as_of=None, *, by=None, **numbers):
    given = running()
    signals, skus, as_of = (g if a is None else a for a, g in zip((signals, skus, as_of), given, strict=True))
    return plan(by or model(), signals, skus, as_of, **{**ASKED, **numbers})


@cache
def plain():
    return planned()


def bought(signals, as_of):
    known = signals[(signals["known_at"] <= as_of) & (signals["period_start"] < as_of)]
    return known.groupby("sku_id")["impressions"].sum()


def same(one, other):
    pd.testing.assert_frame_equal(one, other, check_exact=True)


# ---------------------------------------- what comes back


def test_a_plan_has_the_columns_of_the_contract_and_every_sku_once_in_order():
    _, skus, _ = running()
    found = plain()
    assert tuple(found.columns) == PLANNED_COLUMNS
    assert found["sku_id"].tolist() == sorted(skus["sku_id"])
    assert found.index.tolist() == list(range(len(skus)))
    assert found["exposures"].dtype == np.int64
    assert found["hit_probability"].dtype == np.float64
    assert found["hit_probability"].between(0, 1).all()
    assert set(found["action"]) == {"test", "stop", "scale"}
    assert hf.plan is plan


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"exposures": 7, "rounds_left": 1},
        {"exposures": 0},
        {"exposures": 2, "rounds_left": 5},
        {"exposures": 10**11, "rounds_left": 1, "exposure_cap": 1_111},
        {"slots": 1},
        {"slots": 500, "exposure_cap": 900},
        {"exposure_cap": 0},
        {"rounds_left": 40},
        {"exposures": np.int64(5_000), "slots": np.int32(3), "exposure_cap": 800},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_a_plan_is_never_over_the_budget_nor_takes_a_sku_past_the_cap(numbers):
    signals, _, as_of = running()
    asked = {**ASKED, **numbers}
    found = planned(**numbers)
    assert found["exposures"].dtype == np.int64
    assert (found["exposures"] >= 0).all()
    assert found["exposures"].sum() <= asked["exposures"] // asked["rounds_left"]
    so_far = found["sku_id"].map(bought(signals, as_of)).fillna(0)
    assert so_far.max() > 800
    more = found["exposures"] > 0
    assert (so_far + found["exposures"])[more].max() <= asked["exposure_cap"] or not more.any()
    assert not found.loc[found["action"] == "stop", "exposures"].any()
    # The numbers asked for are no evidence.
    same(found[["sku_id", "action", "hit_probability"]], plain()[["sku_id", "action", "hit_probability"]])


@pytest.mark.parametrize("sold_on_the_last_day", [True, False])
def test_a_sku_that_has_sold_out_is_shown_no_more_and_its_exposures_go_to_others(sold_on_the_last_day):
    signals, skus, as_of = running()
    sold = signals.assign(units=signals["orders"])
    known = sold[(sold["known_at"] <= as_of) & (sold["period_start"] < as_of)]
    units = known.groupby("sku_id")["units"].sum()
    # Of those that were given exposures, one has sold its whole stock, on the last day or before it.
    given = plain().set_index("sku_id")["exposures"]
    last = known["period_start"].max()
    late = known[known["period_start"] == last].groupby("sku_id")["orders"].sum()
    gone = next(
        sku
        for sku in given[given > 0].index
        if units.get(sku, 0) > 0 and (late.get(sku, 0) > 0) == sold_on_the_last_day
    )
    stocked = skus.assign(stock=np.where(skus["sku_id"] == gone, units[gone], 10_000))
    with pytest.warns(UserWarning, match=f"sold out: 1 \\(such as '{gone}'\\); they get no exposures"):
        told = planned(sold, stocked)
    assert told.set_index("sku_id").loc[gone, "exposures"] == 0
    assert told["exposures"].sum() >= 0.95 * plain()["exposures"].sum()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        enough = planned(sold, skus.assign(stock=10_000))
    assert enough.set_index("sku_id").loc[gone, "exposures"] > 0


def test_who_is_stopped_gets_nothing_and_only_who_has_been_seen_can_be_stopped():
    _, skus, _ = running()
    found = plain().set_index("sku_id")
    assert (found["action"] == "stop").sum() > 3
    assert not found.loc[found["action"] == "stop", "exposures"].any()
    assert found.loc[skus["sku_id"].iloc[3], "action"] == "test"
    # Whatever its margin says.
    strict = replace(fitted(), thresholds={"stop": 50.0, "plan_stop": 50.0, "scale": 60.0})
    all_stopped = planned(by=strict).set_index("sku_id")
    assert all_stopped.index[all_stopped["action"] == "test"].tolist() == [skus["sku_id"].iloc[3]]
    assert not all_stopped.loc[all_stopped["action"] == "stop", "exposures"].any()
    # It alone may be shown, up to the cap.
    assert all_stopped["exposures"].sum() == min(ASKED["exposures"] // 3, ASKED["exposure_cap"])


def test_who_is_stopped_elsewhere_gets_nothing_and_the_others_get_what_it_would_have_had():
    given = plain().set_index("sku_id")["exposures"]
    best = given.nlargest(3).index.tolist()
    found = planned(stopped=[*best, "nobody"]).set_index("sku_id")
    assert found.loc[best, "action"].tolist() == ["stop"] * 3
    assert not found.loc[best, "exposures"].any()
    assert found["exposures"].sum() >= 0.95 * given.sum()
    same(found["hit_probability"].to_frame(), plain().set_index("sku_id")["hit_probability"].to_frame())
    everybody = planned(stopped=given.index)
    assert set(everybody["action"]) == {"stop"}
    assert not everybody["exposures"].any()
    same(planned(stopped=(), kept=()), plain())


def test_none_of_the_slots_is_for_who_is_stopped_elsewhere():
    """The rest is planned as if the batch held no others."""
    likely = plain().nlargest(ASKED["slots"], "hit_probability")["sku_id"].tolist()
    others = ~plain()["sku_id"].isin(likely)
    assert planned(stopped=likely).loc[others, "exposures"].sum() > plain().loc[others, "exposures"].sum()


def test_whom_a_coin_keeps_is_not_stopped_and_is_planned_like_any_other():
    stopped = plain().loc[plain()["action"] == "stop", "sku_id"].tolist()
    found = planned(kept=stopped[:2]).set_index("sku_id")
    assert found.loc[stopped[:2], "action"].tolist() == ["test", "test"]
    assert set(found.loc[stopped[2:], "action"]) == {"stop"}
    assert (found.loc[stopped[:2], "exposures"] <= ASKED["exposure_cap"]).all()
    # A stop goes before.
    assert set(planned(kept=stopped, stopped=stopped).set_index("sku_id").loc[stopped, "action"]) == {"stop"}
    # What it is given depends on what is believed of it: here all that there is.
    alone = planned(kept=stopped[:1], stopped=plain()["sku_id"][plain()["sku_id"] != stopped[0]], rounds_left=1)
    assert alone.set_index("sku_id").loc[stopped[0], "exposures"] > 0


@pytest.mark.parametrize("name", ["exposures", "rounds_left", "slots", "exposure_cap"])
@pytest.mark.parametrize(
    "number", [10**11 + 1, 10**30, 10**400, np.uint64(2**63)], ids=["just", "1e30", "1e400", "u64"]
)
def test_numbers_that_nobody_can_buy_are_refused_in_one_line(name, number):
    with pytest.raises(DataError, match=f"{name}: expected at most 100,000,000,000, got more") as refused:
        planned(**{name: number})
    assert "\n" not in str(refused.value)


def test_the_largest_numbers_keep_the_contract():
    most = dict.fromkeys(ASKED, 10**11)
    found = planned(**{**most, "rounds_left": 1})
    assert 0 < found["exposures"].sum() <= 10**11
    assert (found["exposures"] >= 0).all()
    assert not planned(**most)["exposures"].sum() > 1


def test_a_plan_stops_by_its_own_threshold_and_scales_by_that_of_the_list():
    lists = {**model().thresholds, "stop": 50.0}
    same(planned(by=replace(model(), thresholds=lists)), plain())
    never = {"stop": 50.0, "plan_stop": -np.inf, "scale": np.inf}
    assert set(planned(by=replace(model(), thresholds=never))["action"]) == {"test"}


@pytest.mark.parametrize("left", [1, 2])
def test_a_round_spends_all_but_ties_of_its_part(left):
    found = planned(rounds_left=left, exposure_cap=10**6)
    part = ASKED["exposures"] // left
    assert part - len(found) < found["exposures"].sum() <= part
    assert found["exposures"].sum() >= 0.99 * part


def test_later_rounds_spend_on_fewer():
    many, few = (planned(rounds_left=left, exposures=2_000 * left, exposure_cap=10**6) for left in (20, 1))
    shares = [np.sort(p["exposures"] / p["exposures"].sum())[::-1][:5].sum() for p in (many, few)]
    assert shares[1] > shares[0] + 0.02


# ---------------------------------------- a new batch


def test_a_batch_that_nobody_has_seen_is_shown_evenly():
    signals, skus, _ = running()
    as_of = skus["launched_at"].min()
    for none in (signals[:0], signals):
        found = planned(none, as_of=as_of, exposures=5_000, rounds_left=5)
        assert set(found["action"]) == {"test"}
        assert set(found["exposures"]) == {1_000 // len(skus)}
    once = planned(signals[:0], as_of=as_of, exposures=5_000, rounds_left=1)
    assert set(once["exposures"]) == {5_000 // len(skus)}
    assert set(planned(signals[:0], as_of=as_of, exposures=10**9, rounds_left=1)["exposures"]) == {3_000}


def test_without_any_signal_a_plan_needs_the_moment():
    signals, skus, _ = running()
    with pytest.raises(NotEnoughHistoryError, match="moment as_of"):
        plan(model(), signals[:0], skus)


def test_no_skus_give_an_empty_plan_with_all_columns():
    signals, skus, as_of = running()
    found = planned(signals, skus[:0], as_of)
    assert found.empty
    assert tuple(found.columns) == PLANNED_COLUMNS


def test_a_batch_of_one_gets_all_that_it_may_have():
    _, skus, _ = running()
    none = running()[0][:0]
    one = planned(none, skus=skus[3:4], rounds_left=1, exposures=500)
    assert one["exposures"].tolist() == [500]
    assert planned(none, skus=skus[3:4], rounds_left=1, exposures=500, exposure_cap=77)["exposures"].tolist() == [77]


# ---------------------------------------- no state, and nothing that has no business in it


def test_a_plan_keeps_no_state_and_changes_no_argument():
    signals, skus, as_of = running()
    before = signals.copy(deep=True), skus.copy(deep=True), model().digest()
    planned(exposures=500, rounds_left=1)
    planned(signals[:0])
    same(planned(), plain())
    pd.testing.assert_frame_equal(signals, before[0])
    pd.testing.assert_frame_equal(skus, before[1])
    assert model().digest() == before[2]
    assert as_of == running()[2]


def test_the_order_of_rows_and_columns_changes_nothing():
    signals, skus, _ = running()
    shuffled = signals.sample(frac=1, random_state=1)[[*reversed(signals.columns)]]
    same(planned(shuffled, skus.sample(frac=1, random_state=2)[[*reversed(skus.columns)]]), plain())


def test_threads_change_nothing():
    many = replace(
        model(),
        settings=SETTINGS.model_copy(update={"model": SETTINGS.model.model_copy(update={"threads": 2})}),
    )
    same(planned(by=many), plain())


def test_what_came_after_the_moment_changes_nothing():
    signals, _, as_of = running()
    known = signals[signals["known_at"] <= as_of]
    assert len(known) < len(signals)
    same(planned(known), plain())
    revised = known.assign(known_at=as_of + pd.Timedelta(hours=1), clicks=known["impressions"])
    same(planned(pd.concat([known, revised.drop_duplicates(KEYS)])), plain())
    assert not planned(as_of=as_of + DAY)["hit_probability"].equals(plain()["hit_probability"])


def test_the_moment_is_the_newest_signals_unless_it_is_given_in_any_zone():
    signals, skus, as_of = running()
    same(planned(as_of=as_of.tz_localize("UTC").tz_convert("Asia/Shanghai")), plain())
    same(plan(model(), signals, skus, **ASKED), planned(as_of=signals["known_at"].max()))


def test_signals_of_others_change_nothing():
    signals, _, _ = running()
    stray = signals.assign(sku_id="stray " + signals["sku_id"], clicks=signals["impressions"])
    same(planned(pd.concat([signals, stray])), plain())


@pytest.mark.parametrize("name", ["  first", "zzz last", "款式 7", "'; drop table skus; --"])
def test_another_id_changes_nothing_but_its_place(name):
    signals, skus, _ = running()
    for old in skus["sku_id"].iloc[[0, 20]]:
        ids = {old: name.strip()}
        found = planned(signals.replace({"sku_id": ids}), skus.replace({"sku_id": ids}))
        assert found["sku_id"].tolist() == sorted(found["sku_id"])
        expected = plain().replace({"sku_id": ids}).sort_values("sku_id").reset_index(drop=True)
        same(found, expected)


def other_title(skus, place):
    other = {"golden thing": "grey stuff", "grey stuff": "golden thing"}
    return skus.assign(title=skus["title"].mask(np.arange(len(skus)) == place, skus["title"].map(other)))


@cache
def renamed():
    """Plan with each of some titles changed: (place in the plan, plan)."""
    _, skus, _ = running()
    places = plain()["sku_id"].searchsorted(skus["sku_id"])
    margin = score(fitted(), *running())[1][places]
    near = np.argsort(np.abs(margin - model().thresholds["plan_stop"]))[:8]
    return [(int(places[i]), planned(skus=other_title(skus, i))) for i in near]


def test_another_title_changes_no_probability_but_its_own():
    moved = 0
    for place, found in renamed():
        assert found["hit_probability"].drop(place).equals(plain()["hit_probability"].drop(place))
        assert found["action"].drop(place).equals(plain()["action"].drop(place))
        assert found["sku_id"].equals(plain()["sku_id"])
        moved += found["hit_probability"][place] != plain()["hit_probability"][place]
    assert moved > 5


def test_while_nobody_is_stopped_no_title_changes_who_is_shown():
    _, skus, _ = running()
    never = replace(model(), thresholds={"stop": -np.inf, "plan_stop": -np.inf, "scale": np.inf})
    expected = planned(by=never)
    for place in (0, 3, 10):
        found = planned(skus=other_title(skus, place), by=never)
        assert found["exposures"].equals(expected["exposures"])


def test_another_title_changes_nothing_for_the_others():
    for place, found in renamed():
        same(found.drop(place), plain().drop(place))


def test_another_title_changes_no_exposures_of_its_own():
    for place, found in renamed():
        assert found["exposures"][place] == plain()["exposures"][place]


def test_a_saved_model_plans_the_same(tmp_path):
    same(planned(by=hf.load_model(model().save(tmp_path / "model"))), plain())


def test_tables_may_be_files(tmp_path):
    signals, skus, as_of = running()
    signals.to_csv(tmp_path / "signals.csv", index=False)
    skus.to_parquet(tmp_path / "skus.parquet")
    same(planned(tmp_path / "signals.csv", str(tmp_path / "skus.parquet"), as_of), plain())


# ---------------------------------------- days on trial


def days(signals):
    return signals.drop(columns="impressions")


def test_where_impressions_are_not_counted_days_are_planned():
    signals, skus, as_of = running()
    # Some began a day later, and one is still to come.
    skus = skus.assign(launched_at=skus["launched_at"] + DAY * (np.arange(len(skus)) % 2))
    skus.loc[5, "launched_at"] = as_of + 3 * DAY
    signals = days(signals[signals["period_start"] >= signals["sku_id"].map(skus.set_index("sku_id")["launched_at"])])
    assert not any(rate.endswith("_per_impression") for rate in day_model().rates["rate"])
    asked = {"exposures": 120, "rounds_left": 2, "slots": 5, "exposure_cap": 7, "by": day_model()}
    found = planned(signals, skus, as_of, **asked)
    assert tuple(found.columns) == PLANNED_COLUMNS
    assert 0 < found["exposures"].sum() <= 60
    on_trial = np.maximum((as_of - skus.set_index("sku_id")["launched_at"]) / DAY, 0).reindex(found["sku_id"])
    assert set(on_trial) == {0, 1, 2}
    assert (found["exposures"].to_numpy() + on_trial.to_numpy() <= 7).all()
    assert found.loc[found["sku_id"] == skus["sku_id"].iloc[5], "action"].item() == "test"
    full = planned(signals, skus, as_of, **{**asked, "exposures": 10**6, "rounds_left": 1, "exposure_cap": 2})
    assert (full["exposures"].to_numpy() + on_trial.to_numpy())[full["exposures"] > 0].tolist() == [2] * (
        full["exposures"] > 0
    ).sum()
    same(planned(signals.sample(frac=1, random_state=0), skus[::-1], as_of, **asked), found)


def test_a_new_batch_without_impressions_is_shown_evenly():
    signals, skus, _ = running()
    launch = skus["launched_at"].min()
    found = planned(days(signals)[:0], as_of=launch, by=day_model(), exposures=200, rounds_left=2, exposure_cap=7)
    assert set(found["exposures"]) == {100 // len(skus)}


# ---------------------------------------- what is refused


@pytest.mark.parametrize(("name", "least"), [("exposures", 0), ("rounds_left", 1), ("slots", 1), ("exposure_cap", 0)])
@pytest.mark.parametrize("value", ["10", 2.0, float("nan"), None, True, np.True_, -1, np.float64(3), [1]])
def test_numbers_that_are_none_are_refused_in_one_line(name, least, value):
    with pytest.raises(DataError) as caught:
        planned(**{name: value})
    said = str(caught.value)
    assert said.startswith(f"{name}: expected a whole number of {least} or more, got ")
    assert repr(value) in said
    assert "\n" not in said


@pytest.mark.parametrize("name", ["rounds_left", "slots"])
def test_at_least_one_round_and_one_slot_are_left(name):
    with pytest.raises(DataError, match=f"{name}: expected a whole number of 1 or more, got 0"):
        planned(**{name: 0})


def test_tables_and_moments_that_are_none_are_refused():
    signals, skus, _ = running()
    with pytest.raises(DataError, match="as_of: expected a moment"):
        planned(as_of="soon")
    with pytest.raises(DataError, match=r"signals: .*sku_id"):
        planned(signals.drop(columns="sku_id"))
    with pytest.raises(DataError, match=r"skus: .*sku_id"):
        planned(skus=skus.drop(columns="sku_id"))
    with pytest.raises(ModelError, match="fit it again"):
        planned(by=replace(model(), belief=None))


def test_ids_spelt_in_two_ways_are_said():
    signals, _, _ = running()
    with pytest.warns(UserWarning, match="check that both spell the ids alike"):
        planned(signals.assign(sku_id=signals["sku_id"].str.lower()))


# ---------------------------------------- hits found: tests of another market, bought exposure by exposure

COPIES = 6
ROUNDS = 4


@dataclass(frozen=True)
class Even:
    """Shows all alike; who is scaled is decided as by the plan."""

    table: TrialTable

    def spend(self, view, rng):
        self.table.signals(view)  # rounds are shown to a table in order
        size = np.bincount(view.batch, minlength=len(view.left))
        part = np.array([round_budget(left, view.rounds_left) for left in view.left]) // size
        return part[view.batch]

    def score(self, view):
        return model().belief.mean(self.table.features(view, model().rates))


@cache
def pool():
    """Return (pool, catalog, hit of each SKU) of a market that the model has never seen, each batch several times."""
    signals, skus = market(seed=11, weeks=8)
    con = open_warehouse(threads=1)
    admit_signals_and_skus(con, signals, skus, period=DAY)
    set_scope(con, SETTINGS, skus["launched_at"].max() + 60 * DAY)
    labels = label(con, SETTINGS, outcomes_given=False)
    one = pool_of(con, labels, SETTINGS)
    catalog = con.execute("select * from catalog").df().set_index("sku_id").reindex(one.sku_id)
    con.close()
    hit = labels.set_index("sku_id")["hit"].reindex(one.sku_id).to_numpy(dtype=bool)
    return repeat_pool(one, COPIES), pd.concat([catalog] * COPIES, ignore_index=True), np.tile(hit, COPIES)


@cache
def found_with(share, even=False):
    """Return the share of hits found in each batch and copy at a share of the full test's exposures."""
    many, catalog, hit = pool()
    budget = (share * np.bincount(many.batch, weights=many.exposures)).astype(np.int64)
    table = TrialTable(many, catalog, SETTINGS)
    policy = Even(table) if even else BeliefPolicy(model().belief, model().rates, table)
    done = play(many, policy, budget, ROUNDS, np.random.default_rng(0))
    table.close()
    spent = np.bincount(many.batch, weights=done.bought)
    assert (spent <= budget).all()
    # Of a budget near the full test some is not worth spending.
    assert (spent >= (0.95 if share <= 0.2 else 0.5) * budget).all()
    place = pd.Series(done.score).groupby(many.batch).rank(ascending=False, method="first").to_numpy()
    taken = place <= many.slots[many.batch]
    return np.bincount(many.batch, weights=hit & taken) / np.bincount(many.batch, weights=hit)


SHARES = (0.01, 0.05, 0.2, 0.8)


def test_more_budget_never_finds_fewer_hits_on_average():
    found = [found_with(share) for share in SHARES]
    for less, more in pairwise(found):
        gain = (more - less).reshape(COPIES, -1).mean(axis=0)  # copies of a batch are no further batches
        assert gain.mean() > -2 * gain.std(ddof=1) / np.sqrt(len(gain))
        assert gain.mean() > -0.02
    assert found[-1].mean() > found[0].mean() + 0.1


def test_a_fifth_of_the_budget_finds_more_hits_by_plan_than_spread_evenly():
    by_plan, evenly = found_with(0.2), found_with(0.2, even=True)
    assert by_plan.mean() > evenly.mean()


def test_a_plan_spends_as_the_tests_that_the_model_learned_from():
    """What is replayed is what a merchant gets: round by round the same exposures."""
    rng = np.random.default_rng(4)
    n, size = 30, 1_500
    clicks = rng.binomial(size, rng.gamma(4, 0.006, n).clip(0, 0.5))
    orders = rng.binomial(clicks, 0.1)
    ids = np.array([f"s{i:02d}" for i in range(n)], dtype=object)
    counts = {"clicks": clicks.astype(float), "orders": orders.astype(float)}
    one = Pool(ids, np.zeros(n, dtype=np.int64), np.full(n, size), counts, np.array([4]))
    launch = pd.Timestamp("2025-03-03")
    catalog = pd.DataFrame(
        {
            "style_id": [f"t{i % 9}" for i in range(n)],
            "category": "c",
            "price": 9.0,
            "title": "x",
            "launched_at": launch,
        }
    )
    table = TrialTable(one, catalog, SETTINGS)
    policy = BeliefPolicy(model().belief, model().rates, table)
    views = play(one, policy, np.array([9_000]), 3, rng).views
    table.close()
    never = replace(model(), thresholds={"stop": -np.inf, "plan_stop": -np.inf, "scale": np.inf})
    skus = catalog.assign(sku_id=ids, batch_id="0")
    rows = pd.DataFrame(columns=["sku_id", "period_start", "known_at", "impressions", "clicks", "orders"])
    for before, after in pairwise(views):
        clock = launch + 7 * DAY * before.round / 3
        found = plan(
            never, rows, skus, clock,
            exposures=int(before.left[0]), rounds_left=before.rounds_left, slots=4, exposure_cap=size,
        )  # fmt: skip
        assert found["exposures"].tolist() == (after.bought - before.bought).tolist()
        new = {name: after.counts[name] - before.counts[name] for name in counts}
        times = {"period_start": clock, "known_at": launch + 7 * DAY * after.round / 3}
        round_ = pd.DataFrame({"sku_id": ids, "impressions": after.bought - before.bought, **new, **times})
        rows = pd.concat([rows, round_[round_["impressions"] > 0]]) if len(rows) else round_[round_["impressions"] > 0]


def test_a_test_planned_to_its_end_keeps_its_budget_and_cap_and_scales_more_hits_than_chance():
    """The merchant's loop, by hand: plan, show, count, plan again, from a new batch to the last round."""
    many, catalog, hit = pool()
    rng = np.random.default_rng(0)
    found = chance = 0.0
    for batch in range(3):
        of = np.flatnonzero(many.batch == batch)
        skus = catalog.iloc[of].assign(sku_id=many.sku_id[of], batch_id="now")
        skus["launched_at"] = launch = pd.Timestamp("2025-03-03")
        slots, cap, left = int(many.slots[batch]), 700, 8_000
        rate = many.counts["clicks"][of] / many.exposures[of], many.counts["orders"][of] / many.counts["clicks"][of]
        rows, total = [], np.zeros(len(of), dtype=int)
        for round_ in range(3):
            so_far = pd.DataFrame(rows, columns=["sku_id", "period_start", *COUNTS])
            told = plan(
                fitted(), so_far, skus, launch + round_ * DAY,
                exposures=left, rounds_left=3 - round_, slots=slots, exposure_cap=cap,
            )  # fmt: skip
            shown = told["exposures"].to_numpy()
            left -= shown.sum()
            total += shown
            clicks = rng.binomial(shown, rate[0])
            orders = rng.binomial(clicks, np.nan_to_num(rate[1]).clip(0, 1))
            at = launch + round_ * DAY
            rows += [
                (sku, at, *counts)
                for sku, *counts in zip(many.sku_id[of], shown, clicks, orders, strict=True)
                if counts[0]
            ]
        assert left >= 0
        assert total.max() <= cap
        assert total.sum() > 0.9 * 8_000
        told = plan(fitted(), pd.DataFrame(rows, columns=["sku_id", "period_start", *COUNTS]), skus, launch + 3 * DAY)
        best = np.argsort(-told["hit_probability"].to_numpy(), kind="stable")[:slots]
        found += hit[of][best].sum()
        chance += hit[of].mean() * slots
    assert found > 1.5 * chance


def test_a_warehouse_for_small_tables_says_the_same_to_the_last_digit():
    signals, skus, as_of = running()
    told = [described(model(), signals, skus, as_of, stacklevel=2, small=small) for small in (False, True)]
    pd.testing.assert_frame_equal(*told, check_exact=True)
