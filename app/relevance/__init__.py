"""The deployed relevance model: what a document is worth to a query, and where both lie."""
