"""What the gate found: checks that were passed or not, with their figures, and one sentence that sums them up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from hitfinder.registry.checks import Check

__all__ = ["Verdict"]


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Attributes
    ----------
    challenger, champion
        Their versions; `champion` is None where there was none to compare with.
    as_of
        The moment of knowledge.
    rule
        The best simple rule, chosen before these batches were seen; None where none was.
    batches
        The batches judged on, the newest last.
    checks
        All that was held against the challenger.
    too_little
        There were too few unseen batches to judge by.
    per_batch
        One row per batch: `hits_at_k`, `value_at_k`, `log_loss` and the like of each, as `<who>.<figure>`.
    notes
        What could not be compared, and why.
    """

    challenger: str
    champion: str | None
    as_of: pd.Timestamp
    rule: str | None
    batches: tuple[str, ...]
    checks: tuple[Check, ...]
    too_little: bool
    per_batch: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check that could be made was passed."""
        return all(check.passed for check in self.checks)

    @property
    def reason(self) -> str:
        """One sentence: what spoke against the challenger, else what carries it."""
        against = [check.said for check in self.checks if not check.passed]
        return "; ".join(against or [check.said for check in self.checks])

    def say(self) -> str:
        """Return a line per check, and the notes."""
        return "\n".join([*(str(check) for check in self.checks), *(f"   note: {note}" for note in self.notes)])

    def metrics(self) -> dict[str, float]:
        """Return all figures under flat names."""
        return {f"gate.{check.name}.{name}": value for check in self.checks for name, value in check.figures.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "passed": self.passed,
            "too_little": self.too_little,
            "reason": self.reason,
            "challenger": self.challenger,
            "champion": self.champion,
            "rule": self.rule,
            "as_of": self.as_of.isoformat(),
            "batches": list(self.batches),
            "checks": [check.to_dict() for check in self.checks],
            "notes": list(self.notes),
            "per_batch": self.per_batch.reset_index().to_dict("records"),
        }
