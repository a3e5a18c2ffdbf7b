"""Trials as tables: what a policy has bought so far, as signals, and its features by the SQL that serves everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.allocation import allocate, round_budget
from hitfinder.features import count_pairs, features, observe, set_scope, stock_outs_at
from hitfinder.models.belief import Belief
from hitfinder.settings import Settings
from hitfinder.tables import COUNTS, MONEY, SIGNALS
from hitfinder.trial import Pool, View
from hitfinder.warehouse import frame, open_warehouse

__all__ = ["BeliefPolicy", "TrialTable", "catalog_of", "pool_of", "repeat_pool"]

Array = npt.NDArray[np.float64]

MEASURED = (*COUNTS, *MONEY)
# What is shown of a page that has sold out tests nothing (see sql/visible.sql).
VISITS = ("impressions", "visitors", "clicks", "favorites", "carts")
SHOWN = "filter (where coalesce(epoch(reports.period_start) < test_stock_outs.sold_out_second, true))"
SKU_TYPES = {
    **dict.fromkeys(("sku_id", "batch_id", "style_id", "category", "title"), "varchar"),
    "price": "double",
    "launched_at": "timestamp",
    "stock": "bigint",
}


def pool_of(con: Any, labels: pd.DataFrame, settings: Settings) -> Pool | None:
    """Take what the tests of labelled SKUs counted in full, from their launch to the end of the test window.

    Parameters
    ----------
    con
        After `features.set_scope` at a moment when the tests were over.
    labels
        `sku_id, batch, hit`; see `labels.label`. `slots` of a batch is its number of hits.
    settings
        The test window and the period.

    Returns
    -------
    Pool or None
        In order of `sku_id`. Exposures are impressions where these were counted (and orders, where money was), else
        periods. None where nothing was counted in any test window.
    """
    con.register("pooled_skus", labels[["sku_id"]])
    stock_outs_at(
        con,
        "test_stock_outs",
        "select make_timestamp(cast((epoch(catalog.launched_at) + scope.test_seconds) * 1000000 as bigint)) as as_of, "
        "catalog.sku_id from catalog cross join scope",
    )
    rows = frame(
        con,
        f"""
        select
            reports.sku_id,
            cast(
                greatest(
                    floor((epoch(reports.period_start) - epoch(catalog.launched_at)) / scope.period_seconds), 0
                ) as bigint
            ) as period,
            {", ".join(f"sum(reports.{name}) {SHOWN if name in VISITS else ''} as {name}" for name in MEASURED)}
        from reports
        inner join catalog on reports.sku_id = catalog.sku_id
        inner join pooled_skus on reports.sku_id = pooled_skus.sku_id
        left join test_stock_outs on reports.sku_id = test_stock_outs.sku_id
        cross join scope
        where
            -- As it stood when the test was over: a later revision could not have been seen in it.
            epoch(reports.known_at) <= epoch(catalog.launched_at) + scope.test_seconds
            and (
                reports.superseded_at is null
                or epoch(reports.superseded_at) > epoch(catalog.launched_at) + scope.test_seconds
            )
            -- What begins when the test ends is outcome, even where it was known at once.
            and epoch(reports.period_start) < epoch(catalog.launched_at) + scope.test_seconds
            -- The period in which a SKU was launched is the first of its test.
            and epoch(reports.period_start) > epoch(catalog.launched_at) - scope.period_seconds
        group by reports.sku_id, period
        order by reports.sku_id, period
        """,
    )
    con.unregister("pooled_skus")
    measured = [name for name in MEASURED if rows[name].notna().any()]
    if not measured:
        return None
    known = labels.sort_values("sku_id").reset_index(drop=True)
    batch, _ = pd.factorize(known["batch"], sort=True)
    slots = np.maximum(np.bincount(batch, weights=known["hit"].to_numpy(dtype=float)), 1).astype(np.int64)
    place = known["sku_id"].searchsorted(rows["sku_id"])
    n = len(known)
    # A count that was never reported of a SKU is not known; it is no 0.
    told = {name: np.bincount(place, weights=rows[name].notna(), minlength=n) > 0 for name in measured}
    # Money can be thinned by the orders that it came with; without them one exposure would tell all of it.
    if "impressions" in measured and ("orders" in measured or not {"revenue", "refunds"} & set(measured)):
        totals = {}
        for name in measured:
            totals[name] = np.zeros(n)
            np.add.at(totals[name], place, rows[name].fillna(0).to_numpy(dtype=float))
        exposures = totals.pop("impressions").astype(np.int64)
        return Pool(known["sku_id"].to_numpy(object), batch.astype(np.int64), exposures, totals, slots, told)
    periods = int(np.ceil(settings.label.test_window / settings.signals.period))
    counts = {}
    for name in measured:
        counts[name] = np.zeros((n, periods))
        np.add.at(counts[name], (place, rows["period"].to_numpy()), rows[name].fillna(0).to_numpy(dtype=float))
    exposures = np.full(n, periods, dtype=np.int64)
    return Pool(known["sku_id"].to_numpy(object), batch.astype(np.int64), exposures, counts, slots, told)


def catalog_of(con: Any, sku_id: npt.NDArray[np.object_]) -> pd.DataFrame:
    """Return the catalog's rows of some SKUs, in their order."""
    rows: pd.DataFrame = con.execute("select * from catalog").df().set_index("sku_id").reindex(sku_id).reset_index()
    return rows


