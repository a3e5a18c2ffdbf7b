"""One round of a live test: refuse, finish or decide, in this order."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from hitfinder.admission import admit_signals_and_skus
from hitfinder.errors import DataError, HitfinderError
from hitfinder.features import look_at, moment_of_knowledge, on_impressions, set_scope
from hitfinder.livetest.files import changed_ids, check_targets, contents, holds, promised, targets, write_whole
from hitfinder.livetest.record import Record, open_record
from hitfinder.livetest.rounds import Round, check_numbers, decisions_of, in_order, round_of
from hitfinder.models.hit_model import HitModel
from hitfinder.promise import StopPromise
from hitfinder.ranking import BY_LAUNCH, batches_by_launch, only_batch
from hitfinder.report.words import check_language
from hitfinder.testplan import plan
from hitfinder.warehouse import TableLike, frame, open_warehouse

__all__ = ["PlannedRound", "plan_round"]

Planner = Callable[..., pd.DataFrame]

# What the rounds of a test have in common, as a rule.
SHARED = ("rounds", "budget", "slots", "exposure_cap")


@dataclass(frozen=True)
class PlannedRound:
    """What a call did: the round, the files that it wrote, and whether it decided the round or found it decided."""

    round: Round
    paths: list[Path]
    decided_now: bool

    def __str__(self) -> str:
        return self.say()

    def say(self, language: str = "en") -> str:
        """Say what was done and, in the language, what is promised about stopping."""
        this = self.round
        larger, other = "the decisions", f"the signals show {this.seen:,}"
        if this.seen > this.decided:
            larger, other = "the signals", f"the decisions {this.decided:,}"
        lines = [f"test {this.test}: {this.spent:,} of {this.budget:,} exposures spent before, by {larger} ({other})"]
        if not self.decided_now:
            lines.append(
                f"the round was decided before, on {_minute(this.decided_at)} UTC; its files were written again, "
                "nothing was decided anew"
            )
        return "\n".join([*lines, str(this), promised(this, language)])


def plan_round(
    model: HitModel,
    signals: TableLike,
    skus: TableLike,
    *,
    decisions: str | Path,
    out: Sequence[str | Path],
    number: int,
    rounds: int,
    budget: int,
    slots: int = 10,
    exposure_cap: int = 1_000,
    batch: str = "newest",
    as_of: Any = None,
    language: str = "en",
    again: bool = False,
    allow_gap: bool = False,
    planner: Planner = plan,
) -> PlannedRound:
    """Decide a round of a live test once, and write its files.

    A test is its batch. A round that is in `decisions` is never decided again: where its files are missing or differ
    from what was decided (the call before crashed), they are written from the record; where they are whole, the call
    is refused.

    What the record's lists say (`hitfinder decide`) holds in a round too: who was stopped by the last of them gets
    nothing, and whom a coin keeps on trial the plan does not stop.

    Parameters
    ----------
    model
        From `fit` or `load_model`.
    signals, skus
        Tables of the contract. Only SKUs of the batch are planned.
    decisions
        The record, a ``.parquet`` or ``.csv`` file with the contract's columns; made where there is none. Rows of
        others stay. Every SKU of the batch gets a row for each round, with the propensity 1: the plan knows no chance.
    out
        ``.csv`` and ``.xlsx`` files, or folders that get one of each.
    number, rounds
        Which round this is, from 1, and how many there are in all.
    budget
        Exposures of the whole test. What is spent of it is what earlier rounds decided or what the signals show,
        whichever is larger.
    slots, exposure_cap
        As for `hitfinder.plan`.
    batch
        A batch, or `newest` for the one launched last.
    as_of
        The moment of knowledge, UTC; default: when the newest signal was known.
    language
        `en` or `zh`, for the workbook.
    again
        Write the files of a decided round once more, whatever is there.
    allow_gap
        Earlier rounds may be missing from `decisions`: they were left out, or run without hitfinder.
    planner
        What plans; see `hitfinder.plan`. `stopped` and `kept` are given where the record's lists name any.

    Returns
    -------
    PlannedRound
        Its text is what the command line says.

    Raises
    ------
    DataError
        The round was decided already and its files are whole, an earlier round is missing, a later one is there, the
        signals show the whole budget spent before round 1, or a table or the record can't be understood.
    SettingsError
        A number is out of its range, or the language is not known.
    HitfinderError
        A file can't be written, or another call holds the record for a minute.
    """
    check_numbers(number, rounds, budget=budget, slots=slots, exposure_cap=exposure_cap)
    check_language(language)
    check_targets(out, decisions, inputs=(signals, skus))
    market = _look(model, signals, skus, as_of, batch)
    asked = Round(
        test=market.batch,
        number=number,
        rounds=rounds,
        budget=budget,
        decided=0,
        seen=int(market.seen.sum()),
        slots=slots,
        exposure_cap=exposure_cap,
        as_of=market.moment.floor("us"),
        decided_at=pd.Timestamp.now(tz="UTC").tz_localize(None).floor("us"),
        model_version=model.version,
        promise=_promise(model),
        table=pd.DataFrame(),
    )
    with open_record(decisions) as record:
        held = record.rounds(asked.test)
        if number in held:
            return _write_again(
                round_of(held[number]), asked, out, language, again=again, as_of_given=as_of is not None
            )
        if again:
            raise DataError(f"round {number} of {asked.test}: not decided yet; call without --again to decide it")
        _check_order(held, asked, record, allow_gap=allow_gap)
        if number == 1 and asked.seen >= budget:
            raise DataError(
                f"round 1 of {asked.test}: expected a test whose budget is not spent, but the signals show "
                f"{asked.seen:,} exposures of the batch, with a budget of {budget:,}; give a greater --budget, or name "
                "with --batch a batch whose test has not begun"
            )
        stopped, kept = record.by_lists(list(market.seen.index))
        rows = decisions_of(_decide(asked, held, model, market, planner, stopped=stopped, kept=kept))
        # From the rows and nothing else, as after a crash; and before anything is decided, in case it can't be shown.
        this = round_of(rows.to_pandas())
        files = contents(this, targets(out, this.test, this.number), language)
        record.append(rows)
        _write(this, files)
    return PlannedRound(this, [Path(decisions), *files], decided_now=True)


@dataclass(frozen=True)
class _Market:
    """What is known of the batch: its tables, and the exposures that the signals show, by SKU in order of its id."""

    batch: str
    moment: pd.Timestamp
    signals: pa.Table
    skus: pa.Table
    seen: pd.Series


def _look(model: HitModel, signals: TableLike, skus: TableLike, as_of: Any, batch: str) -> _Market:
    con = open_warehouse(threads=model.settings.model.threads)
    try:
        admit_signals_and_skus(con, signals, skus, period=model.settings.signals.period, stacklevel=4)
        moment = moment_of_knowledge(con, as_of)
        set_scope(con, model.settings, moment)
        look_at(con)
        every = con.sql("select * from skus order by sku_id").to_arrow_table()
        totals = frame(con, "select sku_id, batch_id, impressions, days from totals order by sku_id")
        # A first round is planned before the launch.
        totals.attrs[BY_LAUNCH] = batches_by_launch(con, planned=True)
        members = only_batch(totals, every, batch)
        con.register("members_source", members[["sku_id"]])
        mine = "semi join members_source on {0}.sku_id = members_source.sku_id order by all nulls first"
        return _Market(
            batch=str(members["batch_id"].iloc[0]),
            moment=moment,
            signals=con.sql(f"select signals.* from signals {mine.format('signals')}").to_arrow_table(),
            skus=con.sql(f"select skus.* from skus {mine.format('skus')}").to_arrow_table(),
            seen=_exposures(model, members).set_axis(members["sku_id"]),
        )
    finally:
        con.close()


def _promise(model: HitModel) -> StopPromise | None:
    promise = model.promises.get("plan_stop")
    return promise if isinstance(promise, StopPromise) else None


def _exposures(model: HitModel, totals: pd.DataFrame) -> pd.Series:
    """Count exposures as `plan` does: impressions where the model's history has them, else days on trial."""
    if on_impressions(model.rates["rate"]):
        return totals["impressions"].astype("float64").fillna(0).astype("int64")
    return pd.Series(np.ceil(totals["days"].to_numpy(dtype=float)).astype("int64"))


