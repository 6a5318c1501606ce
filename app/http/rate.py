"""How often one client may do something: a token bucket for each, of a bounded number of clients. Pure.

Each bucket is one number, the moment at which it will be full again (the generic cell rate algorithm of
ITU-T I.371): a client that is not known has a full one, so that forgetting an idle client loses nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Buckets:
    """Buckets by client.

    Args:
        per_s: tokens that a bucket regains each second.
        burst: tokens that a full one has, at least 1.
        max_clients: buckets kept; one more forgets whoever was not heard of for longest.
        clock: seconds, monotonic.
    """

    def __init__(self, *, per_s: float, burst: int, max_clients: int, clock: Callable[[], float]) -> None:
        self._token_s = 1 / per_s
        self._burst_s = burst / per_s
        self._max_clients = max_clients
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def wait_s(self, client: str) -> float:
        """Seconds until this client has a token: 0 where it has one. Takes nothing."""
        now = self._clock()
        return max(0.0, self._full_at.get(client, now) + self._token_s - self._burst_s - now)

    def take(self, client: str, tokens: int = 1) -> None:
        """Take tokens whether they are there or not; what is missing is paid back before the next one."""
        now = self._clock()
        self._full_at[client] = max(self._full_at.get(client, now), now) + tokens * self._token_s
        self._full_at.move_to_end(client)
        if len(self._full_at) > self._max_clients:
            self._full_at.popitem(last=False)
