"""Tuning: a search for better settings of the trees, out of time, that says when it did not help."""

from hitfinder.tuning.run import Tuned, tune, tune_on

__all__ = ["Tuned", "tune", "tune_on"]
