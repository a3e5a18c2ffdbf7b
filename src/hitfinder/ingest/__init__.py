"""Ingest: any of the files that shops and platforms export, brought to `signals`, `skus` and `rejects`."""

from __future__ import annotations

from hitfinder.ingest.run import FORMATS, Ingested, ingest

__all__ = ["FORMATS", "Ingested", "ingest"]
