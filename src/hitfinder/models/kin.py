"""Kin: what SKUs of like titles and attributes have shown so far; for shops where exposures are days.

A title is learned from sooner where it is asked what its likes sell, not what became of them: no outcome window need
have closed, so the launches of last week teach as well, and each of them teaches about every rate. It is one pool more,
beside the batch, the category and the style, and a fuzzy one, with every SKU in its own middle: a kernel regression
(Nadaraya, "On Estimating Regression", 1964; Watson, "Smooth Regression Analysis", 1964).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix

from hitfinder.models.packed import pack, unpack
from hitfinder.models.words import BUCKETS, hash_words

__all__ = ["Kin", "Shown", "fit_kin", "shown_in"]

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Two SKUs are as like as the square of the cosine between their words, and not at all below this cosine.
LEAST_COSINE = 0.05
# A mean over kin is pulled to the common run as by one SKU more, this much like it.
PULL = 0.5
# What kin say counts where SKUs bore it out by this many standard errors. (Two SKUs tell of each other, so an ordinary
# standard error is too small by up to a root of two.)
BORNE_OUT = 3.0
# So many of those launched last tell, at the least; and so many SKUs are told at once. More would cost time and memory.
MOST_KIN = 5_000
AT_ONCE = 500

KEYS = ["sku_id", "batch_id", "style_id"]


@dataclass(frozen=True)
class Shown:
    """What SKUs had shown at some moments.

    Attributes
    ----------
    skus
        `sku_id, batch_id, style_id`, one row per SKU.
    words
        What their titles and attributes say, see `hash_words`; one row per SKU.
    of
        Of which SKU each state is, shape (states,).
    as_of
        Its moment.
    lead
        How far each rate lay above that of the SKU's category in its batch, shape (states, rates): a log, pulled to 0
        as far as it was not known.
    known
        How far each rate was known, by what the SKU and its siblings had shown; of the same shape, in [0, 1).
    """

    skus: pd.DataFrame
    words: csr_matrix
    of: IntArray
    as_of: npt.NDArray[np.datetime64]
    lead: Array
    known: Array

    def only(self, skus: IntArray, states: IntArray) -> Shown:
        """Keep some SKUs, in increasing order, and some of their states."""
        return Shown(
            skus=self.skus.iloc[skus].reset_index(drop=True),
            words=self.words[skus],
            of=np.searchsorted(skus, self.of[states]),
            as_of=self.as_of[states],
            lead=self.lead[states],
            known=self.known[states],
        )

    def spans(self) -> pd.DataFrame:
        """Return the moments of each SKU's first and last state, as columns `min` and `max`."""
        return pd.Series(self.as_of).groupby(self.of).agg(["min", "max"]).reindex(range(len(self.skus)))

    def families(self) -> IntArray:
        """Return a number for each SKU, the same for those of one style in one batch."""
        return np.asarray(self.skus.groupby(["batch_id", "style_id"], sort=False).ngroup(), dtype=np.int64)


