"""How ONNX Runtime computes here, whatever the graph."""

from __future__ import annotations

import onnxruntime as ort


def session_options(*, threads: int) -> ort.SessionOptions:
    """Return options of a session whose inputs change their shape and that is idle between runs.

    Args:
        threads: of one run.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A plan of its memory for each shape that comes by, kept for good: nearly every batch has another one.
    options.enable_mem_pattern = False
    # Threads may spin within a run, not between runs: who is idle must not burn a core.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    return options
