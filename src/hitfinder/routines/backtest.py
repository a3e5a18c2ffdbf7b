"""Backtest: a history walked through week by week, as the routines would have run it, and what came of it.

Each week the batch whose test is over is ranked by the champion of that day, decided on, and the health looked at;
every few weeks a challenger is fitted and has to pass the gate. Nothing known later reaches any of them. Afterwards,
with all outcomes known, the lists are held against those of the first champion, had it never been retrained, and of
the best simple rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.admission import admit_signals_and_skus
from hitfinder.deciding import decide
from hitfinder.errors import ModelError, NotEnoughHistoryError, NotRegisteredError
from hitfinder.features import moment_of_knowledge, set_scope
from hitfinder.labels import label
from hitfinder.metrics import bootstrap_difference, list_metrics
from hitfinder.models.hit_model import HitModel
from hitfinder.models.rules import rule_scores
from hitfinder.monitor.health import monitor
from hitfinder.ranking import described, rank
from hitfinder.registry.loading import load_model
from hitfinder.registry.promotion import standing
from hitfinder.registry.runs import Run
from hitfinder.registry.tracking import shown_uri, tracking_uri
from hitfinder.replays import shuffled
from hitfinder.routines.retrain import Retrained, retrain
from hitfinder.settings import Settings
from hitfinder.simulate import cut_off
from hitfinder.warehouse import TableLike, frame, open_warehouse

__all__ = ["FIGURES", "RULE", "Backtest", "backtest"]

FIGURES = ("average_precision", "hits_at_k", "value_at_k")
# What the lists are held against: the rule that the first champion's report named the best.
RULE = "best rule"
CHAMPION, FROZEN = "champion", "never retrained"


@dataclass(frozen=True)
class Backtest:
    """What came of walking through a history.

    Attributes
    ----------
    weeks
        One row per batch: `moment, batch_id, champion` (its version), `skus, stopped, explored, scaled, hits,
        hits_scaled, hits_stopped`, whether the monitor raised an `alarm` and which `checks` (NULL where it had too
        little history or was not asked).
    lists
        One row per batch and ranker: `moment, batch_id, ranker` and FIGURES.
    retrainings
        One row per retraining: `moment, kind` (`own` or `sabotaged`), `outcome, reason, version, champion`.
    """

    weeks: pd.DataFrame
    lists: pd.DataFrame
    retrainings: pd.DataFrame

    def between(self, first: Any = None, last: Any = None) -> pd.DataFrame:
        """Return the mean figures of each ranker over the batches from `first` on and before `last`."""
        rows = self.lists
        rows = rows if first is None else rows[rows["moment"] >= _utc(first)]
        rows = rows if last is None else rows[rows["moment"] < _utc(last)]
        means: pd.DataFrame = rows.groupby("ranker", sort=False)[list(FIGURES)].mean()
        return means.assign(lists=rows.groupby("ranker", sort=False).size())

    def lead(self, other: str, figure: str = "value_at_k", first: Any = None, seed: int = 0) -> dict[str, float]:
        """Return the champion's mean lead over another ranker, with its 90 % interval by bootstrap over batches."""
        rows = self.lists if first is None else self.lists[self.lists["moment"] >= _utc(first)]
        wide = rows.pivot_table(index="batch_id", columns="ranker", values=figure)
        found = bootstrap_difference(wide[CHAMPION], wide[other], pd.Series(wide.index, index=wide.index), seed=seed)
        return {"mean": found.mean, "low": found.low, "high": found.high}

    def sabotage(self) -> tuple[int, int]:
        """Return how many sabotaged challengers were held against a champion, and how many of them were promoted."""
        judged = self.retrainings["outcome"].isin(["promoted", "refused"])
        tried = self.retrainings[(self.retrainings["kind"] == "sabotaged") & judged]
        return len(tried), int((tried["outcome"] == "promoted").sum())

    def alarms(self, change: Any = None, within: str = "14D") -> dict[str, float]:
        """Return how often the monitor raised an alarm where nothing had changed, and how soon after a change.

        `quiet_looks, false_alarms`: looks before the change. `weeks_to_alarm`: from the end of the first changed
        batch's test to the first alarm, NaN without a change or an alarm. `raised_in_time`: 1 or 0.
        """
        looked = self.weeks[self.weeks["alarm"].notna()]
        before = looked if change is None else looked[looked["moment"] <= pd.Timestamp(change)]
        told = {"quiet_looks": float(len(before)), "false_alarms": float(before["alarm"].astype(bool).sum()),
                "weeks_to_alarm": float("nan"), "raised_in_time": float("nan")}  # fmt: skip
        if change is not None:
            after = looked[(looked["moment"] > pd.Timestamp(change)) & looked["alarm"].astype(bool)]
            if len(after):
                told["weeks_to_alarm"] = (after["moment"].iloc[0] - pd.Timestamp(change)) / pd.Timedelta(weeks=1)
            told["raised_in_time"] = float(told["weeks_to_alarm"] <= pd.Timedelta(within) / pd.Timedelta(weeks=1))
        return told


