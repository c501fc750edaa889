"""The mutation gate: each guard of the protocol taken out in turn makes a named test fail.

`make mutants` runs it. guards.py is the table, __main__.py the runner.
"""
