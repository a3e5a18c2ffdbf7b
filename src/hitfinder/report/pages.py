"""What every page is made of: the files of this package, their names in a page's policy, and escaped templates."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

import jinja2

__all__ = ["digest", "resource", "template"]


def resource(name: str) -> str:
    """Return a file of this package, as text."""
    return resources.files("hitfinder.report").joinpath(name).read_text(encoding="utf-8")


def digest(text: str) -> str:
    """Return the name by which a page's policy (CSP) allows a style or script of its own."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def template(name: str) -> jinja2.Template:
    """Return a template of this package; what it is given is escaped, and a name it isn't given is an error."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(resource(name))
