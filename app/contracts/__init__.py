"""What app/ and training/ must agree on. Pure: no I/O, no settings, no logging."""
