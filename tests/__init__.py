"""The tests; the folders mirror the rooms, and harness/ starts the real programs."""
