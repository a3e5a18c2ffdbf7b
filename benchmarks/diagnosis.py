"""Which planted causes `diagnose` finds, how often it is wrong, and how well it tells products from pictures.

    python benchmarks/diagnosis.py [--markets 4] [--weeks 20] [--skus 100] [--share 0.1] [--seed 100] [--json FILE]

In a random tenth of a simulated market's SKUs one step is broken: clicks per impression, carts per click or orders per
cart halved, or returns doubled (`hitfinder.simulate.break_steps`). The diagnosis is made at the end of the last week
launched. SKUs differ by themselves too: a step is truly weak where its true rate (`truth`, on the main channel and
picture) is below 80 % of the middle of its category (above 125 % for returns), whoever broke it. Printed are

- of the steps called weak, the share that truly are not, beside the level asked for, with a 95 % interval over SKUs;
- of the SKUs broken by us, the share in which that step is called weak, by how much had been seen of it (the power that
  the diagnosis itself states), and the share for which it is the step named first;
- for pictures: correlations of the estimated and the true product and picture effects (on clicks, on the log scale)
  beside raw click rates, and how often the four words are right.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from hitfinder.admission import admit_signals_and_skus
from hitfinder.diagnosis import Findings, examine
from hitfinder.features import set_scope
from hitfinder.settings import Settings, parse_settings
from hitfinder.simulate import Market, break_steps, simulate
from hitfinder.simulate.catalogue import Catalogue, draw_catalogue
from hitfinder.simulate.traffic import CLICK_LOAD
from hitfinder.warehouse import open_warehouse

START = pd.Timestamp("2025-01-06")
RATES = {"click": "click_rate", "cart": "cart_rate", "order": "close_rate", "return": "return_rate"}


def look(market: Market, settings: Settings, weeks: int) -> Findings:
    """Diagnose a market at the end of its last launch week."""
    con = open_warehouse(threads=1)
    admit_signals_and_skus(con, market.signals, market.skus, period=settings.signals.period)
    set_scope(con, settings, START + pd.Timedelta(days=7 * weeks))
    return examine(con, settings)


def judged(found: Findings, market: Market, broken: pd.Series, tolerance: float) -> pd.DataFrame:
    """Put the truth beside every step tested."""
    truth = market.truth.merge(market.skus[["sku_id", "category"]], on="sku_id").set_index("sku_id")
    parts = []
    for step, part in found.steps.groupby("step"):
        logs = np.log(truth.loc[part["sku_id"], [RATES[step]]].set_axis(["rate"], axis=1))
        logs["category"] = truth.loc[part["sku_id"], "category"]
        apart = (logs["rate"] - logs.groupby("category")["rate"].transform("mean")).to_numpy()
        edge = -np.log(1 - tolerance)
        truly = apart > edge if step == "return" else apart < -edge
        parts.append(part.assign(true_ratio=np.exp(apart), truly=truly, broken=part["sku_id"].map(broken).eq(step)))
    return pd.concat(parts, ignore_index=True)


def picture_truth(catalogue: Catalogue, found: Findings, market: Market) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put the true effects and the raw click rates beside the estimated ones, for SKUs and for creatives."""
    effects = {
        f"T{style + 1:05d}-c{slot + 1}": effect
        for style, row in enumerate(catalogue.creative_effects)
        for slot, effect in enumerate(row)
    }
    cells = next(p for s, p in found.fitted if s.name == "click").cells
    truth = market.truth.set_index("sku_id")
    skus = found.pictures.skus.set_index("sku_id")
    own = (CLICK_LOAD * truth["appeal"] + truth["click_bait_effect"]).loc[skus.index]
    shown = cells.groupby(["sku_id", "creative_id"], as_index=False)[["num", "den"]].sum()
    shown["effect"] = shown["creative_id"].map(effects) * shown["den"]
    sums = shown.groupby("sku_id")[["num", "den", "effect"]].sum().loc[skus.index]
    skus = skus.assign(
        true_appeal=own - own.mean(),
        true_picture=sums["effect"] / sums["den"],
        raw=np.log((sums["num"] + 0.5) / sums["den"]),
    )
    creatives = found.pictures.creatives
    raw = np.log((creatives["clicks"] + 0.5) / creatives["impressions"])
    return skus, creatives.assign(true=creatives["creative_id"].map(effects), raw=raw)


def share_with_interval(hits: pd.Series) -> str:
    """Write a share with its binomial interval."""
    n, k = len(hits), int(hits.sum())
    if n == 0:
        return "   -  of 0"
    low, high = binomtest(k, n).proportion_ci(0.95, method="wilson")
    return f"{k / n:6.1%} ({low:.1%} to {high:.1%}) of {n}"


