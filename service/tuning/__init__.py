"""The only code that holds an Optuna study: what to try next, and which trials to end early."""

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)
