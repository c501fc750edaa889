"""The warm process that owns torch, one on a device: `python -m trainer.child FD`."""

from __future__ import annotations

import gc


def main() -> None:
    """Runs the process. A collection would find nothing while torch is imported, and take long."""
    gc.disable()
    from trainer.orders import main as run

    gc.enable()
    run()


if __name__ == "__main__":
    main()
