/* The hot paths in C: the third form of `submit`, a worker's `next_task` with the loop around it, and
 * `Future.result`. The first two forms are the methods of `Pool`, and futurepool/_pool/fast.py.
 *
 * It works on the very objects that the Python code has: each attribute is where its class's `__slots__`
 * have put it, and is found by the offset that the slot's descriptor knows. So whatever reads or changes
 * them in Python sees no difference. Slots for numbers hold them as C does, see `offset_of`.
 *
 * What is not the plain case is handed to the Python function whose twin it is, before anything was changed:
 * each function here is called through a `Twin`, which holds that function. A mutex that is not a `Mutex` of this
 * module is such a case, so a model of the primitives gets the Python code.
 *
 * Rules, beside those of futurepool/_pool/section.py:
 *
 * 1. Inside a section nothing is let go of that may be the last reference to something of a user's.
 * 2. What a section is to make (integers) is made before the step that needs it; if that fails, the section
 *    was interrupted there, as it may be in Python.
 * 3. Fields that are guarded by the mutex are read plainly inside of a section. Others may read them outside,
 *    so without a GIL each is changed in a critical section of its object (`put`), as the interpreter does: a
 *    reader may be about to count a reference to what is let go of. That does not matter for what is immortal.
 *    What is read outside of a section is never changed once it can be seen (`_pool`, options, a result).
 *    What is a number, and no reference (`NUMBERS`), can be read at any time; who wants two that belong together
 *    holds the mutex.
 * 4. No static state: all is in the module, so each interpreter has its own.
 */

#include "_fast_fields.h"
#include "_fast_parts.h"

#define ADMITTED 256 /* tasks in one section at most, as in fast.py */
#define MANY 64 /* tasks in a row, before the interpreter has a look at signals, and at who waits for its turn */

/* twin of section.unpark */
static int unpark(State *st, PyObject *parker) {
    if (CALL(parker, release) == 0) {
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_RuntimeError) && !PyErr_ExceptionMatches(PyExc_RecursionError)) {
        PyErr_Clear(); /* released already */
        return 0;
    }
    return -1;
}

static inline int run_deferred(State *st, PyObject *pool) {
    PyObject *deferred = GET(pool, Section, deferred); /* set once */
    Py_ssize_t count = count_of(deferred);
    return count <= 0 ? (int)count : CALL(pool, run_deferred);
}

/* -- submit ----------------------------------------------------------------------------------- */

/* twin of Section.repair, as at the end of `Submitting.submit`: first by C calls only. The exception stays set. */
static void interrupted(State *st, PyObject *pool, PyObject *mutex, PyObject *future) {
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    int failed = 0;
    PyObject *deferred = GET(pool, Section, deferred);
    failed |= take_mutex(mutex);
    PyObject *act = PyObject_GetAttr(pool, st->s._rebuild);
    failed |= act == NULL ? -1 : done(of_deque(&st->m.append, deferred, act));
    Py_XDECREF(act);
    if (GET(future, Future, _state) == st->o.PENDING) {
        act = PyObject_GetAttr(future, st->s._announce);
        failed |= act == NULL ? -1 : done(of_deque(&st->m.append, deferred, act));
        Py_XDECREF(act);
        PUT(future, Future, _state, Py_NewRef(st->o.CANCELLED));
        track(future);
    }
    if (failed) {
        PyErr_Clear();
    }
    while (owns((Mutex *)mutex)) {
        free_mutex(mutex);
    }
    if (CALL_ONE(pool, repair, future) < 0) {
        /* Interrupted again: that is what the submitter hears of. */
        Py_XDECREF(kind);
        Py_XDECREF(value);
        Py_XDECREF(trace);
        return;
    }
    PyErr_Restore(kind, value, trace);
}

/* A context for a task of this submitter, None for an empty one; with `asked` NULL without an exception may say that
 * somebody's patch is to be asked. */
static PyObject *capture(State *st, PyObject *pool, int asked) {
#if PY_VERSION_HEX < 0x03100000 /* nearly always there is none, or an empty one: that need not be copied */
    PyObject *current = PyThreadState_Get()->context;
    if (current == NULL || PyObject_Size(current) == 0) {
        return Py_NewRef(Py_None);
    }
#endif
    PyObject *context = PyContext_CopyCurrent();
    RETURN_IF(context == NULL, NULL);
    Py_ssize_t count = PyObject_Size(context);
    if (count <= 0) {
        Py_DECREF(context);
        return count < 0 ? NULL : Py_NewRef(Py_None);
    }
    int plain = 1;
    if (asked) {
        PyObject *found = PyObject_GetAttr(st->o.ThreadPoolExecutor, st->s.submit);
        PyObject *original = found == NULL ? NULL : of_module(st->o.patched, st->s.original);
        plain = original != NULL && found == original;
        Py_XDECREF(found);
        Py_XDECREF(original);
    }
    PyObject *adopted = plain ? call_one(GET(pool, Pool, adopt), context) : NULL;
    Py_DECREF(context);
    return adopted;
}

/* twin of _future.new_future */
static inline PyObject *new_future(State *st) {
    PyTypeObject *type = (PyTypeObject *)st->o.Future;
#if PY_VERSION_HEX < 0x030D0000
    /* `object.__new__` would make room for attributes, which nearly none has: as for what is made in C, that
     * comes when the first is set. Later versions have the room in the object. */
    return type->tp_alloc(type, 0);
#else
    PyObject *future = PyBaseObject_Type.tp_new(type, st->empty, NULL);
#ifdef Py_GIL_DISABLED
    /* A worker will let go of a reference that this thread has made, for which it would have to ask this thread:
     * its count is one for all threads from the start. */
    if (future != NULL) {
        _Py_atomic_store_ssize_relaxed(&future->ob_ref_shared, _Py_REF_SHARED(1, _Py_REF_MERGED));
        _Py_atomic_store_uint32_relaxed(&future->ob_ref_local, 0);
        _Py_atomic_store_uintptr_relaxed(&future->ob_tid, 0);
    }
#endif
    return future;
#endif
}