def _decide(
    asked: Round,
    held: dict[int, pd.DataFrame],
    model: HitModel,
    market: _Market,
    planner: Planner,
    *,
    stopped: Sequence[str],
    kept: Sequence[str],
) -> Round:
    before = (
        pd.concat(held.values())[["sku_id", "exposures"]] if held else pd.DataFrame({"sku_id": [], "exposures": []})
    )
    by_sku = before.fillna({"exposures": 0}).groupby("sku_id")["exposures"].sum()
    asked = replace(asked, decided=int(by_sku.sum()), decided_at=_after(asked.decided_at, held))
    left = max(asked.budget - asked.spent, 0)
    if asked.decided and not asked.seen:
        warnings.warn(
            f"earlier rounds decided {asked.decided:,} exposures and the signals show none; wait for their report, or "
            "check that both spell the ids alike",
            UserWarning,
            stacklevel=3,
        )
    if stopped:
        warnings.warn(
            f"{len(stopped):,} SKUs (such as {stopped[0]!r}) were stopped by a decided list and get no exposures; only "
            "a person calls them back, with `hitfinder decide --overrides`",
            UserWarning,
            stacklevel=3,
        )
    planned = planner(
        model,
        market.signals,
        market.skus,
        market.moment,
        exposures=left,
        rounds_left=asked.rounds - asked.number + 1,
        slots=asked.slots,
        exposure_cap=asked.exposure_cap,
        **({"stopped": stopped, "kept": kept} if stopped or kept else {}),
    )
    table = planned[["sku_id", "exposures", "action", "hit_probability"]].set_index("sku_id")
    assert sorted(table.index) == sorted(market.seen.index), "a plan has one row for each SKU"
    assert table["exposures"].min() >= 0, "a plan buys, it does not sell"
    assert table["exposures"].sum() <= left, "a plan keeps to what is left"
    assert not table.loc[list(stopped), "exposures"].any(), "a plan leaves what is stopped alone"
    # The plan knows what has been reported; a round whose report is still to come counts against the cap as well.
    bought = pd.concat([market.seen, by_sku], axis=1).max(axis=1).reindex(table.index)
    room = (asked.exposure_cap - bought).clip(lower=0)
    within = table["exposures"].clip(upper=room).astype("int64")
    if cut := int((table["exposures"] - within).sum()):
        warnings.warn(
            f"{cut:,} exposures of this round stay unspent: with what was decided before, SKUs would pass the cap",
            UserWarning,
            stacklevel=3,
        )
    return replace(asked, table=in_order(table.assign(exposures=within).reset_index()))


