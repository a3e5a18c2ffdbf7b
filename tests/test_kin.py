"""What SKUs of like titles have shown: against a slow oracle, and what must not change it."""

import json
import math

import numpy as np
import pandas as pd
import pytest

import hitfinder as hf
from hitfinder.models import kin
from hitfinder.models.kin import Kin, fit_kin, shown_in
from hitfinder.models.words import hash_words, title_words
from hitfinder.ranking import described
from hitfinder.settings import parse_settings

RATES = {"visitors_per_day": 0.25, "orders_per_day": 0.75}
NOUNS = ["heart", "rabbit", "skull", "lantern", "teapot", "ribbon"]
MONDAY = pd.Timestamp("2025-01-06")
SETTINGS = parse_settings(
    {
        "signals": {"period": "1d"},
        "label": {"test_window": "7d", "outcome_window": "14d", "metric": "orders", "top_share": 0.1},
        "model": {"seeds": 1, "threads": 1, "folds": 3},
        "trees": {"rounds": 20},
    }
)


def draw_table(seed, n=28, attribute=True):
    """Draw (table, skus by id): a few states of each SKU, with rates that depend on the title."""
    rng = np.random.default_rng(seed)
    skus, rows = [], []
    for i in range(n):
        nouns = rng.choice(NOUNS, size=2, replace=False)
        title = None if rng.random() < 0.1 else f"Set of {i} {nouns[0].upper()} and {nouns[1]} 心形灯"
        skus.append({"sku_id": f"s{i:03d}", "title": title, "colour": rng.choice(["red", "blue", None])})
        day = int(rng.integers(0, 30))
        for age in sorted(rng.choice(10, size=rng.integers(1, 4), replace=False)):
            row = {
                "as_of": MONDAY + pd.Timedelta(days=day + int(age)),
                "sku_id": f"s{i:03d}",
                "batch_id": f"b{day // 10}",
                "style_id": f"style {i // 3}",
            }
            for rate in RATES:
                seen = rng.random() > 0.1
                row[f"{rate}.sku_rate"] = rng.exponential() + 0.1 if seen else np.nan
                row[f"{rate}.category_rate"] = rng.exponential() + 0.1 if seen else np.nan
                row[f"{rate}.unknown"] = 4.0 / (age + 4.0) if seen else np.nan
            rows.append(row)
    table = pd.DataFrame(rows).sort_values(["as_of", "sku_id"]).reset_index(drop=True)
    skus = pd.DataFrame(skus).set_index("sku_id")
    return table, skus if attribute else skus.drop(columns="colour")


def tokens(sku):
    said = dict.fromkeys(title_words("" if pd.isna(sku["title"]) else sku["title"]), 1.0)
    if "colour" in sku and not pd.isna(sku["colour"]):
        said[f"colour={sku['colour']}"] = 0.5
    return said


def cosine(one, other):
    length = math.sqrt(sum(v * v for v in one.values())) * math.sqrt(sum(v * v for v in other.values()))
    return sum(v * other.get(k, 0.0) for k, v in one.items()) / length if length else 0.0


def last_by(told, moment):
    return told[told["as_of"] <= moment].sort_values("as_of", kind="stable").drop_duplicates("sku_id", keep="last")


def slowly(asked, told, skus, admits):
    """For each row of `asked` sum over the last state by then of every kin that is admitted."""
    out = []
    for _, row in asked.iterrows():
        lead, mass = dict.fromkeys(RATES, 0.0), dict.fromkeys(RATES, 0.0)
        there = last_by(told, row["as_of"])
        siblings = there.groupby(["batch_id", "style_id"])["sku_id"].transform("size")
        for place, last in there.iterrows():
            family = last["batch_id"] == row["batch_id"] and last["style_id"] == row["style_id"]
            like = cosine(tokens(skus.loc[last["sku_id"]]), tokens(skus.loc[row["sku_id"]]))
            if last["sku_id"] == row["sku_id"] or family or like <= 0.05 or not admits(row, last):
                continue
            for rate in RATES:
                if not math.isnan(last[f"{rate}.unknown"]):
                    weight = like**2 / siblings[place]
                    lead[rate] += weight * math.log(last[f"{rate}.sku_rate"] / last[f"{rate}.category_rate"])
                    mass[rate] += weight * (1 - last[f"{rate}.unknown"])
        out.append([(lead[rate], mass[rate]) for rate in RATES])
    return np.asarray(out).reshape(len(asked), len(RATES), 2)


