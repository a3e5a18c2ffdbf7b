"""Hindsight: past lists against what happened since: hits found, missed, false alarms, money; by model and by people.

Only lists of which every outcome window has closed are looked at. The decision that counts for a SKU is the last one
that a list took before half of its outcome window was over (`sql/paths.sql`, as in `fit`): what is decided later comes
after the SKU has shown what it is worth.

A stopped SKU's outcome is cut off, so how many hits were stopped can't be counted. Those that a coin kept on trial were
drawn at random from all that would have been stopped, so they stand for the rest. With `label.min_value` the interval
is exact. With `label.top_share` the worth from which a SKU is a hit depends on what the stopped would have been worth,
so it is estimated too, as in `fit` (`selection.weigh_seen`), and the interval is a rough one. What was stopped without
a coin (by people, or with `explore_share` 0) stays unknown, and is said to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.admission import admit_signals_and_skus
from hitfinder.deciding import DRAWN, PASSED, PERSON, lists_of
from hitfinder.features import moment_of_knowledge, set_scope
from hitfinder.labels import label, parse_metric
from hitfinder.offpolicy import total_range
from hitfinder.report.hindsight import say_hindsight
from hitfinder.report.words import check_language
from hitfinder.selection import weigh_seen
from hitfinder.settings import Settings, parse_duration
from hitfinder.warehouse import TableLike, frame, load_sql, open_warehouse

__all__ = ["LEVEL", "Hindsight", "hindsight", "judged_by"]

LEVEL = 0.9
# From fewer drawn SKUs than these, no sum of money is put down for the rest.
MIN_DRAWN = 5
DRAWS = 2000
SKU_COLUMNS = (
    "list", "sku_id", "action", "model_action", "because", "hit_probability", "hit", "value", "spend", "share", "drawn",
)  # fmt: skip
SUMMARY_COLUMNS = (
    "list", "skus", "scaled", "scaled_hits", "false_alarms", "tested", "tested_hits", "drawn", "drawn_hits", "stopped",
    "stopped_unknown", "missed", "missed_low", "missed_high", "value_kept", "value_missed", "value_missed_low",
    "value_missed_high", "spend", "spend_on_losers",
)  # fmt: skip
WORDS = {
    "en": {
        "top_share": "the top {value:.15g} % by {metric}",
        "min_value": "{metric} of {value:.15g} or more",
        "judged": "Test window {test_window}, outcome window {outcome_window}; hits: {hits}; settings: {whose}",
    },
    "zh": {
        "top_share": "{metric} 前 {value:.15g}%",
        "min_value": "{metric} 不低于 {value:.15g}",
        "judged": "测款期 {test_window}，结果观察期 {outcome_window}；爆款：{hits}；设置来源：{whose}",
    },
}
RAISED = {("stop", "test"), ("stop", "scale"), ("test", "scale")}


@dataclass(frozen=True)
class Hindsight:
    """What became of past lists.

    Attributes
    ----------
    skus
        One row per SKU that was looked at: `list, sku_id, action, model_action, because, hit_probability, hit, value,
        spend, share, drawn`. `hit` and `value` are NULL where the SKU was stopped; `share` is the chance with which a
        coin kept it on, NULL where none was thrown.
    summary
        One row per list and one for all (`list` is NULL there): `skus`; `scaled, scaled_hits, false_alarms`; `tested,
        tested_hits` (kept on test as the list or people said); `drawn, drawn_hits` (kept on trial by a coin);
        `stopped, stopped_unknown` (of these without a coin); `missed, missed_low, missed_high` (hits among those
        stopped after a coin: an estimate and its 90 % interval); `value_kept, value_missed, value_missed_low,
        value_missed_high` (NULL for rates); `spend, spend_on_losers` (of SKUs kept on, in their outcome windows).
    people
        What people did with what the model said, where they differ: `model_action, action, skus, seen, hits, value,
        spend`.
    told
        All of it and what was left out, as plain values for JSON and the page.
    """

    skus: pd.DataFrame
    summary: pd.DataFrame
    people: pd.DataFrame
    told: dict[str, Any]

    def say(self, language: str = "en") -> str:
        """Return it in words, `en` or `zh`."""
        return say_hindsight(self.told, language)

    def logged(self, outcome: str = "hit") -> pd.DataFrame:
        """Return what `offpolicy.estimate` reads, to ask what another policy would have found or brought.

        Parameters
        ----------
        outcome
            `hit`, or `value`.

        Returns
        -------
        pandas.DataFrame
            In the order of `skus`: `batch_id, kept, propensity, outcome`. What people chose, and what the list said of
            its own accord, had no chance about it: propensity 1. Who was passed over by a coin and called back later
            counts as stopped, as in `fit`: those drawn in its stead stand for it.
        """
        drawn = self.skus["drawn"].astype(bool)
        called_back = (self.skus["action"] != "stop") & ~drawn & self.skus["share"].between(0, 1, inclusive="neither")
        kept = (self.skus["action"] != "stop") & ~called_back
        chance = self.skus["share"].where((self.skus["because"] != PERSON) | called_back)
        chance = chance.where(drawn, 1 - chance)
        return pd.DataFrame({"batch_id": self.skus["list"], "kept": kept, "propensity": chance.fillna(1.0),
                             "outcome": self.skus[outcome].astype(float)})  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return self.told


def hindsight(
    decisions: TableLike,
    signals: TableLike,
    skus: TableLike,
    settings: Settings,
    *,
    outcomes: TableLike | None = None,
    as_of: Any = None,
    since: str | pd.Timedelta = "4w",
) -> Hindsight:
    """Hold past lists against what happened.

    Parameters
    ----------
    decisions
        What `hitfinder decide` wrote. Rows of others are counted and left out.
    signals, skus, settings, outcomes, as_of
        As for `fit`.
    since
        How far back: lists whose last outcome window closed within this stretch before `as_of`.

    Returns
    -------
    Hindsight
        Its tables are empty where no list has closed in that time.

    Raises
    ------
    DataError
        A table can't be understood, or the label's metric was never measured.
    SettingsError
        `since` is no duration.
    """
    back = parse_duration(since) if isinstance(since, str) else since
    con = open_warehouse(threads=settings.model.threads)
    try:
        admit_signals_and_skus(
            con, signals, skus, period=settings.signals.period, outcomes=outcomes, decisions=decisions
        )
        moment = moment_of_knowledge(con, as_of)
        set_scope(con, settings, moment)
        rows, counts = _bearing(con, settings, moment, back)
        if len(rows):  # before the first outcome there is nothing to label
            labels = label(con, settings, outcomes_given=outcomes is not None)
            rows, counts = _with_outcomes(con, rows, labels, counts, settings)
    finally:
        con.close()
    rate = parse_metric(settings.label.metric)[1] is not None
    parts: list[tuple[str | None, pd.DataFrame]] = [(str(name), part) for name, part in rows.groupby("list")]
    summary = [_summed(name, part, rate, settings.seed) for name, part in [*parts, (None, rows)]] if parts else []
    people = _people(rows, rate)
    told = {
        "as_of": moment.isoformat(),
        "since": (moment - back).isoformat(),
        "level": LEVEL,
        "metric": settings.label.metric,
        "top_share": settings.label.top_share,
        "lists": summary[:-1],
        "all": summary[-1] if summary else None,
        "people": people,
        **counts,
    }
    return Hindsight(
        skus=rows.reindex(columns=list(SKU_COLUMNS)),
        summary=pd.DataFrame(summary, columns=list(SUMMARY_COLUMNS)),
        people=pd.DataFrame(people, columns=["model_action", "action", "skus", "seen", "hits", "value", "spend"]),
        told=told,
    )


def judged_by(settings: Settings, whose: str, language: str = "en") -> str:
    """Say in one line by which windows and share lists are judged, and whose settings these are.

    Examples
    --------
    >>> judged_by(Settings(), "the defaults")
    'Test window 7d, outcome window 28d; hits: the top 5 % by revenue; settings: the defaults'
    """
    check_language(language)
    words, label = WORDS[language], settings.to_dict()["label"]
    rule = "min_value" if label.get("min_value") is not None else "top_share"
    value = label[rule] * 100 if rule == "top_share" else label[rule]
    return words["judged"].format(**label, hits=words[rule].format(value=value, metric=label["metric"]), whose=whose)


def _bearing(
    con: Any, settings: Settings, moment: pd.Timestamp, back: pd.Timedelta
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return for each SKU of the lists looked at the decision that counts, and what was left out."""
    every = frame(con, "select * from decisions order by decided_at, sku_id")
    known = every[every["decided_at"] <= moment]
    lists = lists_of(known)
    bearing = frame(con, f"select sku_id, decided_at from ({load_sql('paths')})")
    catalog = frame(con, "select sku_id, launched_at from catalog")
    lists = lists.merge(catalog, on="sku_id", how="left").merge(
        bearing.assign(bears=True), on=["sku_id", "decided_at"], how="left"
    )
    lists["bears"] = lists["bears"].notna()
    coins = lists[lists["bears"] & lists["because"].isin([DRAWN, PASSED])].drop_duplicates("sku_id")
    coins = coins.set_index("sku_id")
    drawn = coins["because"] == DRAWN
    share = coins["propensity"].astype(float).where(drawn, 1 - coins["propensity"].astype(float))
    last = lists.sort_values("bears", kind="stable").drop_duplicates("sku_id", keep="last")
    last = last.assign(
        closes=last["launched_at"] + settings.label.test_window + settings.label.outcome_window,
        share=share.reindex(last["sku_id"]).to_numpy(dtype=float),
        drawn=last["sku_id"].isin(drawn.index[drawn]),
    )
    here = last[last["launched_at"].notna()]
    closes = here.groupby("list")["closes"].transform("max")
    is_open = closes > moment
    looked = here[~is_open & (closes > moment - back)]
    counts = {
        "open_lists": int(here.loc[is_open, "list"].nunique()),
        "open_skus": int(is_open.sum()),
        "others": len(known) - len(lists),
        "unknown_skus": int(last["launched_at"].isna().sum()),
        "late": int((~looked["bears"]).sum()),
        "unlabelled": 0,
    }
    return looked[looked["bears"]].sort_values(["list", "sku_id"], ignore_index=True), counts


