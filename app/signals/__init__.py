"""What recall, rawrank and finerank take from a rewrite, beside the signals of the original query."""
