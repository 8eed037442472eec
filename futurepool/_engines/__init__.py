"""Where tasks run, behind the one protocol `futurepool._pool.core.Engine`.

`threads` runs them in worker threads of this process. An engine makes the workers that the pool
asks for, each with a `WorkerSlot`; a sleeping worker is woken by `slot.parker.release()`, comes for
work with `Pool.next_task`, and goes when that says `leave`.
"""