def backtest(
    signals: TableLike,
    skus: TableLike,
    settings: Settings,
    *,
    folder_for_store: str | Path,
    name: str = "hitfinder",
    start: Any = None,
    retrain_every: int = 4,
    watch: bool = True,
    carry_out: bool = False,
    sabotage: bool = False,
    parent: Run | None = None,
    experiment: str = "hitfinder",
    progress: Callable[[str], None] | None = None,
) -> Backtest:
    """Walk through a history week by week.

    Parameters
    ----------
    signals, skus
        The whole history, with what came later.
    settings
        As for `fit`.
    folder_for_store, name, experiment
        Of the registry that the retrainings use; better none that serves anybody.
    start
        The moment of the first list, UTC; default: when a first model can be fitted.
    retrain_every
        Batches from one retraining to the next.
    watch
        Look at the health each week.
    carry_out
        Cut off the signals of SKUs from when they were stopped, and learn from the decisions: for a simulated market,
        of which all is known that might have been.
    sabotage
        Before each retraining, try to get one promoted that learned from shuffled labels.
    parent
        The run that the retrainings are steps of.
    progress
        Called with a few words before each week.

    Returns
    -------
    Backtest

    Raises
    ------
    ModelError
        The name is registered there already.
    NotEnoughHistoryError
        There is no moment at which a model can be fitted and a list judged.
    """
    tell = progress or _say_nothing
    signals, skus, truth = _known_at_last(signals, skus, settings)
    batches = _batches(truth, settings)
    if start is not None:
        batches = batches[batches["moment"] >= _utc(start)]
    home = Path(folder_for_store)
    store: dict[str, Any] = {"name": name, "folder_for_store": home, "experiment": experiment, "parent": parent}
    if _registered(name, home):
        raise ModelError(
            f"{name}: expected a name that is not registered at {shown_uri(tracking_uri(home))}, got one that is: its "
            "champion may know what came later; choose another name or folder"
        )
    known = signals
    decisions: pd.DataFrame | None = None
    champion: HitModel | None = None
    frozen: HitModel | None = None
    weeks, lists, trained = [], [], []
    since = 0
    for batch in batches.to_dict("records"):
        moment, own = batch["moment"], truth[truth["batch_id"] == batch["batch_id"]]
        tell(f"{moment:%Y-%m-%d}, batch {batch['batch_id']}")
        # A crowd that came later is none of this week's business, and costs time.
        now = known[known["known_at"] <= moment]
        launched = skus[skus["launched_at"] < moment]
        if champion is None or since >= retrain_every:
            kinds = ["sabotaged", "own"] if sabotage and champion is not None else ["own"]
            given = decisions if carry_out else None
            for kind in kinds:
                try:
                    done = retrain(
                        now, launched, settings, decisions=given, as_of=moment,
                        relabel=shuffled(settings.seed) if kind == "sabotaged" else None, **store,
                    )  # fmt: skip
                except NotEnoughHistoryError:
                    break
                trained.append(_trained(moment, kind, done))
                since = 0
            if not trained:
                continue
            champion = load_model(f"models:/{name}@champion", folder_for_store=home)
            frozen = frozen or champion
        since += 1
        if champion is None or frozen is None:
            continue
        mine = launched[launched["batch_id"] == batch["batch_id"]]
        ranked = rank(champion, now, mine, as_of=moment)
        made = decide(ranked, decisions, settings, decided_at=moment)
        decisions = made if decisions is None else pd.concat([decisions, made], ignore_index=True)
        if carry_out:
            known = cut_off(known, made[made["action"] == "stop"])
        weeks.append(
            {
                **_week(ranked, made, own, moment, champion),
                **_health(champion, now, launched, decisions if carry_out else None, moment, watch),
            }
        )
        lists += _lists(champion, frozen, now, mine, own, moment, batch["batch_id"])
    if not weeks:
        raise NotEnoughHistoryError(
            f"signals: expected a history in which a model can be fitted and a later batch has closed, got "
            f"{len(batches)} closed batches; give more"
        )
    return Backtest(pd.DataFrame(weeks), pd.DataFrame(lists), pd.DataFrame(trained))


