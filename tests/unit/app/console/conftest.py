"""Browsers at the console of an app."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from console_client import TOKEN, Browser
from starlette.testclient import TestClient

if TYPE_CHECKING:
    from fastapi import FastAPI


@pytest.fixture
def browse(make_app: Callable[..., FastAPI]) -> Iterator[Callable[..., Browser]]:
    """A browser at an app; keyword arguments are settings, or fakes."""
    with ExitStack() as stack:

        def start(**options: object) -> Browser:
            return Browser(stack.enter_context(TestClient(make_app(**options))))

        yield start


@pytest.fixture
def anybody(browse: Callable[..., Browser]) -> Browser:
    """At a console without a token."""
    return browse(deadline_ms=20_000, signals_deadline_ms=20_000)


@pytest.fixture
def stranger(browse: Callable[..., Browser]) -> Browser:
    """At a console with a token, which they do not have yet."""
    return browse(admin_token=TOKEN, deadline_ms=20_000, signals_deadline_ms=20_000)
