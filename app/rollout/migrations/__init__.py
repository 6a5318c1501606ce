"""How the tables came to be, step by step; `app.rollout.schema` runs what is missing."""
