"""A list is decided once: its decisions are in the record, or the whole of them is written in one go."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from hitfinder.deciding import DRAWN, PERSON, STAYS, STILL, check_list, decide, lists_of, moment_of, row_of, table_of
from hitfinder.errors import DataError
from hitfinder.livetest.record import open_record
from hitfinder.livetest.rounds import SCHEMA
from hitfinder.overrides import read_overrides
from hitfinder.report.words import check_language, load_words
from hitfinder.settings import Settings
from hitfinder.warehouse import TableLike

__all__ = ["DecidedList", "decide_once"]

WORDS = {
    "en": {
        DRAWN: "Kept on trial to learn: the list says stop, a random draw keeps it on.",
        STILL: "Still on trial to learn: an earlier random draw keeps it on, the list says stop.",
        STAYS: "Stopped before, and only a person calls it back; the list says {model}.",
        PERSON: "{who} decided: {action}; the list says {model}. {note}",
        "counts": "{batch} as of {as_of}: {scale} to scale, {test} to keep testing ({drawn} of them by a random draw, "
        "to learn), {stop} to stop; {people} decided by people",
        "before": "decided before, on {moment} UTC; nothing was decided anew",
    },
    "zh": {
        DRAWN: "留测学习：榜单建议停测，随机抽中后继续测款。",
        STILL: "继续留测学习：榜单建议停测，此前已被随机抽中。",
        STAYS: "此前已停测，仅可由人工恢复；榜单建议：{model}。",
        PERSON: "{who} 决定：{action}；榜单建议：{model}。{note}",
        "counts": "{batch}，数据截至 {as_of}：放量 {scale} 个，继续测款 {test} 个（其中 {drawn} 个为随机留测学习），"
        "停测 {stop} 个；人工决定 {people} 个",
        "before": "此前已于 {moment} UTC 决策，本次没有重新决策",
    },
}  # fmt: skip


@dataclass(frozen=True)
class DecidedList:
    """A list whose decisions stand in the record.

    Attributes
    ----------
    ranked
        The list with the action that was decided; where that is not the model's, `reason_1` says why.
    decisions
        What holds now: the last decision about each SKU of the list, in the list's order, with the parts of its reason
        (see `lists_of`).
    written
        How many rows this call wrote; 0 where all was decided before.
    """

    ranked: pd.DataFrame
    decisions: pd.DataFrame
    written: int

    def say(self, language: str = "en") -> str:
        """Say in a line for each batch what was decided."""
        check_language(language)
        words, lines = WORDS[language], []
        for (batch, as_of), rows in self.decisions.groupby(["list", "as_of"]):
            actions = rows["action"].value_counts()
            lines.append(
                words["counts"].format(
                    batch=batch,
                    as_of=f"{as_of:%Y-%m-%d %H:%M}",
                    drawn=int(rows["because"].isin([DRAWN, STILL]).sum()),
                    people=int((rows["because"] == PERSON).sum()),
                    **{action: int(actions.get(action, 0)) for action in ("scale", "test", "stop")},
                )
            )
        if len(self.decisions) and not self.written:
            lines.append(words["before"].format(moment=f"{self.decisions['decided_at'].max():%Y-%m-%d %H:%M}"))
        return "\n".join(lines)


def decide_once(
    ranked: pd.DataFrame,
    settings: Settings,
    *,
    decisions: str | Path,
    overrides: TableLike | None = None,
    decided_at: Any = None,
    language: str = "en",
) -> DecidedList:
    """Decide a list and write that down, once: a list is its batch and its moment of knowledge.

    The same call again writes nothing and returns what was decided. What people decide may come later: overrides of a
    list that was decided already are added where they differ from what holds.

    Parameters
    ----------
    ranked, settings, overrides
        As for `decide`.
    decisions
        The record, a ``.parquet`` or ``.csv`` file with the contract's columns; made where there is none. Rows of
        others stay.
    decided_at
        The moment of the decision, UTC; default: now; at most a day from now. A later moment is taken where the record
        has one already.
    language
        `en` or `zh`, for the words on the list.

    Returns
    -------
    DecidedList

    Raises
    ------
    DataError
        As `decide`; or a list of the same batch as of a later moment is decided already.
    HitfinderError
        The record can't be written, or another call holds it for a minute.
    """
    check_language(language)
    check_list(ranked)
    now = pd.Timestamp.now(tz="UTC").tz_localize(None) if decided_at is None else moment_of(decided_at)
    with open_record(decisions) as record:
        earlier = record.table.to_pandas()
        held = lists_of(earlier)
        mine = _of_this_list(held, ranked)
        last = mine.drop_duplicates("sku_id", keep="last")
        decided: dict[str, dict[Any, Any]] = {row["sku_id"]: row for row in last.to_dict("records")}
        moment = _after(now.floor("us"), earlier, held, ranked)
        told = read_overrides(overrides, set(ranked["sku_id"])) if overrides is not None else {}
        later = {k: v for k, v in told.items() if k in decided and not _holds(v, decided[k])}
        fresh = ranked[~ranked["sku_id"].isin(list(decided))]
        rows = SCHEMA.empty_table()
        if later or len(fresh):
            _refuse_older(held, ranked, str(record.path))
            first = {k: v for k, v in told.items() if k not in decided}
            new = [
                decide(fresh, earlier, settings, decided_at=moment, overrides=_as_table(first)),
                _amended(ranked, decided, later, moment),
            ]
            rows = pa.concat_tables(pa.Table.from_pandas(part, schema=SCHEMA, preserve_index=False) for part in new)
            record.append(rows)
            held = lists_of(pa.concat_tables([record.table, rows]).to_pandas())
    mine = _of_this_list(held, ranked).drop_duplicates("sku_id", keep="last")
    holds = mine.set_index("sku_id").loc[ranked["sku_id"]].reset_index()
    versions = set(last["model_version"].dropna()) - set(ranked["model_version"].dropna())
    if versions:
        warnings.warn(
            f"this list was decided with {', '.join(sorted(versions))}, and stays so", UserWarning, stacklevel=2
        )
    return DecidedList(_with_actions(ranked, holds, language), holds, rows.num_rows)


def _of_this_list(held: pd.DataFrame, ranked: pd.DataFrame) -> pd.DataFrame:
    """Keep the decisions of the same lists: of the same batch, as of the same moment."""
    keys = ranked[["batch_id", "as_of"]].drop_duplicates().rename(columns={"batch_id": "list"})
    keys = keys.astype({"as_of": "datetime64[us]"})
    return held.merge(keys, on=["list", "as_of"])


def _refuse_older(held: pd.DataFrame, ranked: pd.DataFrame, path: str) -> None:
    both = held.merge(ranked[["batch_id", "as_of"]].drop_duplicates(), left_on="list", right_on="batch_id")
    later = both[both["as_of_x"] > both["as_of_y"]]
    if len(later):
        row = later.sort_values("as_of_x").iloc[-1]
        raise DataError(
            f"{row['list']} as of {row['as_of_y']}: {path} holds its list as of {row['as_of_x']} already; what came "
            "later is not decided anew"
        )


def _after(now: pd.Timestamp, earlier: pd.DataFrame, held: pd.DataFrame, ranked: pd.DataFrame) -> pd.Timestamp:
    """Return now, or just after the latest decision of these batches: a moment decides a SKU once."""
    latest = held.loc[held["list"].isin(ranked["batch_id"]), "decided_at"].max()
    moment = now if pd.isna(latest) else max(now, latest + pd.Timedelta(microseconds=1))
    taken = set(earlier.loc[earlier["sku_id"].isin(ranked["sku_id"]), "decided_at"])
    while moment in taken:
        moment += pd.Timedelta(microseconds=1)
    return moment


def _holds(told: dict[str, Any], decision: dict[Any, Any]) -> bool:
    return bool(decision["because"] == PERSON) and all(
        str(decision[name]) == told[name] for name in ("action", "decided_by", "note")
    )


def _amended(
    ranked: pd.DataFrame, decided: dict[str, dict[Any, Any]], told: dict[str, dict[str, Any]], moment: pd.Timestamp
) -> pd.DataFrame:
    """Return rows for what people decided about SKUs whose list was decided already; the model's part stays."""
    rows = []
    for row in ranked[ranked["sku_id"].isin(list(told))].to_dict("records"):
        first = decided[row["sku_id"]]
        row = {**row, "action": first["model_action"], "model_version": first["model_version"]}
        row |= {name: first[name] for name in ("hit_probability", "expected_value")}
        rows.append(row_of(row, moment, because=PERSON, **told[row["sku_id"]]))
    return table_of(rows)


