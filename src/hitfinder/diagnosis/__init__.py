"""Diagnosis: each SKU's tier, the step of its funnel that is weak against its peers, and what to change first."""

from hitfinder.diagnosis.advice import PICTURE_WORDS, diagnosis_words
from hitfinder.diagnosis.diagnose import DIAGNOSIS_COLUMNS, diagnose
from hitfinder.diagnosis.findings import Findings, examine

__all__ = ["DIAGNOSIS_COLUMNS", "PICTURE_WORDS", "Findings", "diagnose", "diagnosis_words", "examine"]
