"""Words: what titles and attributes say, as sparse rows in which SKUs that say the same are near each other."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import groupby

import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.feature_extraction import FeatureHasher
from sklearn.preprocessing import normalize

__all__ = ["BUCKETS", "attribute_values", "hash_words", "title_words"]

BUCKETS = 2**16
# Beside a title, an attribute's value counts as half a word.
ATTRIBUTE = 0.5
# Thai, Japanese and Chinese are written without spaces; Korean words are short and take endings.
UNSPACED = re.compile(r"[\u0e00-\u0eff\u3005\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
SHORTEST = 3


def title_words(title: str) -> list[str]:
    """Return the words of a title of three letters at least, in lower case; of unspaced scripts each pair of signs.

    >>> title_words("SET OF 3 Heart T-lights"), title_words("连衣裙 夏 A4")
    (['set', 'heart', 'lights'], ['连衣', '衣裙', '夏'])
    """
    words = []
    for kind, signs in groupby(unicodedata.normalize("NFKC", title).lower(), _kind):
        word = "".join(signs)
        if kind == "unspaced":
            words += [word[i : i + 2] for i in range(len(word) - 1)] or [word]
        elif kind == "letter" and len(word) >= SHORTEST:
            words.append(word)
    return words


def _kind(sign: str) -> str:
    if UNSPACED.match(sign):
        return "unspaced"
    # Vowel signs and accents of their own belong to the letter before.
    return "letter" if sign.isalpha() or unicodedata.category(sign).startswith("M") else "other"


def hash_words(skus: pd.DataFrame, attributes: list[str]) -> csr_matrix:
    """Turn SKUs into sparse rows of length 1: the words of the title, and each attribute's value; zeros of none.

    Parameters
    ----------
    skus
        `title` and the columns in `attributes`; NULL allowed.
    attributes
        Names of columns that hold categories.
    """
    titles = skus["title"].fillna("").astype(str)
    return _hash(tuple(zip(titles, attribute_values(skus, attributes), strict=True)))


def attribute_values(skus: pd.DataFrame, attributes: list[str]) -> list[tuple[str, ...]]:
    """Return each SKU's values as one token each; a missing value says nothing.

    >>> attribute_values(pd.DataFrame({"colour": ["red", None]}), ["colour"])
    [('colour=red',), ()]
    """
    if not attributes:
        return [()] * len(skus)
    return [
        tuple(f"{name}={value}" for name, value in zip(attributes, row, strict=True) if not pd.isna(value))
        for row in skus[attributes].itertuples(index=False, name=None)
    ]


@lru_cache(maxsize=4)
def _hash(skus: tuple[tuple[str, tuple[str, ...]], ...]) -> csr_matrix:
    """Hash titles and values; the last few batches are remembered, since a test asks for the same round by round."""
    tokens = (
        [*((word, 1.0) for word in sorted(set(title_words(title)))), *((value, ATTRIBUTE) for value in values)]
        for title, values in skus
    )
    if not skus:
        return csr_matrix((0, BUCKETS))
    return csr_matrix(normalize(FeatureHasher(BUCKETS, input_type="pair", alternate_sign=False).transform(tokens)))
