"""Creatives: what a product draws by itself, and what its pictures add or take away.

A SKU shown with two pictures tells which of them is better; two SKUs shown with one picture tell which of them is.
All of that together is one model of crossed effects on the clicks per impression (see `crossed`): the style's, the
SKU's within its style, and the creative's. Sister SKUs share demand; without the style's effect, pictures that only
they use would be credited with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from scipy.stats import multivariate_normal, norm

from hitfinder.crossed import Crossed, fit_crossed

__all__ = ["PICTURES", "Separation", "separate"]

Array = npt.NDArray[np.float64]

# What can be said about a SKU and its pictures.
PICTURES = ("good_product_bad_picture", "bad_product_good_picture", "both_good", "both_bad", "unclear", "not_apart")
# A picture that was hardly shown is no better picture yet.
SHOWN_ENOUGH = 5.0


@dataclass(frozen=True)
class Separation:
    """What was told apart.

    `skus`: `sku_id, appeal, appeal_sd, picture_effect, picture_effect_sd, picture, best_creative, best_gain`: on the
    log scale, 0 the middle; `picture_effect` is the mean of its creatives' effects, by impressions; `picture` one of
    PICTURES; `best_creative` the creative of its style that most likely draws more than what it is shown with, and
    `best_gain` by how much (log), None where none surely does. `creatives`: `creative_id, effect, effect_sd, clicks,
    impressions`. `sds`: of the effects of `style` (where there are styles of several SKUs), `sku` and `creative`.
    """

    skus: pd.DataFrame
    creatives: pd.DataFrame
    sds: dict[str, float]


def separate(cells: pd.DataFrame, *, dispersion: float = 1.0, sure: float = 0.8) -> Separation | None:
    """Separate the SKUs' own appeal from their creatives'.

    Parameters
    ----------
    cells
        `sku_id, style_id, category, channel, creative_id, num, den`: clicks and impressions; with `expected`, the
        clicks that a typical peer would have had there, the levels of channels, categories and weeks are taken from
        it, else those of channels and categories are fitted. Rows without a creative (NULL or empty) say nothing here.
    dispersion
        Variance of a count over its mean, within one SKU.
    sure
        The chance from which a product or picture is called good or bad.

    Returns
    -------
    Separation or None
        None where there are no creatives, or only one.

    Examples
    --------
    >>> cells = pd.DataFrame({"sku_id": list("aabb"), "style_id": list("aabb"), "category": "hats", "channel": "",
    ...                       "creative_id": ["x", "y", "x", "y"], "num": [90, 30, 300, 100], "den": 2000})
    >>> told = separate(cells)
    >>> told.creatives["effect"].round(1).tolist(), told.skus["best_creative"].tolist()
    ([0.5, -0.5], ['x', 'x'])
    """
    cells, levels = _summed(cells)
    if cells["creative_id"].nunique() < 2:
        return None
    sku, sku_ids = pd.factorize(cells["sku_id"], sort=True)
    creative, creative_ids = pd.factorize(cells["creative_id"], sort=True)
    style, _ = pd.factorize(cells["style_id"], sort=True)
    style_of = np.zeros(len(sku_ids), dtype=np.int64)
    style_of[sku] = style
    groups = {"style": style, "sku": sku, "creative": creative}
    if len(np.unique(style_of)) == len(sku_ids):
        del groups["style"]
    clicks = cells["num"].to_numpy(float)
    fit = fit_crossed(clicks, cells["expected"].to_numpy(float), levels, list(groups.values()), dispersion=dispersion)
    effects = dict(zip(groups, fit.effects, strict=True))
    n, n_creatives = len(sku_ids), len(creative_ids)
    appeal = effects["sku"] + (effects["style"][style_of] if "style" in groups else 0.0)
    of_sku = {
        "style": sparse.csr_matrix((np.ones(n), (np.arange(n), style_of)), shape=(n, int(style_of.max()) + 1)),
        "sku": sparse.identity(n, format="csr"),
    }
    shown = sparse.csr_matrix((cells["den"].to_numpy(float), (sku, creative)), shape=(n, n_creatives))
    share = (sparse.diags(1 / np.maximum(np.asarray(shown.sum(axis=1)).ravel(), 1e-12)) @ shown).tocsr()
    picture = share @ effects["creative"]
    appeal_sd = fit.contrast_sds([of_sku.get(name) for name in groups])
    picture_sd = fit.contrast_sds([share if name == "creative" else None for name in groups])
    together_sd = fit.contrast_sds([share if name == "creative" else of_sku[name] for name in groups])
    only_one = sparse.identity(n_creatives, format="csr")
    table = pd.DataFrame(
        {
            "sku_id": sku_ids,
            "appeal": appeal,
            "appeal_sd": appeal_sd,
            "picture_effect": picture,
            "picture_effect_sd": picture_sd,
            "picture": _words(
                appeal, appeal_sd, picture, picture_sd, together_sd, _alone(sku, creative, style_of), sure
            ),
        }
    )
    best, gain = _better(fit, list(groups), share, effects["creative"], style_of, sku, creative, cells, sure)
    table["best_creative"] = pd.Series([None if b < 0 else creative_ids[b] for b in best], dtype=object)
    table["best_gain"] = gain
    of_creatives = pd.DataFrame(
        {
            "creative_id": creative_ids,
            "effect": effects["creative"],
            "effect_sd": fit.contrast_sds([only_one if name == "creative" else None for name in groups]),
            "clicks": np.bincount(creative, clicks, n_creatives),
            "impressions": np.bincount(creative, cells["den"], n_creatives),
        }
    )
    return Separation(table, of_creatives, dict(zip(groups, fit.sds, strict=True)))


def _summed(cells: pd.DataFrame) -> tuple[pd.DataFrame, Array]:
    """Sum what has the same causes; return it with the columns of the levels that have to be fitted."""
    given = cells[cells["creative_id"].notna() & (cells["creative_id"] != "") & (cells["den"] > 0)]
    keys, sums = ["sku_id", "style_id", "creative_id"], ["num", "den", "expected"]
    if "expected" in given:
        summed = given.groupby(keys, as_index=False, sort=True)[sums].sum()
        return summed, np.ones((len(summed), 1))
    filled = given.assign(
        channel=given["channel"].fillna(""), category=given["category"].fillna(""), expected=given["den"]
    )
    summed = filled.groupby([*keys, "channel", "category"], as_index=False, sort=True)[sums].sum()
    return summed, _levels(summed)


def _levels(cells: pd.DataFrame) -> Array:
    """Give each channel and category its level; those too small to have one share the first's."""
    columns = [np.ones(len(cells))]
    for name in ("channel", "category"):
        counted = cells.groupby(name)["num"].sum().sort_values(ascending=False, kind="stable")
        columns += [(cells[name] == level).to_numpy(float) for level in counted.index[1:] if counted[level] >= 20]
    full = np.column_stack(columns)
    # A channel that only one category uses has no level beside it.
    kept: list[int] = []
    rank = 0
    gram = full.T @ full
    for column in range(full.shape[1]):
        with_it = np.linalg.matrix_rank(gram[np.ix_([*kept, column], [*kept, column])])
        if with_it > rank:
            kept.append(column)
            rank = with_it
    return full[:, kept]


