"""Every word that a reader sees, in each language; they live in `words.toml` and its like for single pages."""

from __future__ import annotations

import re
import tomllib
from importlib import resources

from hitfinder.errors import SettingsError

__all__ = ["LANGUAGES", "agreeing", "check_language", "load_words"]

LANGUAGES = ("en", "zh")


def load_words(language: str, file: str = "words.toml") -> dict[str, str]:
    """Return the texts of one language by key.

    Parameters
    ----------
    language
        ``"en"`` or ``"zh"``.
    file
        Of this package, a table for each language.

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
    text = resources.files("hitfinder.report").joinpath(file).read_text(encoding="utf-8")
    words: dict[str, str] = tomllib.loads(text)[language]
    return words


def agreeing(text: str) -> str:
    """Put what an English sentence counts into the singular where it is one.

    >>> agreeing("1 SKUs have no outcome, 21 SKUs have one; 1 lines are held"), agreeing("1 of 3 SKUs")
    ('1 SKU has no outcome, 21 SKUs have one; 1 line is held', '1 of 3 SKUs')
    """
    text = re.sub(r"(?<![\w,.])1 (SKU|line|order|hit)s\b", r"1 \1", text)
    text = re.sub(r"(?<![\w,.])(1 (?:SKU|line|order|hit)) have\b", r"\1 has", text)
    return re.sub(r"(?<![\w,.])(1 (?:SKU|line|order|hit)) are\b", r"\1 is", text)


def check_language(language: str) -> None:
    """Refuse a language that there are no words in.

    Raises
    ------
    SettingsError
        It is none of LANGUAGES.
    """
    if language not in LANGUAGES:
        raise SettingsError(f"language: expected {' or '.join(LANGUAGES)}, got {language!r}")
