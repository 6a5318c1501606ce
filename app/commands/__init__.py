"""Commands of `corewrite` that are imported only when they are named; see app/cli.py."""
