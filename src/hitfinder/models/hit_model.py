"""A fitted model as a value: everything that `rank` and `plan` need, saved as text without pickle."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from lightgbm.basic import LightGBMError

from hitfinder.costs import earning, unit_economics
from hitfinder.errors import ModelError
from hitfinder.models.belief import Belief
from hitfinder.models.content import ContentModel, vectorise
from hitfinder.models.demand import Demand
from hitfinder.models.design import LOG_EARNING, Design, merits
from hitfinder.models.estimator import HitClassifier
from hitfinder.models.kin import Kin
from hitfinder.models.linear import LinearPrior
from hitfinder.models.rules import LOGISTIC, plain_counts, rule_scores
from hitfinder.models.value import ValueModel
from hitfinder.promise import ScalePromise, StopPromise
from hitfinder.settings import Settings, parse_settings

__all__ = ["FORMAT", "HitModel", "check_model", "open_model"]

Array = npt.NDArray[np.float64]

FORMAT = 6
# Where less than this is left of a unit of revenue, how much less no longer matters.
LEAST_EARNING = 0.02


@dataclass(frozen=True)
class HitModel:
    """A fitted model.

    Attributes
    ----------
    settings
        What it was fitted with; `rank` and `plan` use the same.
    rates
        The pooling: mean and strengths of each rate.
    design
        The columns it reads.
    content
        What it learned from titles and attributes, where exposures are counted; None where they told nothing.
    kin
        What SKUs of like titles and attributes sold, where exposures are days; None where they told nothing.
    categories, numbers
        The merchant's own columns that it reads.
    estimator
        The calibrated score.
    winner
        What ranks: `boosted`, `ranker`, `prior` or the name of a rule.
    logistic
        The logistic rule, where that won.
    logistic_counts
        The counts that it reads.
    thresholds
        Margins: `stop` (below it, on a list), `plan_stop` (below it, in a running test), `scale` (from it on).
    promises
        What is promised about each of them.
    worth
        What a SKU will be worth, in units of the metric; None in a model that is not finished.
    belief
        What a test plan spends by; None in a model that is not finished.
    demand
        How many units a SKU will sell; None where history counted too few.
    report
        How it did out of time, beside every rule, in plain values.
    version
        A name for lists; the registry puts its own.
    """

    settings: Settings
    rates: pd.DataFrame
    design: Design
    content: ContentModel | None
    kin: Kin | None
    categories: tuple[str, ...]
    numbers: tuple[str, ...]
    estimator: HitClassifier
    winner: str
    logistic: LinearPrior | None
    logistic_counts: tuple[str, ...]
    thresholds: dict[str, float]
    promises: dict[str, StopPromise | ScalePromise]
    worth: ValueModel | None = None
    belief: Belief | None = None
    demand: Demand | None = None
    report: dict[str, Any] = field(default_factory=dict)
    version: str = "unregistered"

    def matrix(self, table: pd.DataFrame) -> Array:
        """Return what the estimator reads for rows of the features table with `content` filled in."""
        if self._reads_design:
            return self.design.matrix(table)
        if self.winner == LOGISTIC:
            if self.logistic is None:
                raise ModelError("the model's logistic rule is missing; fit it again")
            return self.logistic.score(plain_counts(table, list(self.logistic_counts)))[:, None]
        scores = rule_scores(table).get(self.winner)
        # Nothing of what the rule counts has been seen yet: all are alike to it.
        return (np.zeros(len(table)) if scores is None else scores)[:, None]

    def describe(self, table: pd.DataFrame, skus: pd.DataFrame, vectors: Any = None) -> pd.DataFrame:
        """Return `table` with the columns that come from the SKUs themselves: content, numbers, log of impressions.

        Parameters
        ----------
        table
            Features, see `features.features`.
        skus
            One row per SKU, see `tables.SKUS`.
        vectors
            What `vectorise` makes of `skus`, where it is at hand already.
        """
        beside = skus.set_index("sku_id").reindex(columns=["title", *self.categories, *self.numbers])
        place = beside.index.get_indexer(pd.Index(table["sku_id"]))
        impressions = table["impressions"].to_numpy(dtype=float, na_value=np.nan)
        columns: dict[str, Any] = {"log_impressions": np.nan_to_num(np.log1p(impressions))}
        if self.kin is not None:
            columns["content"] = self.kin.score(table, beside, list(self.categories))
        elif self.content is None:
            columns["content"] = np.zeros(len(table))
        else:
            seen = vectorise(beside, list(self.categories)) if vectors is None else vectors
            columns["content"] = self.content.score(seen)[place] * self.unknown(table)
        if LOG_EARNING in self.design.columns:
            left = earning(unit_economics(skus, self.settings.costs), 0.0)
            columns[LOG_EARNING] = np.log(np.maximum(left, LEAST_EARNING))[place]
        for name in self.numbers:
            values = pd.to_numeric(beside[name], errors="coerce").replace([np.inf, -np.inf], np.nan)
            columns[f"sku.{name}"] = values.to_numpy(dtype=float)[place]
        without = table.drop(columns=[c for c in columns if c in table])
        return pd.concat([without, pd.DataFrame(columns, index=table.index)], axis=1)

    @property
    def _reads_design(self) -> bool:
        """Whether the estimator is a learned one, not a rule."""
        return self.winner in ("boosted", "ranker", "prior")

    def margin(self, table: pd.DataFrame) -> Array:
        """Return the margin of each row of a described table, higher is better."""
        return self.estimator.margin(self.matrix(table))

    def margin_shown(self, table: pd.DataFrame) -> Array:
        """Return margins by what was shown alone, titles and attributes aside: what a running test stops by."""
        return self.estimator.margin(self._without_content(self.matrix(table)))

    def margin_and_stops(self, table: pd.DataFrame, bought: Any) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Return `margin` and `stops` at once, which costs half as much where titles say nothing."""
        X = self.matrix(table)
        margin, shown = self.estimator.margins(X, self._without_content(X))
        return margin, self._stops(shown, bought)

    def stops(self, table: pd.DataFrame, bought: Any) -> npt.NDArray[np.bool_]:
        """Tell which rows a running test stops: those that had exposures and showed too little."""
        return self._stops(self.margin_shown(table), bought)

    def _stops(self, shown: Array, bought: Any) -> npt.NDArray[np.bool_]:
        return np.asarray((shown < self.thresholds["plan_stop"]) & (bought > 0))

    def _without_content(self, X: Array) -> Array:
        """Return the matrix as if titles and attributes said nothing."""
        X = X.copy()
        if self._reads_design:  # a rule reads no title
            X[:, self.design.columns.index("content")] = 0.0
        return X

    def unknown(self, table: pd.DataFrame) -> Array:
        """Return the share of what was not known of each row at its launch that is not known yet, in (0, 1].

        What a title says of a SKU counts for that share: the rest its own numbers and its siblings' have told. (With a
        normal prior and normal evidence, a prior mean is worth its posterior variance over its prior variance.)
        """
        left = [
            np.nan_to_num(table[f"{rate}.unknown"].to_numpy(dtype=float, na_value=np.nan), nan=1.0)
            for rate in merits(list(self.rates["rate"]))
        ]
        return np.clip(np.mean(left, axis=0), 0.0, 1.0) if left else np.ones(len(table))

    def expected_value(self, margin: Array, table: pd.DataFrame) -> Array:
        """Return what rows of a described table are expected to be worth, in units of the metric, shape (rows,)."""
        return self._worth().expected(margin, table)

    def value_interval(self, expected: Array) -> tuple[Array, Array]:
        """Return between what the outcomes of most SKUs of such an expected value lay (see `value.COVERAGE`)."""
        return self._worth().interval(expected)

    def _worth(self) -> ValueModel:
        if self.worth is None:
            raise ModelError("the model does not know what SKUs are worth; fit it again with this version")
        return self.worth

    def save(self, folder: str | Path) -> Path:
        """Write the model to a new folder: JSON and LightGBM's own text, no pickle.

        Raises
        ------
        ModelError
            The folder exists and holds something else than a model.
        """
        target = Path(folder)
        if target.exists() and not (target / "model.json").is_file() and any(target.iterdir()):
            raise ModelError(f"{target}: expected a new folder or one that holds a model; choose another")
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        values = self._to_dict()
        texts = values["estimator"].pop("boosted")
        for place, text in enumerate(texts or []):
            (fresh / f"booster_{place}.txt").write_text(text, encoding="utf-8")
        values.update(
            format=FORMAT, version=self.version, report=self.report, boosters=None if texts is None else len(texts)
        )
        (fresh / "model.json").write_text(_to_json(values), encoding="utf-8")
        if target.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            target.replace(retired / "old")
            fresh.replace(target)
            shutil.rmtree(retired)
        else:
            fresh.replace(target)
        target.chmod(0o755)
        return target

    def digest(self) -> str:
        """Return a short hash of everything that decides the model's answers, and of nothing else."""
        values = self._to_dict()
        values["settings"]["model"].pop("threads")
        values["estimator"]["parameters"].pop("threads")
        return hashlib.sha256(_to_json(values).encode()).hexdigest()[:12]

    def _to_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings.to_dict(),
            "rates": self.rates.to_dict("list"),
            "design": self.design.to_dict(),
            "content": None if self.content is None else self.content.to_dict(),
            "kin": None if self.kin is None else self.kin.to_dict(),
            "categories": list(self.categories),
            "numbers": list(self.numbers),
            "estimator": self.estimator.to_dict(),
            "winner": self.winner,
            "logistic": None if self.logistic is None else self.logistic.to_dict(),
            "logistic_counts": list(self.logistic_counts),
            "thresholds": self.thresholds,
            "promises": {name: promise.to_dict() for name, promise in self.promises.items()},
            "worth": None if self.worth is None else self.worth.to_dict(),
            "belief": None if self.belief is None else self.belief.to_dict(),
            "demand": None if self.demand is None else self.demand.to_dict(),
        }


