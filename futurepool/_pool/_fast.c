/* The hot paths in C: the third form of `submit`, a worker's `next_task` with the loop around it, and
 * `Future.result`. The first two forms are the methods of `Pool`, and futurepool/_pool/fast.py.
 *
 * It works on the very objects that the Python code has: each attribute is where its class's `__slots__`
 * have put it, and is found by the offset that the slot's descriptor knows. So whatever reads or changes
 * them in Python sees no difference.
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
 * 4. No static state: all is in the module, so each interpreter has its own.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>

#if PY_VERSION_HEX < 0x030C0000
#define Py_T_BOOL T_BOOL
#define Py_T_OBJECT_EX T_OBJECT_EX
#define Py_READONLY READONLY
#endif

#if PY_VERSION_HEX < 0x030B0000
#include <longintrepr.h>
#endif

#include "_fast_mutex.h"

#define GOTO_IF(condition, label)                                                                  \
    if (condition)                                                                                 \
    goto label
#define RETURN_IF(condition, value)                                                                \
    if (condition)                                                                                 \
    return value

#define MANY 64 /* tasks in a row, before the interpreter has a look at signals, and at who waits for its turn */

#ifdef Py_GIL_DISABLED
#define READ_FLAG(flag) _Py_atomic_load_int_relaxed(&(flag))
#define WRITE_FLAG(flag, value) _Py_atomic_store_int_relaxed(&(flag), value)
#else
#define READ_FLAG(flag) (flag)
#define WRITE_FLAG(flag, value) ((flag) = (value))
#endif

/* Slots of classes: CLASS, ATTRIBUTE. */
#define SLOTS(X) \
    X(Future, _args) X(Future, _context) X(Future, _fn) X(Future, _kwargs) X(Future, _pool) \
    X(Future, _queued_at) X(Future, _result) X(Future, _state) X(Future, _subscribers) X(Future, priority) \
    X(Future, task_id) \
    X(WorkerSlot, fresh) X(WorkerSlot, leave) X(WorkerSlot, parker) X(WorkerSlot, since) \
    X(WorkerSlot, started) X(WorkerSlot, status) X(WorkerSlot, task) \
    X(Section, deferred) X(Section, mutex) \
    X(Pool, adopt) X(Pool, capacity) X(Pool, engine) X(Pool, meters) X(Pool, queue) X(Pool, state) \
    X(Pool, waiters) X(Pool, workers) \
    X(Capacity, limit) X(Capacity, max_id) X(Capacity, submitted) \
    X(Workers, caller_runs) X(Workers, held) X(Workers, listed) X(Workers, max_workers) \
    X(Workers, notifying) X(Workers, parked) X(Workers, reserved) X(Workers, threads) \
    X(Workers, wakeup_pending) \
    X(Waiters, blocked) X(Waiters, idle_waiters) \
    X(Meters, completed) X(Meters, run_time) X(Meters, wait_time) \
    X(PriorityQueue, _heap) X(PriorityQueue, levels) X(PriorityQueue, top) \
    X(Level, next_lower) \
    X(Options, priority) X(Options, special) X(Options, subscribers) \
    X(Subscribers, parkers) X(Subscribers, shared) X(Subscribers, slow) X(Subscribers, token)

/* What else `bind` is given, by name. */
#define OBJECTS(X) \
    X(Failure) X(BOTTOM) X(CANCELLED) X(FINISHED) X(PENDING) X(RUNNING) X(clock) X(name_of) X(next_task) \
    X(patched) X(sync) X(ThreadPoolExecutor) X(without_place)

#define CLASSES(X) \
    X(Future) X(WorkerSlot) X(Section) X(Pool) X(Capacity) X(Workers) X(Waiters) X(Meters) \
    X(PriorityQueue) X(Level) X(Options) X(Subscribers)

/* Methods of `deque`, by the number of their arguments. */
#define METHODS(X) X(append, METH_O) X(pop, METH_NOARGS) X(popleft, METH_NOARGS)

/* Names of attributes and methods that are looked up. */
#define NAMES(X) \
    X(_announce) X(_futurepool) X(_futurepool_options) X(_rebuild) X(advance) X(clock) X(come_back) \
    X(count_times) X(enlist) X(leave) X(original) X(place_freed) X(post) X(push) X(release) X(repair) \
    X(run_deferred) X(start_worker) X(submit) X(take)

typedef struct {
    PyObject *descriptor;
    PyCFunction direct; /* what it calls; NULL if that is called in another way in this version */
} Method;

