"""Judging: what decides whether a challenger may take over, and how sure that has to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.admission import admit_signals_and_skus, say_where_ids_differ
from hitfinder.comparison import LEARNED
from hitfinder.features import moment_of_knowledge
from hitfinder.gate.equal_hits import cost_at_equal_hits
from hitfinder.gate.lists import learned_rule, per_batch, score_lists
from hitfinder.gate.unseen import MIN_UNSEEN, Unseen, unseen_batches
from hitfinder.gate.verdict import Verdict
from hitfinder.history import LATE
from hitfinder.metrics import bootstrap_difference, calibration_error
from hitfinder.models.hit_model import HitModel
from hitfinder.models.rules import LOGISTIC
from hitfinder.registry.checks import Check
from hitfinder.settings import Settings
from hitfinder.warehouse import TableLike, open_warehouse

__all__ = ["gate", "gate_admitted"]

# A challenger may be worse by this much of hits or value at k: what two fits on slightly different data differ by.
MARGIN = 0.05
# It may not be worse by more than the margin in so many of the bootstrap draws.
CHANCE_OF_WORSE = 0.35
# Log loss, as a share of what knowing nothing but the share of hits costs: how much worse it may be.
LOSS_MARGIN = 0.05
# Of the gain that the champion's probabilities are worth over that share, the challenger's must be worth this part.
KEPT_GAIN = 0.5
# How much further from the truth, on the whole, its probabilities may be than the champion's.
ERROR_MARGIN = 0.05
# Expected hits over hits that came: as far off as this, beyond the noise between batches, is another market's model.
MOST_OFF = 1.5
# Standard errors over batches that count as beyond the noise.
SURE = 3.0
# By its own report it must find this part of the way from chance to all hits: labels dealt out anew leave none.
LEAST_LEARNED = 0.1
# For the same hits it may cost so much more, unless chance can do that too.
COST_MARGIN = 1.1

WHAT = {"hits_at_k": "hits at k", "value_at_k": "value at k"}


def gate(
    challenger: HitModel,
    champion: HitModel | None,
    signals: TableLike,
    skus: TableLike,
    settings: Settings,
    *,
    outcomes: TableLike | None = None,
    decisions: TableLike | None = None,
    as_of: Any = None,
    min_batches: int = MIN_UNSEEN,
    replays: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Verdict:
    """Hold a challenger against the champion and the best rule, on the newest closed batches that neither learned from.

    Parameters
    ----------
    challenger, champion
        From `fit` or `load_model`. Without a champion, the rule and the probabilities decide.
    signals, skus, settings, outcomes, decisions, as_of
        As for `fit`; the settings say what a hit is.
    min_batches
        It takes so many unseen batches, each with a hit and a miss.
    replays
        Also play the batches' tests again, where impressions were counted.
    progress
        Called with a few words before each longer step.

    Returns
    -------
    Verdict
        `passed`, and why.

    Raises
    ------
    ModelError
        A model does not say what it learned from.
    DataError
        A table can't be understood.

    Notes
    -----
    Passed means, over the unseen batches:

    - by its own out-of-time report, the challenger finds a tenth of the way from chance to all hits: labels dealt out
      at random leave none of it.
    - hits and value at k, averaged over the lists of a batch: the mean difference to the champion is above minus 0.05,
      and so it is in 65 % of the draws of a bootstrap over batches. The same against the best rule by the
      challenger's own report, which was written before these batches closed.
    - log loss of the probabilities: lower than that of the bare share of hits, at least half as far below it as the
      champion's, and no more than 0.05 of it above the champion's. A model that learned from noise may still rank well
      by its prior; it can't say who is likely.
    - calibration error at most 0.05 above the champion's, unless the log loss is below it in 95 % of the draws; and as
      many hits expected as came: not off by half and more and by three standard errors over batches, unless the
      champion is off further.
    - exposures for the same hits in replay: not a tenth more and more in 95 % of the draws.
    """
    con = open_warehouse(threads=settings.model.threads)
    try:
        admit_signals_and_skus(
            con, signals, skus, period=settings.signals.period, outcomes=outcomes, decisions=decisions
        )
        say_where_ids_differ(con, allowed=0.02)
        moment = moment_of_knowledge(con, as_of)
        return gate_admitted(
            con,
            challenger,
            champion,
            settings,
            moment,
            outcomes_given=outcomes is not None,
            decisions_given=decisions is not None,
            min_batches=min_batches,
            replays=replays,
            progress=progress,
        )
    finally:
        con.close()


def gate_admitted(
    con: Any,
    challenger: HitModel,
    champion: HitModel | None,
    settings: Settings,
    moment: pd.Timestamp,
    *,
    outcomes_given: bool,
    decisions_given: bool = False,
    min_batches: int = MIN_UNSEEN,
    replays: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Verdict:
    """Judge on tables that stand admitted in `con`, as of a moment; see `gate`."""
    tell = progress or _say_nothing
    models = {"challenger": challenger} | ({} if champion is None else {"champion": champion})
    rule = _best_rule(challenger)
    tell("looking for batches that nobody learned from")
    given = {"outcomes_given": outcomes_given, "decisions_given": decisions_given}
    logistic = learned_rule(con, challenger, **given) if rule == LOGISTIC else None
    unseen = unseen_batches(con, settings, list(models.values()), moment, **given)
    about = (challenger.version, None if champion is None else champion.version, moment, rule)
    if len(unseen.batches) < min_batches:
        too_few = _too_few(unseen, len(unseen.batches), min_batches)
        return Verdict(*about, unseen.batches, (too_few,), True, pd.DataFrame())
    tell(f"scoring {len(unseen.batches)} batches")
    judged = score_lists(con, unseen.labels, models, rule, logistic)
    names = [*models, *([] if rule is None else ["rule"])]
    base = challenger.report["n_hits"] / challenger.report["n_skus"]
    table = per_batch(judged, names, base)
    table = table.reindex([name for name in unseen.batches if name in table.index])
    if len(table) < min_batches:
        return Verdict(*about, unseen.batches, (_too_few(unseen, len(table), min_batches),), True, table)
    checks = [_enough(table), *_learned(challenger, base)]
    for other in names[1:]:
        said = "the champion" if other == "champion" else f"the best rule, {rule}"
        checks += [_as_good(table, figure, other, said, settings.seed) for figure in WHAT]
    worth = _worth(table, list(models), settings.seed)
    checks += [worth, _calibrated(table, judged, list(models), better=worth.figures.get("low", 0.0) > 0)]
    notes: list[str] = []
    if replays and champion is not None:
        tell(f"playing {len(unseen.batches)} tests again")
        costs = cost_at_equal_hits(con, settings, unseen.labels, challenger, champion)
        if isinstance(costs, str):
            notes.append(costs)
        else:
            checks.append(_as_cheap(*costs))
    return Verdict(*about, tuple(table.index), tuple(checks), False, table, tuple(notes))


def _say_nothing(words: str) -> None:
    del words


def _best_rule(challenger: HitModel) -> str | None:
    """Return the best rule by the challenger's own report, which knows nothing of what it is judged on."""
    if challenger.report.get("best_rule") is not None:
        return str(challenger.report["best_rule"])
    return challenger.winner if challenger.winner not in LEARNED else None


