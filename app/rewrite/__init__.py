"""The request path: admission, deadline, cache, single-flight, engine, guard, confidence."""
