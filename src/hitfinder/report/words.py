"""Every word that a reader sees, in each language; they live in `words.toml`."""

from __future__ import annotations

import tomllib
from importlib import resources

from hitfinder.errors import SettingsError

__all__ = ["LANGUAGES", "check_language", "load_words"]

LANGUAGES = ("en", "zh")


def load_words(language: str) -> dict[str, str]:
    """Return the texts of one language by key.

    Parameters
    ----------
    language
        ``"en"`` or ``"zh"``.

    Raises
    ------
    SettingsError
        For any other language.

    Examples
    --------
    >>> load_words("en")["action_scale"], load_words("zh")["action_scale"]
    ('Scale', '放量')
    """
    check_language(language)
    text = resources.files("hitfinder.report").joinpath("words.toml").read_text(encoding="utf-8")
    words: dict[str, str] = tomllib.loads(text)[language]
    return words


def check_language(language: str) -> None:
    """Refuse a language that there are no words in.

    Raises
    ------
    SettingsError
        It is none of LANGUAGES.
    """
    if language not in LANGUAGES:
        raise SettingsError(f"language: expected {' or '.join(LANGUAGES)}, got {language!r}")
