"""The registry: the only place that knows MLflow, and it imports it when a function is called, not before."""

from hitfinder.registry.loading import load_model
from hitfinder.registry.recording import Registered, register
from hitfinder.registry.replayed import RecordedReplay, record_replay
from hitfinder.registry.rows import rank_rows, split_rows
from hitfinder.registry.tracking import tracking_uri

__all__ = [
    "RecordedReplay",
    "Registered",
    "load_model",
    "rank_rows",
    "record_replay",
    "register",
    "split_rows",
    "tracking_uri",
]