def scored(asked, sums, table):
    """Say how far kin stand above the common run of the last states in `table`, where a row is not known itself."""
    total = np.zeros(len(asked))
    last = last_by(table, table["as_of"].max())
    for place, (rate, weight) in enumerate(RATES.items()):
        told = last[last[f"{rate}.unknown"].notna()]
        leads = np.log(told[f"{rate}.sku_rate"] / told[f"{rate}.category_rate"])
        common = leads.sum() / (1 - told[f"{rate}.unknown"]).sum()
        unknown = asked[f"{rate}.unknown"].fillna(1.0).to_numpy()
        # The mean with half a kin of the common run among them, less the common run.
        mean = (sums[:, place, 0] + 0.5 * common) / (sums[:, place, 1] + 0.5) - common
        total += weight * unknown * mean
    return total


@pytest.fixture
def certain(monkeypatch):
    """Drawn tables bear nothing out: let that count as it comes."""
    monkeypatch.setattr(kin, "_borne_out", lambda *_: 0.5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("certain")
def test_what_kin_tell_is_what_a_slow_sum_says(seed):
    table, skus = draw_table(seed)
    attributes = ["colour"]
    fitted, told = fit_kin(shown_in(table, skus, attributes, RATES), RATES, set(skus.index))
    np.testing.assert_allclose(
        told, 0.5 * scored(table, slowly(table, table, skus, lambda *_: True), table), atol=1e-12
    )
    assert np.abs(told).max() > 0.01

    # A later list: the last batch's SKUs a day older, and new ones beside them.
    stored = table.sort_values("as_of").drop_duplicates("sku_id", keep="last")
    more, fresh_skus = draw_table(seed + 100, n=15)
    more["sku_id"], fresh_skus.index = "new " + more["sku_id"], "new " + fresh_skus.index
    later = pd.concat([stored[stored["batch_id"] == "b2"], more]).assign(as_of=MONDAY + pd.Timedelta(days=45))
    later = later.drop_duplicates("sku_id").reset_index(drop=True)
    every = pd.concat([skus, fresh_skus])
    on_list = set(later["sku_id"])
    sums = slowly(
        later, stored, every, lambda row, k: not (k["batch_id"] == row["batch_id"] and k["sku_id"] in on_list)
    ) + slowly(later, later, every, lambda row, k: k["batch_id"] == row["batch_id"])
    np.testing.assert_allclose(fitted.score(later, every, attributes), 0.5 * scored(later, sums, table), atol=1e-12)

    # A list from before the fit hears of no state that came after it.
    early = table[table["as_of"] <= MONDAY + pd.Timedelta(days=12)].drop_duplicates("sku_id", keep="last")
    early = early.reset_index(drop=True)
    here = set(early["sku_id"])
    sums = slowly(
        early, stored, skus, lambda row, k: not (k["batch_id"] == row["batch_id"] and k["sku_id"] in here)
    ) + slowly(early, early, skus, lambda row, k: k["batch_id"] == row["batch_id"])
    np.testing.assert_allclose(fitted.score(early, skus, attributes), 0.5 * scored(early, sums, table), atol=1e-12)


@pytest.mark.usefixtures("certain")
def test_in_parts_every_row_hears_at_least_the_newest_and_nobody_is_pushed_out_by_who_comes_later(monkeypatch):
    table, skus = draw_table(7, n=60)
    shown = shown_in(table, skus, [], RATES)
    _, whole = fit_kin(shown, RATES, set(skus.index))
    monkeypatch.setattr(kin, "AT_ONCE", 7)
    _, in_parts = fit_kin(shown, RATES, set(skus.index))
    np.testing.assert_allclose(in_parts, whole, atol=1e-12)
    monkeypatch.setattr(kin, "MOST_KIN", 10)
    few, told = fit_kin(shown, RATES, set(skus.index))
    assert not np.allclose(told, whole)
    begun = table.groupby("sku_id")["as_of"].min().sort_values(kind="stable")
    assert set(few.shown.skus["sku_id"]) <= set(begun.index[begun >= begun.iloc[-10]])
    assert len(few.shown.skus) == 10
    cut = MONDAY + pd.Timedelta(days=20)
    early = skus.index[skus.index.isin(begun.index[begun <= cut])]
    before = (table["sku_id"].isin(early) & (table["as_of"] <= cut)).to_numpy()
    alone = shown_in(table[before].reset_index(drop=True), skus.loc[early], [], RATES)
    # What is common is told by all of them: the sums are what must not change.
    np.testing.assert_allclose(
        kin._sums(alone, alone, "all"), kin._sums(shown, shown, "all")[:, before], atol=1e-12
    )  # fmt: skip


@pytest.mark.usefixtures("certain")
def test_what_came_later_and_the_order_of_rows_change_nothing():
    table, skus = draw_table(8)
    cut = MONDAY + pd.Timedelta(days=15)
    before = table["as_of"] <= cut
    judges = set(skus.index) - set(table.loc[~before, "sku_id"])
    _, told = fit_kin(shown_in(table, skus, ["colour"], RATES), RATES, judges)
    later = table.copy()
    later.loc[~before, [f"{rate}.sku_rate" for rate in RATES]] *= 50
    _, again = fit_kin(shown_in(later, skus, ["colour"], RATES), RATES, judges)
    np.testing.assert_array_equal(again[before], told[before])
    assert not np.allclose(again[~before], told[~before])
    order = np.random.default_rng(1).permutation(len(table))
    mixed = shown_in(table.iloc[order], skus.sample(frac=1, random_state=1), ["colour"], RATES)
    _, shuffled = fit_kin(mixed, RATES, judges)
    np.testing.assert_allclose(shuffled, told[order], atol=1e-12)


@pytest.mark.usefixtures("certain")
def test_saved_as_text_it_tells_the_same():
    table, skus = draw_table(9)
    fitted, _ = fit_kin(shown_in(table, skus, ["colour"], RATES), RATES, set(skus.index))
    again = Kin.from_dict(json.loads(json.dumps(fitted.to_dict(), sort_keys=True)))
    last = table.drop_duplicates("sku_id", keep="last").assign(as_of=MONDAY + pd.Timedelta(days=90))
    np.testing.assert_array_equal(again.score(last, skus, ["colour"]), fitted.score(last, skus, ["colour"]))
    assert len(fitted.score(last[:0], skus, ["colour"])) == 0
    assert not fitted.score(last, skus.assign(title=None, colour=None), ["colour"]).any()


def test_what_is_borne_out_is_judged_by_the_judges_and_three_errors(monkeypatch):
    asked = []
    monkeypatch.setattr(kin, "_borne_out", lambda y, x, family: asked.append((y, x, family)) or 1.0)
    table, skus = draw_table(3)
    shown = shown_in(table, skus, [], RATES)
    judges = set(skus.index[::2])
    fit_kin(shown, RATES, judges)
    monkeypatch.undo()
    y, x, _ = asked[0]
    assert len(y) == len(judges & set(table["sku_id"]))
    # A SKU of which nothing is known bears nothing out.
    last = last_by(table, table["as_of"].max()).set_index("sku_id").sort_index()
    nothing = (last.loc[last.index.isin(judges), [f"{rate}.unknown" for rate in RATES]].fillna(1.0) == 1).all(axis=1)
    assert not x[nothing.to_numpy()].any()
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    alone, noise = np.arange(400), rng.normal(size=400)
    assert kin._borne_out(0.6 * x + 0.5 * noise, x, alone) == pytest.approx(0.6, abs=0.1)
    assert kin._borne_out(5 * x, x, alone) == 1.0
    assert kin._borne_out(-x, x, alone) == kin._borne_out(noise, 0 * x, alone) == 0.0
    # Two and a half errors are not enough, nor are ten siblings who say the same ten witnesses.
    weak = 2.5 / np.sqrt(400)
    assert kin._borne_out(weak * x + noise - x * (x @ noise) / (x @ x), x, alone) == 0.0
    some, error = rng.normal(size=(2, 12))
    some, error = some - some.mean(), error - error.mean()
    error -= some * (some @ error) / (some @ some)
    told, said = np.repeat(some, 40), np.repeat(some + 2 * error, 40)
    assert kin._borne_out(said, told, np.arange(480)) == 1.0
    assert kin._borne_out(said, told, np.arange(480) // 40) == 0.0


def test_titles_that_are_not_borne_out_are_left_out():
    left_out = 0
    for seed in range(20):
        table, skus = draw_table(200 + seed, n=80)
        fitted, told = fit_kin(shown_in(table, skus, ["colour"], RATES), RATES, set(skus.index))
        left_out += fitted is None
        assert fitted is not None or not told.any()
    assert left_out >= 17


def test_words_are_hashed_alike_whatever_the_frame():
    skus = pd.DataFrame({"title": ["Red HEART", "heart red", None, "心形"], "colour": ["a", "a", None, None]})
    words = hash_words(skus, ["colour"])
    lengths = np.sqrt(words.multiply(words).sum(axis=1))
    assert np.asarray(lengths).ravel() == pytest.approx([1, 1, 0, 1])
    assert (words[0] != words[1]).nnz == 0
    assert hash_words(skus[:0], []).shape[0] == 0
    assert title_words("Ça va 3 x10 T-LIGHTS") == ["lights"]


def day_shop(seed, titles):
    """Draw a shop that counts orders and visitors by day; the noun of a title makes the SKU, or nothing does."""
    rng = np.random.default_rng(seed)
    appeal = dict(zip(NOUNS, np.exp(rng.normal(0, 1.2, len(NOUNS))), strict=True))
    skus, rows = [], []
    for batch in range(8):
        for i in range(30):
            noun = rng.choice(NOUNS)
            sku_id = f"k{batch}-{i:02d}"
            launched = MONDAY + pd.Timedelta(days=7 * batch)
            skus.append({"sku_id": sku_id, "batch_id": f"b{batch}", "launched_at": launched, "title": f"{noun} decor"})
            pace = 0.4 * (appeal[noun] if titles else np.exp(rng.normal(0, 1.2))) * np.exp(rng.normal(0, 0.3))
            for day in range(21):
                orders = rng.poisson(pace)
                if orders:
                    rows.append(
                        (sku_id, launched + pd.Timedelta(days=day), orders, max(orders - rng.integers(0, 2), 1))
                    )
    signals = pd.DataFrame(rows, columns=["sku_id", "period_start", "orders", "visitors"])
    return signals, pd.DataFrame(skus)


@pytest.fixture(scope="module")
def shop():
    signals, skus = day_shop(3, titles=True)
    as_of = MONDAY + pd.Timedelta(days=7 * 7 + 2)
    known = signals[signals["period_start"] < as_of]
    return hf.fit(known, skus, SETTINGS, as_of=as_of), known, skus, as_of


def test_a_new_sku_is_placed_by_what_its_likes_sell(shop):
    model, signals, skus, as_of = shop
    assert model.kin is not None
    assert model.content is None
    newest = skus[skus["batch_id"] == "b7"]
    # Of two SKUs of which nothing is known, the one whose likes sell stands first.
    pace = signals.merge(skus, on="sku_id").groupby("title")["orders"].sum() / skus.groupby("title").size()
    best, worst = pace.idxmax(), pace.idxmin()
    two = pd.DataFrame(
        {"sku_id": ["a", "b"], "batch_id": "b9", "launched_at": as_of - pd.Timedelta(days=1), "title": [worst, best]}
    )
    ranked = hf.rank(model, signals, pd.concat([newest, two]), as_of=as_of)
    place = ranked.set_index("sku_id")["rank"]
    assert place["b"] < place["a"]
    said = ranked.set_index("sku_id").loc["b", ["reason_1", "reason_2", "reason_3"]].tolist()
    assert "Products of similar title or attributes do well" in said


def test_without_a_title_a_new_sku_stands_between_those_whose_likes_sell_and_do_not(shop):
    model, signals, skus, as_of = shop
    pace = signals.merge(skus, on="sku_id").groupby("title")["orders"].sum() / skus.groupby("title").size()
    titles = [pace.idxmax(), None, "Zebra mug", pace.idxmin()]
    new = pd.DataFrame({"sku_id": list("abcd"), "batch_id": "b9", "launched_at": as_of, "title": titles})
    p = hf.rank(model, signals, new, as_of=as_of).set_index("sku_id")["hit_probability"]
    assert p["a"] > p["b"] == p["c"] > p["d"]


def test_variants_of_a_style_do_not_tell_again_what_was_pooled():
    """Ten variants to a style, all sold: what kin tell of a SKU fades as its own sales and its siblings' are known."""
    signals, skus = day_shop(5, titles=True)
    skus["style_id"] = skus["batch_id"] + skus["title"]
    as_of = MONDAY + pd.Timedelta(days=7 * 7 + 7)
    model = hf.fit(signals[signals["period_start"] < as_of], skus, SETTINGS, as_of=as_of)
    assert model.kin is not None
    newest = skus[skus["batch_id"] == "b7"]
    known = described(model, signals[signals["period_start"] < as_of], newest, as_of, stacklevel=2)
    fresh = described(model, signals, newest, as_of - pd.Timedelta(days=7), stacklevel=2)
    assert known["content"].std() < 0.3 * fresh["content"].std()


def test_another_batch_on_the_list_changes_nothing(shop):
    model, signals, skus, as_of = shop
    newest = skus[skus["batch_id"] == "b7"]
    twin = newest.assign(sku_id="twin " + newest["sku_id"], batch_id="another")
    both = pd.concat([signals, signals.assign(sku_id="twin " + signals["sku_id"])])
    both = both[both["sku_id"].isin([*newest["sku_id"], *twin["sku_id"]])]
    alone = hf.rank(model, signals[signals["sku_id"].isin(newest["sku_id"])], newest, as_of=as_of)
    beside = hf.rank(model, both, pd.concat([twin, newest]), as_of=as_of)
    beside = beside[beside["batch_id"] == "b7"].drop(columns="rank").reset_index(drop=True)
    pd.testing.assert_frame_equal(beside, alone.drop(columns="rank"))


def test_saved_and_loaded_it_ranks_the_same(shop, tmp_path):
    model, signals, skus, as_of = shop
    model.save(tmp_path / "model")
    again = hf.load_model(str(tmp_path / "model"))
    newest = skus[skus["batch_id"] == "b7"]
    pd.testing.assert_frame_equal(
        hf.rank(again, signals, newest, as_of=as_of), hf.rank(model, signals, newest, as_of=as_of)
    )
    assert again.digest() == model.digest()


def test_titles_that_make_nothing_are_left_out_of_a_fit():
    signals, skus = day_shop(4, titles=False)
    assert hf.fit(signals, skus, SETTINGS).kin is None
