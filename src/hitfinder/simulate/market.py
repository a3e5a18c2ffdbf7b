"""Put a simulated market together, and write it to a folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hitfinder.errors import SettingsError
from hitfinder.simulate.catalogue import draw_catalogue
from hitfinder.simulate.traffic import OUTCOME_DAYS, TEST_DAYS, draw_signals
from hitfinder.simulate.words import LANGUAGES

__all__ = ["Market", "cut_off", "simulate", "write_market"]

SETTINGS = """\
# Settings that fit the simulated market beside this file.
seed = {seed}

[signals]
period = "1d"

[label]
test_window = "{test}d"
outcome_window = "{outcome}d"
metric = "revenue"
top_share = {top_share:.6g}
within = "batch_id"
"""


@dataclass(frozen=True)
class Market:
    """A simulated market.

    `signals` and `skus` are the tables of the contract. `truth` has one row per SKU, in the order of `skus`: the
    planted effects (log scale; `appeal` is the sum of those of brand, title, style and SKU), the true rates on the main
    channel and creative, the expected orders, revenue and profit of the outcome window (within stock; profit is revenue
    less the refunds of these orders, whenever they come, less unit cost and spend), and `is_hit`. `settings_text` is
    the TOML that fits.
    """

    signals: pd.DataFrame
    skus: pd.DataFrame
    truth: pd.DataFrame
    settings_text: str


def simulate(
    *,
    weeks: int = 30,
    skus_per_week: int = 200,
    hits_per_week: float = 3,
    start: str | pd.Timestamp = "2025-01-06",
    as_of: str | pd.Timestamp | None = None,
    complete: bool = False,
    seed: int = 0,
    test_impressions: float = 400.0,
    appeal_scale: float = 1.0,
    late_share: float = 0.05,
    drift_week: int | None = None,
    language: str = "en",
) -> Market:
    """Make a market with a known truth.

    Parameters
    ----------
    weeks, skus_per_week
        One batch a week, of about `skus_per_week` SKUs each.
    hits_per_week
        How many of a batch of that size are hits: the best by expected revenue.
    start
        The Monday (UTC) on which the first batch is launched.
    as_of
        The moment at which the log was written: nothing known later is in it, nor a SKU launched later. None: the end
        of the newest batch's 7th day, when its test is over and its outcome lies ahead.
    complete
        Keep everything, all outcome windows and refunds included. Not together with `as_of`.
    seed
        The same seed and knobs give the same market.
    test_impressions
        Impressions per SKU and day of the test, in the middle; single SKUs get 0.4 to 1.6 times that.
    appeal_scale
        Multiplies all differences in appeal between SKUs and creatives; 0 leaves categories, prices and chance.
    late_share
        Share of the reports that come three days later than usual, 0 to 1.
    drift_week
        The week, counted from 0, from which categories and channels have other rates. None: never.
    language
        Of titles and attributes: `en`, `zh`, or `mixed` (titles in both, attributes in English).

    Returns
    -------
    Market

    Raises
    ------
    SettingsError
        A knob is outside its range.

    Examples
    --------
    >>> market = simulate(weeks=2, skus_per_week=20, hits_per_week=2)
    >>> market.skus["batch_id"].unique().tolist()
    ['2025-W02', '2025-W03']
    >>> market.signals["known_at"].max()
    Timestamp('2025-01-20 00:00:00')
    """
    begin = _monday(start)
    _check("weeks", weeks, 1 <= weeks <= 520, "1 to 520")
    _check("skus_per_week", skus_per_week, 1 <= skus_per_week <= 100_000, "1 to 100000")
    _check("hits_per_week", hits_per_week, 0 < hits_per_week < skus_per_week, "more than 0, fewer than skus_per_week")
    _check("seed", seed, 0 <= seed < 2**31, "0 to 2147483647")
    _check("test_impressions", test_impressions, 0 < test_impressions <= 1e6, "more than 0, at most 1000000")
    _check("appeal_scale", appeal_scale, 0 <= appeal_scale <= 3, "0 to 3")
    _check("late_share", late_share, 0 <= late_share <= 1, "0 to 1")
    _check("drift_week", drift_week, drift_week is None or drift_week >= 0, "a week number from 0, or nothing")
    _check("language", language, language in LANGUAGES, " or ".join(LANGUAGES))
    if complete and as_of is not None:
        raise SettingsError(f"expected either complete or as_of, got both (as_of {as_of}); leave one out")
    test_end = begin + pd.Timedelta(days=7 * (weeks - 1) + TEST_DAYS)
    moment = None if complete else test_end if as_of is None else _moment(as_of)
    if moment is not None and moment <= begin:
        raise SettingsError(f"as_of: expected a moment after the start {begin}, got {moment}; give a later one")

    # One stream each, so that a knob of the traffic doesn't change the catalogue.
    goods, shoppers = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    catalogue = draw_catalogue(
        goods, weeks=weeks, skus_per_week=skus_per_week, start=begin, language=language, appeal_scale=appeal_scale
    )
    signals, expected = draw_signals(
        shoppers,
        catalogue,
        start=begin,
        test_impressions=test_impressions,
        late_share=late_share,
        drift_week=drift_week,
    )
    skus = catalogue.skus
    share = hits_per_week / skus_per_week
    truth = pd.concat([skus[["sku_id", "batch_id"]], catalogue.causes, expected], axis=1)
    rank = truth.groupby("batch_id")["expected_revenue"].rank(ascending=False, method="first")
    size = truth.groupby("batch_id")["sku_id"].transform("size")
    truth["is_hit"] = rank <= np.maximum(np.rint(share * size), 1)
    if moment is not None:
        signals = signals[signals["known_at"] <= moment].reset_index(drop=True)
        launched = skus["launched_at"] < moment
        skus, truth = skus[launched].reset_index(drop=True), truth[launched].reset_index(drop=True)
    text = SETTINGS.format(seed=seed, test=TEST_DAYS, outcome=OUTCOME_DAYS, top_share=share)
    return Market(signals, skus, truth, text)


def cut_off(signals: pd.DataFrame, decisions: pd.DataFrame) -> pd.DataFrame:
    """Return the signals as they would be had the decisions been carried out: a stopped SKU is shown to nobody.

    Parameters
    ----------
    signals
        Of a market.
    decisions
        `sku_id, decided_at, action`: the last decision about a SKU counts from its moment on.

    Returns
    -------
    pandas.DataFrame
        The rows whose period began when the SKU was not stopped. Orders that would have come later from clicks before
        the stop are lost with the rest, as in a shop that takes the page down.

    Examples
    --------
    >>> market = simulate(weeks=1, skus_per_week=10, hits_per_week=1)
    >>> first = market.skus["sku_id"].iloc[0]
    >>> stop = pd.DataFrame({"sku_id": [first], "decided_at": [pd.Timestamp("2025-01-07")], "action": ["stop"]})
    >>> left = cut_off(market.signals, stop)
    >>> left.loc[left["sku_id"] == first, "period_start"].max()
    Timestamp('2025-01-06 00:00:00')
    """
    steps = decisions[["sku_id", "decided_at", "action"]].sort_values("decided_at", kind="stable")
    steps = steps.assign(decided_at=steps["decided_at"].astype(signals["period_start"].dtype))
    order = signals[["sku_id", "period_start"]].reset_index().sort_values("period_start", kind="stable")
    found = pd.merge_asof(order, steps, left_on="period_start", right_on="decided_at", by="sku_id")
    gone = found.loc[found["action"] == "stop", "index"]
    left: pd.DataFrame = signals[~signals.index.isin(gone)].reset_index(drop=True)
    return left


def write_market(market: Market, folder: str | Path) -> list[Path]:
    """Write signals.parquet, skus.parquet, truth.parquet and hitfinder.toml.

    Parameters
    ----------
    market
        What `simulate` returned.
    folder
        Where to; made if it isn't there. Files of these names are replaced, each as a whole.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    SettingsError
        The folder can't be written to.
    """
    target = Path(folder)
    text = market.settings_text.encode()
    writers: dict[str, Callable[[Path], object]] = {
        "signals.parquet": lambda path: market.signals.to_parquet(path, index=False),
        "skus.parquet": lambda path: market.skus.to_parquet(path, index=False),
        "truth.parquet": lambda path: market.truth.to_parquet(path, index=False),
        "hitfinder.toml": lambda path: path.write_bytes(text),
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, write in writers.items():
            _replace(target / name, write)
    except OSError as error:
        raise SettingsError(f"{target}: can't be written ({error.strerror}); give a folder you may write to") from None
    return [target / name for name in writers]


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target first: a reader sees the old file or the new one, never half of one."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        write(draft)
        draft.chmod(0o644)  # mkstemp's files are closed to others
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _check(name: str, value: object, fits: bool, expected: str) -> None:
    if not fits:
        raise SettingsError(f"{name}: expected {expected}, got {value!r}")


def _moment(given: str | pd.Timestamp) -> pd.Timestamp:
    """Read a moment; UTC, without a zone."""
    try:
        moment = pd.Timestamp(given)
    except ValueError:
        moment = pd.NaT  # type: ignore[assignment]  # told apart in the next line
    if pd.isna(moment):
        raise SettingsError(f"expected a moment such as 2025-01-06 or 2025-01-06T12:00, got {given!r}")
    return moment if moment.tzinfo is None else moment.tz_convert("UTC").tz_localize(None)


def _monday(start: str | pd.Timestamp) -> pd.Timestamp:
    begin = _moment(start)
    if begin.weekday() != 0 or begin != begin.normalize():
        raise SettingsError(f"start: expected a Monday such as 2025-01-06, got {start}; give that week's Monday")
    return begin
