"""What vLLM's workers are taught: to reload weights with everything that is derived from them.

vLLM makes this class a base of its worker class (`worker_extension_cls`), in processes of its own.
"""

from __future__ import annotations

from typing import Any

EXTENSION = f"{__name__}.ReloadingWorker"


class ReloadingWorker:
    """An extension of vLLM's worker."""

    reload_weights: Any
    get_model: Any

    def reload_checkpoint(self, weights_path: str) -> None:
        """Reload from a checkpoint folder; a head that is tied to the embedding follows it.

        vLLM 0.32's own reload takes a tied head for a layer whose weights are missing and puts back what
        its kernels had prepared of the old ones.
        """
        self.reload_weights(weights_path=weights_path)
        model = self.get_model()
        if model.config.tie_word_embeddings:
            model.lm_head.tie_weights(model.model.embed_tokens)
            model.lm_head.quant_method.process_weights_after_loading(model.lm_head)
