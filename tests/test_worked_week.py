"""The worked week in the docs: every figure it tells is what the commands say."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from hitfinder.ledger import ledgers
from hitfinder.settings import load_settings

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "worked_week"
TEXT = (ROOT / "docs" / "worked_week.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def books():
    settings = load_settings(FOLDER / "hitfinder.toml")
    return ledgers(FOLDER / "signals.csv", FOLDER / "skus.csv", settings, by=(("sku_id",), ()))


@pytest.mark.parametrize("number", [0, 1])
def test_the_commands_print_what_the_page_says(number, tmp_path):
    block = re.findall(r"```console\n\$ hitfinder (.+?)\n(.+?)```", TEXT, re.S)[number]
    words = [w.replace("docs/", f"{ROOT}/docs/") for w in shlex.split(block[0])]
    done = subprocess.run(
        [sys.executable, "-m", "hitfinder.cli", *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    said = [line for line in done.stdout.splitlines() if not line.startswith("wrote ")]
    assert said == block[1].splitlines()


def test_thirteen_million_leave_fifty_thousand(books):
    _, whole = books
    assert whole["revenue"].iloc[0] == Decimal(13_000_000)
    assert whole["contribution"].iloc[0] == Decimal(50_000)


def test_the_table_is_the_ledger_s(books):
    each = books[0].astype(object).set_index("sku_id")
    rows = re.findall(
        r"^\| (\w\d\d), [^|]+\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", TEXT, re.M
    )
    assert len(rows) == 5
    for sku, revenue, refunds, left, per_order, spend, even in rows:
        told = [float(text.replace(",", "")) for text in (revenue, refunds, left, per_order, spend, even)]
        names = ("revenue", "refunds", "contribution", "contribution_per_order", "net_return_on_spend",
                 "break_even_return_on_spend")  # fmt: skip
        places = (0, 0, 0, 2, 1, 1)
        assert told == [round(float(each[name][sku]), place) for name, place in zip(names, places, strict=True)]
    without = float(books[1]["contribution"].iloc[0]) - float(each["contribution"]["D01"])
    assert round(without, -3) == 485_000
