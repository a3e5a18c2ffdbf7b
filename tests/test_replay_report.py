"""What is said of replayed tests: figures counted by hand, intervals, the table, and the picture."""

from __future__ import annotations

import unicodedata

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from hitfinder.errors import DataError, HitfinderError, SettingsError
from hitfinder.replays import PRICE, SHUFFLED
from hitfinder.report.replay import (
    FULL,
    OURS,
    WORDS,
    draw_replay,
    isotonic,
    saved_at_equal_hits,
    say_replay,
    summarise_replay,
)


def rows_of(policy, budget, found, *, spent=None, seed=0, **more):
    """One row per batch: each has 100 exposures in full and 4 hits, worth 10 each."""
    found = list(found)
    spent = [100 * budget] * len(found) if spent is None else spent
    return pd.DataFrame({
        "policy": policy, "budget": float(budget), "batch_id": [f"b{i}" for i in range(len(found))], "seed": seed,
        "skus": 20, "hits": 4, "slots": 4, "found": found, "spent": spent, "pool": 100,
        "value_found": [10 * f for f in found], "value_best": 40, **more,
    })  # fmt: skip


def table_of(*parts):
    return pd.concat(parts, ignore_index=True)


def summary_row(summary, policy, budget):
    return summary[(summary["policy"] == policy) & (summary["budget"] == budget)].iloc[0]


@pytest.fixture
def results():
    """Full test: 2 + 3 + 1 = 6 hits; ours has 3 at 5 %, 5 at 10 % and 7 at 20 %; the shorter test never gets there."""
    return table_of(
        rows_of(OURS, 0.20, [3, 3, 1]),
        rows_of(OURS, 0.05, [1, 1, 1]),
        rows_of(OURS, 0.10, [2, 2, 1]),
        rows_of(FULL, 1.0, [2, 3, 1]),
        rows_of("shorter test", 0.10, [1, 0, 0]),
        rows_of("shorter test", 0.50, [2, 2, 1]),
    )


def test_what_was_found_and_saved_is_counted_as_by_hand(results):
    summary = summarise_replay(results, seed=0, draws=100)
    assert summary["policy"].tolist() == [OURS] * 3 + [FULL] + ["shorter test"] * 2
    assert summary["budget"].tolist() == [0.05, 0.1, 0.2, 1.0, 0.1, 0.5]
    ours = summary_row(summary, OURS, 0.1)
    assert (ours["batches"], ours["seeds"], ours["hits"], ours["found"]) == (3, 1, 12, 5)
    assert ours["saved"] == pytest.approx(0.9)
    assert ours["hits_share"] == pytest.approx(5 / 12)
    assert ours["value_captured"] == pytest.approx(50 / 120)
    assert ours["hits_vs_full"] == pytest.approx(5 / 6)
    assert np.isnan(ours["regret"])


def test_seeds_are_averaged_and_batches_added_up():
    table = table_of(rows_of(OURS, 0.1, [2, 0], seed=0), rows_of(OURS, 0.1, [4, 1], seed=7), rows_of(FULL, 1, [2, 2]))
    row = summary_row(summarise_replay(table, seed=0, draws=50), OURS, 0.1)
    assert row["found"] == pytest.approx(3 + 0.5)
    assert row["hits"] == 8
    assert row["seeds"] == 2


def test_money_adds_up_where_it_is_known_in_every_row_and_is_unknown_otherwise():
    known = rows_of(OURS, 0.1, [2, 1], money_spent=[3.0, 4.0], regret=[23.0, 34.0])
    partly = rows_of(FULL, 1.0, [2, 2], money_spent=[30.0, 40.0], regret=[50.0, None])
    summary = summarise_replay(table_of(known, partly), seed=0, draws=50)
    assert summary_row(summary, OURS, 0.1)["regret"] == 57
    assert summary_row(summary, OURS, 0.1)["money_spent"] == 7
    assert summary_row(summary, FULL, 1.0)["money_spent"] == 70
    assert np.isnan(summary_row(summary, FULL, 1.0)[["regret", "regret_low", "regret_high"]].astype(float)).all()
    nullable = table_of(known, partly).convert_dtypes()
    pd.testing.assert_frame_equal(summarise_replay(nullable, seed=0, draws=50), summary, check_dtype=False)


def test_a_policy_that_equals_the_full_test_has_no_interval_against_it():
    found = np.random.default_rng(0).integers(1, 5, 30)
    table = table_of(rows_of("twin", 0.3, found), rows_of(FULL, 1.0, found))
    twin = summary_row(summarise_replay(table, seed=0), "twin", 0.3)
    assert twin["hits_vs_full"] == twin["hits_vs_full_low"] == twin["hits_vs_full_high"] == 1.0
    # Its own hits are as uncertain as ever: it is the pairing that takes the noise out.
    assert twin["found_low"] < twin["found"] < twin["found_high"]


