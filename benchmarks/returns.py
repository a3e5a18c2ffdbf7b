"""How well the returns of young SKUs are forecast, against the historical means that a shop would use instead.

    python benchmarks/returns.py [--seeds 100 101 102 103] [--own 0.0] [--weeks 16] [--skus 80]
    python benchmarks/returns.py --retail online_retail_dev.parquet

Each batch is forecast 3, 7 and 14 days after its launch. What is pooled was fitted at the launch; the means are those
of all refunds over all revenue known at the forecast's own moment. Two things are forecast: the final share of the
orders so far, and the share over the SKU's whole life. The simulator knows each refund's order; in the retail log a
cancellation is matched to the same customer's last purchase of the same item before it, and what finds none is left
out of the orders' final share.

A SKU's returns in the simulated market depend on its category and price alone; `--own` adds differences between styles
and between SKUs, of so much in sd of log odds each. Errors are weighted by the money that they are about, in retail by
at most one part in a hundred of all of it for one SKU (a single invoice of 77,184 was cancelled within the hour).
Intervals are of a bootstrap over batches, 5 to 95 %; what is saved is against the best of the three means, each time.
"of batch" is the error in the refunds of a whole batch's orders, over those refunds: the absolute error of a single SKU
is least for whoever says 0, since most SKUs of a few orders end there.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from hitfinder.admission import admit_signals_and_skus
from hitfinder.features import set_scope
from hitfinder.ingest import ingest
from hitfinder.refunds import fit_refunds
from hitfinder.settings import Settings
from hitfinder.simulate import simulate, traffic
from hitfinder.warehouse import open_warehouse

AGES = (3, 7, 14)
FIRST_BATCH = 6  # earlier launches have too little behind them to learn from
DRAWS = 2000
MEASURES = ("error", "log loss", "of batch")
METHODS = ("all so far", "category so far", "SKU so far", "prior", "forecast")


def simulated(seed: int, weeks: int, skus: int, own: float) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the signals, the SKUs, and each order with its SKU, day, value and refund."""
    placed: list[pd.DataFrame] = []
    chances, place = traffic._return_chances, traffic._place_orders

    def differ(catalogue):
        rng = np.random.default_rng(seed + 1)
        of_style = rng.normal(0, own, catalogue.style.max() + 1)[catalogue.style]
        return expit(logit(chances(catalogue)) + of_style + rng.normal(0, own, len(catalogue.style)))

    def keep(rng, catalogue, cells, bought):
        orders = place(rng, catalogue, cells, bought)
        sku = orders["thread"] // (len(traffic.CHANNELS) * traffic.CREATIVES_PER_STYLE)
        columns = {name: orders[name] for name in ("day", "value", "refund")}
        placed.append(pd.DataFrame({"sku_id": catalogue.skus["sku_id"].to_numpy()[sku], **columns}))
        return orders

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(traffic, "_place_orders", keep))
        if own:
            stack.enter_context(mock.patch.object(traffic, "_return_chances", differ))
        market = simulate(weeks=weeks, skus_per_week=skus, complete=True, seed=seed)
    orders = placed[0]
    start = market.skus["launched_at"].min()
    return market.signals, market.skus, orders.assign(day=start + pd.to_timedelta(orders["day"], unit="D"))


