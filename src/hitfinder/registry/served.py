"""The model as MLflow serves it. MLflow runs this file from the artifact; nothing in hitfinder imports it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml  # type: ignore[import-untyped]  # comes with MLflow; its stubs don't
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from hitfinder.errors import HitfinderError
from hitfinder.models.hit_model import open_model
from hitfinder.registry.rows import rank_rows


class ServedModel(PythonModel):
    """Answers with ranked rows to signals rows that have the SKU's columns beside them."""

    def load_context(self, context: Any) -> None:
        """Read the folder that `HitModel.save` wrote."""
        folder = Path(context.artifacts["model"])
        model = open_model(folder)
        name = _registered_name(folder.parent.parent)
        self.model = model if name is None else replace(model, version=name)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002 - MLflow's signature
        """Rank; what can't be understood is MLflow's error of a wrong request, not of a broken server."""
        asked = params or {}
        try:
            return rank_rows(self.model, model_input, asked.get("as_of"), language=asked.get("language") or "en")
        except HitfinderError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


def _registered_name(root: Path) -> str | None:
    """Return `name/version`, which MLflow writes beside a model that it fetches from a registry."""
    try:
        meta = yaml.safe_load((root / "registered_model_meta").read_text(encoding="utf-8"))
        name, version = meta["model_name"], meta["model_version"]
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return None
    return f"{name}/{version}" if name and version else None


set_model(ServedModel())
