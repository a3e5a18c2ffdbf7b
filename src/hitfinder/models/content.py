"""Content: what a SKU is, from its title, category and attributes, before anybody has seen it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix, hstack
from scipy.stats import norm
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import Ridge

from hitfinder.models.packed import pack, unpack
from hitfinder.models.words import attribute_values

__all__ = ["ContentModel", "fit_content", "vectorise"]

Array = npt.NDArray[np.float64]

# Hashed n-grams need no vocabulary: the same few lines read Chinese and English, and nothing has to be unpickled.
TITLE_BUCKETS = 2**14
ATTRIBUTE_BUCKETS = 2**10
PENALTIES = (3.0, 15.0, 75.0)


@dataclass(frozen=True)
class ContentModel:
    """A ridge regression on title n-grams and attribute values; `score` expects the output of `vectorise`."""

    coefficients: Array
    intercept: float

    def score(self, X: csr_matrix) -> Array:
        """Return the expected normal score of standing, one per row."""
        return np.asarray(X @ self.coefficients + self.intercept)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"coefficients": pack(self.coefficients), "intercept": self.intercept}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ContentModel:
        """Undo `to_dict`."""
        return cls(unpack(values["coefficients"]), float(values["intercept"]))


def vectorise(skus: pd.DataFrame, attributes: list[str]) -> csr_matrix:
    """Turn SKUs into sparse rows: character n-grams of the title within words, and each attribute's value.

    Parameters
    ----------
    skus
        `title` and the columns in `attributes`; NULL allowed.
    attributes
        Names of columns that hold categories.
    """
    if len(skus) == 0:
        return csr_matrix((0, TITLE_BUCKETS + ATTRIBUTE_BUCKETS))
    titles = _hash_titles(tuple(skus["title"].fillna("").astype(str)))
    if not attributes:
        return csr_matrix((titles.data, titles.indices, titles.indptr), (len(skus), TITLE_BUCKETS + ATTRIBUTE_BUCKETS))
    tokens = attribute_values(skus, attributes)
    hashed = FeatureHasher(ATTRIBUTE_BUCKETS, input_type="string", alternate_sign=False).transform(tokens)
    return csr_matrix(hstack([titles, 0.5 * hashed]))


@lru_cache(maxsize=4)
def _hash_titles(titles: tuple[str, ...]) -> csr_matrix:
    """Hash titles; the last few batches are remembered, since a test asks for the same ones round by round."""
    hasher = HashingVectorizer(
        analyzer="char_wb",
        ngram_range=(2, 4),
        n_features=TITLE_BUCKETS,
        norm="l2",
        alternate_sign=False,
        lowercase=True,
    )
    return hasher.transform(titles)


def fit_content(X: csr_matrix, standing: Array, folds: npt.NDArray[np.int64]) -> tuple[ContentModel | None, Array]:
    """Fit on one row per SKU; return the model and out-of-fold scores, or (None, zeros) where content tells nothing.

    Parameters
    ----------
    X
        From `vectorise`.
    standing
        Share of the batch that ended below the SKU, in (0, 1).
    folds
        Fold of each SKU; a title is never judged by a model that saw its own outcome.
    """
    target = norm.ppf(np.clip(standing, 1e-3, 1 - 1e-3))
    names = np.unique(folds)
    if X.nnz == 0 or len(names) < 2:
        return None, np.zeros(X.shape[0])
    scores = {p: np.zeros(len(target)) for p in PENALTIES}
    nothing = np.zeros(len(target))
    for fold in names:
        held = folds == fold
        nothing[held] = target[~held].mean()
        for penalty in PENALTIES:
            scores[penalty][held] = _ridge(X[~held], target[~held], penalty).score(X[held])
    errors = {p: float(((target - s) ** 2).sum()) for p, s in scores.items()}
    best = min(PENALTIES, key=lambda p: errors[p])
    # Titles of one season hardly tell about the next: they must help in most blocks, not on the whole.
    gains = np.asarray(
        [float((((target - nothing) ** 2 - (target - scores[best]) ** 2)[folds == fold]).mean()) for fold in names]
    )
    if gains.mean() <= 2 * gains.std(ddof=1) / np.sqrt(len(names)):
        return None, np.zeros(len(target))
    return _ridge(X, target, best), scores[best]


def _ridge(X: csr_matrix, target: Array, penalty: float) -> ContentModel:
    model = Ridge(alpha=penalty, solver="sparse_cg", tol=1e-4, max_iter=500).fit(X, target)
    return ContentModel(np.asarray(model.coef_, dtype=float), float(model.intercept_))
