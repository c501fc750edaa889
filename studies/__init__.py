"""The vocabulary that server, worker and command share: studies, trials, recipes and the wire."""
