"""The pool: its queue, its workers' places, what is counted, and the one mutex over all of it.

- `core`: the state, the sections of the mutex, repair after an interruption
- `life`: what happens to a task: taken, run, committed, helped along, cancelled
- `queue`: admission: how tasks get in, and what happens when there is no place
- `task_queue`: which task comes next, which one is dropped first
- `waiters`: coroutines that wait for a place
- `histogram`: durations counted into buckets
- `summaries`: the latest failure, as it is kept for `stats()`
- `report`: what a pool is busy with, in words
"""