def retail(path: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the signals and SKUs of the wholesaler, launched when first sold; batches are weeks."""
    with tempfile.TemporaryDirectory() as folder:
        ingest(path, into=Path(folder) / "in", settings=Settings())
        signals, skus = (pd.read_parquet(Path(folder) / "in" / f"{name}.parquet") for name in ("signals", "skus"))
    first = signals.groupby("sku_id")["period_start"].min()
    skus["launched_at"] = skus["sku_id"].map(first)
    skus["batch_id"] = skus["launched_at"].dt.to_period("W").dt.start_time.astype(str)
    money = {name: signals[name].astype(float) for name in ("revenue", "refunds")}
    return signals.assign(**money), skus


def matched(path: str) -> pd.DataFrame:
    """Return each purchase of the retail log with its SKU, day, value and what was cancelled of it."""
    lines = pd.read_parquet(path)
    lines = lines.assign(
        sku_id=lines["StockCode"].str.strip(), value=lines["Quantity"] * lines["UnitPrice"], line=range(len(lines))
    )
    back = lines["InvoiceNo"].str.upper().str.startswith("C") | (lines["Quantity"] < 0)
    lines = lines[(lines["UnitPrice"] > 0) & lines["sku_id"].str.contains(r"^\d{5}")].sort_values("InvoiceDate")
    bought = lines[~back.reindex(lines.index)]
    cancelled = lines[back.reindex(lines.index) & lines["CustomerID"].notna()]
    pairs = pd.merge_asof(
        cancelled[["InvoiceDate", "CustomerID", "sku_id", "value"]],
        bought[["InvoiceDate", "CustomerID", "sku_id", "line"]].dropna(),
        on="InvoiceDate", by=["CustomerID", "sku_id"],
    )  # fmt: skip
    found = pairs["line"].notna()
    print(f"cancellations: {-lines['value'][lines['value'] < 0].sum():.0f}, matched {-pairs['value'][found].sum():.0f}")
    refund = -pairs[found].groupby("line")["value"].sum()
    refund = np.minimum(bought["line"].map(refund).fillna(0), bought["value"])
    return pd.DataFrame(
        {"sku_id": bought["sku_id"], "day": bought["InvoiceDate"].dt.normalize(), "value": bought["value"]}
    ).assign(refund=refund)


def forecasts(signals: pd.DataFrame, skus: pd.DataFrame, batches: list[str]) -> pd.DataFrame:
    """Return one row per SKU and age: what each method says, the interval, and what had been sold by then."""
    con = open_warehouse(threads=1)
    settings = Settings()
    admit_signals_and_skus(con, signals, skus, period=settings.signals.period)
    category = signals["sku_id"].map(skus.set_index("sku_id")["category"]).fillna("(none)")
    dated = signals.assign(category=category)
    rows = []
    for batch in batches:
        group = skus[skus["batch_id"] == batch]
        begin = group["launched_at"].min().normalize()
        set_scope(con, settings, begin)
        model = fit_refunds(con)
        end = group["launched_at"].max().normalize() + pd.Timedelta(days=max(AGES))
        set_scope(con, settings, end)
        for age in AGES:
            asked = group.assign(moment=group["launched_at"].dt.normalize() + pd.Timedelta(days=age))
            told = model.share_at(con, asked).assign(age=age, batch=batch)
            told["prior"] = model.prior.mean(asked.assign(category=asked["category"].fillna("(none)")))
            said = []
            for moment in asked["moment"].unique():  # the means of that very moment
                known = dated[(dated["known_at"] <= moment) & (dated["period_start"] < moment)]
                sums = known[["revenue", "refunds"]].sum()
                of = known.groupby("category")[["revenue", "refunds"]].sum()
                ids = asked.loc[asked["moment"] == moment, ["sku_id", "category"]]
                mine = known[known["sku_id"].isin(ids["sku_id"])].groupby("sku_id")[["revenue", "refunds"]].sum()
                mine = mine.reindex(ids["sku_id"])
                overall = sums["refunds"] / sums["revenue"]
                line = pd.DataFrame({"sku_id": ids["sku_id"], "all so far": overall})
                line["category so far"] = (
                    ids["category"].fillna("(none)").map(of["refunds"] / of["revenue"]).fillna(overall)
                )
                raw = (mine["refunds"] / mine["revenue"]).where(mine["revenue"] > 0).fillna(overall).clip(upper=1)
                line["SKU so far"] = raw.to_numpy()
                line["sold"] = mine["revenue"].fillna(0).to_numpy()
                said.append(line)
            rows.append(told.merge(pd.concat(said), on="sku_id"))
    con.close()
    return pd.concat(rows, ignore_index=True)


def final_of_orders(rows: pd.DataFrame, orders: pd.DataFrame) -> pd.DataFrame:
    """Add the final share of each SKU's orders before its moment; an order whose report was late by then counts too."""
    known = rows[["sku_id", "age", "moment"]].merge(orders, on="sku_id")
    sums = known[known["day"] < known["moment"]].groupby(["sku_id", "age"])[["value", "refund"]].sum()
    share = (sums["refund"] / sums["value"]).rename("final of orders so far").reset_index()
    return rows.merge(share, how="left", on=["sku_id", "age"]).fillna({"final of orders so far": 0.0})


def measure(rows: pd.DataFrame, target: str, weight: str) -> pd.DataFrame:
    """Return error and log loss of each method and age, and the gain of the forecast over the best mean."""
    rng = np.random.default_rng(0)
    out = []
    for age, group in rows[rows[weight] > 0].groupby("age"):
        truth, money = group[target].clip(0, 1).to_numpy(), group[weight].to_numpy()
        places = pd.factorize(group["batch"])[0]
        draws = rng.multinomial(places.max() + 1, np.full(places.max() + 1, 1 / (places.max() + 1)), DRAWS)
        sums, mass = {}, np.bincount(places, money)
        due = np.bincount(places, money * truth)
        for name in METHODS:
            if name == "forecast":
                said = group["return_share" if target == "final of orders so far" else "next_share"].to_numpy()
            else:
                said = group[name].to_numpy(dtype=float)
            p = np.clip(said, 0.002, 0.98)
            loss = -(truth * np.log(p) + (1 - truth) * np.log(1 - p))
            missed = np.abs(np.bincount(places, money * said) - due)
            # Over the refunds, unlike the others, which are over the revenue.
            missed = missed * mass.sum() / due.sum()
            sums[name] = np.bincount(places, money * np.abs(said - truth)), np.bincount(places, money * loss), missed
        for name in METHODS:
            line = {"age": age, "method": name}
            for what, values, best in zip(MEASURES, sums[name], zip(*sums.values(), strict=True), strict=True):
                line[what] = values.sum() / mass.sum()
                best = min(best[:3], key=np.sum)  # the best of the three means, in hindsight
                gain = (draws @ (best - values)) / (draws @ mass)
                low, high = np.quantile(gain, [0.05, 0.95])
                line[f"{what} saved"] = f"{(best - values).sum() / mass.sum():.3f} ({low:.3f} to {high:.3f})"
            out.append(line)
    return pd.DataFrame(out)


def coverage(rows: pd.DataFrame, target: str) -> pd.DataFrame:
    """Return how often the interval holds the final share, per SKU and per money, and how wide it is."""
    sold = rows[rows["sold"] > 0]
    truth = sold[target].clip(0, 1)
    inside = truth.between(sold["return_share_low"] - 1e-6, sold["return_share_high"] + 1e-6)
    sold = sold.assign(
        covered=inside.astype(float),
        below=(truth < sold["return_share_low"] - 1e-6).astype(float),
        above=(truth > sold["return_share_high"] + 1e-6).astype(float),
        width=sold["return_share_high"] - sold["return_share_low"],
    )
    sold["size"] = pd.cut(sold["orders"], [0, 3, 10, 30, np.inf], labels=["1-3", "4-10", "11-30", "31+"])
    names = ["covered", "below", "above", "width"]
    means = sold.groupby("age")[names].mean()
    means["covered by money"] = [np.average(g["covered"], weights=g["sold"]) for _, g in sold.groupby("age")]
    by_size = sold.pivot_table(index="age", columns="size", values="covered", observed=False)
    return means.join(by_size.add_prefix("orders "))


def main() -> None:
    """Run and print the tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, nargs="*", default=[100, 101, 102, 103])
    options.add_argument("--weeks", type=int, default=16)
    options.add_argument("--skus", type=int, default=80)
    options.add_argument("--own", type=float, default=0.0)
    options.add_argument("--retail")
    o = options.parse_args()
    warnings.simplefilter("ignore")
    pd.set_option("display.width", 200, "display.max_columns", 30)
    if o.retail:
        signals, skus = retail(o.retail)
        first, last = signals["period_start"].min(), signals["period_start"].max()
        young = skus["launched_at"].between(first + pd.Timedelta(days=35), last - pd.Timedelta(days=75))
        batches = sorted(skus.loc[young, "batch_id"].unique())
        rows = final_of_orders(forecasts(signals, skus[skus["launched_at"].notna()], batches), matched(o.retail))
        life = signals.groupby("sku_id")[["revenue", "refunds"]].sum()
    else:
        parts, lives = [], []
        for seed in o.seeds:
            signals, skus, orders = simulated(seed, o.weeks, o.skus, o.own)
            batches = sorted(skus["batch_id"].unique())[FIRST_BATCH:]
            part = forecasts(signals, skus, batches)
            part = final_of_orders(part, orders)
            life = signals.groupby("sku_id")[["revenue", "refunds"]].sum()
            parts.append(part.assign(sku_id=f"{seed}:" + part["sku_id"], batch=f"{seed}:" + part["batch"]))
            lives.append(life.set_axis(f"{seed}:" + life.index))
        rows, life = pd.concat(parts, ignore_index=True), pd.concat(lives)
    rows["life"] = rows["sku_id"].map(life["refunds"] / life["revenue"])
    rows["life money"] = rows["sku_id"].map(life["revenue"]).fillna(0)
    if o.retail:
        for name in ("sold", "life money"):
            rows[name] = rows.groupby("age")[name].transform(lambda money: money.clip(upper=0.01 * money.sum()))
    print(f"{rows['sku_id'].nunique()} SKUs, {rows['batch'].nunique()} batches")
    for title, target, weight in (
        ("final share of the orders so far", "final of orders so far", "sold"),
        ("share over the SKU's whole life", "life", "life money"),
    ):
        print(f"\n{title}")
        print(measure(rows, target, weight).round(4).to_string(index=False))
    print("\nthe interval of the orders so far")
    print(coverage(rows, "final of orders so far").round(3).to_string())


if __name__ == "__main__":
    main()
