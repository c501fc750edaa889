"""The server: studies over REST, trials over the worker protocol, pages for people."""
