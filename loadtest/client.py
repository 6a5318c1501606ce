"""What stands before the replicas: the next one's turn, and one second try where a connection fails."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

PATIENCE_S = 15.0
"""Far beyond every deadline of the service."""
SHED = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: status 0 and no body where nothing did."""

    status: int
    body: dict[str, Any]
    shed: bool = False
    retried: bool = False


class Client:
    """Posts JSON to the replicas in turn. To be entered; as many connections as are needed are kept open.

    Args:
        urls: of the replicas.
        patience_s: seconds after which an answer is not waited for any longer.
    """

    def __init__(self, urls: Sequence[str], *, patience_s: float = PATIENCE_S) -> None:
        self._turn = itertools.cycle(range(len(urls)))
        self._urls, self._patience_s = urls, patience_s

    async def __aenter__(self) -> Self:
        """Open."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._patience_s), connector=aiohttp.TCPConnector(limit=0)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self._session.close()

    async def post(self, path: str, body: Mapping[str, Any]) -> Reply:
        """Send it to one replica, and to the next one where the connection fails: that raises nothing."""
        first = next(self._turn)
        for attempt in range(2):
            try:
                url = self._urls[(first + attempt) % len(self._urls)]
                async with self._session.post(url + path, json=body) as response:
                    told = await response.json() if "json" in response.content_type else {}
                    shed = response.status in SHED and "retry-after" in response.headers
                    return Reply(response.status, told, shed, retried=attempt > 0)
            except (aiohttp.ClientError, TimeoutError, ValueError):
                continue
        return Reply(0, {}, retried=True)
