"""Settings: one TOML file, read into frozen objects. Unknown keys are refused with the list of the known ones."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from hitfinder.errors import SettingsError

__all__ = [
    "LabelSettings",
    "ModelSettings",
    "PolicySettings",
    "Settings",
    "SignalSettings",
    "TreeSettings",
    "load_settings",
    "parse_duration",
    "parse_settings",
]

UNITS = {"m": "min", "h": "h", "d": "D", "w": "W"}


def _duration(text: object) -> pd.Timedelta:
    if isinstance(text, pd.Timedelta):
        return text
    found = re.fullmatch(r"\s*(\d{1,6})\s*([mhdw])\s*", text) if isinstance(text, str) else None
    if not found or int(found[1]) == 0:
        raise ValueError(f"expected a duration such as 10h, 7d or 4w, got {text!r}")
    if found[2] == "w":
        return pd.Timedelta(days=7 * int(found[1]))
    return pd.Timedelta(int(found[1]), unit=UNITS[found[2]])  # type: ignore[arg-type]  # stubs list no computed units


def _duration_text(length: pd.Timedelta) -> str:
    minutes = int(length / pd.Timedelta(minutes=1))
    for unit, size in (("d", 1440), ("h", 60)):
        if minutes % size == 0:
            return f"{minutes // size}{unit}"
    return f"{minutes}m"


Duration = Annotated[pd.Timedelta, BeforeValidator(_duration), PlainSerializer(_duration_text)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)


class SignalSettings(_Section):
    """`period`: how long one row's period is; a row is usable once `known_at <= as_of`."""

    period: Duration = pd.Timedelta(days=1)


class LabelSettings(_Section):
    """What a hit is.

    `metric`: a counted column, `click_rate`, or a rate such as `revenue / impressions`, summed over the outcome
    window. `top_share` of the group named by `within` are hits, or every SKU with at least `min_value`.
    """

    test_window: Duration = pd.Timedelta(days=7)
    outcome_window: Duration = pd.Timedelta(days=28)
    metric: str = "revenue"
    top_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    min_value: float | None = None
    within: str = "batch_id"

    @model_validator(mode="after")
    def _one_rule(self) -> LabelSettings:
        if self.top_share is not None and self.min_value is not None:
            raise ValueError("expected either top_share or min_value, got both; leave one out")
        if self.top_share is None and self.min_value is None:
            object.__setattr__(self, "top_share", 0.05)
        return self


class ModelSettings(_Section):
    """How the model is fitted.

    `ages`: at how many moments of its test window each SKU is shown to the model. `seeds`: how many boosted models
    are averaged. `folds`: forward folds for calibration, for the guard and for the out-of-time report. `threads`:
    0 means as many as the machine has; the answer does not depend on it.
    """

    ages: Annotated[int, Field(ge=1, le=50)] = 7
    seeds: Annotated[int, Field(ge=1, le=50)] = 5
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    threads: Annotated[int, Field(ge=0, le=256)] = 0


class TreeSettings(_Section):
    """The boosted corrections to the prior; `hitfinder train --trials` looks for better ones than these.

    Small trees, few rounds, strong shrinkage: the trees correct a prior, they do not replace it. `lambda_l2`,
    `feature_fraction`, `bagging_fraction`, `learning_rate` and `num_leaves` are LightGBM's own; `min_skus_in_leaf` is
    its `min_data_in_leaf`, in SKUs rather than rows.
    """

    rounds: Annotated[int, Field(ge=1, le=5000)] = 80
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    num_leaves: Annotated[int, Field(ge=2, le=1024)] = 5
    lambda_l2: Annotated[float, Field(ge=0, le=1e6)] = 5.0
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    bagging_fraction: Annotated[float, Field(gt=0, le=1)] = 0.7
    min_skus_in_leaf: Annotated[int, Field(ge=1, le=100_000)] = 8


class PolicySettings(_Section):
    """What is promised about stopping and scaling.

    `max_hits_lost`: the share of a batch's hits that `stop` may lose. `confidence`: the share of batches in which it
    loses no more than that. `max_false_scaled`: the share of the SKUs told to `scale` that may turn out to be no hits.

    `explore_share`: the share of the SKUs told to stop that `hitfinder decide` keeps on trial all the same, drawn at
    random, so that the next model can learn what stopped SKUs would have done. `max_weight`: the most that one of them
    may count for in `fit`.
    """

    max_hits_lost: Annotated[float, Field(ge=0, lt=1)] = 0.10
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.90
    max_false_scaled: Annotated[float, Field(gt=0, lt=1)] = 0.50
    explore_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_weight: Annotated[float, Field(ge=1)] = 20.0


class Settings(_Section):
    """All settings. Frozen: make a changed copy with `model_copy(update=...)`."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    signals: SignalSettings = SignalSettings()
    label: LabelSettings = LabelSettings()
    model: ModelSettings = ModelSettings()
    trees: TreeSettings = TreeSettings()
    policy: PolicySettings = PolicySettings()

    def digest(self) -> str:
        """Return a short hash that changes with any setting.

        >>> Settings().digest() == Settings(seed=1).digest()
        False
        """
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: what the TOML file would hold with every default written out."""
        return self.model_dump(exclude_none=True)


def parse_settings(values: dict[str, Any], source: str = "settings") -> Settings:
    """Turn nested plain values (what TOML holds) into `Settings`.

    Raises
    ------
    SettingsError
        For an unknown key or a value outside its range; the message names the key and what was expected.

    Examples
    --------
    >>> parse_settings({"label": {"test_window": "14d"}}).label.test_window
    Timedelta('14 days 00:00:00')
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{source}: " + "; ".join(_say(e) for e in error.errors())) from None


def parse_duration(text: str) -> pd.Timedelta:
    """Read a duration such as `10h`, `7d` or `4w`.

    Raises
    ------
    SettingsError
        Anything else.

    Examples
    --------
    >>> parse_duration("4w")
    Timedelta('28 days 00:00:00')
    """
    try:
        return _duration(text)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def load_settings(path: str | Path) -> Settings:
    """Read a TOML settings file.

    Parameters
    ----------
    path
        The file. What it leaves out takes the default.

    Raises
    ------
    SettingsError
        The file is missing, is no TOML, holds an unknown key, or a value outside its range.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        return parse_settings(tomllib.loads(text), str(path))
    except OSError as error:
        raise SettingsError(f"{path}: can't be read ({error.strerror}); give the path of a TOML file") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: expected UTF-8 text; save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: no valid TOML: {error}") from None


def _say(error: Any) -> str:
    """One pydantic finding as a phrase."""
    place = [str(part) for part in error["loc"] if part != "function-after[_one_rule(), LabelSettings]"]
    name = ".".join(place)
    if error["type"] == "extra_forbidden":
        section: Any = Settings
        for part in place[:-1]:
            section = section.model_fields[part].annotation
        return f"unknown key {name}; known here: {', '.join(section.model_fields)}"
    message = error["msg"].removeprefix("Value error, ")
    got = "" if "got" in message else f", got {error['input']!r}"
    return f"{name}: {message}{got}"