@dataclass(frozen=True)
class Kin:
    """The SKUs that were known when a model was fitted, as they stood then: they tell what to expect of their likes.

    Attributes
    ----------
    weights
        Of the rates in the one score that is told.
    share
        How much of what kin say SKUs bore out, in (0, 1].
    common
        The lead of a SKU that is out of the common in nothing, one per rate. Below 0: it is a mean of logs, and what
        SKUs are measured by, the mean rate of their category, is mostly that of a few.
    shown
        One state per SKU.
    """

    weights: Mapping[str, float]
    share: float
    common: Array
    shown: Shown

    def score(self, table: pd.DataFrame, skus: pd.DataFrame, attributes: list[str]) -> Array:
        """Return for each row of a table of features how far its kin stand above the common run.

        It counts for the part of each rate that the row does not know by itself. Kin are the SKUs of the fit, as they
        stood if that was no later than the row, and the SKUs of the row's own batch in `table`.

        Parameters
        ----------
        table
            See `features.features`.
        skus, attributes
            See `shown_in`.
        """
        asked = shown_in(table, skus, attributes, self.weights)
        stored, fresh = _sums(asked, self.shown, "fit"), _sums(asked, asked, "batch")
        return self.share * _told(asked, stored + fresh, self.common, self.weights)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        shown = self.shown
        return {
            "weights": [[rate, weight] for rate, weight in self.weights.items()],  # in order: so are lead and known
            "share": self.share,
            "common": pack(self.common),
            "skus": {name: shown.skus[name].tolist() for name in KEYS},
            "words": {name: pack(getattr(shown.words, name)) for name in ("data", "indices", "indptr")},
            "as_of": shown.as_of.astype("datetime64[us]").astype("int64").tolist(),
            "lead": pack(shown.lead),
            "known": pack(shown.known),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Kin:
        """Undo `to_dict`."""
        n, shape = len(values["as_of"]), (-1, len(values["weights"]))
        data, indices, indptr = (unpack(values["words"][name]) for name in ("data", "indices", "indptr"))
        shown = Shown(
            skus=pd.DataFrame({name: pd.Series(values["skus"][name], dtype="str") for name in KEYS}),
            words=csr_matrix((data, indices.astype(np.int32), indptr.astype(np.int32)), (n, BUCKETS)),
            of=np.arange(n),
            as_of=np.asarray(values["as_of"], dtype="int64").astype("datetime64[us]"),
            lead=unpack(values["lead"]).reshape(shape),
            known=unpack(values["known"]).reshape(shape),
        )
        return cls(dict(values["weights"]), values["share"], unpack(values["common"]), shown)


def fit_kin(shown: Shown, weights: Mapping[str, float], judges: set[str]) -> tuple[Kin | None, Array]:
    """Keep what every SKU has shown; return it, and what its kin told each SKU at each moment, one per state.

    None, and zeros, where SKUs did not bear out what their kin said. No outcome is read.

    Parameters
    ----------
    shown
        Every SKU at the moments of its test.
    weights
        Of the rates in the one score that is told.
    judges
        The SKUs that tell what is common, and are asked whether kin tell anything.
    """
    sums = _sums(shown, shown, "all")
    by_moment = np.argsort(shown.as_of, kind="stable")
    last = np.empty(len(shown.skus), dtype=np.int64)
    last[shown.of[by_moment]] = by_moment
    judging = shown.skus["sku_id"].isin(judges).to_numpy()
    asked = last[judging]
    lead, known = shown.lead[asked], shown.known[asked]
    common = lead.sum(axis=0) / np.maximum(known.sum(axis=0), 1e-9)
    # What is expected of what a SKU has shown is what its kin say, as far as the SKU is known.
    expected = _out_of_the_common(sums[:, asked], common) * known
    each = np.asarray(list(weights.values()))
    share = _borne_out((lead - common * known) @ each, expected @ each, shown.families()[judging])
    if share <= 0:
        return None, np.zeros(len(shown.of))
    newest = np.sort(np.argsort(shown.spans()["min"].to_numpy(), kind="stable")[-MOST_KIN:])
    kin = Kin(dict(weights), share, common, shown.only(newest, last[newest]))
    return kin, share * _told(shown, sums, common, weights)


def shown_in(table: pd.DataFrame, skus: pd.DataFrame, attributes: list[str], rates: Iterable[str]) -> Shown:
    """Read from a table of features what its SKUs have shown, one state per row.

    Parameters
    ----------
    table
        See `features.features`.
    skus
        `title` and the columns in `attributes`, NULL allowed, by `sku_id`.
    attributes
        Names of columns that hold categories. `category` says nothing here: it is a pool of its own.
    rates
        Which rates are read. One that was not measured has shown nothing.
    """

    def columns(of: str) -> Array:
        names = [f"{rate}.{of}" for rate in rates]
        return np.asarray(table[names].to_numpy(dtype=float, na_value=np.nan))

    with np.errstate(divide="ignore", invalid="ignore"):
        lead, known = np.log(columns("sku_rate") / columns("category_rate")), 1 - columns("unknown")
    told = np.isfinite(lead) & np.isfinite(known)
    one = table.drop_duplicates("sku_id").sort_values("sku_id")[KEYS].reset_index(drop=True)
    return Shown(
        skus=one,
        words=hash_words(skus, [name for name in attributes if name != "category"])[
            skus.index.get_indexer(pd.Index(one["sku_id"]))
        ],
        of=np.asarray(pd.Index(one["sku_id"]).get_indexer(pd.Index(table["sku_id"])), dtype=np.int64),
        as_of=table["as_of"].to_numpy(),
        lead=np.where(told, lead, 0.0),
        known=np.where(told, np.clip(known, 0.0, 1.0), 0.0),
    )


def _sums(asked: Shown, told: Shown, which: str) -> Array:
    """Sum for each state of `asked` what its kin among `told` had shown by its moment, shape (2, states, rates).

    First the leads, then what they weigh; each as far as the kin is like. Of each kin its last state by then counts,
    and those of one style in one batch count as one. `which`: "all" kin; those of the "fit", but not what `asked` shows
    newer of the SKU's own batch; or only those of its "batch".
    """
    n_rates = asked.lead.shape[1]
    sums = np.zeros((2, len(asked.of), n_rates))
    families = told.families()
    newer = pd.MultiIndex.from_frame(told.skus[["sku_id", "batch_id"]]).isin(
        pd.MultiIndex.from_frame(asked.skus[["sku_id", "batch_id"]])
    )
    for skus, kin in _parts(asked, told, which):
        rows = np.flatnonzero(np.isin(asked.of, skus))
        rows = rows[np.argsort(asked.as_of[rows], kind="stable")]
        states = np.flatnonzero(np.isin(told.of, kin))
        some = told.only(kin, states[np.argsort(told.as_of[states], kind="stable")])
        like = _likeness(asked.only(skus, rows), some, newer[kin] & (which == "fit"))
        whose = np.searchsorted(skus, asked.of[rows])
        family = np.unique(families[kin], return_inverse=True)[1]
        value = np.concatenate([some.lead, some.known], axis=1)
        latest, begun = np.zeros((len(kin), 2 * n_rates)), np.zeros(len(kin), dtype=bool)
        done = 0
        for same in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(asked.as_of[rows])) + 1):
            now = int(np.searchsorted(some.as_of, asked.as_of[rows[same[0]]], side="right"))
            # Where a SKU has several states among these, the last one is what stays.
            latest[some.of[done:now]], begun[some.of[done:now]] = value[done:now], True
            done = now
            siblings = np.maximum(np.bincount(family, weights=begun), 1)[family]
            found = like[whose[same]] @ (latest / siblings[:, None])
            sums[:, rows[same]] = found.reshape(len(same), 2, n_rates).swapaxes(0, 1)
    return sums


