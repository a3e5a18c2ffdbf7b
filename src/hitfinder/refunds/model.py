"""Fit what is pooled over all SKUs, and forecast each SKU's returns from its own refunds so far."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.admission import admit_signals_and_skus
from hitfinder.errors import DataError, SettingsError
from hitfinder.features import moment_of_knowledge, set_scope
from hitfinder.refunds.delays import delay_shares, development, known_shares
from hitfinder.refunds.evidence import daily, gather, lateness, set_grid
from hitfinder.refunds.intervals import still_to_come
from hitfinder.refunds.shrinkage import Prior, fit_prior, share_of
from hitfinder.settings import Settings
from hitfinder.warehouse import TableLike, frame, open_warehouse

__all__ = ["FORECAST_COLUMNS", "MAX_DELAY", "RefundModel", "fit_refunds", "returns"]

Array = npt.NDArray[np.float64]

MAX_DELAY = pd.Timedelta(days=60)
# No report is waited for longer than this.
MAX_LATENESS = pd.Timedelta(days=45)
DAY = pd.Timedelta(days=1)
FORECAST_COLUMNS = (
    "sku_id", "return_share", "return_share_low", "return_share_high", "refunds_seen", "refunds_to_come",
    "developed_share", "orders", "returned_orders", "next_share",
)  # fmt: skip


@dataclass(frozen=True)
class RefundModel:
    """What all SKUs together say about returns; see `fit_refunds`.

    Attributes
    ----------
    as_of
        The moment of the fit.
    unknown
        Why nothing can be said, or None. A shop that reports no refunds has no return share, rather than one of 0.
    origin, step_days
        The days that refunds are counted by: from `origin` in steps of `step_days`.
    delays
        `delays[l]`: of all refunds, the share that comes l steps after the order.
    known
        `known[s]`: of a day's reports, the share that is known s steps after it began.
    prior
        The share expected of a SKU, and how strongly; None where it is unknown or no refund was ever reported.
    upper
        Where none was ever reported: the share that the orders so far exclude with the chance of the interval's end.
    level
        Nominal coverage of the intervals.
    n_skus, n_refund_days
        SKUs with revenue beside measured refunds; days with refunds that the delays rest on.
    """

    as_of: str
    unknown: str | None
    origin: str
    step_days: float
    delays: tuple[float, ...]
    known: tuple[float, ...]
    prior: Prior | None
    upper: float | None
    level: float
    n_skus: int
    n_refund_days: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain |= {"delays": list(self.delays), "known": list(self.known)}
        return plain | {"prior": None if self.prior is None else self.prior.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RefundModel:
        """Read what `to_dict` wrote."""
        prior = values["prior"]
        listed = {name: tuple(values[name]) for name in ("delays", "known")}
        return cls(**{**values, **listed, "prior": None if prior is None else Prior(**prior)})

    @property
    def development(self) -> Array:
        """By whole steps since the order's day began: the share of its refunds that is known."""
        return development(np.array(self.delays), np.array(self.known))

    @property
    def median_delay_days(self) -> float:
        """Days after which half of the refunds have been made."""
        return float(np.searchsorted(np.cumsum(self.delays), 0.5 - 1e-12) * self.step_days)

    def forecast(self, con: Any) -> pd.DataFrame:
        """Forecast the returns of every SKU's orders so far, at the scope's moment.

        Parameters
        ----------
        con
            After `features.set_scope`.

        Returns
        -------
        pandas.DataFrame
            One row per SKU, in order of `sku_id`:

            - `return_share, return_share_low, return_share_high`: refunds over revenue, once all refunds of the orders
              known by now are in; the ends hold it with the chance `level`. For a SKU without revenue: of orders to
              come.
            - `refunds_seen, refunds_to_come`: money. Where only some reports measured refunds, `refunds_to_come` holds
              what is expected of the others' revenue too.
            - `developed_share`: how much of the orders' refunds should be in; NULL without revenue.
            - `orders, returned_orders`: so far, and how many of them come back in the end.
            - `next_share`: the share expected of the SKU's further orders.

            NULL throughout where it is `unknown`.
        """
        moment = con.execute("select as_of from scope").fetchall()[0][0]
        skus = frame(con, "select sku_id from catalog order by sku_id")
        return self.share_at(con, skus.assign(moment=pd.Timestamp(moment))).drop(columns="moment")

    def share_at(self, con: Any, evidence: pd.DataFrame) -> pd.DataFrame:
        """Forecast as of many moments: each SKU's own refunds, and its siblings', only up to its moment.

        Parameters
        ----------
        con
            After `features.set_scope`, of this or a later moment than those asked for.
        evidence
            `sku_id, moment`, each pair once.

        Returns
        -------
        pandas.DataFrame
            The columns of `forecast` and `moment`, one row per pair, in the pairs' order.

        Raises
        ------
        DataError
            A pair comes twice, a SKU is not in the catalog, or a moment is later than the scope's.
        """
        pairs = evidence[["sku_id", "moment"]].reset_index(drop=True)
        _check_pairs(con, pairs)
        # What was not known at the fit's own step stays so: ages are counted from the same first day.
        set_grid(con, pd.Timestamp(self.origin), self.step_days * 86400.0)
        own, siblings = gather(con, self.development, pairs)
        return self._told(own, siblings)

    def _told(self, own: pd.DataFrame, siblings: pd.DataFrame) -> pd.DataFrame:
        revenue, measured, seen, orders = (
            own[name].to_numpy(dtype=float) for name in ("revenue", "measured_revenue", "refunds", "orders")
        )
        developed = own["developed"].to_numpy(dtype=float)
        blank = np.full(len(own), np.nan)
        share, low, high, next_share, to_come = blank, blank, blank, blank, blank
        if self.unknown is None:
            next_share, low, high = self._shares(own, siblings)
            left = np.maximum(measured - developed, 0.0)
            final = seen + left * next_share
            sold = measured > 0
            share = np.where(sold, np.minimum(_over(final, measured), 1.0), next_share)
            ends = [np.where(sold, np.minimum(_over(seen + left * end, measured), 1.0), end) for end in (low, high)]
            low, high = np.minimum(ends[0], share), np.maximum(ends[1], share)
            to_come = left * next_share + np.maximum(revenue - measured, 0.0) * share
        return pd.DataFrame(
            {
                "sku_id": own["sku_id"],
                "moment": own["moment"],
                "return_share": share,
                "return_share_low": low,
                "return_share_high": high,
                "refunds_seen": blank if self.unknown is not None else seen,
                "refunds_to_come": to_come,
                "developed_share": np.where(measured > 0, _over(developed, measured), np.nan),
                "orders": orders,
                "returned_orders": orders * share,
                "next_share": next_share,
            }
        )

    def _shares(self, own: pd.DataFrame, siblings: pd.DataFrame) -> tuple[Array, Array, Array]:
        """Return the share expected of orders still out, and the two ends of what will come of them."""
        if self.prior is None:
            return np.zeros(len(own)), np.zeros(len(own)), np.full(len(own), self.upper)
        belief = share_of(self.prior, own, siblings)
        left = (own["measured_revenue"] - own["developed"]).clip(lower=0).to_numpy(dtype=float) / belief.order_value
        orders = np.where(own["measured_revenue"].to_numpy(dtype=float) > 0, left, 0.0)
        tail = (1 - self.level) / 2
        low, high = still_to_come(belief.mean, belief.concentration, orders, (tail, 1 - tail))
        return belief.mean, low, high