def _too_few(unseen: Unseen, usable: int, min_batches: int) -> Check:
    return Check(
        "batches",
        False,
        f"too little evidence: of {unseen.closed} closed batches {len(unseen.batches)} are new to both models, and "
        f"{usable} of these can be judged on (a hit, a miss, ten SKUs); it takes {min_batches}. Wait until more have "
        "closed, or judge a model that was fitted as of an earlier moment",
        {"unseen": float(len(unseen.batches)), "closed": float(unseen.closed), "needed": float(min_batches)},
    )


def _enough(table: pd.DataFrame) -> Check:
    hits = table["hits"].sum()
    return Check(
        "batches",
        True,
        f"{len(table)} closed batches with {hits:.0f} hits that no model learned from",
        {"unseen": float(len(table)), "hits": float(hits)},
    )


def _learned(challenger: HitModel, chance: float) -> list[Check]:
    """Ask the challenger's own report whether it learned anything; none where that holds no lists to tell by."""
    found = challenger.report.get("metrics", {}).get(challenger.winner, {}).get("hits_at_k")
    if found is None:
        return []
    part = (found - chance) / (1 - chance)
    said = f"by its own report the challenger finds {found:.2f} of the hits at k, chance {chance:.2f}"
    return [Check("own_report", part >= LEAST_LEARNED, said, {"own": float(found), "chance": float(chance)})]


