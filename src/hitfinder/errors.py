"""What hitfinder refuses, and how it says so: one line with what was expected, what came, and what to do."""

from __future__ import annotations

__all__ = [
    "DataError",
    "HitfinderError",
    "ModelError",
    "NotEnoughHistoryError",
    "NotRegisteredError",
    "SettingsError",
    "UnreadableModelError",
]


class HitfinderError(Exception):
    """Base of every refusal that a user can mend; the command line prints it as one line, without a traceback."""


class SettingsError(HitfinderError):
    """A settings file that can't be read, or that holds an unknown key or an impossible value."""


class DataError(HitfinderError):
    """A table that can't be understood at all. Single bad rows are set aside as rejects instead."""


class NotEnoughHistoryError(DataError):
    """Too few SKUs with a closed outcome window to learn from."""


class ModelError(HitfinderError):
    """A saved or registered model that is not there, not whole, or not one of ours."""


class NotRegisteredError(ModelError):
    """A name, a version or an alias that the registry does not hold; whoever could not ask it gets a ModelError."""


class UnreadableModelError(ModelError):
    """A model whose files are gone, broken or of another format: to ask again does not help."""