def _judged(con: Any, labels: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return `hit` and `value` of the SKUs whose outcome showed itself, by `sku_id`.

    With a top share, the least that a hit of the group is worth is taken from those seen, weighted for those stopped.
    """
    usable = labels[labels["problem"].isna()].reset_index(drop=True)
    paths = frame(con, f"select sku_id, action from ({load_sql('paths')}) where place = 1")
    shown = usable[~usable["sku_id"].isin(paths.loc[paths["action"] == "stop", "sku_id"])].set_index("sku_id")
    if settings.label.min_value is not None:
        least = pd.Series(settings.label.min_value, index=shown.index)
    else:
        seen, _ = weigh_seen(con, usable.assign(weight=1.0), settings)
        hits = seen[seen["hit"].astype(bool)]
        # Also for those called back after a coin had passed them over, who are not among the seen: the same cut-off.
        least = shown["within_group"].map(hits.groupby("within_group")["value"].min()).astype(float)
    shown = shown[least.notna()]
    # What sold out would have been worth makes it a hit; what it brought is what it sold.
    hit = shown["value"] >= least[least.notna()]
    return shown.assign(hit=hit, value=shown["seen_value"])[["hit", "value"]]


def _with_outcomes(
    con: Any, rows: pd.DataFrame, labels: pd.DataFrame, counts: dict[str, int], settings: Settings
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Put what each SKU was worth beside its decision; what was stopped did not show it."""
    spend = frame(
        con,
        """
        select catalog.sku_id, sum(reports.spend) as spend
        from catalog
        inner join reports on catalog.sku_id = reports.sku_id
        cross join scope
        where
            reports.superseded_at is null
            and epoch(reports.period_start) >= epoch(catalog.launched_at) + scope.test_seconds
            and epoch(reports.period_start) < epoch(catalog.launched_at) + scope.test_seconds + scope.outcome_seconds
        group by catalog.sku_id
        """,
    )
    kept = (rows["action"] != "stop").to_numpy()
    found = _judged(con, labels, settings).reindex(rows["sku_id"])
    rows = rows.assign(
        hit=found["hit"].astype(object).where(kept).to_numpy(),
        value=found["value"].astype(float).where(kept).to_numpy(),
        spend=spend.set_index("sku_id")["spend"].astype(float).reindex(rows["sku_id"]).where(kept).to_numpy(),
    )
    unlabelled = kept & rows["hit"].isna().to_numpy()
    # A list of which no outcome can be judged says nothing; its SKUs are told, not counted as failures.
    blind = ~rows["list"].isin(rows.loc[kept & ~unlabelled, "list"]) & rows["list"].isin(rows.loc[kept, "list"])
    left_out = unlabelled | blind.to_numpy()
    return rows[~left_out].reset_index(drop=True), {**counts, "unlabelled": int(left_out.sum())}


def _summed(name: str | None, rows: pd.DataFrame, rate: bool, seed: int) -> dict[str, Any]:
    """Return one row of the summary."""
    kept, hit = rows["action"] != "stop", rows["hit"].fillna(False).astype(bool)
    scaled, drawn = rows["action"] == "scale", (rows["action"] == "test") & rows["drawn"].astype(bool)
    drawn &= (rows["because"] != PERSON) & (rows["model_action"] == "stop")
    tested = (rows["action"] == "test") & ~drawn
    missed = _missed(rows, seed, money=not rate)
    return {
        "list": name,
        "skus": len(rows),
        "scaled": int(scaled.sum()),
        "scaled_hits": int((scaled & hit).sum()),
        "false_alarms": int((scaled & ~hit).sum()),
        "tested": int(tested.sum()),
        "tested_hits": int((tested & hit).sum()),
        "drawn": int(drawn.sum()),
        "drawn_hits": int((drawn & hit).sum()),
        "stopped": int((~kept).sum()),
        **missed,
        "value_kept": None if rate else _total(rows.loc[kept, "value"]),
        "spend": _total(rows.loc[kept, "spend"]),
        "spend_on_losers": _total(rows["spend"].where(kept & ~hit, 0.0 * rows["spend"])),
    }


def _missed(rows: pd.DataFrame, seed: int, *, money: bool) -> dict[str, Any]:
    """Estimate what was lost with the stopped SKUs, from those of their like that a coin kept on trial.

    Each share of coins is a sample of its own. People choose as they like, so what they decided on is left out of it.
    """
    stopped = (rows["action"] == "stop").to_numpy()
    by_coin = (rows["share"] > 0) & (rows["share"] < 1) & (rows["because"] != PERSON)
    unknown = int((stopped & ~by_coin.to_numpy()).sum())
    groups = [part for _, part in rows[by_coin].groupby(rows["share"].round(9))]
    level = 1 - (1 - LEVEL) / max(len(groups), 1)  # several intervals, all of which are to hold
    guess, low, high = 0.0, 0, 0
    samples: list[tuple[int, Any]] = []
    for part in groups:
        hit, unseen = part["hit"].fillna(False).astype(bool), int((part["action"] == "stop").sum())
        # Stopped, then taken up again since the list said so: seen, but by no coin.
        again = int((hit & ~part["drawn"]).sum())
        n, found = int(part["drawn"].sum()), int((hit & part["drawn"]).sum())
        least, most = total_range(found, n, len(part), level=level)
        low += min(max(least - found - again, 0), unseen)
        high += min(max(most - found - again, 0), unseen)
        guess += min(max(len(part) * found / n - found - again, 0.0), unseen) if n else np.nan
        samples.append((unseen, part.loc[part["drawn"], "value"].to_numpy(dtype=float)))
    known = None if np.isnan(guess) else round(float(guess), 6)
    names = ("value_missed", "value_missed_low", "value_missed_high")
    enough = money and samples and min(len(values) for _, values in samples) >= MIN_DRAWN
    sums = _money(samples, seed) if enough else (None, None, None)
    if not groups:
        known, low, high = (0.0, 0, 0) if not unknown else (None, None, None)  # type: ignore[assignment]
    return {
        "stopped_unknown": unknown,
        "missed": known,
        "missed_low": low,
        "missed_high": high,
        **dict(zip(names, sums, strict=True)),
    }


def _money(samples: list[tuple[int, Any]], seed: int) -> tuple[float, float, float]:
    """Return what the unseen may have been worth: the mean of those drawn for each, and its bootstrap interval."""
    rng = np.random.default_rng([seed, 17])
    guess, drawn = 0.0, np.zeros(DRAWS)
    for unseen, values in samples:
        guess += unseen * values.mean()
        drawn += unseen * values[rng.integers(0, len(values), (DRAWS, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return round(float(guess), 4), round(float(low), 4), round(float(high), 4)


def _people(rows: pd.DataFrame, rate: bool) -> list[dict[str, Any]]:
    """Return what became of the SKUs for which people decided against the model."""
    mine = rows[(rows["because"] == PERSON) & (rows["action"] != rows["model_action"])]
    return [
        {
            "model_action": model_action,
            "action": action,
            "raised": (model_action, action) in RAISED,
            "skus": len(part),
            "seen": int(part["hit"].notna().sum()),
            "hits": int(part["hit"].fillna(False).astype(bool).sum()),
            "value": None if rate else _total(part["value"]),
            "spend": _total(part["spend"]),
        }
        for (model_action, action), part in mine.groupby(["model_action", "action"])
    ]


def _total(values: pd.Series) -> float | None:
    """Return a sum, or None where nothing was measured."""
    return round(float(values.sum()), 4) if values.notna().any() else None
