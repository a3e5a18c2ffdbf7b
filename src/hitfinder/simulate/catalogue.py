"""The catalogue of a simulated market: batches, styles, SKUs, and what makes each of them sell.

Every effect is on the log scale: 0.1 means about 10 % more. What the figures rest on: `hitfinder.simulate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.simulate.words import ADJECTIVES, BRANDS, CATEGORIES, COLOURS, MATERIALS, ONE

__all__ = ["CREATIVES_PER_STYLE", "Catalogue", "draw_catalogue"]

BATCH_SPREAD = 0.07  # sd of a batch's size, as a share of it
STYLE_SIZES = (0.25, 0.20, 0.20, 0.15, 0.10, 0.10)  # chances of 1 ... 6 SKUs in a style
STYLE_SD = 0.45  # the normal part of a style's appeal
STYLE_TAIL = 0.60  # mean of its exponential part: exp(appeal) gets a Pareto tail of index 1 / 0.6 = 1.67
SKU_SD = 0.32  # colour and size within a style
BRAND_SD = 0.15
WORD_SD = 0.25  # of the words that matter; every other word does nothing
BAIT_STYLE_SD, BAIT_SKU_SD = 0.22, 0.10  # what raises clicks and sells nothing
CREATIVE_SD = 0.23  # click appeal of one creative beside its style's others
CREATIVES_PER_STYLE = 3
CREATIVE_COUNTS = (0.60, 0.28, 0.12)  # chances that a SKU is shown with 1, 2 or 3 of them
PRICE_SD = 0.35  # of log price between the styles of a category
STOCK_MEDIAN, STOCK_SD = 2500.0, 0.60  # units; large enough that the odd hit sells out, and few others do
SEASONS = ("all-year", "spring", "summer", "autumn", "winter")


@dataclass(frozen=True)
class Catalogue:
    """What is for sale and why it sells; all arrays run over the SKUs, in the order of `skus`.

    `causes` holds the planted effects. `launch_day`, `category`, `season`, `style` are whole numbers: days since the
    market's start, and places in the lists. `creative_effects` has shape (styles, 3); a SKU uses the creatives
    `main_creative`, the next, ... (`n_creatives` of them, in a circle).
    """

    skus: pd.DataFrame
    causes: pd.DataFrame
    launch_day: np.ndarray[Any, Any]
    category: np.ndarray[Any, Any]
    season: np.ndarray[Any, Any]
    style: np.ndarray[Any, Any]
    main_creative: np.ndarray[Any, Any]
    n_creatives: np.ndarray[Any, Any]
    creative_effects: np.ndarray[Any, Any]


def draw_catalogue(
    rng: np.random.Generator,
    *,
    weeks: int,
    skus_per_week: int,
    start: pd.Timestamp,
    language: str = "en",
    appeal_scale: float = 1.0,
) -> Catalogue:
    """Draw the batches, their styles and SKUs, and the planted causes of demand.

    Parameters
    ----------
    rng
        Where all chance comes from.
    weeks, skus_per_week
        One batch a week, each of about `skus_per_week` SKUs; a style never spans two batches.
    start
        The Monday on which the first batch is launched.
    language
        Of titles: `en`, `zh`, or `mixed` (drawn for each style; attributes are in English).
    appeal_scale
        Multiplies every difference in appeal between SKUs; 0 makes them all alike.
    """
    sizes = np.maximum(1, np.rint(rng.normal(skus_per_week, BATCH_SPREAD * skus_per_week, weeks)).astype(int))
    batch = np.repeat(np.arange(weeks), sizes)
    style, variant = _split_into_styles(rng, sizes)
    n, n_styles = len(batch), style[-1] + 1

    category = rng.choice(len(CATEGORIES), n_styles, p=[c.share for c in CATEGORIES])
    noun = rng.integers(0, 3, n_styles)
    brand = rng.integers(0, len(BRANDS), n_styles)
    adjective = rng.integers(0, len(ADJECTIVES), n_styles)
    material = rng.integers(0, len(MATERIALS), n_styles)
    season = rng.choice(len(SEASONS), n_styles, p=[0.5, 0.125, 0.125, 0.125, 0.125])
    chinese = rng.random(n_styles) < {"en": 0.0, "zh": 1.0, "mixed": 0.5}[language]

    brand_effect = rng.normal(0, BRAND_SD, len(BRANDS))[brand]
    title_effect = _word_effects(rng, len(ADJECTIVES))[adjective] + _word_effects(rng, len(MATERIALS))[material]
    own = rng.normal(0, STYLE_SD, n_styles) + rng.exponential(STYLE_TAIL, n_styles) - STYLE_TAIL
    causes = pd.DataFrame(
        {
            "brand_effect": brand_effect[style],
            "title_effect": title_effect[style],
            "style_effect": own[style],
            "sku_effect": rng.normal(0, SKU_SD, n),
        }
    ).mul(appeal_scale)
    causes.insert(0, "appeal", causes.sum(axis=1))
    bait = rng.normal(0, BAIT_STYLE_SD, n_styles)[style] + rng.normal(0, BAIT_SKU_SD, n)
    causes["click_bait_effect"] = appeal_scale * bait
    creative_effects = appeal_scale * rng.normal(0, CREATIVE_SD, (n_styles, CREATIVES_PER_STYLE))
    main_creative = rng.integers(0, CREATIVES_PER_STYLE, n)
    causes["creative_effect"] = creative_effects[style, main_creative]

    median_price = np.array([c.price for c in CATEGORIES])[category]
    price = np.maximum(np.rint(median_price * np.exp(rng.normal(0, PRICE_SD, n_styles))), 2) - 0.10
    causes["log_price_position"] = np.log(price / median_price)[style]
    unit_cost = np.round(price * rng.uniform(0.30, 0.50, n_styles), 2)
    launched_at = (start + pd.to_timedelta(7 * np.arange(weeks), unit="D")).as_unit("us")
    iso = launched_at.isocalendar()
    batch_ids = np.array([f"{y}-W{w:02d}" for y, w in zip(iso["year"], iso["week"], strict=True)])

    colour, size = _variants(rng, style, variant, category)
    told = int(language == "zh")
    sizes_told = [CATEGORIES[c].sizes[s] for c, s in zip(category[style], size, strict=True)]
    titles = [
        _title(*row)
        for row in zip(
            chinese[style], brand[style], adjective[style], material[style], category[style], noun[style], colour, size,
            strict=True,
        )
    ]  # fmt: skip
    sku_ids = [f"K{i:06d}" for i in range(1, n + 1)]
    skus = pd.DataFrame(
        {
            "sku_id": sku_ids,
            "batch_id": batch_ids[batch],
            "style_id": [f"T{s:05d}" for s in style + 1],
            "category": np.array([c.name for c in CATEGORIES])[category[style]],
            "launched_at": launched_at.to_numpy()[batch],
            "price": price[style].round(2),
            "unit_cost": unit_cost[style],
            "stock": np.rint(STOCK_MEDIAN * np.exp(rng.normal(0, STOCK_SD, n))).astype(np.int64),
            "title": titles,
            "image_url": [f"https://images.example.com/{sku}.jpg" for sku in sku_ids],
            "brand": [BRANDS[b][told] for b in brand[style]],
            "colour": [COLOURS[c][told] for c in colour],
            "size": ["均码" if told and s == ONE[0] else s for s in sizes_told],
            "season": np.array(SEASONS)[season[style]],
        }
    )
    return Catalogue(
        skus=skus,
        causes=causes,
        launch_day=7 * batch,
        category=category[style],
        season=season[style],
        style=style,
        main_creative=main_creative,
        n_creatives=1 + rng.choice(3, n, p=CREATIVE_COUNTS),
        creative_effects=creative_effects,
    )


def _split_into_styles(
    rng: np.random.Generator, sizes: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Count styles up, and within each its variants; the last style of a batch is cut short where it must be."""
    counts: list[np.ndarray[Any, Any]] = []
    for size in sizes:
        drawn = 1 + rng.choice(len(STYLE_SIZES), size, p=STYLE_SIZES)
        ends = np.minimum(np.cumsum(drawn), size)
        kept = np.diff(ends, prepend=0)
        counts.append(kept[kept > 0])
    count = np.concatenate(counts)
    style = np.repeat(np.arange(len(count)), count)
    variant = np.arange(len(style)) - np.repeat(np.cumsum(count) - count, count)
    return style, variant


