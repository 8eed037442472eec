"""The programs. Each gets the pool's class and answers with plain data.

They wait for events, never for time to pass, and each ends by itself. The order of the modules is that
of the page.
"""

from tests.differential.programs import (  # isort: skip
    making,
    futures,
    mapping,
    ending,
    looking,
    loops,
    others,
)

__all__ = ["ending", "futures", "looking", "loops", "making", "mapping", "others"]
