"""The estimator: a prior, boosted corrections to it, and calibrated probabilities, behind scikit-learn's contract."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from hitfinder.models.boosted import Boosted, correction_by, fit_boosted
from hitfinder.models.calibration import Calibration, fit_calibration
from hitfinder.models.linear import LinearPrior
from hitfinder.models.prior import fit_platt, fit_prior

__all__ = ["KINDS", "HitClassifier"]

Array = npt.NDArray[np.float64]

KINDS = ("prior", "boosted", "ranker", "rule")


class HitClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Probability of being a hit, from shrunk rates, with an interval.

    Parameters
    ----------
    kind
        `prior`: the regularised linear model alone. `boosted`: LightGBM from the prior's log odds. `ranker`: LightGBM's
        lambdarank from the same start. `rule`: the first column of `X` is the score.
    prior_columns
        Column numbers that the prior reads; None for all.
    anchor_weights
        For each column its weight in the sum that the prior departs from; None for 0 throughout.
    funnel_columns
        Those of them whose sum it departs from; None for none of them.
    unknown_columns
        Those of them that tell how far each of the funnel's is not known yet; None for none of them.
    floor
        Standing up to which all count alike to the prior, in [0, 1).
    monotone
        For each column 1 where more can't be worse, else 0; None for 0 throughout.
    seeds
        How many boosted members are averaged.
    trees
        Fields of `TreeSettings`; None for its defaults.
    threads
        0 for as many as the machine has; the answer does not depend on it.
    random_state
        Seed, an int; None means 0.

    Attributes
    ----------
    classes_ : array of shape (2,)
    oof_margin_ : array of shape (rows,)
        Out-of-fold margins of the training rows.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 3))
    >>> y = (X[:, 0] + rng.normal(size=300) > 1.5).astype(int)
    >>> model = HitClassifier(kind="prior").fit(X, y)
    >>> probability, low, high = model.predict_interval([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0]])
    >>> bool(probability[0] > 0.5 > probability[1]), bool((low <= high).all())
    (True, True)
    """

    def __init__(
        self,
        *,
        kind: str = "boosted",
        prior_columns: list[int] | None = None,
        anchor_weights: list[float] | None = None,
        funnel_columns: list[int] | None = None,
        unknown_columns: list[int] | None = None,
        floor: float = 0.0,
        monotone: list[int] | None = None,
        seeds: int = 1,
        trees: dict[str, Any] | None = None,
        threads: int = 0,
        random_state: int | None = 0,
    ) -> None:
        self.kind = kind
        self.prior_columns = prior_columns
        self.anchor_weights = anchor_weights
        self.funnel_columns = funnel_columns
        self.unknown_columns = unknown_columns
        self.floor = floor
        self.monotone = monotone
        self.seeds = seeds
        self.trees = trees
        self.threads = threads
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        standing: Any = None,
        folds: Any = None,
        tree_folds: Any = None,
        copies: Any = None,
        lists: Any = None,
    ) -> HitClassifier:
        """Fit prior, corrections and calibration.

        Parameters
        ----------
        X : array of shape (rows, columns)
            NaN where not measured.
        y : array of shape (rows,)
            Two classes; the greater one is the hit.
        sample_weight
            The rows of one SKU at several ages share one unit, or what the SKU counts for.
        standing
            Share of the batch worth less, in (0, 1): what the prior learns from. Default: from `y`.
        folds
            Fold of each row for out-of-fold margins; a SKU's rows, and its batch's, stay together.
        tree_folds
            The same for the boosted corrections, which cost more: fewer folds will do. Default: `folds`.
        copies
            Which moment of its SKU a row is (see `fit_calibration`).
        lists
            The list that a row stands on: the prior learns within lists, and `ranker` ranks within them. Default: none
            for the prior, one for the ranker.

        Raises
        ------
        ValueError
            `kind` is none of KINDS, or `y` holds more than two classes.
        """
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) > 2:
            raise ValueError(
                f"Only binary classification is supported: expected a hit or none, got {len(self.classes_)} classes"
            )
        hit = (y == self.classes_[-1]).astype(float) if len(self.classes_) == 2 else np.zeros(len(y))
        weight: Array = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if weight.sum() == 0:
            raise ValueError("sample_weight: expected a positive weight, got zero weight throughout")
        standing = 0.25 + 0.5 * hit if standing is None else np.asarray(standing, dtype=float)
        folds = _default_folds(hit) if folds is None else np.asarray(folds, dtype=np.int64)
        tree_folds = folds if tree_folds is None else np.asarray(tree_folds, dtype=np.int64)
        copies = np.zeros(len(y), dtype=np.int64) if copies is None else np.asarray(copies, dtype=np.int64)
        margin = self._fit_margin(X, hit, weight, standing, folds, tree_folds, lists)
        self.oof_margin_ = margin
        self.calibration_ = fit_calibration(margin, hit, copies, weight)
        return self

    def _fit_margin(
        self, X: Array, hit: Array, weight: Array, standing: Array, folds: Any, tree_folds: Any, lists: Any
    ) -> Array:
        """Fit on all rows and return the out-of-fold margins."""
        self.boosters_: list[Any] = []
        self.boosted_: Boosted | None = None
        if self.kind == "rule":
            self.prior_, self.platt_ = None, (1.0, 0.0)
            return np.asarray(X[:, 0], dtype=float)
        columns = self._prior_columns(X)
        funnel, unknown = (
            [columns.index(column) for column in named or []] for named in (self.funnel_columns, self.unknown_columns)
        )
        anchor = np.zeros(X.shape[1]) if self.anchor_weights is None else np.asarray(self.anchor_weights, dtype=float)
        unread = np.setdiff1d(np.flatnonzero(anchor), columns)
        if anchor.shape != (X.shape[1],) or len(unread):
            raise ValueError(
                f"anchor_weights: expected one per column ({X.shape[1]}), and 0 for those that the prior does not "
                f"read, got {len(anchor)}, with weights on the unread columns {unread.tolist()}"
            )
        lists = None if lists is None else np.asarray(lists, dtype=np.int64)
        self.prior_, scores = fit_prior(
            X[:, columns], standing, weight, folds, anchor[columns], lists, funnel, unknown, self.floor
        )
        self.platt_ = fit_platt(scores, hit, weight)
        start: Array = self.platt_[0] * scores + self.platt_[1]
        if self.kind == "prior":
            return start
        settings: dict[str, Any] = {
            "monotone": self.monotone or [0] * X.shape[1],
            "rows_per_sku": len(X) / max(float(weight.sum()), 1.0),
            "trees": self.trees,
        }
        lists = None if self.kind != "ranker" else np.zeros(len(X), dtype=np.int64) if lists is None else lists
        seed = self.random_state or 0
        parts = [tree_folds == fold for fold in np.unique(tree_folds) if not (tree_folds == fold).all()]

        def fit_rows(rows: Any, member: int) -> str:
            of_list = None if lists is None else lists[rows]
            member_seed = seed * 1009 + member
            return fit_boosted(
                X[rows], hit[rows], weight[rows], start[rows], lists=of_list, seed=member_seed, **settings
            )

        jobs = [(~held, 0) for held in parts] + [(np.ones(len(X), dtype=bool), member) for member in range(self.seeds)]
        with ThreadPoolExecutor(self.threads or os.cpu_count() or 1) as pool:
            texts = list(pool.map(lambda job: fit_rows(*job), jobs))
        margin: Array = start.copy()
        for held, text in zip(parts, texts, strict=False):
            margin[held] += Boosted((text,)).correction(X[held])
        self.boosted_ = Boosted(tuple(texts[len(parts) :]))
        self.boosters_ = self.boosted_.boosters()
        return margin

    def margin(self, X: Any) -> Array:
        """Return one margin per row: higher is better; only the order is meant for use."""
        return self.margins(X)[0]

    def margins(self, *versions: Any) -> list[Array]:
        """Return the margin of each version of some rows; where two say the same, the trees are asked once."""
        check_is_fitted(self, "calibration_")
        told: list[Array] = []
        before, corrections = None, np.zeros(0)
        for version in versions:
            X = validate_data(self, version, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
            if self.prior_ is None:
                told.append(np.asarray(X[:, 0], dtype=float))
                continue
            if before is None or not np.array_equal(X, before, equal_nan=True):
                before, corrections = X, correction_by(self.boosters_, X)
            scores = self.prior_.score(X[:, self._prior_columns(X)])
            told.append(np.asarray(self.platt_[0] * scores + self.platt_[1] + corrections))
        return told

    def contributions(self, X: Any) -> Array:
        """Return what each column adds to the margin, shape (rows, columns); they sum to it up to a constant."""
        check_is_fitted(self, "calibration_")
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        total: Array = np.zeros(X.shape)
        if self.prior_ is None:
            return total
        columns = self._prior_columns(X)
        total[:, columns] += self.platt_[0] * self.prior_.effects(X[:, columns])
        for booster in self.boosters_:
            added = booster.predict(X, pred_contrib=True, num_threads=1)[:, :-1]
            total += np.asarray(added) / len(self.boosters_)
        return total

    def predict_interval(self, X: Any) -> tuple[Array, Array, Array]:
        """Return probability of a hit, and its lower and upper Venn-Abers bound, each of shape (rows,)."""
        check_is_fitted(self, "calibration_")
        return self.calibration_.interval(self.margin(X))

    def predict_proba(self, X: Any) -> Array:
        """Return calibrated probabilities, shape (rows, classes)."""
        check_is_fitted(self, "calibration_")
        if len(self.classes_) == 1:
            return np.ones((len(self.margin(X)), 1))
        probability = self.predict_interval(X)[0]
        return np.column_stack([1 - probability, probability])

    def predict(self, X: Any) -> Any:
        """Return the likelier class of each row."""
        check_is_fitted(self, "calibration_")
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _prior_columns(self, X: Array) -> list[int]:
        return list(range(X.shape[1])) if self.prior_columns is None else list(self.prior_columns)

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted state as plain values for JSON; the boosters as LightGBM's text."""
        check_is_fitted(self, "calibration_")
        return {
            "parameters": self.get_params(),
            "n_features_in": int(self.n_features_in_),
            "classes": self.classes_.tolist(),
            "platt": list(self.platt_),
            "prior": None if self.prior_ is None else self.prior_.to_dict(),
            "boosted": None if self.boosted_ is None else list(self.boosted_.texts),
            "calibration": self.calibration_.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> HitClassifier:
        """Undo `to_dict`; the answers are identical."""
        model = cls(**values["parameters"])
        model.n_features_in_ = values["n_features_in"]
        model.classes_ = np.asarray(values["classes"])
        model.platt_ = (float(values["platt"][0]), float(values["platt"][1]))
        model.prior_ = None if values["prior"] is None else LinearPrior.from_dict(values["prior"])
        model.boosted_ = None if values["boosted"] is None else Boosted(tuple(values["boosted"]))
        model.boosters_ = [] if model.boosted_ is None else model.boosted_.boosters()
        model.calibration_ = Calibration.from_dict(values["calibration"])
        return model

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.classifier_tags.multi_class = False
        return tags


def _default_folds(hit: Array) -> npt.NDArray[np.int64]:
    folds = np.zeros(len(hit), dtype=np.int64)
    fewest = int(min(hit.sum(), len(hit) - hit.sum()))
    if fewest >= 2:
        splitter = StratifiedKFold(min(5, fewest))
        for number, (_, held) in enumerate(splitter.split(np.zeros((len(hit), 1)), hit)):
            folds[held] = number
    return folds
