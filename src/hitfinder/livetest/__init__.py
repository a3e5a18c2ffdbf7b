"""Live tests: each round's plan is written down before it can be bought, so that no round is ever bought twice."""

from hitfinder.livetest.planning import PlannedRound, plan_round
from hitfinder.livetest.record import open_record
from hitfinder.livetest.rounds import Round

__all__ = ["PlannedRound", "Round", "open_record", "plan_round"]
