"""Where tasks run, behind the one protocol `futurepool._pool.core.Engine`.

`threads` runs them in worker threads of this process. An engine makes the workers that the core
asks for, each with a `Record`; a sleeping worker is woken by `record.gate.release()`, comes for
work with `Core.turn`, and goes when that says `leave`.
"""
