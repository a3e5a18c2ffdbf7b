"""What stands on the health page beside the alarms, in each language; it lives in `health_words.toml`."""

from __future__ import annotations

import tomllib
from importlib import resources

from hitfinder.monitor.sentences import words_of

__all__ = ["page_words"]


def page_words(language: str) -> dict[str, str]:
    """Return the texts of one language, the monitor's among them.

    Raises
    ------
    SettingsError
        For a language that there are none in.

    Examples
    --------
    >>> page_words("en")["title"], page_words("zh")["title"]
    ('Health of the model', '模型健康状况')
    """
    beside = words_of(language)
    text = resources.files("hitfinder.report").joinpath("health_words.toml").read_text(encoding="utf-8")
    return {**beside, **tomllib.loads(text)[language]}