def say(steps: pd.DataFrame, firsts: pd.DataFrame, skus: pd.DataFrame, creatives: pd.DataFrame, level: float) -> dict:
    """Print everything; return the figures."""
    weak = steps[steps["weak"]]
    print(f"steps called weak that truly are not (promised: {level:.0%} at most)")
    print(f"   all      {share_with_interval(~weak['truly'])}")
    for step in RATES:
        print(f"   {step:8} {share_with_interval(~weak.loc[weak['step'] == step, 'truly'])}")
    print("broken steps that are called weak, by the power that was stated")
    bands = [(0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.01)]
    for step in [None, *RATES]:
        ours = steps[steps["broken"] & ((steps["step"] == step) | (step is None))]
        print(f"   {step or 'all':8} {share_with_interval(ours['weak'])}; truly weak then {ours['truly'].mean():.0%}")
        for low, high in bands:
            part = ours[(ours["power"] >= low) & (ours["power"] < high)]
            if len(part):
                print(f"      power {low:.0%} to {min(high, 1):.0%}: {share_with_interval(part['weak'])}")
    named = firsts[firsts["any_weak"]]
    print(f"broken SKUs with any weak step: the broken one is named first in {share_with_interval(named['right'])}")
    inside = (steps["ratio_low"] <= steps["true_ratio"]) & (steps["true_ratio"] <= steps["ratio_high"])
    print("90 % intervals that hold the true ratio:", inside.groupby(steps["step"]).mean().round(3).to_dict())
    out = {"false_share": float((~weak["truly"]).mean()), "called_weak": len(weak)}
    print("products and pictures: correlation with the truth")
    for name, table, estimate, true in (
        ("product", skus, "appeal", "true_appeal"),
        ("its pictures", skus, "picture_effect", "true_picture"),
        ("creative", creatives, "effect", "true"),
    ):
        ours, raw = (float(np.corrcoef(table[true], table[column])[0, 1]) for column in (estimate, "raw"))
        print(f"   {name:14} estimated {ours:.3f}, raw click rate {raw:.3f}, on {len(table)}")
        out[f"corr_{name}"], out[f"raw_{name}"] = ours, raw
    product, picture = skus["true_appeal"] > 0, skus["true_picture"] > 0
    for word, is_so in {
        "good_product_bad_picture": product & ~picture, "bad_product_good_picture": ~product & picture,
        "both_good": product & picture, "both_bad": ~product & ~picture,
    }.items():  # fmt: skip
        told = skus["picture"] == word
        print(f"   {word:26} right {share_with_interval(is_so[told])}; found {told[is_so].mean():.1%} of {is_so.sum()}")
    clear = (skus["true_appeal"] > 0.3) & (skus["true_picture"] < -0.15) & (skus["picture"] != "not_apart")
    print(f"   clearly good product, clearly bad picture: {skus.loc[clear, 'picture'].value_counts().to_dict()}")
    print(f"   not told apart by design {(skus['picture'] == 'not_apart').mean():.1%}")
    return out


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markets", type=int, default=4)
    parser.add_argument("--weeks", type=int, default=20)
    parser.add_argument("--skus", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    settings = parse_settings({"model": {"threads": 1}})
    steps, firsts, skus, creatives, seconds = [], [], [], [], []
    for seed in range(given.seed, given.seed + given.markets):
        market = simulate(weeks=given.weeks, skus_per_week=given.skus, complete=True, seed=seed)
        market, broken = break_steps(market, share=given.share, seed=seed)
        began = time.process_time()
        found = look(market, settings, given.weeks)
        seconds.append(time.process_time() - began)
        steps.append(judged(found, market, broken, settings.diagnosis.tolerance))
        of_ours = found.skus[found.skus["sku_id"].isin(broken.index)]
        firsts.append(
            pd.DataFrame(
                {
                    "any_weak": of_ours["weak_step"].isin(list(RATES)),
                    "right": of_ours["weak_step"] == of_ours["sku_id"].map(broken),
                }
            )
        )
        goods, _ = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
        catalogue = draw_catalogue(goods, weeks=given.weeks, skus_per_week=given.skus, start=START)
        # The broken clicks are no product's and no picture's: a fresh look without them.
        of_skus, of_creatives = picture_truth(catalogue, found, market)
        skus.append(of_skus[~of_skus.index.isin(broken.index[broken == "click"])])
        creatives.append(of_creatives)
    print(f"{given.markets} markets of {given.weeks} weeks with {given.skus} SKUs; "
          f"{np.mean(seconds):.1f} CPU seconds a diagnosis")  # fmt: skip
    figures = say(pd.concat(steps), pd.concat(firsts), pd.concat(skus), pd.concat(creatives), 0.1)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
