"""HTTP: each module is one group of callers; no route does more than call a use case."""
