"""Products and their pictures: the fit against dense and integrated ones, and planted effects told apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, sparse, stats

from hitfinder.creatives import separate
from hitfinder.crossed import fit_crossed


def draw_clicks(seed, *, n_styles=60, clicks=60.0, sd_style=0.35, sd_sku=0.2, sd_creative=0.3, shared=True):
    """Styles of two SKUs with two creatives each; every SKU is shown with both (`shared`), or with one of its own."""
    rng = np.random.default_rng(seed)
    style = rng.normal(0, sd_style, n_styles)
    sku = rng.normal(0, sd_sku, (n_styles, 2))
    creative = rng.normal(0, sd_creative, (n_styles, 2))
    rows = []
    for s in range(n_styles):
        for k in range(2):
            for c in range(2) if shared else [k]:
                for channel, level in (("search", 1.0), ("feed", 0.7)):
                    mean = clicks * level * np.exp(style[s] + sku[s, k] + creative[s, c])
                    rows.append((f"K{s}.{k}", f"T{s}", "hats", channel, f"T{s}-c{c}", rng.poisson(mean), 3000.0))
    names = ["sku_id", "style_id", "category", "channel", "creative_id", "num", "den"]
    truth = {f"K{s}.{k}": style[s] + sku[s, k] for s in range(n_styles) for k in range(2)}
    pictures = {f"T{s}-c{c}": creative[s, c] for s in range(n_styles) for c in range(2)}
    return pd.DataFrame(rows, columns=names), pd.Series(truth), pd.Series(pictures)


def small_design(seed=0, cells=30, goods=6, pictures=4):
    rng = np.random.default_rng(seed)
    good = np.concatenate([np.arange(goods), rng.integers(0, goods, cells - goods)])
    picture = np.concatenate([np.arange(pictures), rng.integers(0, pictures, cells - pictures)])
    expected = rng.uniform(5, 40, cells)
    counts = rng.poisson(expected * np.exp(rng.normal(0, 0.5, goods)[good] + rng.normal(0, 0.3, pictures)[picture]))
    return counts.astype(float), expected, good, picture


def test_the_effects_and_sds_are_those_of_a_dense_fit():
    counts, expected, good, picture = small_design()
    fit = fit_crossed(counts, expected, np.ones((len(counts), 1)), [good, picture])
    Z = np.hstack([np.ones((len(counts), 1)), np.eye(6)[good], np.eye(4)[picture]])
    pull = np.concatenate([[1e-9], np.full(6, fit.sds[0] ** -2), np.full(4, fit.sds[1] ** -2)])

    def minus_posterior(theta):
        return -(counts * (Z @ theta) - expected * np.exp(Z @ theta)).sum() + 0.5 * (pull * theta**2).sum()

    best = optimize.minimize(minus_posterior, np.zeros(11), method="BFGS", options={"gtol": 1e-8}).x
    assert np.concatenate([fit.fixed, *fit.effects]) == pytest.approx(best, abs=1e-3)
    inverse = np.linalg.inv(Z.T @ (expected * np.exp(Z @ best) * Z.T).T + np.diag(pull))
    assert fit.contrast_sds([sparse.identity(6, format="csr"), None]) == pytest.approx(
        np.sqrt(np.diag(inverse)[1:7]), rel=1e-2
    )
    both = [sparse.csr_matrix(np.eye(6)[[2]]), sparse.csr_matrix(np.eye(4)[[1]])]
    w = np.zeros(11)
    w[[3, 8]] = 1
    assert fit.contrast_sds(both)[0] == pytest.approx(np.sqrt(w @ inverse @ w), rel=1e-2)


def test_laplace_is_close_to_the_integral_it_stands_for():
    """One group: the likelihood of each effect's counts is an integral over one number."""
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(25), 3)
    expected = rng.uniform(2, 10, 75)
    counts = rng.poisson(expected * np.exp(rng.normal(0, 0.5, 25))[group]).astype(float)
    fit = fit_crossed(counts, expected, np.ones((75, 1)), [group])

    grid = np.linspace(-4, 4, 2001)
    log_y = stats.poisson.logpmf

    def minus_log(at):
        level, sd = at[0], np.exp(at[1])
        each = log_y(counts[:, None], expected[:, None] * np.exp(level + grid))
        by_group = np.add.reduceat(each, np.arange(0, 75, 3), axis=0)
        return -np.log(np.exp(by_group) @ stats.norm.pdf(grid, 0, sd) * (grid[1] - grid[0])).sum()

    found = optimize.minimize(minus_log, [0.0, np.log(0.5)], method="Nelder-Mead", options={"xatol": 1e-3})
    # The level is integrated out in ours and maximised here: a 25th more of variance, half of that of sd.
    assert fit.fixed[0] == pytest.approx(found.x[0], abs=0.03)
    assert fit.sds[0] == pytest.approx(np.exp(found.x[1]), rel=0.08)