def repeat_pool(pool: Pool, copies: int) -> Pool:
    """Return the pool several times over, each copy's batches being batches of their own.

    Copy `c` of SKU `x` is called `c:x`; the batches of copy `c` follow those of the copy before.
    """
    batches = len(pool.slots)
    return Pool(
        sku_id=np.concatenate([f"{c}:" + pool.sku_id for c in range(copies)]),
        batch=np.concatenate([pool.batch + c * batches for c in range(copies)]),
        exposures=np.tile(pool.exposures, copies),
        counts={name: np.concatenate([values] * copies) for name, values in pool.counts.items()},
        slots=np.tile(pool.slots, copies),
        measured={name: np.tile(known, copies) for name, known in pool.measured.items()},
    )


class TrialTable:
    """A warehouse that holds what has been bought in trials, one clock per batch.

    Parameters
    ----------
    pool
        The tests in full; only what a view has bought is ever put into a table.
    catalog
        One row per SKU of the pool, in its order: `style_id, category, price, title, launched_at`.
    settings
        The test window, which the rounds share, and the period.

    Notes
    -----
    All SKUs of a batch are launched together, with the first of them: a policy starts them at once. A SKU that was
    shown on fewer periods than its batch's clock has passed is as old as the periods that it was shown on.
    """

    def __init__(self, pool: Pool, catalog: pd.DataFrame, settings: Settings) -> None:
        self.pool = pool
        self.settings = settings
        launch = catalog["launched_at"].groupby(pool.batch).transform("min").astype("datetime64[us]")
        self.skus = pd.DataFrame(
            {
                "sku_id": pool.sku_id,
                "batch_id": pool.batch.astype(str),
                **{name: catalog[name].to_numpy() for name in ("style_id", "category", "price", "title")},
                "launched_at": launch.to_numpy(),
            }
        )
        self._rows: list[pd.DataFrame] = []
        self._last: View | None = None
        self._con = open_warehouse(threads=settings.model.threads)

    def close(self) -> None:
        """Let go of the warehouse."""
        self._con.close()

    def clock(self, view: View) -> npt.NDArray[np.datetime64]:
        """Return the moment of knowledge of each SKU: its batch's launch and the rounds played."""
        window = self.settings.label.test_window
        passed: npt.NDArray[np.datetime64] = (self.skus["launched_at"] + window * view.round / view.rounds).to_numpy()
        return passed

    def signals(self, view: View) -> pd.DataFrame:
        """Return what was bought so far as rows of `signals`, and what the SKUs' launches must be for it."""
        if self.pool.by_period:
            return self._by_period(view)
        if self._last is not None and view.round == self._last.round + 1:
            self._rows.append(self._round(self._last, view))
        elif view.round == 0:
            self._rows = []
        elif self._last is None or view.round != self._last.round:
            raise ValueError(f"trial: expected to see the rounds in order, got round {view.round}")
        self._last = view
        nothing = pd.DataFrame({"sku_id": pd.Series(dtype=object), "period_start": pd.Series(dtype="datetime64[us]")})
        return pd.concat(self._rows, ignore_index=True) if self._rows else nothing

    def features(self, view: View, rates: pd.DataFrame) -> pd.DataFrame:
        """Return the features of every SKU of the pool, in its order, after the rounds that `view` has seen."""
        self.look_after([view], list(rates["rate"]))
        return self.features_looked_at(rates).set_index("sku_id").reindex(self.pool.sku_id).reset_index()

    def look_after(self, views: list[View], rate_names: list[str]) -> None:
        """Look at every SKU after the rounds of some views, the last of which has been shown already."""
        con = self._con
        newest = views[-1]
        skus, signals = self.skus, self.signals(newest)
        if self.pool.by_period:
            if len(views) > 1:
                raise ValueError("trial: by period one view can be looked at at a time")
            period = np.timedelta64(self.settings.signals.period)
            skus = skus.assign(launched_at=self.clock(newest) - newest.bought * period)
        _put(con, "signals", signals, {c.name: c.sql_type for c in SIGNALS.columns})
        _put(con, "skus", skus, SKU_TYPES)
        set_scope(con, self.settings, pd.Timestamp(self.clock(newest).max()) + pd.Timedelta(days=1))
        moments = pd.concat(
            [pd.DataFrame({"as_of": self.clock(v), "sku_id": self.pool.sku_id, "round": v.round}) for v in views]
        )
        _put(con, "states", moments, {"as_of": "timestamp", "sku_id": "varchar", "round": "bigint"})
        con.execute("create or replace temp table moments as select as_of, sku_id from states")
        observe(con)
        count_pairs(con, rate_names)
        if len(views) > 1:  # some of these states may be asked for alone
            for name in ("pairs", "totals"):
                con.execute(f"create or replace temp table all_{name} as select * from {name}")

    def features_looked_at(self, rates: pd.DataFrame, rounds: tuple[int, ...] | None = None) -> pd.DataFrame:
        """Return the features of what was looked at last, under some pooling; see `features.features`.

        `rounds` keeps the states after some rounds only, where several views were looked at.
        """
        if rounds is not None:
            kept = f"(select as_of, sku_id from states where round in ({', '.join(map(str, rounds))}))"
            for name in ("pairs", "totals"):
                self._con.execute(
                    f"create or replace temp table {name} as select * from all_{name} where (as_of, sku_id) in {kept}"
                )
        return features(self._con, rates)

    def _round(self, before: View, after: View) -> pd.DataFrame:
        bought = after.bought - before.bought
        some = bought > 0
        counts = {name: self._known(name, after.counts[name] - before.counts[name])[some] for name in after.counts}
        start = self.clock(before)[some]
        return pd.DataFrame(
            {
                "sku_id": self.pool.sku_id[some],
                "period_start": start,
                "known_at": self.clock(after)[some],
                "impressions": bought[some],
                **counts,
            }
        )

    def _by_period(self, view: View) -> pd.DataFrame:
        period = np.timedelta64(self.settings.signals.period)
        launch = self.clock(view) - view.bought * period
        values = np.stack(list(self.pool.counts.values()))
        place = np.arange(values.shape[2])
        sku, at = np.nonzero((place[None, :] < view.bought[:, None]) & (values > 0).any(axis=0))
        start = launch[sku] + at * period
        return pd.DataFrame(
            {
                "sku_id": self.pool.sku_id[sku],
                "period_start": start,
                "known_at": start + period,
                **{name: self._known(name, self.pool.counts[name])[sku, at] for name in self.pool.counts},
            }
        )

    def _known(self, name: str, values: Array) -> Array:
        """Return the values with NaN where the count was not measured of the SKU."""
        measured = self.pool.measured.get(name)
        if measured is None or measured.all():
            return values
        return np.where(measured if values.ndim == 1 else measured[:, None], values, np.nan)


