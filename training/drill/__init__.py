"""A fire drill: rewards that can be cheated, policies that do, a gate that must notice, and the way back."""
