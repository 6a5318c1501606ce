"""What a client sends back with its events: where its search counts, signed. Pure.

Any replica may get the event, and the rollout may be a step further by then, or over. So that none has to
remember or ask, the answer carries a token, bound to its query_id, and the event brings it along.
"""

from __future__ import annotations

import hmac
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error

from app.rollout.evidence import Cell

_FIELDS = struct.Struct(">BIH?H")
_VERSION = 1
_MAC_BYTES = 10


def seal(cell: Cell, query_id: str, key: bytes) -> str:
    """Return the token of a search: 27 characters that are safe in a URL.

    Args:
        cell: where it counts.
        query_id: whose it is.
        key: that all replicas share.
    """
    fields = _FIELDS.pack(_VERSION, cell.rollout, cell.step, cell.impacted, cell.bucket)
    return urlsafe_b64encode(fields + _mac(fields, query_id, key)).decode().rstrip("=")


def unseal(token: str, query_id: str, key: bytes) -> Cell | None:
    """Return where a search counts; None where the token is not one of ours, or another query_id's."""
    try:
        content = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (Error, ValueError):
        return None
    fields, mac = content[: _FIELDS.size], content[_FIELDS.size :]
    if len(content) != _FIELDS.size + _MAC_BYTES or not hmac.compare_digest(mac, _mac(fields, query_id, key)):
        return None
    version, rollout, step, impacted, bucket = _FIELDS.unpack(fields)
    return Cell(rollout, step, impacted, bucket) if version == _VERSION else None


def _mac(fields: bytes, query_id: str, key: bytes) -> bytes:
    text = query_id.encode("utf-8", "surrogatepass")
    return hmac.digest(key, fields + text, "sha256")[:_MAC_BYTES]
