"""Many weeks of the cycle on searches that drift: what continuous redeployment is worth."""
