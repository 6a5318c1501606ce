"""Checkpoints: immutable folders whose manifest vouches for every file. `default/` comes with the package."""
