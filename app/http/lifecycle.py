"""starting → ready → draining: what /readyz says, and how the process takes its leave.

On a stop signal /readyz turns 503 at once. Requests are still served for `grace_s`, until load balancers have
noticed; then new ones are refused with 503 and those in flight may finish within `timeout_s`. Only then do
the listening sockets close.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from app.telemetry import LOGGER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.rewrite.admission import Admission

Status = Literal["starting", "ready", "draining"]


class Lifecycle:
    """The state of one app; `admissions` are the gates that close when it drains."""

    def __init__(self, admissions: Sequence[Admission], *, grace_s: float, timeout_s: float) -> None:
        self._admissions = admissions
        self._grace_s = grace_s
        self._timeout_s = timeout_s
        self.status: Status = "starting"

    async def drain(self) -> bool:
        """Take leave; True when everything in flight was answered in time."""
        self.status = "draining"
        await asyncio.sleep(self._grace_s)
        for admission in self._admissions:
            admission.drain()
        try:
            async with asyncio.timeout(self._timeout_s):
                for admission in self._admissions:
                    await admission.wait_idle()
        except TimeoutError:
            left = sum(admission.inflight for admission in self._admissions)
            LOGGER.warning(
                "drain timed out", extra={"fields": {"detail": f"{left} requests were not finished"}}
            )
            return False
        return True