def _as_good(table: pd.DataFrame, figure: str, other: str, said: str, seed: int) -> Check:
    known = table[[f"challenger.{figure}", f"{other}.{figure}"]].dropna()
    if known.empty:  # such as value at k where the best k of no batch earned anything
        return Check(f"{figure}.{other}", True, f"{WHAT[figure]} can't be told on any of these batches", {})
    own, others = known.iloc[:, 0], known.iloc[:, 1]
    batch = pd.Series(known.index, index=known.index)
    gap = bootstrap_difference(own, others, batch, seed=seed)
    worse = 1 - bootstrap_difference(own + MARGIN, others, batch, seed=seed).positive
    return Check(
        f"{figure}.{other}",
        gap.mean >= -MARGIN and worse <= CHANCE_OF_WORSE,
        f"{WHAT[figure]} {own.mean():.2f} against {others.mean():.2f} of {said}: {gap.mean:+.3f} "
        f"({gap.low:+.3f} to {gap.high:+.3f})",
        {"own": float(own.mean()), "other": float(others.mean()), "mean": gap.mean, "low": gap.low, "high": gap.high,
         "chance_of_worse": worse},
    )  # fmt: skip


def _worth(table: pd.DataFrame, models: list[str], seed: int) -> Check:
    """Measure what the probabilities tell beyond the share of hits, by log loss."""
    nothing = table["base.log_loss"].mean()
    gain = {name: float(1 - table[f"{name}.log_loss"].mean() / nothing) for name in models}
    own = gain["challenger"]
    said = f"log loss {own:.0%} below that of the bare share of hits"
    figures = {"own": own}
    passed = own > 0
    if "champion" in gain:
        other = gain["champion"]
        gap = bootstrap_difference(
            table["champion.log_loss"] / nothing,
            table["challenger.log_loss"] / nothing,
            pd.Series(table.index, index=table.index),
            seed=seed,
        )
        passed = passed and own >= KEPT_GAIN * other and gap.mean >= -LOSS_MARGIN
        said += f", the champion's {other:.0%}: {gap.mean:+.0%} ({gap.low:+.0%} to {gap.high:+.0%})"
        figures |= {"other": other, "mean": gap.mean, "low": gap.low, "high": gap.high}
    return Check("log_loss", passed, said, figures)


def _calibrated(table: pd.DataFrame, judged: pd.DataFrame, models: list[str], *, better: bool) -> Check:
    """Compare probabilities with what came: bin by bin, and on the whole.

    `better`: the challenger's log loss, of which calibration is a part, is below the champion's beyond the error. Then
    bins are not compared: a champion that says the bare share of every SKU has no calibration error.
    """
    late = judged[judged["age_share"] >= LATE]
    weight = 1.0 / late.groupby("sku_id")["sku_id"].transform("size")
    error = {name: calibration_error(late[f"{name}.probability"], late["hit"], weight) for name in models}
    hits = table["hits"]
    off = {name: float(table[f"{name}.expected_hits"].sum() / hits.sum()) for name in models}
    gap = table["challenger.expected_hits"] - hits
    noise = float(gap.std(ddof=1) / np.sqrt(len(gap)))
    far = abs(np.log(off["challenger"])) > np.log(MOST_OFF) and abs(float(gap.mean())) > SURE * noise
    # Where the market moved, the champion is off as well: then the challenger need only be nearer.
    if "champion" in off:
        far = far and abs(np.log(off["challenger"])) > abs(np.log(off["champion"]))
    worse = error["challenger"] - error.get("champion", error["challenger"])
    said = f"calibration error {error['challenger']:.3f}"
    if "champion" in error:
        said += f", the champion's {error['champion']:.3f}"
    said += f"; {table['challenger.expected_hits'].sum():.1f} hits expected, {hits.sum():.0f} came"
    figures = {"own": error["challenger"], "expected_over_seen": off["challenger"]}
    figures |= {"other": error["champion"]} if "champion" in error else {}
    return Check("calibration", (better or worse <= ERROR_MARGIN) and not far, said, figures)


def _as_cheap(mean: float, low: float, high: float) -> Check:
    return Check(
        "cost",
        not (mean > COST_MARGIN and low > 1),
        f"for the same hits {mean:.2f} of the champion's exposures ({low:.2f} to {high:.2f}) in replay",
        {"mean": mean, "low": low, "high": high},
    )
