"""hitfinder finds the few hits among many long-tail SKUs from the early signals of small test batches."""

from hitfinder.errors import DataError, HitfinderError, ModelError, NotEnoughHistoryError, SettingsError
from hitfinder.models.hit_model import HitModel, open_model
from hitfinder.ranking import rank
from hitfinder.registry import load_model
from hitfinder.replays import replay
from hitfinder.settings import Settings, load_settings
from hitfinder.testplan import plan
from hitfinder.training import fit

__all__ = [
    "DataError",
    "HitModel",
    "HitfinderError",
    "ModelError",
    "NotEnoughHistoryError",
    "Settings",
    "SettingsError",
    "fit",
    "load_model",
    "load_settings",
    "open_model",
    "plan",
    "rank",
    "replay",
]
