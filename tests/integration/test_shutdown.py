from __future__ import annotations

import json
import signal
import threading
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

QUERY = {"query": "rn icu nights", "deadline_ms": 5000}


def in_background(url: str, results: Any) -> threading.Thread:
    thread = threading.Thread(
        target=lambda: results.append(httpx.post(f"{url}/v1/rewrite", json=QUERY, timeout=10)), daemon=True
    )
    thread.start()
    return thread


def wait_inflight(url: str) -> None:
    for _ in range(200):
        if 'corewrite_inflight_requests{gate="rewrite"} 1.0' in httpx.get(f"{url}/metrics").text:
            return
    raise AssertionError("the request never got in")


def test_a_stop_signal_drains_what_is_in_flight(start_process: Callable[..., Any]) -> None:
    process, url = start_process(deadline_ms=5000)
    results: list[httpx.Response] = []
    thread = in_background(url, results)
    wait_inflight(url)
    process.send_signal(signal.SIGTERM)
    for _ in range(100):
        ready = httpx.get(f"{url}/readyz")
        if ready.status_code == 503:
            break
    assert ready.json()["status"] == "draining"
    refused = httpx.post(f"{url}/v1/rewrite", json={"query": "another"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert httpx.get(f"{url}/livez").status_code == 200
    thread.join(timeout=10)
    assert results[0].json()["reason"] is None
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert "stopped" in {line["event"] for line in lines}
    assert "Traceback" not in output


def test_in_the_grace_period_requests_are_still_served(start_process: Callable[..., Any]) -> None:
    process, url = start_process(deadline_ms=5000, drain_grace_s=1.5)
    process.send_signal(signal.SIGTERM)
    for _ in range(100):
        if httpx.get(f"{url}/readyz").status_code == 503:
            break
    assert httpx.post(f"{url}/v1/rewrite", json=QUERY, timeout=10).json()["reason"] is None
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_a_spent_drain_time_ends_it(start_process: Callable[..., Any]) -> None:
    process, url = start_process(deadline_ms=5000, drain_timeout_s=0.05)
    results: list[httpx.Response] = []
    thread = in_background(url, results)
    wait_inflight(url)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=15)
    thread.join(timeout=5)
    assert "drain timed out" in output


def test_a_second_signal_does_not_wait(start_process: Callable[..., Any]) -> None:
    process, url = start_process(deadline_ms=5000, drain_grace_s=60)
    process.send_signal(signal.SIGINT)
    for _ in range(100):
        if httpx.get(f"{url}/readyz").status_code == 503:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
