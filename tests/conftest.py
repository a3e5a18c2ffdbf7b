"""Fixtures that several test files share: small random logs, and the way from a log to features."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from mlflow_store import begin_as_copies, shared_folder

from hitfinder.admission import admit
from hitfinder.cli import main
from hitfinder.features import count_pairs, features, look_at, look_back, set_scope
from hitfinder.tables import COUNTS, MONEY, SIGNALS, SKUS
from hitfinder.warehouse import open_warehouse

MONDAY = pd.Timestamp("2025-01-06")


@pytest.fixture(scope="session", autouse=True)
def _new_stores_are_copies(tmp_path_factory):
    if "mlflow" not in sys.modules:  # a run of a few files: importing MLflow would take longer than it spares
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        begin_as_copies(patch, shared_folder(tmp_path_factory))
        yield


@pytest.fixture
def run(monkeypatch, capfd):
    """Return `run(*arguments)`: the command line in this process, as (exit status, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hitfinder", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return left.value.code, out, err

    return call


@pytest.fixture(scope="session")
def draw_log():
    """Return `draw(seed, on_impressions=True, ...)`: a small random log with all that makes real ones awkward."""
    return _draw_log


@pytest.fixture(scope="session")
def draw_rates():
    """Return `draw(seed, names)`: a pooling made up at random."""

    def draw(seed, names):
        rng = np.random.default_rng(seed)
        table = pd.DataFrame({"rate": list(names), "mean": rng.uniform(0.001, 2, len(names))})
        for level in ("batch", "category", "style", "sku"):
            table[f"{level}_strength"] = np.exp(rng.uniform(-2, 6, len(names)))
        return table

    return draw


@pytest.fixture(scope="session")
def known_warehouse():
    """Return `know(signals, skus, settings, as_of, threads=1, small=False)`: a connection for the caller to close."""

    def know(signals, skus, settings, as_of, threads=1, small=False):
        con = open_warehouse(threads=threads, small=small)
        admissions = [
            admit(con, SIGNALS, signals, now=CLOCK, period=settings.signals.period),
            admit(con, SKUS, skus, now=CLOCK),
        ]
        assert not any(a.rejects for a in admissions), admissions  # else a test would compare something else
        set_scope(con, settings, as_of)
        return con

    return know


@pytest.fixture(scope="session")
def compute_features(known_warehouse):
    """Return `compute(signals, skus, settings, as_of, rates, back=False, threads=1, small=False)`: the features."""

    def compute(signals, skus, settings, as_of, rates, *, back=False, threads=1, small=False):
        con = known_warehouse(signals, skus, settings, as_of, threads, small)
        try:
            (look_back if back else look_at)(con)
            count_pairs(con, list(rates["rate"]))
            return features(con, rates)
        finally:
            con.close()

    return compute


# The admission's clock: logs drawn here reach a few months past MONDAY.
CLOCK = pd.Timestamp("2027-01-01")


def _draw_log(seed, *, on_impressions=True, hours=24, n_batches=3, days=24, measured=None):
    """Draw (signals, skus).

    `hours` is the period; `measured` names the counted columns, default: clicks and a random half of the others.
    """
    rng = np.random.default_rng(seed)
    period = pd.Timedelta(hours=hours)
    if measured is None:
        others = [c for c in (*COUNTS, *MONEY) if c not in ("impressions", "clicks") and rng.random() < 0.6]
        measured = ["clicks", *others, *(["impressions"] if on_impressions else [])]
    skus = _draw_skus(rng, n_batches)
    rows = []
    for sku in skus.to_dict("records"):
        if rng.random() < 0.15:
            continue  # never seen
        start = sku["launched_at"] if not pd.isna(sku["launched_at"]) else MONDAY + pd.Timedelta(days=2)
        appeal = rng.exponential(1.0)
        here = [c for c in measured if c == "clicks" or rng.random() < 0.9]
        for step in range(-1 if rng.random() < 0.1 else 0, int(rng.integers(0, days * 24 // hours))):
            if rng.random() < 0.5:
                continue
            begins = start.floor("h") + step * period
            for channel in rng.choice(["ads", "shop", None], size=rng.integers(1, 3), replace=False):
                rows += _draw_reports(rng, sku["sku_id"], begins, period, channel, here, appeal)
    columns = ["sku_id", "period_start", "channel", "creative_id", "known_at", *measured]
    signals = pd.DataFrame(rows, columns=columns).astype({c: "Int64" for c in measured if c in COUNTS})
    signals["known_at"] = pd.to_datetime(signals["known_at"])
    # A report and its revision that became known at one moment would be one key twice.
    known = signals["known_at"].fillna(signals["period_start"] + period)
    again = signals.assign(known_at=known).duplicated(["sku_id", "period_start", "channel", "creative_id", "known_at"])
    return signals[~again].reset_index(drop=True), skus


def _draw_skus(rng, n_batches):
    rows = []
    for batch in range(n_batches):
        for i in range(int(rng.integers(1, 9))):
            launched = MONDAY + pd.Timedelta(days=7 * batch) + pd.Timedelta(hours=int(rng.choice([0, 0, 24, 53])))
            rows.append(
                {
                    "sku_id": f"sku-{batch}-{i}",
                    "batch_id": rng.choice([f"batch {batch}", None], p=[0.8, 0.2]),
                    "style_id": rng.choice(["s1", "s2", None]),
                    "category": rng.choice(["dress", "coat", None], p=[0.5, 0.4, 0.1]),
                    "launched_at": launched if rng.random() < 0.8 else pd.NaT,
                    "price": rng.choice([19.5, 30.0, 42.25, 0.0, np.nan]),
                }
            )
    return pd.DataFrame(rows).sample(frac=1, random_state=int(rng.integers(2**31))).reset_index(drop=True)


def _draw_reports(rng, sku_id, begins, period, channel, measured, appeal):
    """Draw a report, and now and then its revision: the same key, known later."""
    creative = rng.choice(["c1", "c2", None])
    known = begins + period + pd.Timedelta(hours=int(rng.choice([0, 5, 24, 100])))
    reports = []
    for revision in range(1 + int(rng.random() < 0.15)):
        impressions = int(rng.integers(0, 400))
        clicks = min(int(rng.poisson(4 * appeal)), impressions)
        row = dict.fromkeys(measured)
        for name in measured:
            if name == "impressions":
                row[name] = impressions
            elif name == "clicks":
                row[name] = clicks
            elif name in MONEY:
                row[name] = round(float(rng.exponential(20) * appeal), 2)
            else:
                row[name] = int(rng.poisson(appeal))
            if name != "clicks" and rng.random() < 0.1:
                row[name] = None
        known_at = known + revision * pd.Timedelta(hours=int(rng.integers(1, 80)))
        left_out = revision == 0 and rng.random() < 0.2  # known_at is left to its default
        reports.append(
            {"sku_id": sku_id, "period_start": begins, "channel": channel, "creative_id": creative}
            | {"known_at": None if left_out else known_at}
            | row
        )
    return reports


# Files whose single tests take longest. Begun last, they would leave the other worker without work.
LONG = (
    "test_retrain",
    "test_backtest",
    "test_end_to_end",
    "test_tuning",
    "test_promotion",
    "test_cli_promote",
    "test_replays",
    "test_cli_replay",
    "test_selection",
    "test_registry",
    "test_training",
    "test_gate",
    "test_pipelines",
    "test_report",
    "test_cli_monitor",
    "test_models",
    "test_serving",
    "test_ingest_events",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