@dataclass(frozen=True)
class BeliefPolicy:
    """hitfinder's own policy: exposures go where they decide, SKUs are scaled by what is believed of them."""

    belief: Belief
    rates: pd.DataFrame
    table: TrialTable

    def spend(self, view: View, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return the next round's exposures; there is no chance in it."""
        del rng
        return self.share_out(self.table.features(view, self.rates), view)

    def share_out(self, features: pd.DataFrame, view: View) -> npt.NDArray[np.int64]:
        """Share the next round out by what is known of each SKU."""
        mean, doubt = self.belief.mean(features), self.belief.doubt(features)
        want = np.zeros(len(mean), dtype=np.int64)
        order = np.argsort(view.batch, kind="stable")
        ends = np.cumsum(np.bincount(view.batch, minlength=len(view.slots)))
        for batch, of in enumerate(np.split(order, ends[:-1])):
            want[of] = allocate(
                mean[of],
                doubt[of],
                view.room[of].astype(float),
                round_budget(int(view.left[batch]), view.rounds_left),
                int(view.slots[batch]),
                view.rounds_left,
                view.rounds,
            )
        return want

    def score(self, view: View) -> Array:
        """Return the expected standing of each SKU."""
        return self.belief.mean(self.table.features(view, self.rates))


def _put(con: Any, name: str, rows: pd.DataFrame, types: dict[str, str]) -> None:
    """Make the table `name` with declared types; columns that did not come are NULL."""
    con.register("rows_source", rows)
    columns = ", ".join(
        f"cast({column if column in rows else 'null'} as {kind}) as {column}" for column, kind in types.items()
    )
    con.execute(f"create or replace temp table {name} as select {columns} from rows_source")
    con.unregister("rows_source")
