"""Readers of the data that checkpoints are trained on and judged by. Typed records, no model."""
