"""The steps of each SKU's funnel against its peers: counted, expected, and weak beyond chance or not."""

from hitfinder.funnel.counting import STEPS, Step, Waits, count_steps, measured_steps, order_values
from hitfinder.funnel.peers import Peers, fit_peers, ratios
from hitfinder.funnel.weakness import find_weak, needed, power

__all__ = [
    "STEPS",
    "Peers",
    "Step",
    "Waits",
    "count_steps",
    "find_weak",
    "fit_peers",
    "measured_steps",
    "needed",
    "order_values",
    "power",
    "ratios",
]
