"""The pool: its queue, its workers' places, who waits, what is counted, and the one mutex over all of it.

```
  submitter                       the pool                            worker
  ─────────                       ────────                            ──────
  submit ──── admit ───────────>  queue  ──────── take ───────────>   slot.task ──> runs it
     │        a place is taken      │             PENDING -> RUNNING       │
     │                              │                                      │
     └─ no place: overload          │ cancel: a tombstone                  │ commit
        blocks, refuses, drops,     v                                      v RUNNING -> FINISHED
        runs it, goes over        capacity  <──── the place is free ───── meters
                                    │
  waiter <────── grant ─────────────┘
  (a thread, or coroutines)
```

**Parts**, each with its own fields, which nobody else writes; they never call each other:

- `capacity`: ids given out, ids that may be given out: the places
- `task_queue`, `timed_queues`: which task comes next, which one is dropped first
- `workers`: the slots where tasks run; who sleeps; the invariant of wake-ups
- `limits`: tasks of which only so many may run at a time; stands before the queue
- `expiry`: tasks that may wait only so long
- `overdue`: tasks that may run only so long; whose threads are written off
- `waiters`: who waits for a place, who waits for the end
- `meters`: what is counted; `histogram`, `summaries`: how durations and the latest failure are kept

**The conductor**:

- `section`: the mutex, what its sections leave to be done, repair after an interruption
- `pool`: the parts changed together: admit, take, commit, cancel, close
- `fast`: the same unrolled, where every task comes by; `compiled`: the same in C, if that was built

**What takes more than a section**:

- `submission`: how a task gets in; `overload`: what it does without a place
- `completion`: a task has run, and everyone is told
- `helping`: who runs what a worker of this pool waits for
- `sizing`: workers ahead of the work, and the end of those that idle
- `slow`: tasks that run for long are logged; `observing`: observers are told of each task
- `ending`: waiting for the end, and cutting short what is left
- `report`: what a pool is busy with, in words

**Transitions**, each in one section:

```
admit    capacity.take           queue.push              a worker is woken, or one reserved
take     queue.take              slot.task = it          PENDING -> RUNNING
commit   slot.task = None        RUNNING -> FINISHED     meters.count_run   capacity.give -> waiters
cancel   PENDING -> CANCELLED    a tombstone in queue    capacity.give -> waiters
expire   PENDING -> FINISHED     a tombstone in queue    capacity.give -> waiters
taking   slot.task = None        RUNNING -> CANCELLED    only from an engine, which had not begun with it
overrun  a commit by the timer   slot is OVERDUE, or off the list of workers
```

**The life of a pool**:

```
phase      trigger                                        what may still happen
RUNNING    it is made                                     everything
DRAINING   shutdown(), stop(), collection, exit, a        no task gets in; the backlog runs; who waits for a
           failed initializer (which fails the backlog)   place is turned away; idle workers leave
STOPPING   cancel_futures=True, stop() out of time        the backlog is cancelled; what runs goes on
(no slot)  the last worker has left                       callbacks of cancelled tasks, in threads aside
```

**Words.** A *slot* is where a task runs. A *parker* is what a thread sleeps at. *Subscribers* want to hear of a
future. A *place* is one of the tasks that may be unfinished at a time. A *tombstone* is an entry in the queue
whose task is no longer PENDING. A *row* is tasks that a worker ran one right after the other. What a section
leaves to be done is *deferred*; what nobody's thread is to run is run *aside*, by `futurepool._foreign.aside`.
"""
