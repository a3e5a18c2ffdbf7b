"""Checks of a registered version: it loads, gives the same numbers anywhere, keeps to the contract, and is quick."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.errors import UnreadableModelError
from hitfinder.models.hit_model import HitModel
from hitfinder.ranking import RANKED_COLUMNS, rank
from hitfinder.registry.fetching import download
from hitfinder.registry.loading import load_model
from hitfinder.registry.rows import rank_rows, split_rows
from hitfinder.registry.tracking import chosen_uri, import_mlflow, speaking_to
from hitfinder.tables import SIGNALS, SKUS

__all__ = ["LATENCY_SKUS", "SLOWEST", "Check", "check_version", "fetched"]

# Seconds that a list of so many SKUs may take, in the median of three.
SLOWEST = 5.0
LATENCY_SKUS = 200
REPEATS = 3
# A fresh process has to import MLflow first.
LONGEST_RELOAD = 300
NUMBERS = ("hit_probability", "hit_probability_low", "hit_probability_high", "expected_value")
# Runs in a process of its own: MLflow puts the artifact's own code first.
ANSWER = """
import sys
from mlflow.models import Model
from mlflow.pyfunc import load_model
folder, out = sys.argv[1:]
answer = load_model(folder).predict(Model.load(folder).load_input_example(folder))
import hitfinder
assert hitfinder.__file__.startswith(folder), "the artifact's own code was not used"
answer.to_parquet(out)
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: a short name, whether it was passed, and a sentence that says what was found."""

    name: str
    passed: bool
    said: str
    figures: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"   {'ok' if self.passed else 'NO'}  {self.said}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"name": self.name, "passed": self.passed, "said": self.said, "figures": dict(self.figures)}


def check_version(
    name: str,
    number: str,
    *,
    model: HitModel | None = None,
    slowest: float = SLOWEST,
    folder_for_store: str | Path = "mlruns",
) -> tuple[Check, ...]:
    """Check a registered version before anything points to it.

    Parameters
    ----------
    name, number
        Of the version.
    model
        What was registered, where it is at hand: then the version must be that.
    slowest
        Seconds that a list of 200 SKUs may take, in the median of three.
    folder_for_store
        As for `register`.

    Returns
    -------
    tuple of Check
        `digest`: it loads, and is what was registered by its digest. `reload`: a fresh process that runs the
        artifact's own code answers the input example with the same numbers. `signature`: it takes the contract's
        columns and gives those of a list. `latency`: of `rank`, for 200 SKUs made of the example's. Where the first
        fails there are no others.

    Raises
    ------
    ModelError
        MLflow or its store of files can't be reached, or knows no such version.
    """
    uri = chosen_uri(folder_for_store)
    source = f"models:/{name}/{number}"
    with speaking_to(uri) as client:
        version = client.get_model_version(name, number)
    with tempfile.TemporaryDirectory(prefix="hitfinder-") as scratch, ExitStack() as stack:
        try:
            folder = stack.enter_context(fetched(name, number, uri))
            loaded = load_model(folder)
        except UnreadableModelError as error:
            return (Check("digest", False, f"{source} can't be loaded: {error}"),)
        expected = version.tags.get("model_digest") if model is None else model.digest()
        got = loaded.digest()
        if got != expected:
            said = f"{source} holds model {got}, expected {expected or 'one with a digest'}, which was registered"
            return (Check("digest", False, said),)
        described = import_mlflow("mlflow.models").Model.load(str(folder))
        example = described.load_input_example(str(folder))
        return (
            Check("digest", True, f"{source} loads, and is the model {got} that was registered"),
            _reloaded(folder, loaded, example, Path(scratch) / "answer.parquet"),
            _signature(described.signature),
            _latency(loaded, example, slowest),
        )


@contextmanager
def fetched(name: str, number: str, uri: str) -> Iterator[Path]:
    """Copy a version's whole artifact to a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="hitfinder-") as scratch:
        with speaking_to(uri) as client:
            location = client.get_model_version_download_uri(name, number)
            place = download(f"models:/{name}/{number}", location, scratch, uri)
        yield place.resolve()


def _reloaded(folder: Path, model: HitModel, example: pd.DataFrame, out: Path) -> Check:
    command = [sys.executable, "-c", ANSWER, str(folder), str(out)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    try:
        done = subprocess.run(  # noqa: S603 - our own words, and a folder of our own
            command,
            capture_output=True,
            text=True,
            timeout=LONGEST_RELOAD,
            check=False,
            cwd=out.parent,
            env={**environment, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("reload", False, f"a fresh process could not load the artifact ({error})")
    if done.returncode != 0 or not out.is_file():
        why = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return Check("reload", False, f"a fresh process could not load the artifact ({why})")
    answer, here = pd.read_parquet(out), rank_rows(model, example)
    if len(answer) != len(here):
        return Check(
            "reload", False, f"a fresh process gave {len(answer)} SKUs for the {len(here)} of the input example"
        )
    apart = np.abs(answer[[*NUMBERS]].to_numpy(dtype=float) - here[[*NUMBERS]].to_numpy(dtype=float))
    gap = float(apart.max(initial=0.0))
    reordered = answer["sku_id"].tolist() != here["sku_id"].tolist()
    if reordered or not gap <= 1e-9:
        shown = "another order" if reordered else f"numbers that differ by up to {gap:.2g}"
        said = f"a fresh process with the artifact's own code gave {shown} for its input example; register it anew"
        return Check("reload", False, said)
    said = f"a fresh process with the artifact's own code gives the same numbers for {len(here)} SKUs"
    return Check("reload", True, said, {"gap": gap})


def _signature(signature: Any) -> Check:
    takes = signature.inputs.input_names() if signature is not None else []
    gives = signature.outputs.input_names() if signature is not None and signature.outputs is not None else []
    must = signature.inputs.required_input_names() if signature is not None else []
    wanted = dict.fromkeys([*SIGNALS.column_names, *SKUS.column_names])
    lacks = [name for name in wanted if name not in takes] + [name for name in RANKED_COLUMNS if name not in gives]
    more = [name for name in must if name not in SIGNALS.required]
    if lacks or more:
        told = [f"lacks {', '.join(lacks)}"] * bool(lacks) + [f"demands {', '.join(more)}"] * bool(more)
        return Check("signature", False, f"the signature {' and '.join(told)}; register the model with this version")
    return Check("signature", True, f"the signature takes the {len(wanted)} columns of the contract and gives a list's")


def _latency(model: HitModel, example: pd.DataFrame, slowest: float) -> Check:
    signals, skus = split_rows(example)
    copies = -(-LATENCY_SKUS // len(skus))
    many = [
        pd.concat([rows.assign(sku_id=rows["sku_id"].astype(str) + f":{copy}") for copy in range(copies)])
        for rows in (signals, skus)
    ]
    many[1] = many[1].head(LATENCY_SKUS)
    many[0] = many[0][many[0]["sku_id"].isin(many[1]["sku_id"])]
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        rank(model, many[0].reset_index(drop=True), many[1].reset_index(drop=True))
        taken.append(time.perf_counter() - start)
    median = statistics.median(taken)
    said = f"a list of {LATENCY_SKUS} SKUs takes {median:.2f} s, at most {slowest:g} s allowed"
    return Check("latency", median <= slowest, said, {"seconds": median, "allowed": slowest})
