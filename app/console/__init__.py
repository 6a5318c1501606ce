"""The console at /console: what a search engineer opens first. No page loads anything from elsewhere."""
