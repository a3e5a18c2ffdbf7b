"""The weekly list as files: a page, a workbook, a CSV or a Parquet file, and what a replay found."""

from __future__ import annotations

from hitfinder.report.forms import check_suffix
from hitfinder.report.lists import write_list
from hitfinder.report.summary import summary_of

__all__ = ["check_suffix", "summary_of", "write_list"]