def _alone(sku: npt.NDArray[np.int64], creative: npt.NDArray[np.int64], style_of: npt.NDArray[np.int64]) -> Array:
    """Tell the SKUs whose picture can be compared with no other: one creative, which no other product uses."""
    pairs = pd.DataFrame({"sku": sku, "creative": creative, "style": style_of[sku]}).drop_duplicates()
    users = pairs.groupby("creative")["sku"].transform("nunique")
    own = pairs.groupby("sku")["creative"].transform("nunique")
    # All sisters with one and the same picture: their common demand and the picture's are one.
    styles = pairs.groupby("creative")["style"].transform("nunique")
    of_style = pairs.groupby("style")["creative"].transform("nunique")
    alone = ((own == 1) & (users == 1)) | ((of_style == 1) & (styles == 1))
    return np.asarray(alone.groupby(pairs["sku"]).any().to_numpy(dtype=bool))


def _words(
    appeal: Array, appeal_sd: Array, picture: Array, picture_sd: Array, together_sd: Array, alone: Array, sure: float
) -> list[str]:
    """Say of each SKU which of product and picture is good and which is bad, where the two together are sure."""
    covariance = (together_sd**2 - appeal_sd**2 - picture_sd**2) / 2
    words = ["not_apart" if by_itself else "unclear" for by_itself in alone]
    for word, product_side, picture_side in (
        ("good_product_bad_picture", 1, -1),
        ("bad_product_good_picture", -1, 1),
        ("both_good", 1, 1),
        ("both_bad", -1, -1),
    ):
        of_product = norm.cdf(product_side * appeal / np.maximum(appeal_sd, 1e-9))
        of_picture = norm.cdf(picture_side * picture / np.maximum(picture_sd, 1e-9))
        # Both at once can't be likelier than either: few are left to integrate over.
        for row in np.flatnonzero(np.logical_not(alone) & (of_product >= sure) & (of_picture >= sure)):
            shared = product_side * picture_side * covariance[row]
            spread = [[appeal_sd[row] ** 2, shared], [shared, picture_sd[row] ** 2]]
            at = [product_side * appeal[row], picture_side * picture[row]]
            if multivariate_normal.cdf(at, cov=spread, allow_singular=True) >= sure:
                words[row] = word
    return words


def _better(
    fit: Crossed,
    groups: list[str],
    share: sparse.csr_matrix,
    effect: Array,
    style_of: npt.NDArray[np.int64],
    sku: npt.NDArray[np.int64],
    creative: npt.NDArray[np.int64],
    cells: pd.DataFrame,
    sure: float,
) -> tuple[npt.NDArray[np.int64], Array]:
    """Find for each SKU the creative of its style that draws most, if it surely draws more than what it has now."""
    n = len(style_of)
    shown = np.bincount(creative, cells["expected"].to_numpy(float), len(effect)) >= SHOWN_ENOUGH
    used = pd.DataFrame({"style": style_of[sku], "creative": creative, "effect": effect[creative]})[shown[creative]]
    top = used.sort_values(["effect", "creative"]).drop_duplicates("style", keep="last").set_index("style")["creative"]
    best = top.reindex(style_of).fillna(-1).to_numpy(dtype=np.int64)
    rows = np.flatnonzero(best >= 0)
    gain = np.full(n, np.nan)
    if not len(rows):
        return best, gain
    pick = sparse.csr_matrix((np.ones(len(rows)), (np.arange(len(rows)), best[rows])), shape=(len(rows), len(effect)))
    step = (pick - share[rows]).tocsr()
    more = step @ effect
    sd = fit.contrast_sds([step if name == "creative" else None for name in groups])
    surely = norm.cdf(more / np.maximum(sd, 1e-9)) >= sure
    gain[rows] = np.where(surely & (more > 0.02), more, np.nan)
    return np.where(np.isnan(gain), -1, best), gain