def test_the_interval_is_that_of_resampled_batches():
    found = np.random.default_rng(1).integers(0, 5, 40)
    row = summary_row(summarise_replay(table_of(rows_of(FULL, 1.0, found)), seed=0, draws=4000), FULL, 1.0)
    half = 1.645 * found.std() * np.sqrt(40)
    assert row["found_low"] == pytest.approx(found.sum() - half, rel=0.05)
    assert row["found_high"] == pytest.approx(found.sum() + half, rel=0.05)
    assert row["hits_share_low"] == pytest.approx(row["found_low"] / 160)


def test_one_batch_has_no_spread_and_is_said_to_be_few():
    summary = summarise_replay(table_of(rows_of(OURS, 0.1, [3]), rows_of(FULL, 1, [3])), seed=0, draws=20)
    assert "few batches" in say_replay(summary)


def test_the_summary_does_not_depend_on_the_order_of_the_rows_and_changes_nothing(results):
    before = results.copy(deep=True)
    summary = summarise_replay(results, seed=0, draws=200)
    pd.testing.assert_frame_equal(results, before)
    shuffled = results.sample(frac=1, random_state=1)
    other = summarise_replay(shuffled, seed=0, draws=200)
    order = ["policy", "budget"]
    pd.testing.assert_frame_equal(
        other.sort_values(order, ignore_index=True), summary.sort_values(order, ignore_index=True)
    )
    assert not summarise_replay(results, seed=1, draws=200).equals(summary)


@effort(max_examples=30, deadline=None)
@given(found=st.lists(st.integers(0, 3), min_size=2, max_size=8), at=st.integers(0, 7), seed=st.integers(0, 99))
def test_one_hit_more_never_lowers_a_figure(found, at, seed):
    more = list(found)
    more[at % len(found)] += 1
    full = rows_of(FULL, 1.0, [2] * len(found))
    a, b = (
        summary_row(summarise_replay(table_of(rows_of(OURS, 0.2, f), full), seed=seed, draws=60), OURS, 0.2)
        for f in (found, more)
    )
    for name in ("found", "hits_share", "value_captured", "hits_vs_full"):
        for end in ("", "_low", "_high"):
            assert b[name + end] >= a[name + end]
    assert b["hits_vs_full"] > a["hits_vs_full"]


# --- what is saved at equal hits


def test_the_saving_at_equal_hits_is_read_off_between_two_budgets(results):
    equal = saved_at_equal_hits(results, seed=0, draws=300)
    # From 5 hits at 10 % to 7 at 20 %: 6 lie half-way, at 15 %.
    assert equal[OURS].saved == pytest.approx(0.85)
    assert equal[OURS].measured == pytest.approx(0.8)
    assert equal[OURS].low <= equal[OURS].saved <= equal[OURS].high
    assert equal[FULL].saved == equal[FULL].low == equal[FULL].high == equal[FULL].measured == 0
    assert (equal["shorter test"].saved, equal["shorter test"].low, equal["shorter test"].measured) == (None,) * 3
    summary = summarise_replay(results, seed=0, draws=300)
    assert summary_row(summary, OURS, 0.05)["equal_saved"] == equal[OURS].saved
    assert summary_row(summary, OURS, 0.05)["equal_saved_low"] == equal[OURS].low
    assert np.isnan(summary_row(summary, "shorter test", 0.5)["equal_saved"])


def test_a_curve_that_starts_high_enough_is_not_drawn_out_to_budgets_that_were_not_played():
    table = table_of(rows_of(OURS, 0.1, [4, 4]), rows_of(OURS, 0.2, [4, 4]), rows_of(FULL, 1, [2, 2]))
    figures = saved_at_equal_hits(table, seed=0, draws=50)[OURS]
    assert figures.saved == figures.low == figures.high == figures.measured == pytest.approx(0.9)
    assert figures.reached == 1


def test_one_lucky_budget_does_not_set_the_saving_but_is_told():
    # 6 hits at 5 %, then 2, then 8: the first two are four hits each on a curve that never falls.
    table = table_of(
        rows_of(OURS, 0.05, [3, 3]), rows_of(OURS, 0.1, [1, 1]), rows_of(OURS, 0.3, [4, 4]), rows_of(FULL, 1, [3, 3])
    )
    figures = saved_at_equal_hits(table, seed=0, draws=50)[OURS]
    assert figures.measured == pytest.approx(0.95)
    assert figures.saved == pytest.approx(1 - (0.1 + 0.2 * (6 - 4) / (8 - 4)))


