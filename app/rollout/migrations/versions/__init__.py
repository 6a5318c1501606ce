"""One file for each step, which never changes after its release."""
