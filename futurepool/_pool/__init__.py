"""The pool: its queue, its workers' places, what is counted, and the one mutex over all of it.

- `section`: the mutex, what its sections leave to be done, repair after an interruption
- `core`: the state, and how it is counted again
- `life`: what happens to a task: taken, run, committed, helped along, cancelled
- `queue`: admission: how tasks get in, and what happens when there is no place
- `task_queue`: which task comes next, which one is dropped first
- `waiters`: coroutines that wait for a place
- `histogram`: durations counted into buckets
- `summaries`: the latest failure, as it is kept for `stats()`
- `report`: what a pool is busy with, in words
"""
