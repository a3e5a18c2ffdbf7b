"""Settings: one TOML file, read into frozen objects. Unknown keys are refused with the list of the known ones."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from hitfinder.errors import SettingsError

__all__ = [
    "AttributionSettings",
    "BudgetSettings",
    "CostRates",
    "CostSettings",
    "DiagnosisSettings",
    "LabelSettings",
    "ModelSettings",
    "PolicySettings",
    "Settings",
    "SignalSettings",
    "StockSettings",
    "TierSettings",
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

    `metric`: a counted column, `click_rate`, `profit` (see `[costs]`), or a rate such as `revenue / impressions`,
    summed over the outcome window. `top_share` of the group named by `within` are hits, or every SKU with at least
    `min_value`.
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


Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, le=1e9)]


class CostRates(_Section):
    """What an order costs, beside its goods and its ads. A rate that nobody gave is unknown, which is not 0.

    Of the revenue: `payment_fee`, `coupons` (coupons and subsidies that the merchant bears). Of the revenue that is not
    refunded: `platform_fee`, `commission` (of influencers). Money per order: `shipping`, `freight_insurance`. Money
    per order that comes back: `return_handling`. `resellable`: share of the goods that come back which can be sold
    again. `goods_share`: cost of goods as a share of the price, where `skus.unit_cost` is not known. `ad_cost`: money
    per 1,000 impressions, where `signals.spend` is not reported.
    """

    platform_fee: Share | None = None
    payment_fee: Share | None = None
    commission: Share | None = None
    coupons: Share | None = None
    shipping: Amount | None = None
    freight_insurance: Amount | None = None
    return_handling: Amount | None = None
    resellable: Share | None = None
    goods_share: Share | None = None
    ad_cost: Amount | None = None


class CostSettings(CostRates):
    """The rates of every SKU; `[costs.category."dress"]` and `[costs.sku."K1"]` say otherwise of some."""

    category: dict[str, CostRates] = Field(default_factory=dict)
    sku: dict[str, CostRates] = Field(default_factory=dict)


class AttributionSettings(_Section):
    """Which channels `ingest` credits with an order of an event log, of those that led its person to that SKU.

    `model`: `none` leaves orders where they are logged; `last`, `first`, `linear` (alike), `position`
    (`position_first` to the first visit, `position_last` to the last, the rest to those between) or `time_decay`
    (half as much for each `half_life` before the last visit). A visit counts where it ended within `window` before the
    order; events of one channel without a pause longer than `visit_gap` are one visit.
    """

    model: Literal["none", "last", "first", "linear", "position", "time_decay"] = "none"
    window: Duration = pd.Timedelta(days=7)
    half_life: Duration = pd.Timedelta(days=2)
    visit_gap: Duration = pd.Timedelta(minutes=30)
    position_first: Annotated[float, Field(gt=0, lt=1)] = 0.4
    position_last: Annotated[float, Field(gt=0, lt=1)] = 0.4

    @model_validator(mode="after")
    def _at_most_all(self) -> AttributionSettings:
        if self.position_first + self.position_last > 1 + 1e-9:
            raise ValueError(
                f"expected position_first and position_last to add up to at most 1, got "
                f"{self.position_first} and {self.position_last}"
            )
        return self


class DiagnosisSettings(_Section):
    """When a step of a SKU's funnel counts as weak, and how sure one has to be.

    `tolerance`: up to how far below its peers a step may be without being called weak. `false_share`: the share of the
    steps called weak that may be none, over all SKUs and steps. `worth_finding` and `power`: a SKU is seen enough where
    a step at this share of its peers' rate would be noticed with this chance. `history`: how far back is looked.
    `order_wait` and `return_wait`: how long orders may follow a cart or click, and refunds an order. `sure`: the chance
    from which a product or a picture is called good or bad.
    """

    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.2
    false_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    worth_finding: Annotated[float, Field(gt=0, lt=1)] = 0.5
    power: Annotated[float, Field(gt=0, lt=1)] = 0.8
    history: Duration = pd.Timedelta(weeks=8)
    order_wait: Duration = pd.Timedelta(days=14)
    return_wait: Duration = pd.Timedelta(days=45)
    sure: Annotated[float, Field(gt=0.5, lt=1)] = 0.8

    @model_validator(mode="after")
    def _apart(self) -> DiagnosisSettings:
        if self.worth_finding >= 1 - self.tolerance:
            raise ValueError(
                f"expected worth_finding below 1 - tolerance ({1 - self.tolerance:g}), got {self.worth_finding:g}"
            )
        return self


class TierSettings(_Section):
    """When a SKU is hot, trending, potential or tail; the first that fits is its tier.

    `hot_top`: the best share by value a day over the last `window`. `trending_growth`: how much more value than its
    batch a SKU gains from one `growth_window` to the next. `potential_probability`: the chance of becoming a hit.
    `margin`: how far past a threshold a SKU has to be before it leaves the tier that it had, as a share of the odds
    (of the ratio, for growth).
    """

    hot_top: Annotated[float, Field(gt=0, lt=1)] = 0.05
    trending_growth: Annotated[float, Field(gt=1)] = 1.5
    potential_probability: Annotated[float, Field(gt=0, lt=1)] = 0.2
    window: Duration = pd.Timedelta(days=28)
    growth_window: Duration = pd.Timedelta(days=7)
    margin: Annotated[float, Field(ge=0, le=2)] = 0.25


class BudgetSettings(_Section):
    """How `hitfinder budget` splits a week's money.

    `weeks`: how much history the curves are learned from. `explore_share`: the share of the total kept for SKUs that
    nothing was spent on so far; each gets as much as brings an average SKU `explore_orders` orders, or more.
    `move_up`, `move_down`: how far a line may move from last week's spend, as a share of it. `floor`, `cap`: the least
    and the most money of any line. `target_roi`: the least value per unit of money, where none is asked for by call.
    `half_at`: the spend at which a further unit brings half as much, as a multiple of a line's typical spend, where
    spend never varied. `draws`: how many ways things may go are looked at for the chance of meeting the target.
    """

    weeks: Annotated[int, Field(ge=2, le=104)] = 12
    explore_share: Annotated[float, Field(ge=0, le=0.5)] = 0.08
    explore_orders: Annotated[float, Field(gt=0, le=100)] = 3.0
    move_up: Annotated[float, Field(ge=0, le=100)] = 0.5
    move_down: Annotated[float, Field(ge=0, le=1)] = 0.5
    floor: Amount = 0.0
    cap: Amount | None = None
    target_roi: Annotated[float, Field(ge=0, le=1e6)] | None = None
    half_at: Annotated[float, Field(gt=0, le=1000)] = 1.0
    draws: Annotated[int, Field(ge=100, le=100_000)] = 2000


class StockSettings(_Section):
    """When `hitfinder stock` calls for more of a SKU.

    `alert_share`: stock below this share of what the outcome window is expected to ask for is low. `lead_time`: how
    long goods take from order to shelf; a reorder has to last for that time too.
    """

    alert_share: Annotated[float, Field(gt=0, le=10)] = 0.20
    lead_time: Duration = pd.Timedelta(days=7)


class Settings(_Section):
    """All settings. Frozen: make a changed copy with `model_copy(update=...)`."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    signals: SignalSettings = SignalSettings()
    label: LabelSettings = LabelSettings()
    model: ModelSettings = ModelSettings()
    trees: TreeSettings = TreeSettings()
    policy: PolicySettings = PolicySettings()
    diagnosis: DiagnosisSettings = DiagnosisSettings()
    tiers: TierSettings = TierSettings()
    costs: CostSettings = CostSettings()
    attribution: AttributionSettings = AttributionSettings()
    budget: BudgetSettings = BudgetSettings()
    stock: StockSettings = StockSettings()

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
            # Below [costs.category] and [costs.sku] stand names of the merchant's.
            known = getattr(section, "model_fields", {})
            section = known[part].annotation if part in known else CostRates
        return f"unknown key {name}; known here: {', '.join(section.model_fields)}"
    message = error["msg"].removeprefix("Value error, ")
    given = error["input"]
    is_percent = isinstance(given, int | float) and 2 <= given <= 100
    if is_percent and error["type"].startswith("less_than") and 1 in (error.get("ctx") or {}).values():
        return f"{name}: expected a share such as {given / 100:.3g}, got {given!r}"
    got = "" if "got" in message else f", got {error['input']!r}"
    return f"{name}: {message}{got}"
