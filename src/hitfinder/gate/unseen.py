"""Which closed batches a model has not learned from, and as of when to fit one that leaves the newest out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hitfinder.admission import admit_signals_and_skus
from hitfinder.errors import ModelError, NotEnoughHistoryError, SettingsError
from hitfinder.features import moment_of_knowledge, set_scope
from hitfinder.labels import label
from hitfinder.models.hit_model import HitModel
from hitfinder.selection import weigh_seen
from hitfinder.settings import Settings
from hitfinder.warehouse import TableLike, frame, open_warehouse

__all__ = [
    "MIN_UNSEEN",
    "MOST_UNSEEN",
    "Unseen",
    "last_open",
    "learned_until",
    "moment_before_newest",
    "unseen_batches",
]

# Fewer batches than these can't tell a good model from a lucky one, however wide the margins.
MIN_UNSEEN = 3
# The newest of them are enough to judge by; older ones are another season's.
MOST_UNSEEN = 12


@dataclass(frozen=True)
class Unseen:
    """Closed batches that no model learned from.

    Attributes
    ----------
    labels
        Their labelled SKUs, in order of `sku_id`: the columns of `labels.label`, and `batch_id`.
    batches
        Their names, the newest last; MOST_UNSEEN at most.
    closed
        How many batches had closed in all.
    first_launch
        When the first SKU of the oldest of them was launched; None where there are none.
    """

    labels: pd.DataFrame
    batches: tuple[str, ...]
    closed: int
    first_launch: pd.Timestamp | None = None


def unseen_batches(
    con: Any,
    settings: Settings,
    models: Sequence[HitModel],
    moment: pd.Timestamp,
    *,
    outcomes_given: bool,
    decisions_given: bool = False,
) -> Unseen:
    """Find the newest closed batches of which no model knew one outcome.

    A batch has closed when the windows of all its SKUs have. It is unseen by a model if its first SKU was launched
    after the newest SKU that the model learned from, and its first window closed after the model's moment.

    Parameters
    ----------
    con
        Holds the admitted tables; afterwards its scope is `moment`, and its labels are those of `settings`.
    settings
        Say what a hit is.
    moment
        The moment of knowledge.
    outcomes_given
        As for `labels.label`.
    decisions_given
        Outcomes that a stop cut off are left out, and hits are judged anew among the others; see `selection`. Else a
        champion would be proved right by what it stopped.

    Raises
    ------
    ModelError
        A model does not say what it learned from.
    """
    labels, closed = _labelled(con, settings, moment, outcomes_given=outcomes_given)
    if decisions_given:
        labels, _ = weigh_seen(con, labels.assign(weight=1.0), settings)
    unseen = closed[closed["batch_id"].isin(labels["batch_id"])]
    for model in models:
        as_of, newest = learned_until(model)
        first = unseen["first_launch"]
        unseen = unseen[(first > newest) & (first + _windows(model.settings) > as_of)]
    names = tuple(unseen["batch_id"].tail(MOST_UNSEEN))
    kept = labels[labels["batch_id"].isin(names)].sort_values("sku_id").reset_index(drop=True)
    oldest = unseen["first_launch"].tail(MOST_UNSEEN).min() if names else None
    return Unseen(kept, names, len(closed), oldest)


def learned_until(model: HitModel) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return the moment that a model was fitted as of, and when the newest SKU that it learned from was launched.

    Raises
    ------
    ModelError
        Its report does not say.
    """
    known = [model.report.get(name) for name in ("as_of", "last_launch")]
    if any(value is None for value in known):
        raise ModelError(
            f"{model.version}: expected a report that says as_of and last_launch, got none, so no batch is known to be "
            "new to the model; fit it again with this version"
        )
    as_of, newest = (pd.Timestamp(str(value)) for value in known)
    return as_of, newest


def moment_before_newest(
    signals: TableLike,
    skus: TableLike,
    settings: Settings,
    n_batches: int = MIN_UNSEEN,
    *,
    outcomes: TableLike | None = None,
    as_of: Any = None,
) -> pd.Timestamp:
    """Return the last moment at which the outcomes of the newest closed batches were still open.

    A model fitted as of then (`fit(..., as_of=moment)`) leaves these batches for the gate, and learns from all older
    ones. It could be fitted as of the launch of the first of them: then the batches tested meanwhile would be lost
    to it too, and it would stand further from what is to be promoted.

    Parameters
    ----------
    signals, skus, settings, outcomes, as_of
        As for `fit`.
    n_batches
        How many batches are left out.

    Raises
    ------
    NotEnoughHistoryError
        No more than so many batches have closed.
    SettingsError
        `n_batches` is below 1.
    DataError
        A table can't be understood.
    """
    if n_batches < 1:
        raise SettingsError(f"n_batches: expected 1 or more, got {n_batches}")
    con = open_warehouse(threads=settings.model.threads)
    try:
        admit_signals_and_skus(con, signals, skus, period=settings.signals.period, outcomes=outcomes, warn=False)
        moment = moment_of_knowledge(con, as_of)
        _, closed = _labelled(con, settings, moment, outcomes_given=outcomes is not None)
    finally:
        con.close()
    if len(closed) <= n_batches:
        raise NotEnoughHistoryError(
            f"as of {moment}: expected more than {n_batches} closed batches, got {len(closed)}; wait until more have "
            "closed, or give more history"
        )
    return last_open(closed["first_launch"].tail(n_batches).min(), settings)


def last_open(first_launch: pd.Timestamp, settings: Settings) -> pd.Timestamp:
    """Return the last moment at which the outcomes of batches were still open, the first of them launched then.

    >>> last_open(pd.Timestamp("2025-01-06"), Settings())
    Timestamp('2025-02-09 23:59:59.999999')
    """
    return first_launch + _windows(settings) - pd.Timedelta(microseconds=1)


def _labelled(
    con: Any, settings: Settings, moment: pd.Timestamp, *, outcomes_given: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the labels, with `batch_id`, and `batch_id, first_launch, last_launch` of closed batches, oldest first."""
    set_scope(con, settings, moment)
    every = label(con, settings, outcomes_given=outcomes_given)
    labels = every[every["problem"].isna()].merge(frame(con, "select sku_id, batch_id from catalog"), on="sku_id")
    batches = frame(
        con,
        """
        select batch_id, min(launched_at) as first_launch, max(launched_at) as last_launch
        from catalog cross join scope
        -- A SKU without a launch and without a signal counts as launched now: it keeps no batch open.
        where launched_at <> as_of
        group by batch_id
        order by first_launch, batch_id
        """,
    )
    over = batches["last_launch"] + _windows(settings) <= moment
    return labels, batches[over & batches["batch_id"].isin(labels["batch_id"])].reset_index(drop=True)


def _windows(settings: Settings) -> pd.Timedelta:
    return settings.label.test_window + settings.label.outcome_window
