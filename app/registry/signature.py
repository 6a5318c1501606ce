"""Who made a checkpoint: an Ed25519 signature (RFC 8032) over its manifest, which digests all else.

`manifest.sig` holds the 64 bytes in base64. Keys are PEM files, as openssl writes them:

    openssl genpkey -algorithm ed25519 -out signing.pem
    openssl pkey -in signing.pem -pubout -out signers.pem

A file of public keys may hold several, one after the other: a new key is added before the old one goes.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import CheckpointError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_PEM = re.compile(rb"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----", re.DOTALL)


def sign(manifest: bytes, key: Path) -> bytes:
    """Return the content of `manifest.sig`.

    Args:
        manifest: bytes of `manifest.json`.
        key: PEM file of an Ed25519 private key, without a passphrase.

    Raises:
        CheckpointError: there is no such key, or it is of another kind.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 -- optional
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 -- as above
    except ImportError as error:
        raise CheckpointError(f"{key}: signatures need corewrite[signing]") from error
    try:
        found = load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{key}: no private key in PEM: {error}") from error
    if not isinstance(found, Ed25519PrivateKey):
        raise CheckpointError(f"{key}: not an Ed25519 key")
    return base64.b64encode(found.sign(manifest)) + b"\n"


def require_key(key: Path, signers: Path | None) -> None:
    """Return where this key can sign, and is one of the signers where there are any.

    Raises:
        CheckpointError: it cannot, or its signatures would be refused.
    """
    probe = b"may this key sign?"
    signature = sign(probe, key)
    if signers is not None:
        require_signature(probe, signature, signers, f"what {key} signs")


def require_signature(manifest: bytes, signature: bytes | None, signers: Path, where: str) -> None:
    """Return where one of the signers has signed.

    Args:
        manifest: bytes of `manifest.json`.
        signature: content of `manifest.sig`; None where there is none.
        signers: PEM file of Ed25519 public keys.
        where: names the checkpoint in messages.

    Raises:
        CheckpointError: nobody has signed, or nobody of these, or it was altered since.
    """
    keys = read_signers(signers)  # before all else: without its keys the setting is a mistake
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 -- optional: it was asked for above

    if signature is None:
        raise CheckpointError(
            f"{where}: not signed, and {signers} says who must have: import it with --sign-with"
        )
    try:
        raw = base64.b64decode(signature, validate=False)
    except binascii.Error as error:
        raise CheckpointError(f"{where}: its signature is not base64") from error
    for key in keys:
        try:
            key.verify(raw, manifest)
        except InvalidSignature:
            continue
        return
    raise CheckpointError(f"{where}: not signed by any of the {len(keys)} in {signers}, or altered since")


def read_signers(signers: Path) -> Sequence[Ed25519PublicKey]:
    """Read a file of public keys.

    Raises:
        CheckpointError: it is missing, has none, or one that is not Ed25519.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 -- optional
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415 -- as above
    except ImportError as error:
        raise CheckpointError(f"{signers}: signatures need corewrite[signing]") from error
    try:
        blocks = _PEM.findall(signers.read_bytes())
        keys = [load_pem_public_key(block) for block in blocks]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{signers}: no public keys in PEM: {error}") from error
    if not keys:
        raise CheckpointError(f"{signers}: no public key in PEM")
    ed25519 = [key for key in keys if isinstance(key, Ed25519PublicKey)]
    if len(ed25519) < len(keys):
        raise CheckpointError(f"{signers}: {len(keys) - len(ed25519)} of its keys are not Ed25519")
    return ed25519
