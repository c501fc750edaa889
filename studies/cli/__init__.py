"""`lmtune`, the command: up, create, watch, best, export ...; acts only through the client."""

from studies.cli.app import main

__all__ = ["main"]