typedef struct {
    int bound;
    int long_way; /* each submission goes through somebody's patch, see futurepool._foreign.patched */
    long batch;
    long keep;
    PyObject *empty;
    PyGetSetDef state;
    PyTypeObject *mutex_type;
    PyTypeObject *twin_type;
    PyTypeObject *row_type;
    struct {
#define X(kind, name) Py_ssize_t kind##_##name;
        SLOTS(X)
#undef X
    } at;
    struct {
#define X(name) PyObject *name;
        OBJECTS(X) CLASSES(X)
#undef X
    } o;
    struct {
#define X(name, flags) Method name;
        METHODS(X)
#undef X
    } m;
    struct {
#define X(name) PyObject *name;
        NAMES(X)
#undef X
    } s;
} State;

/* -- fields ----------------------------------------------------------------------------------- */

#define AT(object, offset) ((PyObject **)((char *)(object) + (offset)))
/* The field of an object, borrowed; of those that are set when the object is made. */
#define GET(object, kind, name) (*AT(object, st->at.kind##_##name))
/* Set a field, whose new value is handed over. */
#define PUT(object, kind, name, value) put(object, st->at.kind##_##name, value)
/* Fill a field of an object that nobody else knows. */
#define FILL(object, kind, name, value) (*AT(object, st->at.kind##_##name) = Py_NewRef(value))

static inline void put(PyObject *object, Py_ssize_t offset, PyObject *value) {
    PyObject *old = *AT(object, offset);
#ifdef Py_GIL_DISABLED
    if (old == NULL || _Py_IsImmortal(old)) { /* no reader can come too late for it */
        _Py_atomic_store_ptr_release(AT(object, offset), value);
        return;
    }
    Py_BEGIN_CRITICAL_SECTION(object);
    _Py_atomic_store_ptr_release(AT(object, offset), value);
    Py_END_CRITICAL_SECTION();
#else
    *AT(object, offset) = value;
#endif
    Py_XDECREF(old);
}

static inline PyObject *look(PyObject *object, Py_ssize_t offset) {
#ifdef Py_GIL_DISABLED
    return _Py_atomic_load_ptr_acquire(AT(object, offset));
#else
    return *AT(object, offset);
#endif
}

/* A field that counts; -1 with an exception if it is none, or too large. */
static inline long long number(PyObject *value) {
#if PY_VERSION_HEX >= 0x030C0000
    if (PyLong_CheckExact(value) && PyUnstable_Long_IsCompact((PyLongObject *)value)) {
        return PyUnstable_Long_CompactValue((PyLongObject *)value);
    }
#if PY_VERSION_HEX < 0x03100000
    if (PyLong_CheckExact(value) && ((PyLongObject *)value)->long_value.lv_tag == 2 << 3) {
        const digit *digits = ((PyLongObject *)value)->long_value.ob_digit;
        return digits[0] | ((long long)digits[1] << PyLong_SHIFT);
    }
#endif
#else
    if (PyLong_CheckExact(value)) {
        const digit *digits = ((PyLongObject *)value)->ob_digit;
        switch (Py_SIZE(value)) {
        case 0:
            return 0;
        case 1:
            return digits[0];
        case 2: /* as those of an unbounded queue */
            return digits[0] | ((long long)digits[1] << PyLong_SHIFT);
        }
    }
#endif
    return PyLong_AsLongLong(value);
}

/* A field that is a time. */
static inline double seconds(PyObject *value) {
    return PyFloat_CheckExact(value) ? PyFloat_AS_DOUBLE(value) : PyFloat_AsDouble(value);
}

/* How many a deque holds; of a class that is one. */
static inline Py_ssize_t count_of(PyObject *queue) {
    return Py_TYPE(queue)->tp_as_sequence->sq_length(queue);
}

static inline int add(PyObject *object, Py_ssize_t offset, long more) {
    long long value = number(*AT(object, offset));
    RETURN_IF(value == -1 && PyErr_Occurred(), -1);
    PyObject *sum = PyLong_FromLongLong(value + more);
    RETURN_IF(sum == NULL, -1);
    put(object, offset, sum);
    return 0;
}

static inline int add_time(PyObject *object, Py_ssize_t offset, double more) {
    PyObject *sum = PyFloat_FromDouble(seconds(*AT(object, offset)) + more);
    RETURN_IF(sum == NULL, -1);
    put(object, offset, sum);
    return 0;
}