def test_draws_that_never_get_there_count_as_nothing_saved():
    # In truth a toss: 3 batches for and 3 against, so that about half the draws stay below.
    table = table_of(rows_of(OURS, 0.1, [4, 4, 4, 0, 0, 0]), rows_of(FULL, 1.0, [2] * 6))
    figures = saved_at_equal_hits(table, seed=0, draws=2000)[OURS]
    assert figures.saved == pytest.approx(0.9)
    assert 0.5 < figures.reached < 0.8
    assert figures.low == 0
    assert figures.high == pytest.approx(0.9)


def test_a_full_test_without_hits_or_none_at_all_leaves_nothing_to_reach():
    for full in (rows_of(FULL, 1.0, [0, 0]), rows_of("other", 1.0, [2, 2])):
        equal = saved_at_equal_hits(table_of(rows_of(OURS, 0.1, [1, 1]), full), seed=0, draws=20)
        assert equal[OURS].saved is None
        assert equal[OURS].measured is None
        assert equal[OURS].reached == 0


@effort(max_examples=40, deadline=None)
@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_the_curve_that_never_falls_is_the_closest_one(values):
    got = isotonic(np.array([values, values[::-1]], dtype=float))
    for row, original in zip(got, (values, values[::-1]), strict=True):
        expected = IsotonicRegression().fit_transform(np.arange(len(values)), np.array(original, dtype=float))
        np.testing.assert_allclose(row, expected)


# --- what is refused


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda t: t.drop(columns="pool"), "got no column pool"),
        (lambda t: t.iloc[:0], "got no rows"),
        (lambda t: t.assign(found=[None, *t["found"][1:]]), "every row of found"),
        (lambda t: t.assign(spent="many"), "expected numbers"),
        (lambda t: t.assign(batch_id=[None, *t["batch_id"][1:]]), "got an empty one"),
        (lambda t: pd.concat([t, t.head(1)]), "got some twice"),
        (lambda t: t.iloc[1:], r"on the same 3 batches, got 2 for 'hitfinder' at budget 0.2"),
    ],
)
def test_results_that_would_give_wrong_figures_are_refused(results, spoil, expected):
    for use in (summarise_replay, saved_at_equal_hits):
        with pytest.raises(DataError, match=expected):
            use(spoil(results), seed=0, draws=10)


# --- the table


def width(text):
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_columns_stand_under_each_other(results, language):
    money = results.assign(regret=1234.5, money_spent=8.0)
    head, rule, *rest = say_replay(summarise_replay(money, seed=0, draws=50), language).split("\n")
    body = rest[: rest.index("")]
    assert len(body) == 6
    # All columns but the first end where their headings do: each line is as wide as the rule.
    assert {width(line) for line in (head, rule, *body)} == {len(rule)}
    assert width(rule) <= 110


def test_the_table_says_what_was_counted(results):
    text = say_replay(summarise_replay(results, seed=0, draws=300))
    assert "5.0 of 12" in text
    assert "83%" in text  # 5 of the full test's 6
    assert "Regret" not in text
    assert text.count(OURS) == 2  # once in the table, once below


def test_the_headline_says_what_is_saved_with_its_interval_and_what_it_rests_on(results):
    *_, first, second = say_replay(summarise_replay(results, seed=0, draws=300)).split("\n")
    assert first.startswith("hitfinder finds the full test's hits and saves 85% (")
    assert "3 past batches with 12 hits" in second
    assert "few batches" in second
    chinese = say_replay(summarise_replay(results, seed=0, draws=300), "zh")
    assert "可节省 85%" in chinese
    assert "3 个历史批次、12 个爆款" in chinese


def test_the_headline_is_honest_where_the_full_test_is_never_reached():
    table = table_of(rows_of(OURS, 0.1, [1, 1]), rows_of(OURS, 0.2, [2, 1]), rows_of(FULL, 1.0, [2, 2]))
    text = say_replay(summarise_replay(table, seed=0, draws=100))
    assert "never finds as many hits as the full test; at its best it finds 75% (" in text
    assert "for 20% of the cost" in text
    assert "saves" not in text


def test_the_headline_says_so_where_there_is_nothing_to_compare_with():
    alone = summarise_replay(table_of(rows_of(OURS, 0.1, [1, 1])), seed=0, draws=20)
    only_full = summarise_replay(table_of(rows_of(FULL, 1, [1, 1])), seed=0, draws=20)
    assert "no full test to compare with" in say_replay(alone)
    assert "saves" not in say_replay(only_full)


def test_without_us_the_headline_is_the_best_peers(results):
    others = results[results["policy"] != OURS]
    better = table_of(others, rows_of("rule of thumb", 0.25, [2, 3, 2]))
    assert "rule of thumb finds the full test's hits at the smallest budget played and saves 75%" in say_replay(
        summarise_replay(better, seed=0, draws=50)
    )


def test_another_language_is_refused(results):
    with pytest.raises(SettingsError, match="expected en or zh, got 'fr'"):
        say_replay(summarise_replay(results, seed=0, draws=10), "fr")


