"""Fitting: from signals to a model that has been held against every simple rule, out of time."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.isotonic import IsotonicRegression

from hitfinder.admission import Admission, admit_signals_and_skus, say_where_ids_differ
from hitfinder.cohorts import Fold, block_folds, forward_folds
from hitfinder.comparison import LEARNED, MIN_BATCHES, compare
from hitfinder.curves import curves_of
from hitfinder.errors import NotEnoughHistoryError
from hitfinder.features import moment_of_knowledge, on_impressions
from hitfinder.history import (
    MIN_HITS,
    MIN_SKUS,
    TRIAL_STATES,
    Examples,
    History,
    belief_of,
    demand_of,
    examples_of,
    know,
    state_features,
)
from hitfinder.labels import PROFIT
from hitfinder.models.content import ContentModel, fit_content
from hitfinder.models.design import Design, choose_design, simple_score
from hitfinder.models.estimator import HitClassifier
from hitfinder.models.hit_model import HitModel
from hitfinder.models.kin import Kin, fit_kin, shown_in
from hitfinder.models.linear import LinearPrior
from hitfinder.models.rules import LOGISTIC, counted_names, fit_logistic_rule, plain_counts, rule_scores
from hitfinder.models.value import fit_value
from hitfinder.pooling import fit_rates
from hitfinder.selection import Selection
from hitfinder.settings import Settings
from hitfinder.thresholds import learn_thresholds
from hitfinder.warehouse import TableLike, open_warehouse

__all__ = [
    "JUDGE_STATES",
    "MIN_FOLD_HITS",
    "MIN_FOLD_SKUS",
    "MIN_HITS",
    "MIN_SKUS",
    "fit",
    "fit_admitted",
    "fit_estimator",
    "prepare",
]

Array = npt.NDArray[np.float64]

# Blocks for the out-of-fold margins inside an evaluation fold: two are enough to calibrate by there.
JUDGE_BLOCKS = 2
# States of tests played again that the folds learn from: neighbouring rounds hardly differ, and folds are many.
JUDGE_STATES = (2, 5)
# Below these a fold learns too little to be a fair judge.
MIN_FOLD_SKUS = 100
MIN_FOLD_HITS = 8


def fit(
    signals: TableLike,
    skus: TableLike,
    settings: Settings,
    outcomes: TableLike | None = None,
    decisions: TableLike | None = None,
    as_of: Any = None,
) -> HitModel:
    """Fit a model on what was known at a moment. Pure: it tracks nothing and writes nothing.

    Parameters
    ----------
    signals, skus, outcomes
        Tables of the contract: DataFrames, Arrow tables, relations or paths.
    settings
        See `load_settings`.
    decisions
        What was decided about past SKUs, such as the record that `hitfinder decide` keeps. Outcomes that a stop cut off
        are left out; those of SKUs that were kept on by chance count for them (see `selection`).
    as_of
        The moment of knowledge, UTC; default: when the newest signal was known.

    Returns
    -------
    HitModel
        Its `report` holds the out-of-time metrics of the model and of every rule, and `winner` what ranks.

    Raises
    ------
    DataError
        A table can't be understood.
    NotEnoughHistoryError
        Fewer than MIN_SKUS SKUs, or MIN_HITS hits, had a closed outcome window.
    """
    con = open_warehouse(threads=settings.model.threads)
    try:
        admissions = admit_signals_and_skus(
            con, signals, skus, period=settings.signals.period, outcomes=outcomes, decisions=decisions
        )
        say_where_ids_differ(con, allowed=0.02)
        moment = moment_of_knowledge(con, as_of)
        model = fit_admitted(
            con,
            settings,
            moment,
            admissions,
            outcomes_given=outcomes is not None,
            decisions_given=decisions is not None,
        )
    finally:
        con.close()
    chosen = model.report.get("selection")
    if chosen is not None and chosen["cut_off"] and not chosen["by_chance"]:
        warnings.warn(f"decisions: {Selection(**chosen)}", stacklevel=2)
    return model


def fit_admitted(
    con: Any,
    settings: Settings,
    moment: pd.Timestamp,
    admissions: list[Admission],
    *,
    outcomes_given: bool,
    decisions_given: bool = False,
    relabel: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
) -> HitModel:
    """Fit on tables that stand admitted in `con`, as of a moment; see `fit`.

    `relabel` changes the labels before anything is learned from them: what a control wants.
    """
    history, named = know(
        con, settings, moment, outcomes_given=outcomes_given, decisions_given=decisions_given, relabel=relabel
    )
    try:
        return _learn(history, named, moment, admissions)
    finally:
        history.close()


def _learn(history: History, named: dict[str, int], moment: pd.Timestamp, admissions: list[Admission]) -> HitModel:
    settings = history.settings
    folds, how = _evaluation_folds(history)
    if not folds:
        raise NotEnoughHistoryError(
            f"as of {moment}: expected SKUs of at least two launches whose outcome has closed, got those of one, so "
            "nothing is left to judge a model by; wait, or give more history"
        )
    # A list holds SKUs of one batch, where hits are defined, scored by one model: margins of two folds are not on one
    # scale, and lists that share SKUs of several batches could not be resampled as if they were independent.
    judged = pd.concat([_judge(history, fold).assign(fold=n) for n, fold in enumerate(folds)], ignore_index=True)
    judged["list"] = judged.groupby(["fold", "as_of", "batch_id"]).ngroup()
    report = compare(judged, settings.label.test_window, settings.seed)
    winner, rule = report["ranked_by"], report.get("best_rule")
    shown = [name for name in dict.fromkeys([winner, report.get("best_kind"), rule]) if name]
    probability = f"score:{winner}.probability"
    report["curves"] = curves_of(judged, shown, probability)
    report.update(
        evaluation=how,
        as_of=moment.isoformat(),
        n_skus=len(history.labels),
        n_hits=int(history.labels["hit"].sum()),
        n_groups=int(history.labels["batch"].nunique()),
        groups_left_out=named,
        first_launch=history.labels["launched_at"].min().isoformat(),
        last_launch=history.labels["launched_at"].max().isoformat(),
        metric=settings.label.metric,
        labels_completed=int(history.labels["is_completed"].sum()),
        admissions=[str(a) for a in admissions],
    )
    if settings.label.metric == PROFIT and history.unknown_costs:
        report["unknown_costs"] = history.unknown_costs
    if history.selection is not None:
        report["selection"] = history.selection.to_dict()
    return _fit_on(history, set(history.labels["sku_id"]), report["ranked_by"], report)


def _evaluation_folds(history: History) -> tuple[list[Fold], str]:
    """Forward folds where the history allows; else blocks of launches, and the report says which."""
    labels, n_folds = history.labels, history.settings.model.folds
    folds = forward_folds(labels, n_folds, min_train=MIN_FOLD_SKUS, min_hits=MIN_FOLD_HITS)
    if folds:
        return folds, "forward in time"
    blocks = block_folds(labels, n_folds)
    ids = labels["sku_id"].to_numpy()
    pairs = [(ids[blocks != b], ids[blocks == b]) for b in np.unique(blocks)]
    return [Fold(tuple(train), tuple(test)) for train, test in pairs if len(train)], "across blocks of launches"


def _judge(history: History, fold: Fold) -> pd.DataFrame:
    """Score the fold's test rows by every learned kind and every rule, each having learned from the training SKUs only.

    What SKUs of like titles had shown by a row's moment is heard whoever they are; no outcome is.
    """
    model, table, train = prepare(history, set(fold.train), states=JUDGE_STATES)
    test = examples_of(history, table[table["copy"] < 0], set(fold.test))
    seen = test.table["age_days"].to_numpy() > 0
    X = model.design.matrix(test.table)
    scores: dict[str, Array] = {}
    for kind in LEARNED:
        estimator = fit_estimator(history, model.design, train, kind, seeds=1, tree_folds=train.folds % JUDGE_BLOCKS)
        scores[kind] = estimator.margin(X)
        scores[f"{kind}.probability"] = estimator.calibration_.interval(scores[kind])[0]
    scores.update(rule_scores(test.table))
    counts = counted_names(train.table)
    rule = fit_logistic_rule(plain_counts(train.table, counts), train.hit, train.weight)
    scores[LOGISTIC] = rule.score(plain_counts(test.table, counts))
    trained = {**rule_scores(train.table), LOGISTIC: rule.score(plain_counts(train.table, counts))}
    for name in set(scores) & set(trained):
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(trained[name], train.hit, train.weight)
        scores[f"{name}.probability"] = fitted.predict(scores[name])
    out = pd.DataFrame({f"score:{name}": values for name, values in scores.items()})
    keys = test.table[["as_of", "sku_id", "batch_id", "age_share"]].reset_index(drop=True)
    judged = pd.concat([keys, out], axis=1).assign(hit=test.hit, value=test.value, weight=test.weight)
    return judged[seen]


def _fit_on(history: History, skus: set[str], winner: str, report: dict[str, Any]) -> HitModel:
    """Fit the winner on all labelled SKUs, then thresholds and the value curve on out-of-fold margins."""
    settings = history.settings
    model, _, train = prepare(history, skus)
    logistic: LinearPrior | None = None
    counts: list[str] = []
    if winner in LEARNED:
        estimator = fit_estimator(history, model.design, train, winner, seeds=settings.model.seeds)
    else:
        if winner == LOGISTIC:
            counts = counted_names(train.table)
            logistic = fit_logistic_rule(plain_counts(train.table, counts), train.hit, train.weight)
        model = replace(model, winner=winner, logistic=logistic, logistic_counts=tuple(counts))
        estimator = HitClassifier(kind="rule").fit(
            model.matrix(train.table), train.hit, train.weight, copies=train.copies
        )
    margin = estimator.oof_margin_
    probability = estimator.calibration_.interval(margin)[0]
    judge = replace(model, estimator=estimator, winner=winner)
    final = judge.margin(train.table)
    scaled = _on_final_scale(margin, final, train.folds)
    shown = scaled + judge.margin_shown(train.table) - final
    thresholds, promises = learn_thresholds(train, scaled, shown, probability, history.labels, settings.policy)
    grid = estimator.calibration_.margins
    belief = belief_of(history, train)
    fitted = replace(
        model,
        estimator=estimator,
        winner=winner,
        thresholds=thresholds,
        promises=promises,
        worth=fit_value(
            scaled, train.table, train.value, np.where(train.copies >= 0, train.weight, 0.0), train.folds, grid
        ),
        belief=belief,
        demand=demand_of(history, train, belief),
        report={**report, "importance": _importance(estimator, model.design, train)},
    )
    return replace(fitted, version=f"unregistered-{fitted.digest()}")


def prepare(
    history: History, skus: set[str], states: tuple[int, ...] = TRIAL_STATES
) -> tuple[HitModel, pd.DataFrame, Examples]:
    """Fit pooling and content on `skus`; return the model so far, the features of all SKUs, and the training rows.

    `states` are the rounds after which tests played again are learned from. In the training rows the content is scored
    by models that did not see the SKU's own outcome.
    """
    settings, labels = history.settings, history.labels
    known = labels[labels["sku_id"].isin(skus)].reset_index(drop=True)
    rates = fit_rates(history.pairs[history.pairs["sku_id"].isin(skus)], history.rate_names)
    raw = state_features(history, rates, states)
    by_days = not on_impressions(history.rate_names)
    content: ContentModel | None = None
    kin: Kin | None = None
    if by_days:
        levels = simple_score(settings.label.metric, history.rate_names)
        weights = {name.removesuffix(".level"): weight for name, weight in levels.items()}
        shown = shown_in(raw, history.skus.set_index("sku_id"), history.categories, weights)
        kin, told = fit_kin(shown, weights, skus)
    elif known["batch"].nunique() >= MIN_BATCHES:
        rows = history.vectors[history.skus["sku_id"].searchsorted(known["sku_id"])]
        content, own = fit_content(rows, known["standing"].to_numpy(), block_folds(known, settings.model.folds))
    span = (known["launched_at"].max() - known["launched_at"].min()) / pd.Timedelta(days=1)
    numbers = [f"sku.{name}" for name in history.numbers]  # so that none is taken for a count of ours
    design = choose_design(
        history.rate_names,
        numbers,
        metric=settings.label.metric,
        on_impressions=not by_days,
        history_days=float(span),
        hit_share=float(known["hit"].mean()),
    )
    model = HitModel(
        settings=settings,
        rates=rates,
        design=design,
        content=content,
        kin=kin,
        categories=tuple(history.categories),
        numbers=tuple(history.numbers),
        estimator=HitClassifier(),
        winner="prior",
        logistic=None,
        logistic_counts=(),
        thresholds={},
        promises={},
    )
    # What kin told a row, at its moment, is known already; a model's own kin are those of the last.
    table = replace(model, kin=None).describe(raw, history.skus, history.vectors)
    if kin is not None:
        table = table.assign(content=told)
    train = examples_of(history, table, skus)
    if content is not None:
        scores = train.table["sku_id"].map(dict(zip(known["sku_id"], own, strict=True)))
        told = scores.to_numpy(dtype=float) * model.unknown(train.table)
        train = replace(train, table=train.table.assign(content=told))
    return model, table, train


def fit_estimator(
    history: History,
    design: Design,
    train: Examples,
    kind: str,
    *,
    seeds: int,
    tree_folds: npt.NDArray[np.int64] | None = None,
) -> HitClassifier:
    settings = history.settings
    estimator = HitClassifier(
        kind=kind,
        prior_columns=design.prior_columns,
        anchor_weights=design.anchor_weights,
        funnel_columns=design.funnel_columns,
        unknown_columns=design.unknown_columns,
        floor=design.floor,
        monotone=design.monotone,
        seeds=seeds,
        trees=settings.trees.model_dump(),
        threads=settings.model.threads,
        random_state=settings.seed,
    )
    return estimator.fit(
        design.matrix(train.table),
        train.hit,
        train.weight,
        standing=train.standing,
        folds=train.folds,
        tree_folds=tree_folds,
        copies=train.copies,
        lists=train.lists,
    )


def _on_final_scale(margin: Array, final: Array, folds: npt.NDArray[np.int64]) -> Array:
    """Give each fold's margins the mean and spread of the final model's: folds' models differ in both.

    What a fold's model has not seen stays unseen: within a fold no two margins change their order.
    """
    scaled = margin.copy()
    for fold in np.unique(folds):
        rows = folds == fold
        spread = float(margin[rows].std())
        if spread > 0:
            slope = max(float(final[rows].std()) / spread, 1e-6)
            scaled[rows] = final[rows].mean() + slope * (margin[rows] - margin[rows].mean())
    return scaled


def _importance(estimator: HitClassifier, design: Design, train: Examples) -> dict[str, float]:
    """Mean absolute contribution of each column to the margin, on training rows at the end of their test."""
    if estimator.kind == "rule":
        return {}
    late = train.copies >= 0
    rows = design.matrix(train.table)[late][:2000]
    if len(rows) == 0:
        return {}
    added = estimator.contributions(rows)
    size = np.abs(added - added.mean(axis=0)).mean(axis=0)
    order = np.argsort(-size, kind="stable")
    return {design.columns[i]: float(size[i]) for i in order if size[i] > 0}
