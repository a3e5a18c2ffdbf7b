"""A round's files for the ad platform: CSV for its upload, a workbook for people, and how both are written whole."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hitfinder.errors import DataError, HitfinderError, SettingsError
from hitfinder.history import TRIAL_BUDGETS, TRIAL_ROUNDS
from hitfinder.livetest.rounds import Round
from hitfinder.report.forms import harmless
from hitfinder.report.whole import replacing
from hitfinder.report.words import check_language, load_words
from hitfinder.warehouse import reads

__all__ = ["changed_ids", "check_targets", "contents", "holds", "promised", "targets", "write_whole"]

SUFFIXES = (".csv", ".xlsx")
MAX_ROWS = 1_048_575  # below the headings of a sheet
WIDTHS = {"sku_id": 26, "exposures": 14, "action": 14, "hit_probability": 16}
WORDS = {
    "en": {
        "sheet_plan": "Plan", "sheet_about": "About", "exposures": "Exposures", "test": "Test (batch)",
        "number": "Round", "rounds": "Rounds", "budget": "Budget of the test, exposures", "spent": "Spent before",
        "decided": "… by the decisions", "seen": "… by the signals", "this": "This round",
        "left": "Left for later rounds", "slots": "SKUs that can be scaled", "exposure_cap": "Most exposures of a SKU",
        "decided_at": "Decided (UTC)", "promise": "Promise about stopping", "said": "{name}: {promise}",
        "unknown": "The record of this round does not say what was promised.",
        "learned": "{promise} That was learned from tests of {trial} rounds at {least} to {most} % of a full test's "
        "cost; this test has {rounds}.",
    },
    "zh": {
        "sheet_plan": "投放计划", "sheet_about": "说明", "exposures": "本轮曝光", "test": "测款批次",
        "number": "轮次", "rounds": "总轮数", "budget": "测款总曝光预算", "spent": "此前已用曝光",
        "decided": "… 按决策记录", "seen": "… 按数据统计", "this": "本轮曝光合计",
        "left": "后续轮次剩余曝光", "slots": "可放量的 SKU 数", "exposure_cap": "单个 SKU 曝光上限",
        "decided_at": "决策时间（UTC）", "promise": "停测承诺", "said": "{name}：{promise}",
        "unknown": "本轮记录中没有承诺信息。",
        "learned": "{promise}该承诺由共 {trial} 轮、花费为完整测试 {least}%～{most}% 的测试得出；"
        "本次测试共 {rounds} 轮。",
    },
}  # fmt: skip


def check_targets(out: Sequence[str | Path], decisions: str | Path, *, inputs: Sequence[Any] = ()) -> None:
    """Refuse places that can't be written to, before anything is decided; `inputs` are tables, of which some are files.

    Raises
    ------
    DataError
        A suffix that is neither of the two, the decisions file itself, or a file that is read.
    HitfinderError
        A file stands where a folder should, or the other way round.
    """
    if not out:
        raise SettingsError("out: expected a .csv or .xlsx file or a folder, got nothing; name one")
    for path in map(Path, out):
        if path.suffix.lower() not in SUFFIXES and path.suffix and not path.is_dir():
            raise DataError(f"{path}: expected a name that ends in .csv or .xlsx, or a folder, got {path.suffix!r}")
        if path.resolve() == Path(decisions).resolve():
            raise DataError(f"{path}: expected another file than the decisions; the plan would overwrite them")
        if any(reads(source, path) for source in inputs):
            raise DataError(f"{path}: expected another file than the signals and SKUs; the plan would overwrite them")
        folder = path.parent if path.suffix.lower() in SUFFIXES and not path.is_dir() else path
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HitfinderError(f"{path}: can't be written ({error.strerror}); choose another place") from None


def targets(out: Sequence[str | Path], test: str, number: int) -> list[Path]:
    """Return the files to write: those named, and both kinds in each folder.

    Examples
    --------
    >>> [path.as_posix() for path in targets(["a.csv", "plans"], "2025/W09", 3)]
    ['a.csv', 'plans/plan-2025%2FW09-round-3.csv', 'plans/plan-2025%2FW09-round-3.xlsx']
    """
    paths: list[Path] = []
    for path in map(Path, out):
        if path.suffix.lower() in SUFFIXES and not path.is_dir():
            paths.append(path)
        else:
            # What a file's name can't hold somewhere.
            name = re.sub(r'[%/\\:*?"<>|\x00-\x1f]', lambda found: f"%{ord(found[0]):02X}", test)
            paths += [path / f"plan-{name}-round-{number}{suffix}" for suffix in SUFFIXES]
    return list(dict.fromkeys(paths))


def contents(this: Round, paths: Sequence[Path], language: str) -> dict[Path, bytes]:
    """Return what each file is to hold. The same round gives the same bytes."""
    return {path: _csv(this) if path.suffix.lower() == ".csv" else _workbook(this, language) for path in paths}


def promised(this: Round, language: str = "en") -> str:
    """Say in one line what is promised about stopping.

    Raises
    ------
    SettingsError
        The language is not known.
    """
    check_language(language)
    words = WORDS[language]
    return words["said"].format(name=words["promise"], promise=_sentence(this, language))


def _sentence(this: Round, language: str) -> str:
    words = WORDS[language]
    if this.promise is None:
        return words["unknown"]
    promise = this.promise.sentence(language)
    if this.rounds == TRIAL_ROUNDS or not this.promise.holds:
        return promise
    least, most = (f"{share * 100:g}" for share in (min(TRIAL_BUDGETS), max(TRIAL_BUDGETS)))
    return words["learned"].format(promise=promise, trial=TRIAL_ROUNDS, least=least, most=most, rounds=this.rounds)


def changed_ids(this: Round) -> int:
    """Count ids that the CSV file writes with an apostrophe in front, lest a spreadsheet run them as formulas."""
    return sum(harmless(sku_id) != sku_id for sku_id in this.table["sku_id"])


def holds(path: Path, content: bytes) -> bool:
    """Tell whether a file is there and holds just that."""
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also where the machine stops.

    Raises
    ------
    HitfinderError
        It can't be written.
    """
    with replacing(path) as partial:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, partial)