def check_model(model: object) -> None:
    """Refuse what is no model, such as the name of one.

    Raises
    ------
    ModelError
        So it is.
    """
    if not isinstance(model, HitModel):
        name = repr(model) if isinstance(model, str | Path) else "..."
        raise ModelError(f"expected a model, got a {type(model).__name__}; load it with hf.load_model({name})")


def open_model(folder: str | Path) -> HitModel:
    """Read a model that `HitModel.save` wrote.

    Raises
    ------
    ModelError
        The folder holds no model, a broken one, or one of another format.
    """
    place = Path(folder)
    try:
        values = json.loads((place / "model.json").read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ModelError(
                f"{place}: expected a model of format {FORMAT}, got {values['format']}; fit it again with this version"
            )
        count = values["boosters"]
        texts = None if count is None else [(place / f"booster_{i}.txt").read_text("utf-8") for i in range(count)]
        content = values["content"]
        logistic = values["logistic"]
        return HitModel(
            settings=parse_settings(values["settings"], str(place)),
            rates=pd.DataFrame(values["rates"]),
            design=Design.from_dict(values["design"]),
            content=None if content is None else ContentModel.from_dict(content),
            kin=None if values["kin"] is None else Kin.from_dict(values["kin"]),
            categories=tuple(values["categories"]),
            numbers=tuple(values["numbers"]),
            estimator=HitClassifier.from_dict({**values["estimator"], "boosted": texts}),
            winner=values["winner"],
            logistic=None if logistic is None else LinearPrior.from_dict(logistic),
            logistic_counts=tuple(values["logistic_counts"]),
            thresholds=values["thresholds"],
            promises={
                name: (ScalePromise if name == "scale" else StopPromise).from_dict(promise)
                for name, promise in values["promises"].items()
            },
            worth=None if values["worth"] is None else ValueModel.from_dict(values["worth"]),
            belief=None if values["belief"] is None else Belief.from_dict(values["belief"]),
            demand=None if values.get("demand") is None else Demand.from_dict(values["demand"]),
            report=values["report"],
            version=values["version"],
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        missing = Path(error.filename).name if error.filename else "a file"
        raise ModelError(
            f"{place}: no whole model there ({missing} is missing); give a folder that save() wrote"
        ) from None
    except OSError as error:
        raise ModelError(f"{place}: can't be read ({error.strerror}); check who may read it") from None
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, LightGBMError) as error:
        raise ModelError(f"{place}: the model there can't be read ({error}); save it again") from None


def _to_json(values: Any) -> str:
    # Infinities (the scale of a constant column) are written as JSON's usual extension, and read back as they were.
    return json.dumps(values, ensure_ascii=False, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    raise TypeError(f"can't be written as JSON: {type(value).__name__}")