def _parts(asked: Shown, told: Shown, which: str) -> Iterator[tuple[IntArray, IntArray]]:
    """Part the SKUs that ask, and say which may tell each part, by their numbers in increasing order."""
    spans, begun = asked.spans(), told.spans()["min"].to_numpy()
    every = np.arange(len(told.skus))
    if which == "batch":
        batch = pd.factorize(pd.concat([asked.skus["batch_id"], told.skus["batch_id"]]))[0]
        askers, tellers = batch[: len(asked.skus)], batch[len(asked.skus) :]
        groups = [(np.flatnonzero(askers == one), np.flatnonzero(tellers == one)) for one in np.unique(askers)]
    else:
        groups = [(np.argsort(spans["min"].to_numpy(), kind="stable"), every)]
    in_order = np.argsort(begun, kind="stable")
    for skus, kin in groups:
        for start in range(0, len(skus), AT_ONCE):
            part = np.sort(skus[start : start + AT_ONCE])
            if which == "all":
                # Who is heard does not hang on who is launched later: those that were there, and who came meanwhile.
                first, last = spans["min"].to_numpy()[part].min(), spans["max"].to_numpy()[part].max()
                there, by_then = int((begun <= first).sum()), int((begun <= last).sum())
                kin = np.sort(in_order[max(there - MOST_KIN, 0) : by_then])
            yield part, kin


def _likeness(asked: Shown, told: Shown, newer: npt.NDArray[np.bool_]) -> csr_matrix:
    """Return how like each SKU is to each of those that tell. One of its own batch and style is no kin: it was pooled.

    `newer`: those of which SKUs of their batch hear elsewhere what they have shown since.
    """
    cosine = (asked.words @ told.words.T).tocoo()
    near = cosine.data > LEAST_COSINE
    one, other = cosine.row[near], cosine.col[near]

    def shared(*names: str) -> npt.NDArray[np.bool_]:
        both = pd.concat([asked.skus[list(names)], told.skus[list(names)]])
        codes = both.groupby(list(names), sort=False).ngroup().to_numpy()
        return np.asarray(codes[one] == codes[len(asked.skus) :][other])

    kin = ~shared("sku_id") & ~shared("batch_id", "style_id") & ~(shared("batch_id") & newer[other])
    return csr_matrix((cosine.data[near][kin] ** 2, (one[kin], other[kin])), cosine.shape)


def _out_of_the_common(sums: Array, common: Array) -> Array:
    """Return how far kin stand above the common run in each rate: a mean, pulled to it."""
    above: Array = (sums[0] - common * sums[1]) / (sums[1] + PULL)
    return above


def _told(asked: Shown, sums: Array, common: Array, weights: Mapping[str, float]) -> Array:
    """Return what kin say of each state, as one score, for the part of each rate that is not known of it."""
    return np.asarray((_out_of_the_common(sums, common) * (1 - asked.known)) @ np.asarray(list(weights.values())))


def _borne_out(y: Array, x: Array, family: IntArray) -> float:
    """Return how much of what kin say, `x`, shows in what SKUs have shown, `y`, at most 1; 0 where it may be chance.

    SKUs of one style in one batch are no independent witnesses.
    """
    y, x = y - y.mean(), x - x.mean()
    size = float(x @ x)
    if size < 1e-9:
        return 0.0
    slope = float(x @ y) / size
    error = float(np.sqrt((np.bincount(family, weights=x * (y - slope * x)) ** 2).sum())) / size
    return min(slope, 1.0) if slope > BORNE_OUT * error else 0.0