#define ADD(object, kind, name, more) add(object, st->at.kind##_##name, more)
#define ADD_TIME(object, kind, name, more) add_time(object, st->at.kind##_##name, more)

/* -- calls ------------------------------------------------------------------------------------ */

static inline PyObject *call_one(PyObject *function, PyObject *argument) {
    PyObject *stack[2] = {NULL, argument};
    return PyObject_Vectorcall(function, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

static inline PyObject *call_two(PyObject *function, PyObject *first, PyObject *second) {
    PyObject *stack[3] = {NULL, first, second};
    return PyObject_Vectorcall(function, stack + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

static inline int done(PyObject *result) {
    RETURN_IF(result == NULL, -1);
    Py_DECREF(result);
    return 0;
}

/* A method of a deque, or of a class that is one. */
static inline PyObject *of_deque(Method *method, PyObject *queue, PyObject *argument) {
    if (method->direct != NULL) {
        return method->direct(queue, argument);
    }
    return argument == NULL ? call_one(method->descriptor, queue)
                            : call_two(method->descriptor, queue, argument);
}

#define CALL(object, name) done(PyObject_CallMethodNoArgs(object, st->s.name))
#define CALL_ONE(object, name, argument) done(PyObject_CallMethodOneArg(object, st->s.name, argument))

/* An attribute of a module, as of now: tests put others in their place. */
static PyObject *of_module(PyObject *module, PyObject *name) {
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *found = NULL;
    if (PyDict_GetItemRef(PyModule_GetDict(module), name, &found) == 0) {
        PyErr_SetObject(PyExc_AttributeError, name);
    }
    return found;
#else
    PyObject *found = PyDict_GetItemWithError(PyModule_GetDict(module), name);
    if (found == NULL && !PyErr_Occurred()) {
        PyErr_SetObject(PyExc_AttributeError, name);
    }
    return Py_XNewRef(found);
#endif
}

/* Whether the clock is the interpreter's own, which need not be called as a function; -1 with an exception. */
static int has_own_clock(State *st) {
    PyObject *clock = of_module(st->o.sync, st->s.clock);
    Py_XDECREF(clock);
    return clock == NULL ? -1 : clock == st->o.clock;
}

/* `own_clock`: as of `has_own_clock`, just now. */
static PyObject *now_is(State *st, int own_clock) {
    PyObject *clock, *now;
    if (own_clock > 0) {
#if PY_VERSION_HEX >= 0x030D0000
        PyTime_t ticks;
        return PyTime_PerfCounterRaw(&ticks) < 0 ? NULL : PyFloat_FromDouble(PyTime_AsSecondsDouble(ticks));
#else
        return PyFloat_FromDouble(_PyTime_AsSecondsDouble(_PyTime_GetPerfCounter()));
#endif
    }
    clock = own_clock < 0 ? NULL : of_module(st->o.sync, st->s.clock);
    now = clock == NULL ? NULL : PyObject_CallNoArgs(clock);
    if (now != NULL && !PyFloat_Check(now)) {
        Py_SETREF(now, PyNumber_Float(now));
    }
    Py_XDECREF(clock);
    return now;
}

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

/* -- tracking by the collector ---------------------------------------------------------------- */

/* The collector need not look at a future that is queued or runs: the pool has it, and a worker thread has the pool,
 * as long as there is a row (`Mutex.rows`). From the end of its task on it must, as then only users have it, maybe
 * in a cycle. So it does from the moment on in which anything but `next_task` changes its state, see `state_set`.
 * That takes a fifth off what a task costs. Without a GIL the collector works in another way, and nothing is gained. */
static inline void track(PyObject *future) {
#ifndef Py_GIL_DISABLED
    if (!PyObject_GC_IsTracked(future)) {
        PyObject_GC_Track(future);
    }
#endif
}

#ifndef Py_GIL_DISABLED

static PyObject *state_get(PyObject *future, void *offset) {
    return Py_XNewRef(*AT(future, (Py_ssize_t)offset)); /* set when it is made */
}

static int state_set(PyObject *future, PyObject *state, void *offset) {
    if (state == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_state");
        return -1;
    }
    put(future, (Py_ssize_t)offset, Py_NewRef(state));
    track(future);
    return 0;
}

#endif

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

/* twin of PriorityQueue.push: 0 if queued. A new level, and any other queue, is left to `push`. */
static inline int enqueue(State *st, PyObject *pool, PyObject *future, PyObject *priority) {
    PyObject *queue = GET(pool, Pool, queue);
    if (Py_TYPE(queue) == (PyTypeObject *)st->o.PriorityQueue) {
        PyObject *level = PyDict_GetItemWithError(GET(queue, PriorityQueue, levels), priority);
        if (level != NULL && Py_TYPE(level) == (PyTypeObject *)st->o.Level) {
            RETURN_IF(done(of_deque(&st->m.append, level, future)) < 0, -1);
            if (GET(level, Level, next_lower) == Py_None) {
                return CALL_ONE(queue, enlist, level);
            }
            return 0;
        }
        RETURN_IF(PyErr_Occurred(), -1);
    }
    return CALL_ONE(queue, push, future);
}

/* `unfinished + notifying - caller_runs - threads`, see Workers.missing */
static inline long long missing(State *st, PyObject *capacity, PyObject *workers) {
    return number(GET(capacity, Capacity, submitted)) + number(GET(capacity, Capacity, limit))
           - number(GET(capacity, Capacity, max_id)) + number(GET(workers, Workers, notifying))
           - number(GET(workers, Workers, caller_runs)) - number(GET(workers, Workers, threads));
}

/* A context for a task of this submitter, None for an empty one; NULL without an exception: the long way. */
static PyObject *capture(State *st, PyObject *pool) {
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
    PyObject *found = PyObject_GetAttr(st->o.ThreadPoolExecutor, st->s.submit);
    PyObject *original = found == NULL ? NULL : of_module(st->o.patched, st->s.original);
    PyObject *adopted = NULL;
    if (original != NULL && found == original) {
        adopted = call_one(GET(pool, Pool, adopt), context);
    }
    Py_XDECREF(found);
    Py_XDECREF(original);
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
    if (Py_TYPE(pool) != (PyTypeObject *)st->o.Pool || Py_TYPE(options) != (PyTypeObject *)st->o.Options
        || PyObject_IsTrue(GET(options, Options, special))) {
        goto end;
    }
    mutex = Py_NewRef(GET(pool, Section, mutex));
    GOTO_IF(Py_TYPE(mutex) != st->mutex_type || owns((Mutex *)mutex), end);
    context = capture(st, pool);
    GOTO_IF(context == NULL, end);
    /* twin of submission.make_future */
    future = new_future(st);
    GOTO_IF(future == NULL, end);
    value = PyTuple_New(count - 2);
    GOTO_IF(value == NULL, end);
    for (Py_ssize_t i = 2; i < count; i++) {
        PyTuple_SET_ITEM(value, i - 2, Py_NewRef(args[i]));
    }
    *AT(future, st->at.Future__args) = value;
    if (names != NULL && PyTuple_GET_SIZE(names)) {
        value = PyDict_New();
        GOTO_IF(value == NULL, end);
        *AT(future, st->at.Future__kwargs) = value;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
            GOTO_IF(PyDict_SetItem(value, PyTuple_GET_ITEM(names, i), args[count + i]) < 0, end);
        }
    }
    else {
        FILL(future, Future, _kwargs, Py_None);
    }
    PyObject *priority = GET(options, Options, priority);
    FILL(future, Future, _pool, pool);
    FILL(future, Future, _fn, args[1]);
    FILL(future, Future, _context, context);
    FILL(future, Future, _state, st->o.PENDING);
    FILL(future, Future, _subscribers, GET(options, Options, subscribers));
    FILL(future, Future, priority, priority);
    value = PyLong_FromLong(0);
    *AT(future, st->at.Future_task_id) = value;
    value = now_is(st, has_own_clock(st));
    GOTO_IF(value == NULL, repair);
    *AT(future, st->at.Future__queued_at) = value;

    GOTO_IF(take_mutex(mutex) < 0, repair);
    PyObject *capacity = GET(pool, Pool, capacity), *workers = GET(pool, Pool, workers);
    long long submitted = number(GET(capacity, Capacity, submitted));
    if (submitted >= number(GET(capacity, Capacity, max_id)) || number(GET(pool, Pool, state)) != 0) {
        GOTO_IF(PyErr_Occurred() || free_mutex(mutex) < 0, repair);
        PyObject *stack[4] = {NULL, pool, options, future};
        answer = PyObject_Vectorcall(
            st->o.without_place, stack + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        goto end;
    }
    /* twin of Pool.admit and Capacity.take */
    value = PyLong_FromLongLong(submitted + 1);
    GOTO_IF(value == NULL, repair);
    PUT(future, Future, task_id, Py_NewRef(value));
    PUT(capacity, Capacity, submitted, value);
    GOTO_IF(enqueue(st, pool, future, priority) < 0, repair);
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
#ifndef Py_GIL_DISABLED
    if (((Mutex *)mutex)->rows > 0 && GET(future, Future, _state) == st->o.PENDING) {
        PyObject_GC_UnTrack(future); /* unless a finalizer within this section has cancelled it */
    }
#endif
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

/* -- next_task -------------------------------------------------------------------------------- */

/* twin of PriorityQueue.advance, as far as it finds nothing: the top level, which may be empty. Borrowed. */
static inline int empty_queue(State *st, PyObject *queue, PyObject *level) {
    return GET(level, Level, next_lower) == st->o.BOTTOM
           && PyList_GET_SIZE(GET(queue, PriorityQueue, _heap)) == 0
           && PyDict_Size(GET(queue, PriorityQueue, levels)) <= st->keep;
}

/* What is to be told once the section has ended. */
static inline int announce(State *st, PyObject *task) {
    return CALL(task, _announce);
}

/* twin of fast.next_task, whose numbers these are. A task, or None; NULL with an exception, and then the
 * mutex may be held, and the loop of the worker repairs. `mutex` is the pool's, and known to be plain. With
 * `seen` a worker that finds nothing does not park yet: None, and there the last id as of then. */
static PyObject *
next_task(State *st, PyObject *pool, PyObject *slot, PyObject *mutex, int own_clock, void **seen)
{
    PyObject *following = NULL, *subscribers = NULL, *parker = NULL, *fresh = NULL;
    PyObject *task = GET(slot, WorkerSlot, task);
    task = task == Py_None ? NULL : Py_NewRef(task);
    PyObject *now = now_is(st, own_clock);
    GOTO_IF(now == NULL || take_mutex(mutex) < 0, failed);
    PyObject *meters = GET(pool, Pool, meters), *workers = GET(pool, Pool, workers);
    double at = PyFloat_AS_DOUBLE(now);
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
        double started = seconds(GET(slot, WorkerSlot, started));
        double waited = started - seconds(GET(task, Future, _queued_at));
        if (waited < 0.0) {
            waited = 0.0;
        }
        if (ADD(meters, Meters, completed, 1) < 0
            || ADD(GET(pool, Pool, capacity), Capacity, max_id, 1) < 0) {
            goto failed;
        }
        /* twin of Meters.count_run */
        fresh = GET(slot, WorkerSlot, fresh);
        fresh = fresh == Py_None ? NULL : Py_NewRef(fresh);
        if (fresh == NULL) {
            GOTO_IF(ADD_TIME(meters, Meters, wait_time, waited) < 0, failed);
        }
        else {
            PyObject *ran = PyFloat_FromDouble(at - started);
            PyObject *rest = PyFloat_FromDouble(waited);
            int lost = ran == NULL || rest == NULL || PyList_Append(fresh, ran) < 0
                       || PyList_Append(fresh, rest) < 0;
            Py_XDECREF(ran);
            Py_XDECREF(rest);
            GOTO_IF(lost, failed);
        }
        PyObject *waiters = GET(pool, Pool, waiters);
        if (count_of(GET(waiters, Waiters, blocked))
            || PyList_GET_SIZE(GET(waiters, Waiters, idle_waiters))) {
            GOTO_IF(CALL(pool, place_freed) < 0, failed);
        }
        int much = fresh != NULL && PyList_GET_SIZE(fresh) >= st->batch;
        PyObject *parkers = subscribers == NULL ? NULL : GET(subscribers, Subscribers, parkers);
        if (much || (parkers != NULL && parkers != Py_None && PyObject_Size(parkers))) {
            /* 2. */
            double since = seconds(GET(slot, WorkerSlot, since));
            if (ADD_TIME(meters, Meters, run_time, at - since) < 0 || free_mutex(mutex) < 0
                || announce(st, task) < 0 || run_deferred(st, pool) < 0
                || (much && CALL_ONE(pool, count_times, slot) < 0)) {
                goto failed;
            }
            following = Py_NewRef(Py_None);
            goto end;
        }
    }
    else {
        PUT(slot, WorkerSlot, since, Py_NewRef(now)); /* a new row of tasks */
    }
    /* 3. */
    long status = PyLong_AsLong(GET(slot, WorkerSlot, status));
    if (status) {
        GOTO_IF(CALL_ONE(pool, come_back, slot) < 0, failed);
        if (GET(slot, WorkerSlot, leave) != Py_False) {
            double since = seconds(GET(slot, WorkerSlot, since));
            if ((task != NULL && ADD_TIME(meters, Meters, run_time, at - since) < 0)
                || free_mutex(mutex) < 0
                || (subscribers != NULL && announce(st, task) < 0) || CALL(pool, run_deferred) < 0) {
                goto failed;
            }
            following = Py_NewRef(Py_None);
            goto end;
        }
    }
    PUT(slot, WorkerSlot, started, Py_NewRef(now));
    /* 4. twin of PriorityQueue.take */
    PyObject *queue = GET(pool, Pool, queue);
    int usual = Py_TYPE(queue) == (PyTypeObject *)st->o.PriorityQueue, taken = 0;
    if (usual) {
        PyObject *level = Py_NewRef(GET(queue, PriorityQueue, top));
        Py_ssize_t size = count_of(level);
        if (size == 0 && empty_queue(st, queue, level)) {
            taken = 1;
        }
        else if (size == 0) {
            Py_SETREF(level, PyObject_CallMethodNoArgs(queue, st->s.advance));
            GOTO_IF(level == NULL, failed);
            size = count_of(level);
            taken = size == 0;
        }
        if (size > 0 && Py_TYPE(level) == (PyTypeObject *)st->o.Level) {
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
        double since = seconds(GET(slot, WorkerSlot, since));
        GOTO_IF(task != NULL && ADD_TIME(meters, Meters, run_time, at - since) < 0, failed);
        int listed = PyDict_Contains(GET(workers, Workers, listed), slot);
        GOTO_IF(listed < 0, failed);
        int over = number(GET(pool, Pool, state)) != 0 && number(GET(workers, Workers, held)) == 0;
        if (over || !listed) {
            GOTO_IF(CALL_ONE(pool, leave, slot) < 0, failed);
        }
        else if (seen != NULL) {
            *seen = GET(GET(pool, Pool, capacity), Capacity, submitted);
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
    Py_XDECREF(fresh);
    Py_XDECREF(subscribers);
    Py_XDECREF(now);
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
 * to look for it a while. A hint, so the address of the last id will do. */
static void look_for_work(Row *row, void *seen) {
#ifdef Py_GIL_DISABLED
    State *st = row->st;
    PyObject *capacity = GET(row->pool, Pool, capacity); /* set once */
    for (int tries = 0; tries < LOOKS && look(capacity, st->at.Capacity_submitted) == seen; tries++) {
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
        void *seen = NULL;
        if (GET(row->pool, Section, mutex) != row->mutex) { /* in the child of a fork */
            Py_SETREF(row->mutex, Py_NewRef(GET(row->pool, Section, mutex)));
        }
        PyObject *task = next_task(
            st, row->pool, row->slot, row->mutex, own_clock, LOOKS && !row->looked ? &seen : NULL);
        if (task == NULL) {
            return NULL; /* of which task: `task`, the one before */
        }
        row->looked = seen != NULL;
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

static int offset_of(PyObject *kind, const char *name, Py_ssize_t *offset) {
    PyObject *found = PyObject_GetAttrString(kind, name);
    RETURN_IF(found == NULL, -1);
    int fits = Py_TYPE(found) == &PyMemberDescr_Type
               && ((PyMemberDescrObject *)found)->d_member->type == Py_T_OBJECT_EX;
    if (fits) {
        *offset = ((PyMemberDescrObject *)found)->d_member->offset;
    }
    else {
        PyErr_Format(PyExc_TypeError, "%s of %R is no slot", name, kind);
    }
    Py_DECREF(found);
    return fits ? 0 : -1;
}

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
    if (offset_of(st->o.kind, #name, &st->at.kind##_##name) < 0) {                                 \
        return NULL;                                                                               \
    }
    SLOTS(X)
#undef X
    PyObject *batch = PyDict_GetItemString(names, "BATCH"), *keep = PyDict_GetItemString(names, "KEEP");
    if (batch == NULL || keep == NULL) {
        PyErr_SetString(PyExc_KeyError, "BATCH, KEEP");
        return NULL;
    }
    st->batch = PyLong_AsLong(batch);
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
    vectorcallfunc call = strcmp(name, "submit") == 0      ? call_submit
                          : strcmp(name, "next_task") == 0 ? call_next_task
                          : strcmp(name, "result") == 0    ? call_result
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