def _after(now: pd.Timestamp, held: dict[int, pd.DataFrame]) -> pd.Timestamp:
    """Return now, or just after the latest decision where the clock was set back: a moment decides a SKU once."""
    moments = [pd.Timestamp(rows["decided_at"].max()) + pd.Timedelta(microseconds=1) for rows in held.values()]
    return max([now, *moments])


def _write_again(
    this: Round, asked: Round, out: Sequence[str | Path], language: str, *, again: bool, as_of_given: bool
) -> PlannedRound:
    files = contents(this, targets(out, this.test, this.number), language)
    said = f"round {this.number} of {this.rounds} of {this.test} was planned on {_minute(this.decided_at)} UTC"
    if not again and all(holds(path, content) for path, content in files.items()):
        some = int((this.table["exposures"] > 0).sum())
        raise DataError(
            f"{said}: {this.exposures:,} exposures for {some:,} of {len(this.table):,} SKUs, and its files are whole; "
            "plan the next round, or add --again to write these files once more without deciding anew"
        )
    if other := _differences(this, asked, (*SHARED, "as_of") if as_of_given else SHARED):
        if not again:
            raise DataError(f"{said} with {other}; a decided round stays as it is: add --again to write its files")
        warnings.warn(f"{said} with {other}, and stays so", UserWarning, stacklevel=3)
    _write(this, files)
    return PlannedRound(this, list(files), decided_now=False)


def _write(this: Round, files: dict[Path, bytes]) -> None:
    try:
        for path, content in files.items():
            write_whole(path, content)
    except HitfinderError as error:
        raise HitfinderError(f"{error}; the round is decided: the same call writes its files again") from None
    n_changed = changed_ids(this)
    if n_changed and any(path.suffix.lower() == ".csv" for path in files):
        warnings.warn(
            f"{n_changed} ids begin with a sign that a spreadsheet would run as a formula and have an apostrophe in "
            "front in the CSV file; the workbook has them as they are",
            UserWarning,
            stacklevel=3,
        )


def _check_order(held: dict[int, pd.DataFrame], asked: Round, record: Record, *, allow_gap: bool) -> None:
    """Refuse a round that is behind one already decided, or ahead of one that is not.

    Raises
    ------
    DataError
        So it is.
    """
    if later := [number for number in held if number > asked.number]:
        raise DataError(
            f"round {asked.number} of {asked.test}: round {max(later)} is decided already; plan round {max(later) + 1}"
        )
    missing = [str(number) for number in range(1, asked.number) if number not in held]
    if missing and not allow_gap:
        raise DataError(
            f"round {asked.number} of {asked.test}: {record.path} holds no round {', '.join(missing)} of it; check "
            "--batch, --round and --decisions, or add --allow-gap where these rounds were left out or run without "
            "hitfinder"
        )
    if held:
        with suppress(DataError):  # decided elsewhere: what it was planned with is not known
            if other := _differences(round_of(held[max(held)]), asked, SHARED):
                warnings.warn(f"round {max(held)} was planned with {other}", UserWarning, stacklevel=3)


def _differences(before: Round, now: Round, names: Sequence[str]) -> str:
    return ", ".join(
        f"{name} {getattr(before, name)} (now {getattr(now, name)})"
        for name in names
        if getattr(before, name) != getattr(now, name)
    )


def _minute(moment: pd.Timestamp) -> str:
    return moment.strftime("%Y-%m-%d %H:%M")
