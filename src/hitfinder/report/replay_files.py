"""A replay as files: its table, every result, how promises were kept, and the picture."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import pandas as pd

from hitfinder.errors import DataError, HitfinderError
from hitfinder.promise import count_kept
from hitfinder.report.break_even import draw_replay
from hitfinder.report.content import percent
from hitfinder.report.forms import csv_bytes
from hitfinder.report.whole import replacing
from hitfinder.report.words import check_language

__all__ = ["check_folder", "say_promises", "write_replay"]

WORDS = {
    "en": {
        "none": "Promise about stopping: none could be made in these replays.",
        "kept": "Promise about stopping: kept in {share} of {tests} replayed tests with hits; promised: {promised}.",
    },
    "zh": {
        "none": "停测承诺：在这些回放中均未能作出承诺。",
        "kept": "停测承诺：在 {tests} 次有爆款的回放测试中，{share} 兑现了承诺；承诺的比例为 {promised}。",
    },
}


def check_folder(out: str | Path) -> None:
    """Refuse a folder that can't be written, before a long replay is done for it; nothing is made.

    Raises
    ------
    HitfinderError
        A file stands in the way, or the place belongs to others.
    """
    there = Path(out).absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise HitfinderError(f"{out}: can't be written ({there} is no folder); choose another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise HitfinderError(f"{out}: can't be written ({there} may not be changed); choose another place")


def write_replay(summary: pd.DataFrame, results: pd.DataFrame, promises: pd.DataFrame, out: str | Path) -> list[Path]:
    """Write what a replay found to a folder, each file whole or not at all.

    Parameters
    ----------
    summary, results, promises
        The attributes of a `ReplayReport`.
    out
        The folder; made where there is none. Files of the same names are replaced.

    Returns
    -------
    list of pathlib.Path
        `replay.csv` (the summary), `replay_results.parquet`, `replay_promises.csv` and `replay.png`. The picture is
        left out, and said so with a warning, where the full test found nothing to compare with.

    Raises
    ------
    HitfinderError
        A file can't be written.
    """
    folder = Path(out)
    parquet = io.BytesIO()
    results.to_parquet(parquet, index=False, compression="zstd")
    contents = {
        "replay.csv": csv_bytes(summary),
        "replay_results.parquet": parquet.getvalue(),
        "replay_promises.csv": csv_bytes(promises),
    }
    paths = []
    for name, content in contents.items():
        _write(folder / name, content)
        paths.append(folder / name)
    try:
        paths.append(draw_replay(summary, folder / "replay.png"))
    except DataError as error:
        warnings.warn(f"no picture was drawn: {error}", UserWarning, stacklevel=2)
    return paths


def say_promises(promises: pd.DataFrame, confidence: float, language: str = "en") -> str:
    """Say in one line how often the promise about stopping was kept.

    Raises
    ------
    SettingsError
        The language is not known.

    Examples
    --------
    >>> say_promises(pd.DataFrame({"promised": [True], "batches": [20], "broken": [1]}), 0.9)
    'Promise about stopping: kept in 95% of 20 replayed tests with hits; promised: 90%.'
    """
    check_language(language)
    tests, kept = count_kept(promises)
    if not tests:
        return WORDS[language]["none"]
    return WORDS[language]["kept"].format(share=percent(kept / tests), tests=f"{tests:,}", promised=percent(confidence))


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
