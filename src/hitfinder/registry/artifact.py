"""The model as MLflow keeps it: a folder of text with its own code, a signature and an example, and no pickle."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from hitfinder.models.hit_model import HitModel
from hitfinder.ranking import RANKED_COLUMNS
from hitfinder.registry.facts import PACKAGE, requirements
from hitfinder.registry.rows import SKU_PREFIX, row_columns
from hitfinder.registry.tracking import import_mlflow
from hitfinder.tables import SIGNALS, SKUS
from hitfinder.warehouse import frame, quoted

__all__ = ["example_rows", "write_artifact"]

EXAMPLE_SKUS = 5
EXAMPLE_ROWS_EACH = 6
NUMBERS = ("hit_probability", "hit_probability_low", "hit_probability_high", "expected_value")


def example_rows(con: Any) -> pd.DataFrame:
    """Take a few rows of the newest SKUs with signals from the admitted tables, in values that JSON can hold."""
    names = [row[0] for row in con.execute("describe skus").fetchall()]
    beside = "".join(
        f", skus.{quoted(name)} as {quoted(row)}"
        for name, row in zip(names, _beside(names), strict=True)
        if name != "sku_id"
    )
    rows = frame(
        con,
        f"""
        with newest as (
            select sku_id, min(period_start) as first_period from signals semi join skus using (sku_id)
            group by sku_id order by first_period desc, sku_id limit {EXAMPLE_SKUS}
        ),
        placed as (
            select signals.*, row_number() over (
                partition by sku_id order by period_start, channel, creative_id, known_at
            ) as place
            from signals semi join newest using (sku_id)
        )
        select placed.* exclude (place){beside}
        from placed inner join skus on placed.sku_id = skus.sku_id
        where place <= {EXAMPLE_ROWS_EACH}
        order by placed.sku_id, place
        """,
    )
    for name in rows.columns:
        if pd.api.types.is_datetime64_any_dtype(rows[name]):
            rows[name] = rows[name].dt.strftime("%Y-%m-%dT%H:%M:%S")
        rows[name] = rows[name].astype(object).where(rows[name].notna(), None)
    return rows


def write_artifact(
    folder: Path, model: HitModel, example: pd.DataFrame, sku_columns: list[str], place: dict[str, Any]
) -> None:
    """Write the whole MLflow model to a new folder.

    Parameters
    ----------
    folder
        A folder that is not there yet.
    example
        From `example_rows`.
    sku_columns
        The columns of the training SKUs, the merchant's own included.
    place
        What MLflow's own description of the model holds: `model_id`, `run_id`, `artifact_path`.
    """
    models = import_mlflow("mlflow.models")
    pyfunc = import_mlflow("mlflow.pyfunc")
    with tempfile.TemporaryDirectory(prefix="hitfinder-") as scratch:
        saved = model.save(Path(scratch) / "model")
        # A copy, since MLflow writes down the path: it need not tell where somebody keeps their Python.
        entry = shutil.copy(PACKAGE / "registry" / "served.py", scratch)
        pyfunc.save_model(
            path=str(folder),
            python_model=str(entry),
            # The source, its SQL included: a model is served by the code that it was fitted with.
            code_paths=[str(PACKAGE)],
            artifacts={"model": str(saved)},
            signature=_signature(sku_columns),
            input_example=(example, {"language": "en"}),
            pip_requirements=requirements(),
            metadata={"expects": _expected(sku_columns), "model_digest": model.digest()},
            mlflow_model=models.Model(**place, model_uuid=place["model_id"]),
        )
    for compiled in folder.rglob("__pycache__"):
        shutil.rmtree(compiled)


def _signature(sku_columns: list[str]) -> Any:
    """Any value passes MLflow's check, since admission's is the one that counts, row by row.

    MLflow's own types would refuse what is allowed here: whole numbers as `double`, NULL as `long`, a text column that
    is NULL throughout, and a time with a zone; and one unreadable cell would refuse the whole request.
    """
    schema = import_mlflow("mlflow.types.schema")
    models = import_mlflow("mlflow.models")
    inputs = [schema.ColSpec(schema.AnyType(), name, must) for name, must in row_columns(sku_columns).items()]
    kinds = dict.fromkeys(NUMBERS, "double") | {"rank": "long"}
    outputs = [
        schema.ColSpec(kinds.get(name, "string"), name, required=not name.startswith("reason_"))
        for name in RANKED_COLUMNS
    ]
    params = [schema.ParamSpec("as_of", "string", None), schema.ParamSpec("language", "string", "en")]
    return models.ModelSignature(
        inputs=schema.Schema(inputs), outputs=schema.Schema(outputs), params=schema.ParamSchema(params)
    )


def _expected(sku_columns: list[str]) -> dict[str, str]:
    """Say in words what each column holds, since the signature's types do not."""
    known = {column.name: column.expected for table in (SIGNALS, SKUS) for column in table.columns}
    return {name: known.get(name, "an attribute of the SKU") for name in row_columns(sku_columns)}


def _beside(names: list[str]) -> list[str]:
    """Name the columns of SKUs as rows do."""
    rows = row_columns(names)
    return [f"{SKU_PREFIX}{name}" if f"{SKU_PREFIX}{name}" in rows else name for name in names]
