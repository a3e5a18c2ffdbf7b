"""The gate: a challenger held against the champion and the best simple rule, on batches that neither learned from.

What is learned anew every week is promoted only where closed batches that it did not see carry it. Pure: nothing is
tracked, and no alias moves here; see `hitfinder.registry.promotion`.
"""

from hitfinder.gate.judging import gate, gate_admitted
from hitfinder.gate.unseen import MIN_UNSEEN, last_open, moment_before_newest, unseen_batches
from hitfinder.gate.verdict import Verdict

__all__ = ["MIN_UNSEEN", "Verdict", "gate", "gate_admitted", "last_open", "moment_before_newest", "unseen_batches"]