/* twin of submission.make_future, but for the time. `args` and `kwargs` are handed over, maybe as NULL after an
 * exception. */
static PyObject *make_future(State *st, PyObject *pool, PyObject *options, PyObject *fn, PyObject *args,
                             PyObject *kwargs, PyObject *context, PyObject *subscribers) {
    PyObject *future = args == NULL || kwargs == NULL ? NULL : new_future(st);
    if (future == NULL) {
        Py_XDECREF(args);
        Py_XDECREF(kwargs);
        return NULL;
    }
    *AT(future, st->at.Future__args) = args;
    *AT(future, st->at.Future__kwargs) = kwargs;
    FILL(future, Future, _pool, pool);
    FILL(future, Future, _fn, fn);
    FILL(future, Future, _context, context);
    FILL(future, Future, _state, st->o.PENDING);
    FILL(future, Future, _subscribers, subscribers);
    FILL(future, Future, priority, GET(options, Options, priority));
    SET_INT(future, Future, task_id, 0);
    return future;
}

/* The arguments by name, as they come: a new dict, or None. */
static PyObject *by_name(PyObject *const *values, PyObject *names) {
    RETURN_IF(names == NULL || PyTuple_GET_SIZE(names) == 0, Py_NewRef(Py_None));
    PyObject *kwargs = PyDict_New();
    for (Py_ssize_t i = 0; kwargs != NULL && i < PyTuple_GET_SIZE(names); i++) {
        if (PyDict_SetItem(kwargs, PyTuple_GET_ITEM(names, i), values[i]) < 0) {
            Py_CLEAR(kwargs);
        }
    }
    return kwargs;
}

/* What is queued the collector may leave alone, see `track`. Section held. */
static inline void untrack(State *st, PyObject *mutex, PyObject *future) {
#ifndef Py_GIL_DISABLED
    if (((Mutex *)mutex)->rows > 0 && GET(future, Future, _state) == st->o.PENDING) {
        PyObject_GC_UnTrack(future); /* unless a finalizer within this section has cancelled it */
    }
#endif
}

/* The mutex of a pool, new, if it is a plain one and not this thread's; NULL. */
static inline PyObject *mutex_of(State *st, PyObject *pool) {
    RETURN_IF(Py_TYPE(pool) != (PyTypeObject *)st->o.Pool, NULL);
    PyObject *mutex = GET(pool, Section, mutex);
    RETURN_IF(Py_TYPE(mutex) != st->mutex_type || owns((Mutex *)mutex), NULL);
    return Py_NewRef(mutex);
}