def _as_table(told: dict[str, dict[str, Any]]) -> pd.DataFrame | None:
    rows = [{"sku_id": k, **v, "reason": v["note"]} for k, v in told.items()]
    return pd.DataFrame(rows).drop(columns="note") if rows else None


def _with_actions(ranked: pd.DataFrame, holds: pd.DataFrame, language: str) -> pd.DataFrame:
    """Return the list with the decided actions; where one is not the model's, the first reason says why."""
    words, names = WORDS[language], load_words(language)
    said = []
    for row in holds.to_dict("records"):
        differs = row["because"] in (DRAWN, STILL, PERSON) or (
            row["because"] == STAYS and row["model_action"] != "stop"
        )
        text = words[row["because"]] if differs else ""
        said.append(
            text.format(
                who=row["decided_by"],
                action=names[f"action_{row['action']}"],
                model=names[f"action_{row['model_action']}"],
                note=row["note"],
            ).strip()
        )
    new = np.array([bool(text) for text in said])
    out = ranked.assign(action=holds["action"].to_numpy())
    for name, source in (("reason_3", ranked["reason_2"]), ("reason_2", ranked["reason_1"]), ("reason_1", said)):
        out[name] = np.where(new, np.asarray(source, dtype=object), ranked[name].to_numpy(dtype=object))
    return out
