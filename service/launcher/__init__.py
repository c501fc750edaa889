"""Launchers start workers and keep them running; the server is blind to how."""
