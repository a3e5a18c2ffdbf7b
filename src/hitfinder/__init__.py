"""hitfinder finds the few hits among many long-tail SKUs from the early signals of small test batches."""

from hitfinder.budget.plan import split_budget
from hitfinder.diagnosis import diagnose
from hitfinder.errors import DataError, HitfinderError, ModelError, NotEnoughHistoryError, SettingsError
from hitfinder.ledger import ledger
from hitfinder.models.hit_model import HitModel, open_model
from hitfinder.ranking import rank
from hitfinder.refunds import returns
from hitfinder.registry import load_model
from hitfinder.replays import replay
from hitfinder.settings import Settings, load_settings
from hitfinder.stock import stock
from hitfinder.testplan import plan
from hitfinder.training import fit
from hitfinder.whatif import Change, what_if

__all__ = [
    "Change",
    "DataError",
    "HitModel",
    "HitfinderError",
    "ModelError",
    "NotEnoughHistoryError",
    "Settings",
    "SettingsError",
    "diagnose",
    "fit",
    "ledger",
    "load_model",
    "load_settings",
    "open_model",
    "plan",
    "rank",
    "replay",
    "returns",
    "split_budget",
    "stock",
    "what_if",
]
