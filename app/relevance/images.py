"""From an image to the floats that a relevance model reads of it.

Where images are embedded is the caller's choice, once for each, when a document is indexed; a request then
carries the floats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from app.errors import CheckpointError, RelevanceError
from app.relevance.graph import open_session
from app.relevance.model import read_verified

if TYPE_CHECKING:
    from pathlib import Path

    from app.relevance.base import Floats

Pixels = npt.NDArray[np.uint8]
"""[images, height, width, 3], RGB."""


class ImageTower:
    """The vision tower of a relevance model's folder.

    Raises CheckpointError where the folder has none, or it cannot be used.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        manifest = read_verified(path)
        if manifest.vision is None:
            raise CheckpointError(f"{path}: {manifest.model_id} comes without a vision tower")
        self._session = open_session(
            path / manifest.vision, "embedding", threads=threads, provider="CPUExecutionProvider"
        )
        _, _, self.height, self.width = self._session.get_inputs()[0].shape

    def embed(self, pixels: Pixels) -> Floats:
        """Embeddings of length 1, [images, image_dim].

        Raises RelevanceError where the images are not of the tower's height and width: scale them before.
        """
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (self.height, self.width, 3):
            raise RelevanceError(
                f"images must be uint8 of shape [n, {self.height}, {self.width}, 3], not {pixels.dtype} "
                f"{list(pixels.shape)}"
            )
        floats = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        (found,) = self._session.run(["embedding"], {"pixels": floats})
        return np.asarray(found, np.float32)
