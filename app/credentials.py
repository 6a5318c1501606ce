"""Types of settings that hold credentials, or would by mistake: refused where a text would tell them."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr


def _fits_a_header(token: SecretStr) -> SecretStr:
    # HTTP clients quote what they cannot send. One that was read from a file ends with a line break.
    value = token.get_secret_value().strip()
    if not (value.isascii() and value.isprintable()):
        raise ValueError("must be printable ASCII, which is what a header can carry")
    return token


def _without_password(url: str) -> str:
    # Such URLs are told in messages. What splits badly may be a password with special characters.
    try:
        told = "@" not in url or urlsplit(url).password is None
    except ValueError:
        told = False
    if not told:
        raise ValueError("a URL that messages quote may hold no password")
    return url


Token = Annotated[SecretStr, AfterValidator(_fits_a_header)]
"""A bearer token."""
PublicUrl = Annotated[str, AfterValidator(_without_password)]
"""A URL that may be told."""
