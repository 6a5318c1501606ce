"""Load on a running service: benchmarks, the drill of swaps, scenarios of load and their judge, capacity."""
