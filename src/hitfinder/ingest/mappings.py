"""What other systems call things: mapping files in TOML, those shipped and the user's own."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from hitfinder.errors import DataError

__all__ = ["EVENT_KINDS", "EventLog", "event_logs", "read_mapping", "shipped"]

EVENT_COLUMNS = [
    "time",
    "event",
    "sku_id",
    "person",
    "session",
    "order_id",
    "price",
    "quantity",
    "amount",
    "category",
    "title",
    "channel",
    "day",
]
EVENT_KINDS = ("impressions", "clicks", "views", "favorites", "carts", "orders", "refunds", "ignored")
TIME_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}


@dataclass(frozen=True)
class EventLog:
    """How one format of event log is read: see `event_logs.toml`."""

    name: str
    columns: dict[str, str]
    events: dict[str, str]
    header: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)
    time_unit: str | None = None
    one_unit_per_order_event: bool = False
    only_if_seen: tuple[str, ...] = ()

    @property
    def microseconds(self) -> int | None:
        """How long one unit of a numeric time is."""
        return TIME_UNITS[self.time_unit] if self.time_unit else None


@cache
def shipped(name: str) -> dict[str, Any]:
    """Return the content of a mapping file of this package."""
    return tomllib.loads((resources.files("hitfinder") / "ingest" / f"{name}.toml").read_text(encoding="utf-8"))


@cache
def event_logs() -> dict[str, EventLog]:
    """Return the event logs that are known without a mapping file."""
    return {name: _event_log(name, content, "event_logs.toml") for name, content in shipped("event_logs").items()}


def read_mapping(path: str | Path) -> tuple[EventLog | None, dict[str, Any] | None]:
    """Read a mapping file: an event log (`[columns]`, `[events]`), or names of ad reports (`[headers]`).

    Raises
    ------
    DataError
        The file can't be read, is no TOML, or holds an unknown key.
    """
    try:
        content = tomllib.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}); give the path of a TOML file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: expected UTF-8 text; save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path}: no valid TOML: {error}") from None
    if "columns" in content:
        return _event_log(Path(path).stem, content, str(path)), None
    if set(content) & {"headers", "summary_words", "not_measured"}:
        return None, content
    raise DataError(
        f"{path}: expected [columns] and [events] (an event log) or [headers] (an ad report), "
        f"got {', '.join(content) or 'nothing'}"
    )


def _event_log(name: str, content: dict[str, Any], source: str) -> EventLog:
    _only(content, ("header", "columns", "attributes", "events", "time_unit", "one_unit_per_order_event",
                    "only_if_seen"), source)  # fmt: skip
    columns, events, attributes = (_texts(content, key, source) for key in ("columns", "events", "attributes"))
    _only(columns, EVENT_COLUMNS, f"{source} [columns]")
    missing = [key for key in ("time", "event", "sku_id") if key not in columns]
    if missing:
        raise DataError(f"{source} [columns]: expected {', '.join(missing)} as well; name the log's column for it")
    wrong = sorted({kind for kind in events.values() if kind not in EVENT_KINDS})
    if wrong or not events:
        raise DataError(
            f"{source} [events]: expected each event to count as one of {', '.join(EVENT_KINDS)}, "
            f"got {', '.join(wrong) or 'no event'}"
        )
    taken = sorted({*EVENT_COLUMNS, "sku_id", "price", "stock", "unit_cost", "launched_at"} & set(attributes))
    if taken or not all(a.isidentifier() for a in attributes):
        raise DataError(f"{source} [attributes]: expected new plain names, got {', '.join(taken or attributes)}")
    unit = content.get("time_unit")
    if unit is not None and unit not in TIME_UNITS:
        raise DataError(f"{source} time_unit: expected one of {', '.join(TIME_UNITS)}, got {unit!r}")
    return EventLog(
        name=name,
        columns=columns,
        events={event.strip().lower(): kind for event, kind in events.items()},
        header=tuple(content.get("header", ())),
        attributes=attributes,
        time_unit=unit,
        one_unit_per_order_event=bool(content.get("one_unit_per_order_event", False)),
        only_if_seen=tuple(content.get("only_if_seen", ())),
    )


def _texts(content: dict[str, Any], key: str, source: str) -> dict[str, str]:
    values = content.get(key, {})
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        raise DataError(f'{source} [{key}]: expected lines such as ours = "theirs", got {values!r}')
    return values


def _only(content: dict[str, Any], known: Any, source: str) -> None:
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise DataError(f"{source}: unknown key {', '.join(unknown)}; known here: {', '.join(known)}")
