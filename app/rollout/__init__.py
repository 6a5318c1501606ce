"""Delivering a checkpoint to traffic: who gets it, what came of it, and whether it goes on."""
