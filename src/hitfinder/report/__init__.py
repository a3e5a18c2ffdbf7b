"""The weekly list as files: a page, a workbook, a CSV or a Parquet file."""

from __future__ import annotations

from hitfinder.report.lists import write_list

__all__ = ["write_list"]