def test_planted_effects_are_found_better_than_by_click_rates_and_their_sds_are_honest():
    cells, product, pictures = draw_clicks(4)
    told = separate(cells)
    assert told.sds["style"] == pytest.approx(0.35, abs=0.12)
    assert told.sds["creative"] == pytest.approx(0.3, abs=0.08)
    creatives = told.creatives.set_index("creative_id")
    true = pictures[creatives.index]
    raw = np.log((creatives["clicks"] + 0.5) / creatives["impressions"])
    ours = np.corrcoef(creatives["effect"], true)[0, 1]
    assert ours > np.corrcoef(raw, true)[0, 1] + 0.1
    assert ours > 0.7
    skus = told.skus.set_index("sku_id")
    z = (skus["appeal"] - product[skus.index]) / skus["appeal_sd"]
    assert 0.75 < z.std() < 1.25
    z = (creatives["effect"] - true) / creatives["effect_sd"]
    assert 0.75 < z.std() < 1.25


def test_the_four_words_are_right_as_often_as_they_claim():
    right, told_n = 0, 0
    for seed in range(4):
        cells, product, pictures = draw_clicks(seed, clicks=200.0)
        told = separate(cells, sure=0.8).skus.set_index("sku_id")
        shown = cells.assign(effect=cells["creative_id"].map(pictures)).groupby("sku_id")["effect"].mean()
        good, nice = product[told.index] > 0, shown[told.index] > 0
        word = np.select(
            [good & ~nice, ~good & nice, good & nice],
            ["good_product_bad_picture", "bad_product_good_picture", "both_good"],
            "both_bad",
        )
        said = told["picture"] != "unclear"
        right, told_n = right + (told["picture"] == word)[said].sum(), told_n + said.sum()
    assert told_n > 60
    assert stats.binomtest(int(right), int(told_n), 0.8, alternative="less").pvalue > 0.01


def test_a_good_product_whose_picture_is_bad_is_shown_its_better_picture():
    cells, product, _ = draw_clicks(0, clicks=400.0)
    sku = product.drop("K0.0").idxmax()  # the best product, whose picture we spoil
    style = cells.loc[cells["sku_id"] == sku, "style_id"].iloc[0]
    bad = cells["creative_id"] == f"{style}-c0"
    cells.loc[bad, "num"] = (cells.loc[bad, "num"] * 0.25).round()
    cells.loc[(cells["sku_id"] == sku) & bad, ["num", "den"]] *= 4  # it is mostly shown with that one
    told = separate(cells).skus.set_index("sku_id").loc[sku]
    assert told["picture"] == "good_product_bad_picture"
    assert told["best_creative"] == f"{style}-c1"
    assert told["best_gain"] > 0.3


def test_a_product_with_one_picture_that_nobody_else_uses_is_not_told_apart():
    cells, _, _ = draw_clicks(5, shared=False)
    told = separate(cells)
    assert (told.skus["picture"] == "not_apart").all()
    # One sister that uses both is enough to compare the pictures, not to compare the other's own.
    more = cells[cells["sku_id"] == "K0.0"].assign(creative_id="T0-c1")
    mixed = separate(pd.concat([cells, more], ignore_index=True)).skus.set_index("sku_id")["picture"]
    assert mixed["K0.0"] != "not_apart"
    assert mixed["K1.0"] == "not_apart"


def test_a_common_picture_of_a_style_is_not_credited_with_the_styles_demand():
    """Sisters that all sell well with all pictures: a good style, no good pictures."""
    cells, _, _ = draw_clicks(6, sd_creative=0.0, sd_style=0.6)
    told = separate(cells)
    assert told.creatives["effect"].abs().max() < 0.15
    assert told.skus["appeal"].std() > 0.4


def test_without_creatives_there_is_nothing_to_separate():
    cells, _, _ = draw_clicks(7, n_styles=2)
    assert separate(cells.assign(creative_id=None)) is None
    assert separate(cells.assign(creative_id="")) is None
    assert separate(cells.assign(creative_id="one")) is None


def test_the_order_of_rows_and_what_is_expected_of_weeks_do_not_matter():
    cells, _, _ = draw_clicks(8, n_styles=10)
    one = separate(cells)
    other = separate(cells.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(one.skus, other.skus, atol=1e-4, rtol=0)
    # With the channels' levels known, those are not fitted: nearly the same answer.
    level = cells.groupby("channel")["num"].transform("sum") / cells.groupby("channel")["den"].transform("sum")
    given = separate(cells.assign(expected=cells["den"] * level))
    assert given.skus["appeal"].to_numpy() == pytest.approx(one.skus["appeal"].to_numpy(), abs=0.05)
