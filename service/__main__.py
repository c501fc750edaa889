"""`lmtune-server`: serves studies, trials and the dashboard; see `lmtune-server --help`."""

from __future__ import annotations

import gc


def main() -> None:
    """Runs the command. While modules are imported a collection finds nothing, slowly."""
    gc.disable()
    from service.command import main as run

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
