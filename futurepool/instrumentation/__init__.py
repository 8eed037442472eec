"""Metrics of all pools for monitoring systems: `prometheus` and `opentelemetry`.

Each is a module of its own, imported when first asked for, and needs its client library: the extras
`prometheus` and `opentelemetry`. Both read `futurepool.pools()` when they are asked for numbers, and cost
nothing in between: nothing is done for a task.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from futurepool.instrumentation import opentelemetry, prometheus

__all__ = ["opentelemetry", "prometheus"]

if not TYPE_CHECKING:  # or no checker would notice a misspelt name any more

    def __getattr__(name: str) -> Any:
        if name in __all__:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