def _word_effects(rng: np.random.Generator, n: int) -> np.ndarray[Any, Any]:
    """Half of the words carry demand, the others none."""
    return rng.permutation(np.where(np.arange(n) < n // 2, rng.normal(0, WORD_SD, n), 0.0))


def _variants(
    rng: np.random.Generator,
    style: np.ndarray[Any, Any],
    variant: np.ndarray[Any, Any],
    category: np.ndarray[Any, Any],
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Give each SKU of a style its own pair of colour and size."""
    n_sizes = np.array([len(c.sizes) for c in CATEGORIES])[category]
    first_colour, first_size = rng.integers(0, len(COLOURS), len(category)), rng.integers(0, n_sizes)
    width = np.minimum(n_sizes, 2)[style]
    return (first_colour[style] + variant // width) % len(COLOURS), (first_size[style] + variant % width) % n_sizes[
        style
    ]


def _title(
    chinese: bool, brand: int, adjective: int, material: int, category: int, noun: int, colour: int, size: int
) -> str:
    """Write the title of one SKU, in its language."""
    to, kind = int(chinese), CATEGORIES[category]
    words = (BRANDS[brand][to], ADJECTIVES[adjective][to], MATERIALS[material][to], kind.nouns[noun][to])
    title = f"{('' if chinese else ' ').join(words)} {COLOURS[colour][to]}"
    return f"{title} {kind.sizes[size]}" if len(kind.sizes) > 1 else title
