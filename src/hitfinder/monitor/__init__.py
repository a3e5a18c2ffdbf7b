"""Is the model still looking at the world that it was made for? Drift, reports, outcomes and promises, week by week."""

from hitfinder.monitor.checks import SHARES
from hitfinder.monitor.health import Health, monitor

__all__ = ["SHARES", "Health", "monitor"]