def test_both_languages_have_the_same_words_with_the_same_places():
    def places(text):
        return sorted(part.partition("}")[0] for part in text.split("{")[1:])

    assert list(WORDS["en"]) == list(WORDS["zh"])
    for key, text in WORDS["en"].items():
        assert places(text) == places(WORDS["zh"][key]), key


# --- the picture


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_picture_is_written_whole_and_alone(results, tmp_path, suffix, start):
    out = tmp_path / "new" / f"curve{suffix}"
    assert draw_replay(summarise_replay(results, seed=0, draws=50), out) == out
    assert out.read_bytes().startswith(start)
    assert list(out.parent.iterdir()) == [out]


def text_of(summary, path):
    """Draw with texts as texts, and return them."""
    with mpl.rc_context({"svg.fonttype": "none"}):
        return draw_replay(summary, path).read_text(encoding="utf-8")


def test_the_picture_says_who_is_who_and_what_is_saved(tmp_path):
    table = table_of(rows_of(OURS, 0.05, [1] * 3), rows_of(OURS, 0.2, [3] * 3), rows_of(FULL, 1.0, [2] * 3))
    table = table_of(table, rows_of("shorter test", 0.5, [1] * 3))
    text = text_of(summarise_replay(table, seed=0, draws=50), tmp_path / "curve.svg")
    for said in (OURS, FULL, "shorter test", "full test's hits for 12% of its cost", "3 past batches with 12 hits"):
        assert said in text


def test_the_title_claims_no_saving_that_may_as_well_be_none(tmp_path):
    shaky = table_of(rows_of(OURS, 0.1, [4, 4, 4, 0, 0, 0]), rows_of(FULL, 1.0, [2] * 6))
    summary = summarise_replay(shaky, seed=0, draws=200)
    assert summary["equal_saved_low"].min() == 0
    assert "for at most 10% of its cost" not in text_of(summary, tmp_path / "curve.svg")
    assert "for at most 10% of its cost" in text_of(summary.assign(equal_saved_low=0.5), tmp_path / "curve.svg")


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_summary_gives_the_same_picture(results, tmp_path, suffix):
    summary = summarise_replay(results, seed=0, draws=50)
    a, b = (draw_replay(summary, tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert a == b


def test_a_cost_of_nothing_and_a_full_test_alone_can_be_drawn(tmp_path):
    free = table_of(rows_of(OURS, 0.0, [1, 1]), rows_of(OURS, 1.0, [2, 2]), rows_of(FULL, 1.0, [2, 2]))
    for table in (free, rows_of(FULL, 1.0, [2, 2])):
        assert draw_replay(summarise_replay(table, seed=0, draws=20), tmp_path / "curve.png").stat().st_size > 5_000


def test_what_can_not_be_drawn_or_written_is_refused_and_leaves_nothing(results, tmp_path):
    summary = summarise_replay(results, seed=0, draws=20)
    with pytest.raises(DataError, match=r"expected a name that ends in \.png, \.svg, \.pdf, got '\.jpg'"):
        draw_replay(summary, tmp_path / "curve.jpg")
    no_full = summarise_replay(results[results["policy"] != FULL], seed=0, draws=20)
    with pytest.raises(DataError, match="'full test', got none"):
        draw_replay(no_full, tmp_path / "curve.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(HitfinderError, match="can't be written"):
        draw_replay(summary, tmp_path / "file" / "curve.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_where_the_smallest_budget_is_enough_no_upper_end_is_made_up():
    table = table_of(rows_of(OURS, 0.1, [3, 3, 2]), rows_of(OURS, 0.3, [3, 3, 3]), rows_of(FULL, 1.0, [2, 3, 1]))
    summary = summarise_replay(table, seed=0, draws=100)
    assert summary_row(summary, OURS, 0.1)["equal_saved"] == pytest.approx(0.9)
    headline = say_replay(summary).splitlines()[-2]
    assert headline == (
        "hitfinder finds the full test's hits at the smallest budget played and saves 90% of its exposures or "
        "more (90% interval: from 90% up)."
    )
    assert "可节省 90% 或更多的曝光（90% 区间下限为 90%）" in say_replay(summary, "zh")


def test_controls_have_names_in_both_languages():
    table = table_of(rows_of(FULL, 1.0, [2, 3]), rows_of(SHUFFLED, 0.1, [1, 0]), rows_of(PRICE, 0.1, [0, 1]))
    summary = summarise_replay(table, seed=0, draws=20)
    assert all(name in say_replay(summary) for name in (SHUFFLED, PRICE))
    said = say_replay(summary, "zh")
    assert all(name in said for name in ("对照：打乱标签", "对照：仅按价格"))
    assert "control" not in said
