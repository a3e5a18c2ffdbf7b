"""The tables that hitfinder reads: columns, grain and rules of each, declared once and checked in SQL elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "COUNTS",
    "DECISIONS",
    "MONEY",
    "OUTCOMES",
    "SIGNALS",
    "SKUS",
    "TABLES",
    "Column",
    "Rule",
    "Table",
]

COUNTS = ("impressions", "visitors", "clicks", "favorites", "carts", "orders", "units")
MONEY = ("revenue", "refunds", "spend")

SQL_TYPES = {
    "text": "varchar",
    "count": "bigint",
    # Decimals add up to the same sum in any order, on any number of threads; doubles do not.
    "money": "decimal(18, 4)",
    "number": "double",
    "share": "double",
    "moment": "timestamp",
}
MAX_TEXT = {"title": 10_000, "image_url": 10_000, "reason": 10_000}
MAX_ID = 500
# No SKU sees this in one period; what is larger is another column, or a unit gone wrong.
MAX_AMOUNT = 100_000_000_000


@dataclass(frozen=True)
class Column:
    """One column: `kind` is a key of SQL_TYPES; a NULL in a `required` column rejects the row."""

    name: str
    kind: str
    required: bool = False

    @property
    def sql_type(self) -> str:
        """The engine's type."""
        return SQL_TYPES[self.kind]

    @property
    def expected(self) -> str:
        """What a value has to be, in words for a message."""
        return {
            "text": "text",
            "count": "whole numbers of 0 or more",
            "money": "amounts of 0 or more",
            "number": "numbers",
            "share": "numbers from 0 to 1",
            "moment": "timestamps such as 2025-01-06 or 2025-01-06T10:00:00Z",
        }[self.kind]


@dataclass(frozen=True)
class Rule:
    """`holds` is a SQL condition over the table's columns; a row for which it is false is set aside under `name`.

    A condition that is NULL (something was not measured) does not reject. `column` is the one that it reads; None where
    it reads several.
    """

    name: str
    holds: str
    column: str | None = None


@dataclass(frozen=True)
class Table:
    """A table: its name, grain (the columns that tell one row from another), columns and rules."""

    name: str
    grain: tuple[str, ...]
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()
    any_of: tuple[str, ...] = ()
    keeps_other_columns: bool = False
    all_rules: tuple[Rule, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "all_rules", self._column_rules() + self.rules)

    @property
    def column_names(self) -> tuple[str, ...]:
        """All declared columns in their order."""
        return tuple(c.name for c in self.columns)

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that must be there."""
        return tuple(c.name for c in self.columns if c.required)

    def _column_rules(self) -> tuple[Rule, ...]:
        rules = []
        for c in self.columns:
            if c.required:
                rules.append(Rule(f"{c.name}_missing", f"{c.name} is not null", c.name))
            if c.kind in ("count", "money"):
                rules.append(Rule(f"{c.name}_negative", f"{c.name} >= 0", c.name))
                rules.append(Rule(f"{c.name}_too_large", f"{c.name} <= {MAX_AMOUNT}", c.name))
            elif c.kind == "share":
                rules.append(Rule(f"{c.name}_outside_0_1", f"{c.name} between 0 and 1", c.name))
            elif c.kind == "text":
                most = MAX_TEXT.get(c.name, MAX_ID)
                rules.append(Rule(f"{c.name}_too_long", f"length({c.name}) <= {most}", c.name))
            elif c.kind == "moment":
                # An export that writes 0 for "no date" gives 1970; a launch or a known_at may lie ahead, a signal not.
                rules.append(Rule(f"{c.name}_before_2000", f"{c.name} >= timestamp '2000-01-01 00:00:00'", c.name))
                rules.append(Rule(f"{c.name}_after_2200", f"{c.name} < timestamp '2200-01-01 00:00:00'", c.name))
        return tuple(rules)


def _counted(names: tuple[str, ...], kind: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind) for name in names)


SIGNALS = Table(
    name="signals",
    # The same period may be reported again, later: as of a moment, the newest report known then counts.
    grain=("sku_id", "period_start", "channel", "creative_id", "known_at"),
    columns=(
        Column("sku_id", "text", required=True),
        Column("period_start", "moment", required=True),
        Column("channel", "text"),
        Column("creative_id", "text"),
        Column("known_at", "moment"),
        *_counted(COUNTS, "count"),
        *_counted(MONEY, "money"),
    ),
    rules=(
        Rule("period_start_in_the_future", "period_start <= {now}"),
        Rule("known_before_it_began", "known_at >= period_start"),
        Rule("clicks_above_impressions", "clicks <= impressions"),
        Rule("nothing_counted", f"coalesce({', '.join(COUNTS + MONEY)}) is not null"),
    ),
    any_of=COUNTS + MONEY,
)

SKUS = Table(
    name="skus",
    grain=("sku_id",),
    columns=(
        Column("sku_id", "text", required=True),
        Column("batch_id", "text"),
        Column("style_id", "text"),
        Column("category", "text"),
        Column("launched_at", "moment"),
        Column("price", "money"),
        Column("unit_cost", "money"),
        Column("stock", "count"),
        Column("title", "text"),
        Column("image_url", "text"),
    ),
    keeps_other_columns=True,
)

OUTCOMES = Table(
    name="outcomes",
    grain=("sku_id",),
    columns=(
        Column("sku_id", "text", required=True),
        Column("value", "number", required=True),
        Column("known_at", "moment", required=True),
    ),
)

DECISIONS = Table(
    name="decisions",
    grain=("sku_id", "decided_at"),
    columns=(
        Column("sku_id", "text", required=True),
        Column("decided_at", "moment", required=True),
        Column("action", "text", required=True),
        Column("exposures", "count"),
        Column("propensity", "share"),
        Column("model_version", "text"),
        Column("decided_by", "text"),
        Column("reason", "text"),
    ),
    rules=(
        Rule("action_unknown", "action in ('scale', 'test', 'stop')"),
        # What was done had a chance of being done.
        Rule("propensity_zero", "propensity > 0"),
    ),
)

TABLES = {t.name: t for t in (SIGNALS, SKUS, OUTCOMES, DECISIONS)}
