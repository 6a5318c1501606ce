"""Whether a checkpoint may serve: evidence on a held-out window, a policy, a verdict, a report."""
