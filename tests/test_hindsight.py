"""Hindsight counts what can be counted, estimates what was cut off and says so, and never counts an open window."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom

from hitfinder.deciding import DRAWN, decide
from hitfinder.errors import DataError, SettingsError
from hitfinder.hindsight import hindsight
from hitfinder.livetest.rounds import Round, decisions_of
from hitfinder.offpolicy import estimate
from hitfinder.report import write_list
from hitfinder.report.hindsight import WORDS, hindsight_block, hindsight_page, say_hindsight, write_hindsight
from hitfinder.settings import parse_settings
from hitfinder.simulate import cut_off

MONDAY = pd.Timestamp("2025-03-03")
DAY = pd.Timedelta(days=1)


def settings_of(share=0.2, seed=0, **label):
    rule = {"test_window": "7d", "outcome_window": "14d", "metric": "revenue", "min_value": 100, **label}
    return parse_settings({"seed": seed, "label": rule, "policy": {"explore_share": share}, "model": {"threads": 1}})


def shop(values, says, *, week=0, spend=10.0):
    """Return (signals, skus, ranked): a batch whose SKUs earn `values` in their outcome window, and its list."""
    launch = MONDAY + 7 * week * DAY
    ids = [f"w{week}-{i:03}" for i in range(len(values))]
    signals = pd.DataFrame(
        {
            "sku_id": ids * 2,
            "period_start": [launch] * len(ids) + [launch + 9 * DAY] * len(ids),
            "impressions": 100,
            "revenue": [1.0] * len(ids) + list(values),
            "spend": [3.0] * len(ids) + [spend] * len(ids),
        }
    )
    skus = pd.DataFrame({"sku_id": ids, "batch_id": f"W{week}", "launched_at": launch})
    ranked = skus.drop(columns="launched_at").assign(
        hit_probability=0.1, expected_value=1.0, action=says, model_version="m/1", as_of=launch + 7 * DAY
    )
    return signals, skus, ranked


def of(*shops):
    return tuple(pd.concat(parts, ignore_index=True) for parts in zip(*shops, strict=True))


def decided(ranked, settings, people=(), earlier=None):
    told = pd.DataFrame(list(people), columns=["sku_id", "action", "decided_by", "reason"]) if people else None
    return decide(ranked, earlier, settings, decided_at=ranked["as_of"].max(), overrides=told)


def look(decisions, signals, skus, settings, **more):
    return hindsight(decisions, signals, skus, settings, **{"as_of": MONDAY + 30 * DAY, **more})


@pytest.fixture
def small():
    """Ten SKUs: two scaled (a hit, a false alarm), three on test (a hit), five to stop, of which two are hits."""
    values = [500, 5, 300, 5, 5, 400, 200, 5, 5, 5]
    return shop(values, ["scale"] * 2 + ["test"] * 3 + ["stop"] * 5)


def test_what_can_be_counted_is_counted_by_hand(small):
    signals, skus, ranked = small
    settings = settings_of(share=0)
    done = look(decided(ranked, settings), signals, skus, settings)
    row = done.summary.iloc[0].to_dict()
    expected = {"list": "W0", "skus": 10, "scaled": 2, "scaled_hits": 1, "false_alarms": 1, "tested": 3,
                "tested_hits": 1, "drawn": 0, "drawn_hits": 0, "stopped": 5, "stopped_unknown": 5,
                "value_kept": 815.0, "spend": 50.0, "spend_on_losers": 30.0}  # fmt: skip
    assert {k: row[k] for k in expected} == expected
    assert done.told["all"]["missed"] is None
    assert done.told["all"]["missed_high"] is None
    assert done.told["all"]["value_missed"] is None
    stopped = done.skus[done.skus["action"] == "stop"]
    assert stopped[["hit", "value"]].isna().all(axis=None)  # what came after a stop is no outcome
    assert len(done.summary) == 2
    assert done.summary["list"].isna().tolist() == [False, True]
    assert done.summary.drop(columns="list").iloc[0].equals(done.summary.drop(columns="list").iloc[1])


def test_no_outcome_of_a_stopped_sku_reaches_the_figures(small):
    signals, skus, ranked = small
    settings = settings_of(share=0.4)
    decisions = decided(ranked, settings)
    stopped = decisions.loc[decisions["action"] == "stop", "sku_id"]
    assert len(stopped) > 1
    other = signals.assign(revenue=signals["revenue"].where(~signals["sku_id"].isin(stopped), 99_999.0))
    told = look(decisions, signals, skus, settings).told
    assert look(decisions, other, skus, settings).told == told


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_missed_hits_are_estimated_without_bias_and_the_interval_holds_the_truth(share):
    """Forty lists, each with coins of its own: what was estimated of each against what is known here."""
    rng = np.random.default_rng(4)
    shops, settings = [], settings_of(share)
    for week in range(40):
        values = np.full(100, 5.0)
        values[rng.choice(100, 6, replace=False)] = 200.0
        shops.append(shop(values, ["stop"] * 100, week=week))
    signals, skus, ranked = of(*shops)
    decisions = pd.concat([decided(list_, settings) for _, _, list_ in shops])
    told = look(decisions, signals, skus, settings, as_of=MONDAY + 300 * DAY, since="52w").told
    worth = signals.drop_duplicates("sku_id", keep="last").set_index("sku_id")["revenue"]
    stopped = decisions.loc[decisions["action"] == "stop", "sku_id"]
    batch = ranked.set_index("sku_id")["batch_id"]
    truth = worth[stopped].groupby(batch[stopped]).agg(hits=lambda v: (v >= 100).sum(), value="sum")
    rows = pd.DataFrame(told["lists"]).set_index("list").join(truth)
    assert len(rows) == 40
    assert (rows["stopped_unknown"] == 0).all()
    error = (rows["missed"] - rows["hits"]).dropna()
    assert abs(error.mean()) < 3.5 * error.std() / math.sqrt(len(error))
    assert ((rows["missed_low"] <= rows["hits"]) & (rows["hits"] <= rows["missed_high"])).sum() >= 33
    money = (rows["value_missed"] / rows["value"] - 1).dropna()
    assert len(money) > 30
    assert abs(money.mean()) < 3.5 * money.std() / math.sqrt(len(money))
    # All lists together are one sample of one coin: surer than each.
    whole, lost = told["all"], int(truth["hits"].sum())
    width = whole["missed_high"] - whole["missed_low"]
    assert width < rows["missed_high"].sum() - rows["missed_low"].sum()
    assert abs(whole["missed"] - lost) < 3.5 * width / (2 * 1.645)


def test_the_interval_is_that_of_drawing_without_putting_back():
    values = np.full(60, 5.0)
    values[:6] = 200.0
    signals, skus, ranked = shop(values, ["stop"] * 60)
    settings = settings_of(0.5, seed=3)
    whole = look(decided(ranked, settings), signals, skus, settings).told["all"]
    n, found = whole["drawn"], whole["drawn_hits"]
    fits = [m for m in range(61) if hypergeom.sf(found - 1, 60, m, n) > 0.05 and hypergeom.cdf(found, 60, m, n) > 0.05]
    assert (whole["missed_low"], whole["missed_high"]) == (fits[0] - found, fits[-1] - found)
    assert whole["missed"] == pytest.approx(60 * found / n - found)


def test_no_hit_among_the_drawn_is_not_the_certainty_of_none():
    signals, skus, ranked = shop([5.0] * 80, ["stop"] * 80)
    settings = settings_of(0.1)
    whole = look(decided(ranked, settings), signals, skus, settings).told["all"]
    assert whole["missed"] == 0
    assert whole["missed_low"] == 0
    assert whole["missed_high"] > 10


def test_people_are_held_against_what_the_model_would_have_done(small):
    signals, skus, ranked = small
    settings = settings_of(share=0)
    people = [
        ("w0-005", "scale", "Li", "pretty"),  # the model said stop: a hit found
        ("w0-007", "scale", "Li", None),  # the model said stop: a false alarm
        ("w0-002", "stop", "Ana", None),  # the model said test: nobody will know
        ("w0-000", "test", "Ana", None),  # the model said scale: a hit held back
        ("w0-001", "scale", "Ana", None),  # as the model said
    ]
    done = look(decided(ranked, settings, people), signals, skus, settings)
    rows = {(r["model_action"], r["action"]): r for r in done.told["people"]}
    assert {k: (r["skus"], r["seen"], r["hits"], r["raised"]) for k, r in rows.items()} == {
        ("stop", "scale"): (2, 2, 1, True),
        ("test", "stop"): (1, 0, 0, False),
        ("scale", "test"): (1, 1, 1, False),
    }
    assert rows["stop", "scale"]["value"] == 405.0
    assert rows["stop", "scale"]["spend"] == 20.0
    assert done.told["all"]["scaled_hits"] == 1
    assert done.told["all"]["stopped_unknown"] == 4
    said = done.say()
    assert "People raised 2 SKUs above what the model said: 1 of them were hits. Of 2 that they scaled, 1 were" in said
    assert "What the 1 that they stopped would have done is not known." in said
    assert "Li" not in said.replace("List", "")  # whoever it was, the page names nobody


def test_open_windows_are_told_and_never_counted(small):
    closed, open_ = small, shop([500] * 6, ["scale"] * 6, week=2)
    signals, skus, _ = of(closed, open_)
    settings = settings_of(share=0.4)
    decisions = pd.concat([decided(closed[2], settings), decided(open_[2], settings)])
    as_of = MONDAY + 30 * DAY  # W0 closed on day 21, W2 closes on day 35
    done = look(decisions, signals, skus, settings, as_of=as_of)
    assert done.summary["list"].dropna().tolist() == ["W0"]
    assert (done.told["open_lists"], done.told["open_skus"]) == (1, 6)
    alone = look(decided(closed[2], settings), closed[0], closed[1], settings, as_of=as_of).told
    assert {**done.told, "open_lists": 0, "open_skus": 0} == alone
    # The very moment it closes it counts, and a moment before it does not.
    assert look(decisions, signals, skus, settings, as_of=MONDAY + 35 * DAY).told["open_skus"] == 0
    assert look(decisions, signals, skus, settings, as_of=MONDAY + 35 * DAY - DAY / 24).told["open_skus"] == 6


def test_a_batch_of_which_one_window_is_open_is_open(small):
    signals, skus, ranked = small
    skus.loc[9, "launched_at"] += 12 * DAY
    settings = settings_of(share=0)
    done = look(decided(ranked, settings), signals, skus, settings)
    assert done.told["all"] is None
    assert (done.told["open_lists"], done.told["open_skus"]) == (1, 10)
    assert done.summary.empty
    assert done.skus.empty
    assert "No list closed" in done.say()


def test_what_is_known_later_changes_nothing(small):
    signals, skus, ranked = small
    settings = settings_of(share=0.4)
    decisions = decided(ranked, settings)
    told = look(decisions, signals, skus, settings).told
    late = signals.assign(revenue=9_999.0, known_at=MONDAY + 31 * DAY)
    tomorrow = decided(ranked, settings).assign(decided_at=MONDAY + 31 * DAY, action="scale")
    again = look(pd.concat([decisions, tomorrow]), pd.concat([signals, late]), skus, settings)
    assert again.told == told


def test_since_looks_back_as_far_as_it_says(small):
    older, newer = small, shop([500] * 6, ["scale"] * 6, week=3)
    signals, skus, _ = of(older, newer)
    settings = settings_of(share=0)
    decisions = pd.concat([decided(older[2], settings), decided(newer[2], settings)])
    at = MONDAY + 42 * DAY  # the newer closed just now, the older three weeks ago
    assert look(decisions, signals, skus, settings, as_of=at, since="3w").summary["list"].dropna().tolist() == ["W3"]
    both = look(decisions, signals, skus, settings, as_of=at, since="22d")
    assert both.summary["list"].dropna().tolist() == ["W0", "W3"]
    assert both.told["all"]["skus"] == 16
    with pytest.raises(SettingsError):
        look(decisions, signals, skus, settings, since="a month")


def test_the_last_decision_before_half_of_the_outcome_window_counts(small):
    signals, skus, ranked = small
    settings = settings_of(share=0)
    first = decided(ranked, settings)
    middle = MONDAY + 14 * DAY
    second = decided(ranked.assign(action="scale", as_of=middle - DAY), settings, earlier=first)
    in_time = look(pd.concat([first, second]), signals, skus, settings).told
    assert in_time["all"]["scaled"] == 5  # what was stopped stays stopped
    second = decided(ranked.assign(action="scale", as_of=middle), settings, earlier=first)
    too_late = look(pd.concat([first, second]), signals, skus, settings).told
    assert too_late["all"]["scaled"] == 2
    only_late = look(second, signals, skus, settings).told
    assert only_late["late"] == 10
    assert only_late["all"] is None


def test_a_sku_that_was_drawn_and_then_scaled_by_the_list_still_speaks_for_those_passed_over():
    values = [200.0] * 10 + [5.0] * 40
    signals, skus, ranked = shop(values, ["stop"] * 50)
    settings = settings_of(0.3)
    first = decided(ranked, settings)
    drawn = first.loc[first["action"] == "test", "sku_id"]
    hits = drawn[drawn < "w0-010"]
    assert len(hits) >= 1
    # The next list sees the good ones among those that were kept on, and scales them.
    says = ["scale" if k in set(hits) else "stop" for k in ranked["sku_id"]]
    second = decided(ranked.assign(action=says, as_of=MONDAY + 10 * DAY), settings, earlier=first)
    whole = look(pd.concat([first, second]), signals, skus, settings).told["all"]
    assert whole["scaled_hits"] == len(hits)
    assert whole["drawn_hits"] == 0
    assert whole["missed"] == pytest.approx(50 * len(hits) / len(drawn) - len(hits))


def test_rows_of_rounds_and_of_others_are_told_and_left_out(small):
    signals, skus, ranked = small
    settings = settings_of(share=0)
    lists = decided(ranked, settings)
    table = ranked[["sku_id", "hit_probability"]].assign(exposures=5, action="stop")
    a_round = Round("W0", 1, 6, 1000, 0, 0, 10, 1000, MONDAY, MONDAY + DAY, "m/1", table)
    done = look(pd.concat([lists, decisions_of(a_round).to_pandas()]), signals, skus, settings)
    assert done.told["others"] == 10
    assert {**done.told, "others": 0} == look(lists, signals, skus, settings).told


def test_a_rate_has_no_sum_and_unmeasured_spend_is_not_nothing(small):
    signals, skus, ranked = small
    settings = settings_of(share=0.4, metric="revenue / impressions", min_value=1.0)
    whole = look(decided(ranked, settings), signals.drop(columns="spend"), skus, settings).told["all"]
    assert whole["scaled_hits"] == 1
    assert [whole[k] for k in ("value_kept", "value_missed", "spend", "spend_on_losers")] == [None] * 4


def test_outcomes_that_are_given_are_used_and_what_they_lack_is_told(small):
    signals, skus, ranked = small
    settings = settings_of(share=0)
    known = MONDAY + 25 * DAY
    outcomes = pd.DataFrame({"sku_id": skus["sku_id"][1:], "value": 500.0, "known_at": known})
    done = look(decided(ranked, settings), signals, skus, settings, outcomes=outcomes)
    assert (done.told["all"]["scaled_hits"], done.told["all"]["scaled"], done.told["unlabelled"]) == (1, 1, 1)
    assert "1 SKU has no outcome that can be judged" in done.say()


def test_a_batch_too_small_to_judge_is_told_and_not_counted():
    signals, skus, ranked = shop([500, 5, 5], ["scale", "test", "stop"])
    settings = settings_of(share=0)
    done = look(decided(ranked, settings), signals, skus, settings)
    assert done.told["all"] is None
    assert done.told["unlabelled"] == 3


def test_decisions_and_tables_may_be_files(small, tmp_path):
    signals, skus, ranked = small
    settings = settings_of(share=0.4)
    decisions = decided(ranked, settings)
    for name, table in {"signals": signals, "skus": skus, "decisions": decisions}.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    names = [str(tmp_path / f"{name}.parquet") for name in ("decisions", "signals", "skus")]
    assert look(*names, settings).told == look(decisions, signals, skus, settings).told


@pytest.fixture
def told():
    """A month with everything in it."""
    rng = np.random.default_rng(1)
    shops, decisions = [], []
    settings = settings_of(0.2)
    for week in range(4):
        values = rng.exponential(60, 60)
        says = np.where(values > 150, "scale", np.where(values > 60, "test", "stop"))
        says[rng.integers(0, 60, 8)] = "stop"
        shops.append(shop(values, says, week=week))
        ranked = shops[-1][2]
        people = [(ranked["sku_id"][i], a, "Li", None) for i, a in ((5, "scale"), (6, "stop"), (7, "test"))]
        decisions.append(decided(ranked, settings, people))
    signals, skus, _ = of(*shops)
    decisions.append(decided(shop([1.0] * 9, ["test"] * 9, week=5)[2], settings))
    skus = pd.concat([skus, shop([1.0] * 9, ["test"] * 9, week=5)[1]])
    return look(pd.concat(decisions), signals, skus, settings, as_of=MONDAY + 45 * DAY).told


def test_both_languages_say_the_same_things_with_the_same_figures(told):
    assert set(WORDS["en"]) == set(WORDS["zh"])
    for key, text in WORDS["en"].items():
        places = {part.split("}")[0] for part in text.split("{")[1:]}
        assert places == {part.split("}")[0] for part in WORDS["zh"][key].split("{")[1:]}, key
    en, zh = say_hindsight(told, "en"), say_hindsight(told, "zh")
    assert len(en.splitlines()) == len(zh.splitlines()) > 6
    for text in (en, zh):
        assert f"{told['all']['scaled_hits']}" in text
        assert f"{told['all']['missed_high']}" in text
    with pytest.raises(SettingsError):
        say_hindsight(told, "fr")


def test_it_is_plain_json_and_json_brings_the_same_page_back(told):
    again = json.loads(json.dumps(told, allow_nan=False))
    assert again == told
    assert hindsight_page(again, "zh") == hindsight_page(told, "zh")


def test_the_page_escapes_what_it_is_given_and_loads_nothing(told):
    bad = {**told, "lists": [{**told["lists"][0], "list": "<script>alert(1)</script>"}]}
    page = hindsight_page(bad)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "default-src" in page
    assert "http:" not in page
    assert "https:" not in page
    assert 'style="' not in page  # the policy would forbid it


@pytest.mark.parametrize("suffix", ["html", "json", "csv", "txt"])
def test_files_are_the_same_again_and_hold_every_list(told, tmp_path, suffix):
    first = write_hindsight(told, tmp_path / "new" / f"h.{suffix}").read_bytes()
    assert write_hindsight(told, tmp_path / "new" / f"h.{suffix}").read_bytes() == first
    assert len(list((tmp_path / "new").iterdir())) == 1
    if suffix != "txt":
        assert all(name["list"].encode() in first for name in told["lists"])


def test_another_suffix_is_refused(told, tmp_path):
    with pytest.raises(DataError, match=r"\.html, \.json"):
        write_hindsight(told, tmp_path / "h.pdf")
    assert not list(tmp_path.iterdir())


def test_the_weekly_page_tells_it_and_is_as_it_was_without(told, tmp_path):
    ranked = shop([1.0] * 6, ["scale", "test", "stop"] * 2)[2].assign(
        rank=range(1, 7), hit_probability_low=0.0, hit_probability_high=1.0, reason_1="a", reason_2=None, reason_3=None
    )
    without = write_list(ranked, tmp_path / "a.html").read_text(encoding="utf-8")
    page = write_list(ranked, tmp_path / "b.html", hindsight=told, language="zh").read_text(encoding="utf-8")
    block = str(hindsight_block(told, "zh"))
    assert block in page
    assert WORDS["en"]["title"] not in without
    english = write_list(ranked, tmp_path / "c.html", hindsight=told).read_text(encoding="utf-8")
    assert english.replace(str(hindsight_block(told, "en")) + "\n", "") == without


def test_the_drawn_are_told_apart_from_those_that_the_list_keeps(small):
    signals, skus, ranked = small
    settings = settings_of(share=0.5)
    decisions = decided(ranked, settings)
    n = int(decisions["reason"].str.contains(f"because={DRAWN}").sum())
    whole = look(decisions, signals, skus, settings).told["all"]
    assert (whole["drawn"], whole["tested"], whole["stopped"]) == (n, 3, 5 - n)


def test_what_was_logged_answers_what_another_policy_would_have_found():
    rng = np.random.default_rng(2)
    shops, settings = [], settings_of(0.3)
    for week in range(25):
        values = np.where(rng.random(80) < 0.1, 200.0, 5.0)
        shops.append(shop(values, ["scale"] * 10 + ["stop"] * 70, week=week))
    signals, skus, _ = of(*shops)
    people = [("w3-011", "test", "Li", None), ("w4-001", "stop", "Li", None)]
    decisions = pd.concat([decided(s[2], settings) for s in shops[:3]]
                          + [decided(shops[3][2], settings, people[:1]), decided(shops[4][2], settings, people[1:])]
                          + [decided(s[2], settings) for s in shops[5:]])  # fmt: skip
    done = look(decisions, signals, skus, settings, as_of=MONDAY + 300 * DAY, since="52w")
    logged = done.logged()
    assert logged["propensity"].round(9).isin([0.3, 0.7, 1.0]).all()
    assert logged.loc[done.skus["sku_id"].isin(["w3-011", "w4-001"]), "propensity"].tolist() == [1.0, 1.0]
    wanted = done.skus["sku_id"].str[-3:].astype(int).between(5, 40) & (done.skus["sku_id"] != "w4-001")
    found = estimate(logged, wanted.astype(float), predicted=np.full(len(logged), 0.1))
    worth = signals.drop_duplicates("sku_id", keep="last").set_index("sku_id")["revenue"]
    truth = (worth[done.skus.loc[wanted, "sku_id"]] >= 100).sum() / 25
    for row in found.table.itertuples():
        assert abs(row.value - truth) < 3.5 * (row.high - row.low) / (2 * 1.645), row.estimator
    assert estimate(done.logged("value"), wanted.astype(float)).logged > found.logged


def test_decisions_from_after_the_moment_are_not_told_of(small):
    newer = shop([1.0] * 6, ["test"] * 6, week=5)
    signals, skus, _ = of(small, newer)
    settings = settings_of(share=0)
    first = decided(small[2], settings)
    told = look(pd.concat([first, decided(newer[2], settings)]), signals, skus, settings).told
    assert told == look(first, signals, skus, settings).told
    assert told["open_skus"] == 0


def test_whom_people_decided_on_after_the_coin_speaks_for_nobody():
    signals, skus, ranked = shop([200.0] * 5 + [5.0] * 45, ["stop"] * 50)
    settings = settings_of(0.4)
    first = decided(ranked, settings)
    hits = first.loc[(first["action"] == "test") & (first["sku_id"] < "w0-005"), "sku_id"]
    assert len(hits)
    people = [(sku_id, "scale", "Li", None) for sku_id in hits]
    after = ranked[ranked["sku_id"].isin(hits)]
    later = decided(after, settings, people).assign(decided_at=MONDAY + 8 * DAY)
    whole = look(pd.concat([first, later]), signals, skus, settings).told["all"]
    assert whole["scaled_hits"] == len(hits)
    assert whole["missed"] == 0


def test_spend_that_was_reported_again_is_counted_once(small):
    signals, skus, ranked = small
    settings = settings_of(share=0)
    again = signals.assign(known_at=MONDAY + 20 * DAY, spend=11.0)
    whole = look(decided(ranked, settings), pd.concat([signals, again]), skus, settings).told["all"]
    assert whole["spend"] == 55.0


def test_under_a_top_share_the_stopped_hits_leave_their_places_to_nobody():
    """Six lists of which half is stopped whatever it is worth: as many hits are told as there are, not half as many
    again."""
    rng = np.random.default_rng(6)
    settings = settings_of(0.25, min_value=None, top_share=0.1)
    shops = [
        shop(rng.lognormal(4, 1, 200), np.where(rng.random(200) < 0.6, "stop", "test"), week=week) for week in range(6)
    ]
    signals, skus, _ = of(*shops)
    decisions = pd.concat([decided(list_, settings) for _, _, list_ in shops])
    worth = signals.drop_duplicates("sku_id", keep="last").set_index("sku_id")["revenue"]
    place = worth.groupby(worth.index.str[:2]).rank(ascending=False)
    hit = place <= 20
    stopped = decisions.loc[decisions["action"] == "stop", "sku_id"]
    lost = int(hit[stopped].sum())
    # What a shop sees: nothing after a stop.
    cut = cut_off(signals.assign(known_at=signals["period_start"] + DAY), decisions[decisions["action"] == "stop"])
    done = look(decisions, cut, skus, settings, as_of=MONDAY + 90 * DAY, since="52w")
    whole = done.told["all"]
    kept = whole["scaled_hits"] + whole["tested_hits"] + whole["drawn_hits"]
    assert kept == pytest.approx(120 - lost, rel=0.25)  # with places left to others, all 120
    assert whole["missed_low"] <= lost <= whole["missed_high"]
    assert kept + whole["missed"] == pytest.approx(120, rel=0.2)
    assert done.logged("hit")["outcome"].sum() == kept
    assert whole["spend_on_losers"] == pytest.approx(10.0 * (len(decisions) - len(stopped) - kept))


@pytest.mark.parametrize(("language", "exact", "rough"), [
    ("en", "its exact 90%", "a rough 90% interval"), ("zh", "精确", "90% 区间仅为近似")
])  # fmt: skip
def test_only_where_the_cut_off_is_given_the_interval_is_called_exact(language, exact, rough):
    values = [200.0] * 6 + [5.0 + i for i in range(44)]
    signals, skus, ranked = shop(values, ["stop"] * 50)
    for rule, is_exact in (({}, True), ({"min_value": None, "top_share": 0.12}, False)):
        settings = settings_of(0.5, **rule)
        told = look(decided(ranked, settings), signals, skus, settings).told
        for text in (say_hindsight(told, language), hindsight_page(told, language)):
            assert (exact in text) == is_exact
            assert (rough in text) != is_exact


def test_whom_a_person_calls_back_after_the_coin_is_told_of_and_represented_once():
    values = [200.0] * 10 + [5.0 + i / 100 for i in range(40)]
    signals, skus, ranked = shop(values, ["stop"] * 50)
    settings = settings_of(0.4, min_value=None, top_share=0.2)
    first = decided(ranked, settings)
    passed = first.loc[first["action"] == "stop", "sku_id"]
    back = ranked[ranked["sku_id"].isin(passed[passed < "w0-010"].head(2))]
    people = [(sku_id, "scale", "Li", None) for sku_id in back["sku_id"]]
    later = decided(back, settings, people).assign(decided_at=MONDAY + 8 * DAY)
    done = look(pd.concat([first, later]), signals, skus, settings)
    assert [(row["skus"], row["hits"]) for row in done.told["people"]] == [(2, 2)]
    logged = done.logged().set_index(done.skus["sku_id"])
    assert not logged.loc[back["sku_id"], "kept"].any()
    assert logged.loc[back["sku_id"], "propensity"].tolist() == pytest.approx([0.6, 0.6])
    n_hits = int(done.skus.loc[done.skus["drawn"], "hit"].sum())
    found = estimate(logged, np.ones(50)).table.set_index("estimator")["value"]
    assert found["inverse_propensity"] == pytest.approx(n_hits / 0.4)


def test_whom_a_round_stopped_after_the_list_kept_it_is_no_failure(small):
    signals, skus, ranked = small
    settings = settings_of(share=0)
    lists = decided(ranked, settings)
    after = pd.DataFrame({"sku_id": ["w0-001"], "decided_at": MONDAY + 8 * DAY, "action": "stop", "propensity": 1.0,
                          "reason": "test=W0"})  # fmt: skip
    told = look(pd.concat([lists, after]), signals, skus, settings).told
    assert (told["all"]["scaled"], told["all"]["false_alarms"], told["unlabelled"]) == (1, 0, 1)
