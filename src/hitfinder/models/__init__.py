"""Models: the prior, the boosted corrections, calibration, the simple rules that they must beat."""

from hitfinder.models.estimator import HitClassifier

__all__ = ["HitClassifier"]
