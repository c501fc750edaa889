"""Every guard, how it is taken out, and the tests that must notice.

One whose text is no longer there, or there twice, fails a test: move its row with the code.
"""

from __future__ import annotations

from typing import Final

from tests.mutants.claims import CLAIMS
from tests.mutants.guard import Guard
from tests.mutants.writes import WRITES

GUARDS: Final[tuple[Guard, ...]] = (*WRITES, *CLAIMS)
