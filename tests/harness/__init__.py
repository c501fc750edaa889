"""Real programs for the tests: PostgreSQL, a server, workers, Chromium."""
