"""What the judge of rollouts gets right, and how soon: simulated rollouts whose truth is known."""
