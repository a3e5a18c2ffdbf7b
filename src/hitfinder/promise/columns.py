"""Columns and shares as they are given, checked and understood."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.errors import DataError, SettingsError

__all__ = ["Floats", "Ints", "between", "exact", "flags", "rows_of"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def rows_of(
    batch: npt.ArrayLike, hit: npt.ArrayLike, seen: npt.ArrayLike, name: str, *, missing: float
) -> tuple[Ints, npt.NDArray[np.object_], npt.NDArray[np.bool_], Floats]:
    """Return codes of the batches, their labels, hits and probabilities; refuse what can't be understood."""
    labels = np.empty(np.shape(batch)[:1], dtype=object)
    labels[:] = np.asarray(batch, dtype=object)
    codes, found = pd.factorize(labels)
    is_hit = flags(hit, "hit").astype(bool)
    values = read_numbers(seen, name)
    if not len(codes) == len(is_hit) == len(values):
        sizes = f"{len(codes)}, {len(is_hit)} and {len(values)}"
        raise DataError(f"batch, hit and {name}: expected one of each per SKU, got {sizes} rows")
    if (codes < 0).any():
        raise DataError(f"batch: expected a label in every row, {int((codes < 0).sum())} are empty")
    wrong = values[(values < 0) | (values > 1)]
    if len(wrong):
        raise DataError(f"{name}: expected probabilities from 0 to 1, got {wrong[0]:g} ({len(wrong)} such rows)")
    return codes.astype(np.int64), found, is_hit, np.where(np.isnan(values), missing, values)


def read_numbers(values: npt.ArrayLike, name: str) -> Floats:
    """Return one column of floats; refuse anything else."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: expected numbers, got something else ({error})") from None
    if numbers.ndim != 1:
        raise DataError(f"{name}: expected one column, got {numbers.ndim} dimensions")
    return numbers


def flags(values: npt.ArrayLike, name: str) -> Ints:
    """Return zeros and ones; refuse anything else."""
    numbers = read_numbers(values, name)
    wrong = numbers[~np.isin(numbers, (0, 1))]
    if len(wrong):
        raise DataError(f"{name}: expected 0 or 1 in every row, got {wrong[0]:g} ({len(wrong)} such rows)")
    return numbers.astype(np.int64)


def between(name: str, value: float, *, zero: bool = False) -> Fraction:
    """Return a share between 0 and 1, as exactly as it is written."""
    if not (0 < value < 1 or (zero and value == 0)):
        raise SettingsError(
            f"{name}: expected a number {'from 0 to below 1' if zero else 'between 0 and 1'}, got {value}"
        )
    return exact(value)


def exact(value: float) -> Fraction:
    """Read a share as it is written: 0.9 is nine tenths, so a tenth of 10 batches is 1, not 0.99."""
    return Fraction(repr(float(value)))