def fit_refunds(con: Any, *, max_delay: pd.Timedelta = MAX_DELAY, level: float = 0.8) -> RefundModel:
    """Fit the delay of refunds, the shares expected of SKUs, and how much a SKU's own refunds count.

    Parameters
    ----------
    con
        After `features.set_scope`: only what was known at its moment is read.
    max_delay
        The longest delay between order and refund that is looked for.
    level
        Nominal coverage of the intervals, 0 to 1.

    Returns
    -------
    RefundModel

    Raises
    ------
    SettingsError
        `level` or `max_delay` is outside its range.
    """
    if not 0 < level < 1:
        raise SettingsError(f"level: expected more than 0 and less than 1, got {level!r}")
    if not max_delay >= DAY:
        raise SettingsError(f"max_delay: expected a day or more, got {max_delay!r}")
    moment = pd.Timestamp(con.execute("select as_of from scope").fetchall()[0][0])
    origin, step_seconds = set_grid(con)
    step_days = step_seconds / 86400.0
    days = daily(con)
    known = known_shares(lateness(con), int(MAX_LATENESS / DAY / step_days))
    n_steps = max(int(max_delay / DAY / step_days), 1)
    model = RefundModel(
        as_of=moment.isoformat(),
        unknown=None,
        origin=origin.isoformat(),
        step_days=step_days,
        # Nothing is known of the delay: refunds are as likely on any day.
        delays=tuple(np.full(n_steps + 1, 1 / (n_steps + 1)).tolist()),
        known=tuple(known.tolist()),
        prior=None,
        upper=None,
        level=level,
        n_skus=int(days["sku_id"].nunique()),
        n_refund_days=0,
    )
    if days.empty:
        return replace(model, unknown="no report measured revenue and refunds together")
    if not (days["refunds"] > 0).any():
        own, _ = gather(con, model.development)
        orders = float(np.maximum((own["developed"] * _over(own["orders"], own["revenue"])).sum(), 0.0))
        # One order that comes back among n + 1: the end of Beta(1, n + 1).
        return replace(model, upper=1 - ((1 - level) / 2) ** (1 / (orders + 1)))
    shares, matched = delay_shares(days, known, n_steps, step_days)
    model = replace(model, delays=tuple(shares.tolist()), n_refund_days=matched)
    own, siblings = gather(con, model.development)
    return replace(model, prior=fit_prior(own, siblings))