def _registered(name: str, home: Path) -> bool:
    try:
        standing(name, folder_for_store=home)
    except NotRegisteredError:  # nothing of that name, or no store yet
        return False
    return True


def _utc(moment: Any) -> pd.Timestamp:
    """Return a moment as tables hold it: naive UTC."""
    given = pd.Timestamp(moment)
    return given if given.tz is None else given.tz_convert("UTC").tz_localize(None)


def _known_at_last(
    signals: TableLike, skus: TableLike, settings: Settings
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the admitted tables, launches filled in, and the labels by all that ever became known."""
    con = open_warehouse(threads=settings.model.threads)
    try:
        admit_signals_and_skus(con, signals, skus, period=settings.signals.period)
        set_scope(con, settings, moment_of_knowledge(con, None))
        labels = label(con, settings, outcomes_given=False)
        catalog = frame(con, "select sku_id, batch_id, launched_at from catalog order by sku_id")
        held, about = (frame(con, f"select * from {table} order by sku_id") for table in ("signals", "skus"))
    finally:
        con.close()
    about = about.drop(columns=["batch_id", "launched_at"]).merge(catalog, on="sku_id")
    usable = labels[labels["problem"].isna()].merge(catalog[["sku_id", "batch_id"]], on="sku_id")
    return held, about, usable


def _batches(truth: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    last = truth.groupby("batch_id")["launched_at"].max() + settings.label.test_window
    return last.rename("moment").reset_index().sort_values(["moment", "batch_id"], ignore_index=True)


def _trained(moment: pd.Timestamp, kind: str, done: Retrained) -> dict[str, Any]:
    return {"moment": moment, "kind": kind, "outcome": done.outcome, "reason": done.reason, "version": done.version,
            "champion": done.champion}  # fmt: skip


def _week(
    ranked: pd.DataFrame, made: pd.DataFrame, own: pd.DataFrame, moment: pd.Timestamp, champion: HitModel
) -> dict[str, Any]:
    hit = own.set_index("sku_id")["hit"].reindex(made["sku_id"]).fillna(False).astype(bool).to_numpy()
    stopped, scaled = (made["action"].to_numpy() == action for action in ("stop", "scale"))
    would = ranked.set_index("sku_id")["action"].reindex(made["sku_id"]).to_numpy() == "stop"
    return {
        "moment": moment,
        "batch_id": ranked["batch_id"].iloc[0],
        "champion": champion.version,
        "skus": len(ranked),
        "stopped": int(stopped.sum()),
        "explored": int((would & ~stopped).sum()),
        "scaled": int(scaled.sum()),
        "hits": int(hit.sum()),
        "hits_scaled": int((hit & scaled).sum()),
        "hits_stopped": int((hit & stopped).sum()),
    }


def _health(
    champion: HitModel,
    now: pd.DataFrame,
    launched: pd.DataFrame,
    decisions: pd.DataFrame | None,
    moment: pd.Timestamp,
    watch: bool,
) -> dict[str, Any]:
    if not watch:
        return {"alarm": None, "checks": None}
    health = monitor(champion, now, launched, decisions=decisions, as_of=moment)
    raised = sorted(health.checks.loc[health.checks["state"] == "alarm", "check"].unique())
    # Where everything is too short to judge, no look was taken.
    looked = health.checks["state"].isin(["alarm", "quiet"]).any()
    return {"alarm": (len(raised) > 0) if looked else None, "checks": ", ".join(raised) if looked else None}


def _lists(
    champion: HitModel,
    frozen: HitModel,
    now: pd.DataFrame,
    mine: pd.DataFrame,
    own: pd.DataFrame,
    moment: pd.Timestamp,
    batch: str,
) -> list[dict[str, Any]]:
    """Measure the list, and the others', on those of the batch whose outcome is known."""
    scores: dict[str, pd.Series] = {}
    for who, model in {CHAMPION: champion, FROZEN: frozen}.items():
        table = described(model, now, mine, moment, stacklevel=4)
        scores[who] = pd.Series(model.margin(table), index=table["sku_id"])
        if who == FROZEN:
            rules = rule_scores(table)
            chosen = str(model.report.get("best_rule"))
            if chosen in rules:
                scores[RULE] = pd.Series(rules[chosen], index=table["sku_id"])
    rows = []
    for who, score in scores.items():
        measured = list_metrics(
            np.zeros(len(own)), own["hit"].astype(float), own["value"], score.reindex(own["sku_id"]).to_numpy()
        )
        if len(measured):
            figures = {figure: float(measured[figure].iloc[0]) for figure in FIGURES}
            rows.append({"moment": moment, "batch_id": batch, "ranker": who, **figures})
    return rows


def _say_nothing(_words: str) -> None:
    return
