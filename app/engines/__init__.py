"""Engines turn prompts into completions. One protocol (`base`), one adapter a file."""