def _csv(this: Round) -> bytes:
    table = this.table.assign(sku_id=[harmless(sku_id) for sku_id in this.table["sku_id"]])
    # The mark at the start (BOM) tells Excel that this is UTF-8; line ends as in RFC 4180.
    return table.to_csv(index=False, lineterminator="\r\n", float_format="%.6f").encode("utf-8-sig")


def _workbook(this: Round, language: str) -> bytes:
    if len(this.table) > MAX_ROWS:
        raise DataError(f"expected at most {MAX_ROWS} SKUs for a workbook, got {len(this.table)}; write .csv")
    words = load_words(language) | WORDS[language]
    content = io.BytesIO()
    options = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with pd.ExcelWriter(content, engine="xlsxwriter", engine_kwargs={"options": options}) as writer:
        book: Any = writer.book
        # The round's own moment, so that it gives the same bytes again.
        book.set_properties({"title": words["sheet_plan"], "created": this.decided_at.to_pydatetime(),
                             "author": "hitfinder"})  # fmt: skip
        _plan_sheet(book, this, words)
        _about_sheet(book, this, words, _sentence(this, language))
    return content.getvalue()


def _plan_sheet(book: Any, this: Round, words: dict[str, str]) -> None:
    sheet = book.add_worksheet(words["sheet_plan"])
    dark = {"bold": True, "font_color": "white", "bg_color": "#1F2D3A", "valign": "vcenter"}
    head, head_of_numbers = book.add_format(dark), book.add_format({**dark, "align": "right"})
    as_text, whole = book.add_format({"num_format": "@"}), book.add_format({"num_format": "#,##0"})
    share, plain = book.add_format({"num_format": "0.0%"}), book.add_format()
    for place, (name, width) in enumerate(WIDTHS.items()):
        sheet.set_column(place, place, width)
        sheet.write_string(0, place, words[name], head_of_numbers if "_prob" in name or name == "exposures" else head)
    rows = zip(*(this.table[name].tolist() for name in WIDTHS), strict=True)
    for row, (sku_id, exposures, action, probability) in enumerate(rows, start=1):
        sheet.write_string(row, 0, sku_id, as_text)
        sheet.write_number(row, 1, exposures, whole)
        sheet.write_string(row, 2, words[f"action_{action}"], plain)
        if probability == probability:
            sheet.write_number(row, 3, probability, share)
    last = max(len(this.table), 1)
    sheet.ignore_errors({"number_stored_as_text": f"A2:A{last + 1}"})
    sheet.freeze_panes(1, 1)
    sheet.autofilter(0, 0, last, len(WIDTHS) - 1)


def _about_sheet(book: Any, this: Round, words: dict[str, str], promise: str) -> None:
    sheet = book.add_worksheet(words["sheet_about"])
    label = book.add_format({"font_color": "#5A6673"})
    text, whole = book.add_format({"align": "left", "num_format": "@"}), book.add_format({"num_format": "#,##0"})
    moment = book.add_format({"num_format": "yyyy-mm-dd hh:mm", "align": "right"})
    sheet.set_column(0, 0, 34)
    sheet.set_column(1, 1, 26)
    facts: dict[str, Any] = {
        "test": this.test, "number": this.number, "rounds": this.rounds, "budget": this.budget, "spent": this.spent,
        "decided": this.decided, "seen": this.seen, "this": this.exposures, "left": this.left, "slots": this.slots,
        "exposure_cap": this.exposure_cap, "model_version": this.model_version, "as_of": this.as_of,
        "decided_at": this.decided_at, "promise": promise,
    }  # fmt: skip
    for row, (name, value) in enumerate(facts.items()):
        sheet.write_string(row, 0, words[name], label)
        if isinstance(value, pd.Timestamp):
            sheet.write_datetime(row, 1, value.to_pydatetime(), moment)
        elif isinstance(value, int):
            sheet.write_number(row, 1, value, whole)
        else:
            sheet.write_string(row, 1, value, text)
    sheet.freeze_panes(0, 1)
