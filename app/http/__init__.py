"""Routes and wire schemas: what a request and an answer look like on the wire, and nothing else."""
