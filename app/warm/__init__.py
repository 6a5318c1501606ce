"""Filling the shared cache with head queries, before anybody asks."""
