"""corewrite's sidecar: what makes and judges checkpoints."""