static inline PyObject *without_place(State *st, PyObject *pool, PyObject *options, PyObject *future) {
    PyObject *stack[4] = {NULL, pool, options, future};
    return PyObject_Vectorcall(st->o.without_place, stack + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

/* twin of fast.Submitting.submit; `args` are the executor, the function, its arguments. NULL without an
 * exception: not the plain case, nothing was changed. */
static PyObject *submit(State *st, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    PyObject *pool = NULL, *options = NULL, *mutex = NULL, *context = NULL, *future = NULL;
    PyObject *value, *parker = NULL, *answer = NULL;
    int starts = 0;

    RETURN_IF(count < 2 || !PyCallable_Check(args[1]) || READ_FLAG(st->long_way), NULL);
    pool = PyObject_GetAttr(args[0], st->s._futurepool);
    options = pool == NULL ? NULL : PyObject_GetAttr(args[0], st->s._futurepool_options);
    if (options == NULL) {
        PyErr_Clear();
        goto end;
    }
    if (Py_TYPE(options) != (PyTypeObject *)st->o.Options || GET(options, Options, special) != Py_None) {
        goto end;
    }
    mutex = mutex_of(st, pool);
    GOTO_IF(mutex == NULL, end);
    context = capture(st, pool, 1);
    GOTO_IF(context == NULL, end);
    value = count == 2 ? Py_NewRef(st->empty) : PyTuple_New(count - 2);
    for (Py_ssize_t i = 2; value != NULL && i < count; i++) {
        PyTuple_SET_ITEM(value, i - 2, Py_NewRef(args[i]));
    }
    future = make_future(st, pool, options, args[1], value, value == NULL ? NULL : by_name(args + count, names),
                         context, GET(options, Options, subscribers));
    GOTO_IF(future == NULL, end);
    double now;
    GOTO_IF(now_is(st, has_own_clock(st), &now) < 0, repair);
    SET_TIME(future, Future, _queued_at, now);

    GOTO_IF(take_mutex(mutex) < 0, repair);
    PyObject *capacity = GET(pool, Pool, capacity), *workers = GET(pool, Pool, workers);
    long long submitted = INT(capacity, Capacity, submitted);
    if (submitted >= INT(capacity, Capacity, max_id) || number(GET(pool, Pool, state)) != 0) {
        GOTO_IF(PyErr_Occurred() || free_mutex(mutex) < 0, repair);
        answer = without_place(st, pool, options, future);
        goto end;
    }
    /* twin of Pool.admit and Capacity.take */
    SET_INT(future, Future, task_id, submitted + 1);
    SET_INT(capacity, Capacity, submitted, submitted + 1);
    PyObject *priority = GET(options, Options, priority);
    GOTO_IF(enqueue(st, GET(pool, Pool, queue), future, priority) < 0, repair);
    /* twin of Pool.signal_work; see Submitting.submit why this thread does at once what is to be done */
    PyObject *parked = GET(workers, Workers, parked);
    Py_ssize_t sleepers = count_of(parked);
    if (sleepers > 0 && GET(workers, Workers, wakeup_pending) == Py_False) {
        PUT(workers, Workers, wakeup_pending, Py_NewRef(Py_True));
        PyObject *slot = of_deque(&st->m.pop, parked, NULL);
        GOTO_IF(slot == NULL, repair);
        parker = Py_NewRef(GET(slot, WorkerSlot, parker));
        Py_DECREF(slot);
    }
    else if (number(GET(workers, Workers, threads)) < number(GET(workers, Workers, max_workers))
             && missing(st, capacity, workers) > 0) {
        GOTO_IF(ADD(workers, Workers, reserved, 1) < 0 || ADD(workers, Workers, threads, 1) < 0, repair);
        starts = 1;
    }
    untrack(st, mutex, future);
    GOTO_IF(PyErr_Occurred() || free_mutex(mutex) < 0, repair);
    GOTO_IF(parker != NULL && unpark(st, parker) < 0, repair);
    GOTO_IF(starts && CALL(GET(pool, Pool, engine), start_worker) < 0, repair);
    GOTO_IF(run_deferred(st, pool) < 0, repair);
    answer = Py_NewRef(future);
    goto end;

repair:
    interrupted(st, pool, mutex, future);
end:
    Py_XDECREF(parker);
    Py_XDECREF(context);
    Py_XDECREF(future);
    Py_XDECREF(mutex);
    Py_XDECREF(options);
    Py_XDECREF(pool);
    return answer;
}

/* twin of what `fast.submit_many` does when it is interrupted. The exception stays set. */
static void interrupted_many(State *st, PyObject *pool, PyObject *futures, PyObject *batch) {
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    PyObject *all = batch == NULL ? Py_NewRef(futures) : PySequence_Concat(futures, batch);
    PyObject *args = all == NULL ? NULL : PyList_AsTuple(all);
    PyObject *repair = args == NULL ? NULL : PyObject_GetAttr(pool, st->s.repair);
    int failed = repair == NULL || done(PyObject_CallObject(repair, args)) < 0;
    Py_XDECREF(all);
    Py_XDECREF(args);
    Py_XDECREF(repair);
    if (failed) { /* interrupted again: that is what the submitter hears of */
        Py_XDECREF(kind);
        Py_XDECREF(value);
        Py_XDECREF(trace);
        return;
    }
    PyErr_Restore(kind, value, trace);
}

/* The futures of one batch, of so many calls from `first` on; -1 with an exception, and then `batch` has some. */
static int make_batch(State *st, PyObject *pool, PyObject *options, PyObject *fn, PyObject *calls, Py_ssize_t first,
                      Py_ssize_t count, PyObject *batch) {
    double now;
    int failed = now_is(st, has_own_clock(st), &now) < 0;
    for (Py_ssize_t i = first; !failed && i < first + count; i++) {
        PyObject *context = capture(st, pool, 0), *future = NULL;
        if (context != NULL) {
            future = make_future(st, pool, options, fn, Py_NewRef(PyTuple_GET_ITEM(calls, i)), Py_NewRef(Py_None),
                                 context, Py_None);
            Py_DECREF(context);
        }
        failed = future == NULL;
        if (!failed) {
            SET_TIME(future, Future, _queued_at, now);
            failed = PyList_Append(batch, future) < 0;
            Py_DECREF(future);
        }
    }
    return failed ? -1 : 0;
}

/* twin of fast._admit_all, for those of a batch that find a place. Section held. */
static int admit_all(State *st, PyObject *pool, PyObject *mutex, PyObject *batch) {
    PyObject *capacity = GET(pool, Pool, capacity), *workers = GET(pool, Pool, workers);
    long long submitted = INT(capacity, Capacity, submitted);
    long long room = INT(capacity, Capacity, max_id) - submitted;
    room = room < 0 ? 0 : room < PyList_GET_SIZE(batch) ? room : PyList_GET_SIZE(batch);
    for (Py_ssize_t i = 0; i < room; i++) {
        PyObject *future = PyList_GET_ITEM(batch, i);
        SET_INT(future, Future, task_id, submitted + i + 1);
        SET_INT(capacity, Capacity, submitted, submitted + i + 1);
        RETURN_IF(enqueue(st, GET(pool, Pool, queue), future, GET(future, Future, priority)) < 0, -1);
        untrack(st, mutex, future);
    }
    long long more = 1 + number(GET(workers, Workers, max_workers)) - number(GET(workers, Workers, threads));
    for (more = more < room ? more : room; more > 0; more--) {
        RETURN_IF(CALL(pool, signal_work) < 0, -1);
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* twin of the rest of fast.submit_many, of one batch: appends to `futures`. */
static int submit_batch(State *st, PyObject *pool, PyObject *options, PyObject *mutex, PyObject *batch,
                        PyObject *futures) {
    RETURN_IF(take_mutex(mutex) < 0, -1);
    if (number(GET(pool, Pool, state)) == 0) {
        RETURN_IF(admit_all(st, pool, mutex, batch) < 0, -1);
    }
    RETURN_IF(PyErr_Occurred() || free_mutex(mutex) < 0, -1);
    RETURN_IF(CALL(pool, start_reserved) < 0 || run_deferred(st, pool) < 0, -1);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(batch); i++) {
        PyObject *future = PyList_GET_ITEM(batch, i);
        future = INT(future, Future, task_id) == 0 ? without_place(st, pool, options, future)
                                                   : Py_NewRef(future);
        int failed = future == NULL || PyList_Append(futures, future) < 0;
        Py_XDECREF(future);
        RETURN_IF(failed, -1);
    }
    return 0;
}

/* twin of fast.submit_many; NULL as `submit`. */
static PyObject *submit_many(State *st, PyObject *pool, PyObject *options, PyObject *fn, PyObject *sequence) {
    RETURN_IF(Py_TYPE(options) != (PyTypeObject *)st->o.Options || GET(options, Options, special) != Py_None, NULL);
    PyObject *mutex = mutex_of(st, pool);
    RETURN_IF(mutex == NULL, NULL);
    PyObject *calls = NULL, *batch = NULL, *futures = NULL;
    PyObject *patch = PyObject_CallMethodNoArgs(st->o.patched, st->s.look);
    int plain = patch == NULL ? -1 : !PyObject_IsTrue(patch);
    Py_XDECREF(patch);
    calls = plain > 0 ? PySequence_Tuple(sequence) : NULL;
    GOTO_IF(calls == NULL, end);
    Py_ssize_t count = PyTuple_GET_SIZE(calls), first = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        GOTO_IF(!PyTuple_CheckExact(PyTuple_GET_ITEM(calls, i)), end);
    }
    futures = PyList_New(0);
    while (futures != NULL && first < count) {
        PyObject *capacity = GET(pool, Pool, capacity); /* a guess; what finds no room goes the usual way */
        long long room = INT(capacity, Capacity, max_id) - INT(capacity, Capacity, submitted);
        room = room < 1 ? 1 : room > ADMITTED ? ADMITTED : room;
        room = room > count - first ? count - first : room;
        batch = PyList_New(0);
        if (batch == NULL || make_batch(st, pool, options, fn, calls, first, room, batch) < 0
            || submit_batch(st, pool, options, mutex, batch, futures) < 0) {
            interrupted_many(st, pool, futures, batch);
            Py_CLEAR(futures);
        }
        Py_CLEAR(batch);
        first += room;
    }
end:
    Py_XDECREF(calls);
    Py_DECREF(mutex);
    return futures;
}

/* -- next_task -------------------------------------------------------------------------------- */

/* What is to be told once the section has ended. */
static inline int announce(State *st, PyObject *task) {
    return CALL(task, _announce);
}

/* twin of fast.next_task, whose numbers these are. A task, or None; NULL with an exception, and then the
 * mutex may be held, and the loop of the worker repairs. `mutex` is the pool's, and known to be plain. With
 * `seen` a worker that finds nothing does not park yet: None, and there the last id as of then. */
static PyObject *
next_task(State *st, PyObject *pool, PyObject *slot, PyObject *mutex, int own_clock, long long *seen)
{
    PyObject *following = NULL, *subscribers = NULL, *parker = NULL;
    PyObject *task = GET(slot, WorkerSlot, task);
    task = task == Py_None ? NULL : Py_NewRef(task);
    double now;
    GOTO_IF(now_is(st, own_clock, &now) < 0 || take_mutex(mutex) < 0, failed);
    PyObject *meters = GET(pool, Pool, meters), *workers = GET(pool, Pool, workers);
    if (task != NULL) {
        /* 1. twin of Pool.commit */
        subscribers = GET(task, Future, _subscribers);
        subscribers = subscribers == Py_None ? NULL : Py_NewRef(subscribers);
        if (subscribers != NULL && GET(subscribers, Subscribers, slow) != Py_False) {
            GOTO_IF(free_mutex(mutex) < 0, failed);
            following = call_two(st->o.next_task, pool, slot);
            goto end;
        }
        PUT(task, Future, _state, Py_NewRef(st->o.FINISHED));
        track(task);
        PUT(slot, WorkerSlot, task, Py_NewRef(Py_None));
        double started = TIME(slot, WorkerSlot, started);
        double waited = started - TIME(task, Future, _queued_at);
        if (waited < 0.0) {
            waited = 0.0;
        }
        PyObject *capacity = GET(pool, Pool, capacity);
        SET_INT(meters, Meters, completed, INT(meters, Meters, completed) + 1);
        SET_INT(capacity, Capacity, max_id, INT(capacity, Capacity, max_id) + 1);
        /* twin of Meters.count_run. At once, where the form in Python notes them: it is but a few steps. */
        ADD_TIME(meters, Meters, wait_time, waited);
        if (GET(meters, Meters, latency) != Py_None) {
            GOTO_IF(count_times(st, meters, now - started, waited) < 0, failed);
        }
        if (GET(GET(pool, Pool, waiters), Waiters, anyone) != Py_False) {
            GOTO_IF(CALL(pool, place_freed) < 0, failed);
        }
        PyObject *parkers = subscribers == NULL ? NULL : GET(subscribers, Subscribers, parkers);
        if (parkers != NULL && parkers != Py_None && PyObject_Size(parkers)) {
            /* 2. */
            ADD_TIME(meters, Meters, run_time, now - TIME(slot, WorkerSlot, since));
            if (free_mutex(mutex) < 0 || announce(st, task) < 0 || run_deferred(st, pool) < 0) {
                goto failed;
            }
            following = Py_NewRef(Py_None);
            goto end;
        }
    }
    else {
        SET_TIME(slot, WorkerSlot, since, now); /* a new row of tasks */
    }
    /* 3. */
    long status = PyLong_AsLong(GET(slot, WorkerSlot, status));
    if (status) {
        GOTO_IF(CALL_ONE(pool, come_back, slot) < 0, failed);
        if (GET(slot, WorkerSlot, leave) != Py_False) {
            if (task != NULL) {
                ADD_TIME(meters, Meters, run_time, now - TIME(slot, WorkerSlot, since));
            }
            if (free_mutex(mutex) < 0
                || (subscribers != NULL && announce(st, task) < 0) || CALL(pool, run_deferred) < 0) {
                goto failed;
            }
            following = Py_NewRef(Py_None);
            goto end;
        }
    }
    SET_TIME(slot, WorkerSlot, started, now);
    /* 4. twin of PriorityQueue.take */
    PyObject *queue = GET(pool, Pool, queue);
    int usual = Py_TYPE(queue) == (PyTypeObject *)st->o.PriorityQueue, taken = 0;
    if (usual) {
        PyObject *level = advance(st, queue);
        GOTO_IF(level == NULL, failed);
        taken = count_of(level) == 0; /* there is none */
        if (!taken && Py_TYPE(level) == (PyTypeObject *)st->o.Level) {
            following = PySequence_GetItem(level, 0);
            if (following == NULL) {
                Py_DECREF(level);
                goto failed;
            }
            PUT(slot, WorkerSlot, task, Py_NewRef(following));
            PyObject *hopes = GET(following, Future, _subscribers);
            if (GET(following, Future, _state) == st->o.PENDING
                && (hopes == Py_None || GET(hopes, Subscribers, token) == Py_None)) {
                PUT(following, Future, _state, Py_NewRef(st->o.RUNNING));
                if (done(of_deque(&st->m.popleft, level, NULL)) < 0) {
                    Py_DECREF(level);
                    goto failed;
                }
                taken = 1;
                if (task != NULL) {
                    Py_DECREF(level);
                    GOTO_IF(free_mutex(mutex) < 0, failed);
                    if (subscribers != NULL) {
                        if (GET(subscribers, Subscribers, shared) != Py_False
                                ? CALL_ONE(subscribers, post, task) < 0
                                : announce(st, task) < 0) {
                            goto failed;
                        }
                    }
                    GOTO_IF(run_deferred(st, pool) < 0, failed);
                    goto end;
                }
            }
            else {
                /* A tombstone, or a task under a token. In line it is held by the queue still. */
                PUT(slot, WorkerSlot, task, Py_NewRef(Py_None));
                Py_CLEAR(following);
            }
        }
        Py_DECREF(level);
    }
    if (!taken) {
        following = PyObject_CallMethodOneArg(pool, st->s.take, slot);
        GOTO_IF(following == NULL, failed);
        if (following == Py_None) {
            Py_CLEAR(following);
        }
    }
    /* 5. twin of Pool._wake_next and Pool._park_or_leave */
    if (following != NULL) {
        PyObject *parked = GET(workers, Workers, parked);
        if (status == 1 && count_of(parked)
            && missing(st, GET(pool, Pool, capacity), workers) > -(long long)count_of(parked)) {
            PUT(workers, Workers, wakeup_pending, Py_NewRef(Py_True));
            PyObject *other = of_deque(&st->m.pop, parked, NULL);
            GOTO_IF(other == NULL, failed);
            parker = Py_NewRef(GET(other, WorkerSlot, parker));
            Py_DECREF(other);
        }
    }
    else {
        if (task != NULL) {
            ADD_TIME(meters, Meters, run_time, now - TIME(slot, WorkerSlot, since));
        }
        int listed = PyDict_Contains(GET(workers, Workers, listed), slot);
        GOTO_IF(listed < 0, failed);
        int over = number(GET(pool, Pool, state)) != 0 && number(GET(workers, Workers, held)) == 0;
        if (over || !listed) {
            GOTO_IF(CALL_ONE(pool, leave, slot) < 0, failed);
        }
        else if (seen != NULL) {
            *seen = INT(GET(pool, Pool, capacity), Capacity, submitted);
        }
        else {
            PUT(slot, WorkerSlot, status, PyLong_FromLong(1));
            GOTO_IF(done(of_deque(&st->m.append, GET(workers, Workers, parked), slot)) < 0, failed);
        }
    }
    GOTO_IF(PyErr_Occurred() || free_mutex(mutex) < 0, failed);
    if ((subscribers != NULL && announce(st, task) < 0) || (parker != NULL && unpark(st, parker) < 0)
        || run_deferred(st, pool) < 0) {
        goto failed;
    }
    following = following == NULL ? Py_NewRef(Py_None) : following;
    goto end;

failed:
    Py_CLEAR(following);
end:
    Py_XDECREF(parker);
    Py_XDECREF(subscribers);
    Py_XDECREF(task);
    return following;
}

/* -- a row of tasks --------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    State *st;
    PyObject *module;
    PyObject *pool;
    PyObject *slot;
    PyObject *mutex;
    PyObject *counted; /* the mutex that counts it: in the child of a fork not `mutex` */
    PyObject *spare; /* a context for tasks that were submitted without variables */
    PyObject *known; /* the latest function, and what it is called */
    PyObject *name;
    PyObject *task; /* the latest, until the next one is claimed: for who repairs */
    char failed;
    char looked; /* for work, and there was none */
} Row;

/* What a task's function is called; new. See worker_loop.work. */
static PyObject *name_of(Row *row, PyObject *fn, PyObject *args) {
    State *st = row->st;
    if (fn == row->known) {
        return Py_NewRef(row->name);
    }
    if (PyFunction_Check(fn)) {
        return Py_NewRef(((PyFunctionObject *)fn)->func_qualname);
    }
    PyObject *name = call_two(st->o.name_of, fn, args);
    if (name != NULL
        && !(PyCFunction_CheckExact(fn) && PyCFunction_GET_SELF(fn) != NULL
             && PyContext_CheckExact(PyCFunction_GET_SELF(fn)))) {
        /* With other arguments the `run` of a context has another name. */
        Py_XSETREF(row->known, Py_NewRef(fn));
        Py_XSETREF(row->name, Py_NewRef(name));
    }
    return name;
}

/* twin of steps 3 and 4 of worker_loop.work. 0, or -1 with an exception. */
static int run_task(Row *row, PyObject *task) {
    State *st = row->st;
    int code = -1;
    PyObject *fn = Py_NewRef(GET(task, Future, _fn)), *args = Py_NewRef(GET(task, Future, _args));
    PyObject *kwargs = Py_NewRef(GET(task, Future, _kwargs));
    PyObject *context = GET(task, Future, _context), *result = NULL, *name = NULL;
    PyObject *kind = NULL, *value = NULL, *trace = NULL;
    context = Py_NewRef(context == Py_None ? row->spare : context);
    if (fn != row->known) {
        Py_CLEAR(row->known); /* it may die while this one runs */
    }
    if (PyContext_Enter(context) == 0) {
        if (kwargs != Py_None) {
            result = PyObject_Call(fn, args, kwargs);
        }
        else {
            result = PyObject_Vectorcall(
                fn, ((PyTupleObject *)args)->ob_item, PyTuple_GET_SIZE(args), NULL);
        }
        if (PyContext_Exit(context) < 0) {
            Py_CLEAR(result);
        }
    }
    if (result != NULL) {
        PUT(task, Future, _result, result);
    }
    else {
        PyErr_Fetch(&kind, &value, &trace);
        row->failed = 1;
    }
    /* twin of Future._release_call */
    name = name_of(row, fn, args);
    if (name == NULL) {
        row->failed = 0;
        goto end;
    }
    PUT(task, Future, _fn, name);
    Py_ssize_t left = PyObject_Size(row->spare);
    if (left != 0) {
        PyObject *another = left < 0 ? NULL : PyContext_New();
        if (another == NULL) {
            row->failed = 0;
            goto end;
        }
        Py_SETREF(row->spare, another); /* nothing leaks from one task to the next */
    }
    PUT(task, Future, _args, Py_NewRef(Py_None));
    PUT(task, Future, _context, Py_NewRef(Py_None));
    if (kwargs != Py_None) {
        PUT(task, Future, _kwargs, Py_NewRef(Py_None));
    }
    code = result == NULL ? -1 : 0;
end:
    if (code < 0 && !row->failed) { /* what has come on top is more urgent */
        PyObject *later[3];
        PyErr_Fetch(&later[0], &later[1], &later[2]);
        Py_XSETREF(kind, later[0]);
        Py_XSETREF(value, later[1]);
        Py_XSETREF(trace, later[2]);
    }
    Py_DECREF(fn);
    Py_DECREF(args);
    Py_DECREF(kwargs);
    Py_DECREF(context);
    if (code < 0) {
        PyErr_Restore(kind, value, trace);
    }
    return code;
}

/* Without a GIL the next submit may be a microsecond away, and to park, and be woken, costs both sides more than
 * to look for it a while. */
static void look_for_work(Row *row, long long seen) {
#ifdef Py_GIL_DISABLED
    State *st = row->st;
    PyObject *capacity = GET(row->pool, Pool, capacity); /* set once */
    for (int tries = 0; tries < LOOKS && INT(capacity, Capacity, submitted) == seen; tries++) {
        RELAX();
    }
#endif
}

static PyObject *row_call(PyObject *self, PyObject *args, PyObject *kwargs) {
    Row *row = (Row *)self;
    State *st = row->st;
    int own_clock = has_own_clock(st);
    row->failed = 0;
    for (int count = 0; count < MANY; count++) {
        long long seen = -1;
        if (GET(row->pool, Section, mutex) != row->mutex) { /* in the child of a fork */
            Py_SETREF(row->mutex, Py_NewRef(GET(row->pool, Section, mutex)));
        }
        PyObject *task = next_task(
            st, row->pool, row->slot, row->mutex, own_clock, LOOKS && !row->looked ? &seen : NULL);
        if (task == NULL) {
            return NULL; /* of which task: `task`, the one before */
        }
        row->looked = seen >= 0;
        if (task == Py_None) {
            Py_CLEAR(row->task);
            Py_CLEAR(row->known); /* a sleeping worker keeps no function of a user's alive */
            if (row->looked) {
                look_for_work(row, seen);
                continue;
            }
            return task;
        }
        Py_XSETREF(row->task, task);
        RETURN_IF(run_task(row, task) < 0, NULL);
    }
    Py_RETURN_NONE;
}

static PyObject *row_forget(PyObject *self, PyObject *unused) {
    Py_CLEAR(((Row *)self)->task);
    Py_CLEAR(((Row *)self)->known);
    PyObject *another = PyContext_New();
    RETURN_IF(another == NULL, NULL);
    Py_XSETREF(((Row *)self)->spare, another);
    Py_RETURN_NONE;
}

static int row_traverse(PyObject *self, visitproc visit, void *arg) {
    Row *row = (Row *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(row->module);
    Py_VISIT(row->pool);
    Py_VISIT(row->slot);
    Py_VISIT(row->mutex);
    Py_VISIT(row->spare);
    Py_VISIT(row->known);
    Py_VISIT(row->task);
    return 0;
}

static int row_clear(PyObject *self) {
    Row *row = (Row *)self;
    Py_CLEAR(row->pool);
    Py_CLEAR(row->slot);
    Py_CLEAR(row->mutex);
#ifndef Py_GIL_DISABLED
    if (row->counted != NULL) {
        ((Mutex *)row->counted)->rows--;
        Py_CLEAR(row->counted);
    }
#endif
    Py_CLEAR(row->spare);
    Py_CLEAR(row->known);
    Py_CLEAR(row->name);
    Py_CLEAR(row->task);
    Py_CLEAR(row->module);
    return 0;
}

static void row_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    row_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef row_methods[] = {
    {"forget", row_forget, METH_NOARGS, "After an interruption: hold no task, begin with an empty context."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef row_members[] = {
    {"failed", Py_T_BOOL, offsetof(Row, failed), Py_READONLY, "what was raised is a task's own"},
    {"task", T_OBJECT, offsetof(Row, task), Py_READONLY, "the latest task, or None"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot row_slots[] = {
    {Py_tp_doc, "What a worker calls: runs tasks one right after the other, until there is none."},
    {Py_tp_call, row_call},
    {Py_tp_traverse, row_traverse},
    {Py_tp_clear, row_clear},
    {Py_tp_dealloc, row_dealloc},
    {Py_tp_methods, row_methods},
    {Py_tp_members, row_members},
    {0, NULL},
};

static PyType_Spec row_spec = {
    "futurepool._pool._fast.Row",
    sizeof(Row),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
        | Py_TPFLAGS_IMMUTABLETYPE,
    row_slots,
};

#include "_fast_twin.h"

/* -- twins ------------------------------------------------------------------------------------ */

static PyObject *call_submit(PyObject *self, PyObject *const *args, size_t flags, PyObject *names) {
    Twin *twin = (Twin *)self;
    PyObject *future = submit(twin->st, args, PyVectorcall_NARGS(flags), names);
    if (future != NULL || PyErr_Occurred()) {
        return future;
    }
    return PyObject_Vectorcall(twin->wrapped, args, flags, names);
}

static PyObject *call_submit_many(PyObject *self, PyObject *const *args, size_t flags, PyObject *names) {
    Twin *twin = (Twin *)self;
    if (PyVectorcall_NARGS(flags) == 4 && (names == NULL || !PyTuple_GET_SIZE(names))
        && !READ_FLAG(twin->st->long_way)) {
        PyObject *futures = submit_many(twin->st, args[0], args[1], args[2], args[3]);
        if (futures != NULL || PyErr_Occurred()) {
            return futures;
        }
    }
    return PyObject_Vectorcall(twin->wrapped, args, flags, names);
}

static PyObject *call_next_task(PyObject *self, PyObject *const *args, size_t flags, PyObject *names) {
    Twin *twin = (Twin *)self;
    State *st = twin->st;
    if (PyVectorcall_NARGS(flags) == 2 && (names == NULL || !PyTuple_GET_SIZE(names))
        && Py_TYPE(args[0]) == (PyTypeObject *)st->o.Pool
        && Py_TYPE(args[1]) == (PyTypeObject *)st->o.WorkerSlot
        && Py_TYPE(GET(args[0], Section, mutex)) == st->mutex_type) {
        PyObject *mutex = Py_NewRef(GET(args[0], Section, mutex));
        PyObject *task = next_task(st, args[0], args[1], mutex, has_own_clock(st), NULL);
        Py_DECREF(mutex);
        return task;
    }
    return PyObject_Vectorcall(twin->wrapped, args, flags, names);
}

/* twin of Future.result */
static PyObject *call_result(PyObject *self, PyObject *const *args, size_t flags, PyObject *names) {
    Twin *twin = (Twin *)self;
    State *st = twin->st;
    if (PyVectorcall_NARGS(flags) == 1 && (names == NULL || !PyTuple_GET_SIZE(names))
        && PyObject_TypeCheck(args[0], (PyTypeObject *)st->o.Future)
        && look(args[0], st->at.Future__state) == st->o.FINISHED) {
        PyObject *result = look(args[0], st->at.Future__result);
        if (result != NULL && Py_TYPE(result) != (PyTypeObject *)st->o.Failure) {
            return Py_NewRef(result); /* nobody changes it any more */
        }
    }
    return PyObject_Vectorcall(twin->wrapped, args, flags, names);
}

/* -- the module ------------------------------------------------------------------------------- */

static int method_of(PyObject *names, const char *name, int flags, Method *method) {
    PyObject *found = PyDict_GetItemString(names, name);
    if (found == NULL) {
        PyErr_SetString(PyExc_KeyError, name);
        return -1;
    }
    method->descriptor = Py_NewRef(found);
    if (Py_TYPE(found) == &PyMethodDescr_Type) {
        PyMethodDef *definition = ((PyMethodDescrObject *)found)->d_method;
        method->direct = definition->ml_flags == flags ? definition->ml_meth : NULL;
    }
    return 0;
}

static PyObject *bind(PyObject *module, PyObject *names) {
    State *st = PyModule_GetState(module);
    if (!PyDict_Check(names) || st->bound) {
        PyErr_SetString(PyExc_TypeError, "bind takes a dict, once");
        return NULL;
    }
#define X(name)                                                                                    \
    {                                                                                              \
        PyObject *value = PyDict_GetItemString(names, #name);                                      \
        if (value == NULL) {                                                                       \
            PyErr_SetString(PyExc_KeyError, #name);                                                \
            return NULL;                                                                           \
        }                                                                                          \
        st->o.name = Py_NewRef(value);                                                             \
    }
    OBJECTS(X) CLASSES(X)
#undef X
#define X(name, flags)                                                                             \
    if (method_of(names, #name, flags, &st->m.name) < 0) {                                         \
        return NULL;                                                                               \
    }
    METHODS(X)
#undef X
#define X(kind, name)                                                                              \
    if (offset_of(st->o.kind, #name, Py_T_OBJECT_EX, &st->at.kind##_##name) < 0) {                 \
        return NULL;                                                                               \
    }
    SLOTS(X)
#undef X
#define X(kind, name, type)                                                                        \
    if (offset_of(st->o.kind, #name, type, &st->at.kind##_##name) < 0) {                           \
        return NULL;                                                                               \
    }
    NUMBERS(X)
#undef X
    PyObject *keep = PyDict_GetItemString(names, "KEEP");
    if (keep == NULL) {
        PyErr_SetString(PyExc_KeyError, "KEEP");
        return NULL;
    }
    st->keep = PyLong_AsLong(keep);
    RETURN_IF(PyErr_Occurred(), NULL);
    st->bound = 1;
    Py_RETURN_NONE;
}

static PyObject *twin_of(PyObject *module, PyObject *args) {
    State *st = PyModule_GetState(module);
    const char *name;
    PyObject *wrapped;
    RETURN_IF(!PyArg_ParseTuple(args, "sO", &name, &wrapped), NULL);
    vectorcallfunc call = strcmp(name, "submit") == 0        ? call_submit
                          : strcmp(name, "submit_many") == 0 ? call_submit_many
                          : strcmp(name, "next_task") == 0   ? call_next_task
                          : strcmp(name, "result") == 0      ? call_result
                                                             : NULL;
    if (call == NULL || !st->bound) {
        PyErr_SetString(PyExc_ValueError, name);
        return NULL;
    }
    Twin *twin = PyObject_GC_New(Twin, st->twin_type);
    if (twin != NULL) {
        twin->call = call;
        twin->st = st;
        twin->module = Py_NewRef(module);
        twin->wrapped = Py_NewRef(wrapped);
        PyObject_GC_Track(twin);
    }
    return (PyObject *)twin;
}

static PyObject *row_of(PyObject *module, PyObject *args) {
    State *st = PyModule_GetState(module);
    PyObject *pool, *slot;
    RETURN_IF(!PyArg_ParseTuple(args, "OO", &pool, &slot), NULL);
    if (!st->bound || Py_TYPE(pool) != (PyTypeObject *)st->o.Pool
        || Py_TYPE(slot) != (PyTypeObject *)st->o.WorkerSlot
        || Py_TYPE(GET(pool, Section, mutex)) != st->mutex_type) {
        Py_RETURN_NONE;
    }
    PyObject *spare = PyContext_New();
    Row *row = spare == NULL ? NULL : PyObject_GC_New(Row, st->row_type);
    if (row == NULL) {
        Py_XDECREF(spare);
        return NULL;
    }
    row->st = st;
    row->module = Py_NewRef(module);
    row->pool = Py_NewRef(pool);
    row->slot = Py_NewRef(slot);
    row->mutex = Py_NewRef(GET(pool, Section, mutex));
    row->spare = spare;
    row->known = row->name = row->task = NULL;
    row->failed = row->looked = 0;
#ifndef Py_GIL_DISABLED
    row->counted = Py_NewRef(row->mutex);
    ((Mutex *)row->mutex)->rows++;
#endif
    PyObject_GC_Track(row);
    return (PyObject *)row;
}

static PyObject *reroute(PyObject *module, PyObject *long_way) {
    State *st = PyModule_GetState(module);
    int whether = PyObject_IsTrue(long_way);
    RETURN_IF(whether < 0, NULL);
    WRITE_FLAG(st->long_way, whether);
    Py_RETURN_NONE;
}

/* What takes the place of the slot `Future._state`; None where that can stay. */
static PyObject *state_descriptor(PyObject *module, PyObject *unused) {
#ifdef Py_GIL_DISABLED
    Py_RETURN_NONE;
#else
    State *st = PyModule_GetState(module);
    st->state = (PyGetSetDef){"_state", state_get, state_set, NULL, (void *)st->at.Future__state};
    return PyDescr_NewGetSet((PyTypeObject *)st->o.Future, &st->state);
#endif
}

static PyMethodDef methods[] = {
    {"state_descriptor", state_descriptor, METH_NOARGS, "What takes the place of a slot of futures; or None."},
    {"bind", bind, METH_O, "Say which classes and functions to work with, by name. Once."},
    {"twin_of", twin_of, METH_VARARGS, "A function of this module by its name, over its twin in Python."},
    {"row_of", row_of, METH_VARARGS, "The row of a worker's slot; None if this pool is one for Python."},
    {"reroute", reroute, METH_O, "Whether submissions take the long way from now on."},
    {NULL, NULL, 0, NULL},
};

static int prepare(PyObject *module) {
    State *st = PyModule_GetState(module);
    st->empty = PyTuple_New(0);
    st->mutex_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &mutex_spec, NULL);
    st->twin_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &twin_spec, NULL);
    st->row_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &row_spec, NULL);
    if (st->empty == NULL || st->mutex_type == NULL || st->twin_type == NULL || st->row_type == NULL
        || PyModule_AddType(module, st->mutex_type) < 0) {
        return -1;
    }
#define X(name)                                                                                    \
    if ((st->s.name = PyUnicode_InternFromString(#name)) == NULL) {                                \
        return -1;                                                                                 \
    }
    NAMES(X)
#undef X
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    State *st = PyModule_GetState(module);
    Py_VISIT(st->mutex_type);
    Py_VISIT(st->twin_type);
    Py_VISIT(st->row_type);
#define X(name) Py_VISIT(st->o.name);
    OBJECTS(X) CLASSES(X)
#undef X
#define X(name, flags) Py_VISIT(st->m.name.descriptor);
    METHODS(X)
#undef X
    return 0;
}

static int module_clear(PyObject *module) {
    State *st = PyModule_GetState(module);
    Py_CLEAR(st->empty);
    Py_CLEAR(st->mutex_type);
    Py_CLEAR(st->twin_type);
    Py_CLEAR(st->row_type);
#define X(name) Py_CLEAR(st->o.name);
    OBJECTS(X) CLASSES(X)
#undef X
#define X(name, flags) Py_CLEAR(st->m.name.descriptor);
    METHODS(X)
#undef X
#define X(name) Py_CLEAR(st->s.name);
    NAMES(X)
#undef X
    return 0;
}

static void module_free(void *module) {
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, prepare},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "futurepool._pool._fast",
    .m_doc = "The hot paths in C. See the head of its source, and futurepool._pool.compiled.",
    .m_size = sizeof(State),
    .m_methods = methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__fast(void)
{
    return PyModuleDef_Init(&definition);
}
