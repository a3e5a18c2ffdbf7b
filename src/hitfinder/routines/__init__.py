"""Routines: what a scheduler runs week after week with nobody watching; `pipelines/` holds a script for each."""