def returns(
    signals: TableLike, skus: TableLike, settings: Settings, as_of: Any = None, *, level: float = 0.8
) -> pd.DataFrame:
    """Forecast the returns of every SKU's orders so far. Pure: it tracks nothing and writes nothing.

    Parameters
    ----------
    signals, skus
        Tables of the contract; `refunds` and `revenue` must have been counted, else the answer is NULL throughout.
    settings
        See `load_settings`.
    as_of
        The moment of knowledge, UTC; default: when the newest signal was known.
    level
        Nominal coverage of the interval.

    Returns
    -------
    pandas.DataFrame
        See `RefundModel.forecast`.

    Raises
    ------
    DataError
        A table can't be understood, `as_of` is no moment, or there is no signal at all.
    """
    con = open_warehouse(threads=settings.model.threads)
    try:
        admit_signals_and_skus(con, signals, skus, period=settings.signals.period)
        set_scope(con, settings, moment_of_knowledge(con, as_of))
        return fit_refunds(con, level=level).forecast(con)
    finally:
        con.close()


def _over(top: Any, bottom: Any) -> Array:
    top, bottom = np.asarray(top, dtype=float), np.asarray(bottom, dtype=float)
    ratio: Array = np.divide(top, bottom, out=np.zeros(len(top)), where=bottom > 0)
    return ratio


def _check_pairs(con: Any, pairs: pd.DataFrame) -> None:
    if pairs.duplicated().any():
        twice = pairs[pairs.duplicated()].iloc[0]
        raise DataError(
            f"evidence: expected each pair once, got {twice['sku_id']} at {twice['moment']} twice; drop one"
        )
    moment = pd.Timestamp(con.execute("select as_of from scope").fetchall()[0][0])
    if (late := pairs["moment"] > moment).any() or pairs["moment"].isna().any():
        which = pairs[late | pairs["moment"].isna()].iloc[0]
        raise DataError(
            f"evidence: expected moments up to {moment}, got {which['moment']} for {which['sku_id']}; "
            "ask for an earlier moment or set the scope later"
        )
    known = set(frame(con, "select sku_id from catalog")["sku_id"])
    strange = [sku for sku in pairs["sku_id"] if sku not in known]
    if strange:
        raise DataError(f"evidence: expected SKUs of skus, got {strange[0]!r}; add it to skus or leave it out")
