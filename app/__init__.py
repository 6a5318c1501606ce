"""corewrite's serving side: what answers a request. Imports neither training/ nor torch."""
