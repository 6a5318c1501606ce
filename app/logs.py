"""What a log line looks like, and what it may say about a query."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

from app.telemetry import TRACE


class QueryFingerprint:
    """What a log may say about a query: a hash and a length, and the text only where a setting allows it."""

    def __init__(self, *, key: str | None, raw: bool) -> None:
        self._key = key.encode() if key else None
        self._raw = raw

    def fields(self, query: str) -> dict[str, object]:
        """The log fields of this query."""
        data = query.encode("utf-8", "surrogatepass")
        digest = (
            hmac.digest(self._key, data, "sha256").hex() if self._key else hashlib.sha256(data).hexdigest()
        )
        fields: dict[str, object] = {"query_hash": digest[:12], "query_chars": len(query)}
        if self._raw:
            fields["query"] = query
        return fields


# Made once: `json.dumps` with any option builds an encoder per call.
_encode = json.JSONEncoder(ensure_ascii=True, default=str).encode


class JsonFormatter(logging.Formatter):
    """One JSON object per line: the fields of `LOG_FIELDS` given as `extra={"fields": {...}}`.

    An exception is told by type and place. Its message is left out unless `messages` is set, because
    messages quote what went wrong, and what went wrong may be a query.
    """

    def __init__(self, *, messages: bool = False) -> None:
        super().__init__()
        self._messages = messages

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its line break."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        trace = TRACE.get()
        if trace is not None:
            line["trace_id"], line["span_id"] = trace
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["exception"] = f"{type(error).__name__}: {error}" if self._messages else type(error).__name__
            line["frames"] = [
                f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(error.__traceback__)
            ]
        return _encode(line)


def configure_logging(level: str, *, messages: bool, handler: logging.Handler | None = None) -> None:
    """Send every log line of the process to standard output as JSON. For programs, not for libraries."""
    handler = handler or logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(messages=messages))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it has a line for each call of a fleet
