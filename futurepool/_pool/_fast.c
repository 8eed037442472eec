/* The hot paths in C: the third form of `submit`, a worker's `next_task` with the loop around it, and
 * `Future.result`. The first two forms are the methods of `Pool`, and futurepool/_pool/fast.py.
 *
 * It works on the very objects that the Python code has: each attribute is where its class's `__slots__`
 * have put it, and is found by the offset that the slot's descriptor knows. So whatever reads or changes
 * them in Python sees no difference.
 *
 * What is not the plain case is handed to the Python function whose twin it is, before anything was changed:
 * each function here is called through a `Twin`, which holds that function. A mutex that is not of the class
 * that it was when the package was imported is such a case, so a model of the primitives gets the Python code.
 *
 * Rules, beside those of futurepool/_pool/section.py:
 *
 * 1. Inside a section nothing is let go of that may be the last reference to something of a user's.
 * 2. What a section is to make (integers) is made before the step that needs it; if that fails, the section
 *    was interrupted there, as it may be in Python.
 * 3. Fields that are guarded by the mutex are read plainly inside of a section. Others may read them outside,
 *    so without a GIL each is changed in a critical section of its object (`put`), as the interpreter does.
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

#define MANY 64 /* tasks in a row, before the interpreter has a look at signals, and at who waits for its turn */

#ifdef Py_GIL_DISABLED /* which no compiler without these builds */
#define READ_FLAG(flag) __atomic_load_n(&(flag), __ATOMIC_RELAXED)
#define WRITE_FLAG(flag, value) __atomic_store_n(&(flag), value, __ATOMIC_RELAXED)
#else
#define READ_FLAG(flag) (flag)
#define WRITE_FLAG(flag, value) ((flag) = (value))
#endif

/* Slots of classes: CLASS, ATTRIBUTE. */
#define SLOTS(X)                                                                                   \
    X(Future, _args)                                                                               \
    X(Future, _context)                                                                            \
    X(Future, _fn)                                                                                 \
    X(Future, _kwargs)                                                                             \
    X(Future, _pool)                                                                               \
    X(Future, _queued_at)                                                                          \
    X(Future, _result)                                                                             \
    X(Future, _state)                                                                              \
    X(Future, _subscribers)                                                                        \
    X(Future, priority)                                                                            \
    X(Future, task_id)                                                                             \
    X(WorkerSlot, fresh)                                                                           \
    X(WorkerSlot, leave)                                                                           \
    X(WorkerSlot, parker)                                                                          \
    X(WorkerSlot, since)                                                                           \
    X(WorkerSlot, started)                                                                         \
    X(WorkerSlot, status)                                                                          \
    X(WorkerSlot, task)                                                                            \
    X(Section, deferred)                                                                           \
    X(Section, mutex)                                                                              \
    X(Pool, adopt)                                                                                 \
    X(Pool, capacity)                                                                              \
    X(Pool, engine)                                                                                \
    X(Pool, meters)                                                                                \
    X(Pool, queue)                                                                                 \
    X(Pool, state)                                                                                 \
    X(Pool, waiters)                                                                               \
    X(Pool, workers)                                                                               \
    X(Capacity, limit)                                                                             \
    X(Capacity, max_id)                                                                            \
    X(Capacity, submitted)                                                                         \
    X(Workers, caller_runs)                                                                        \
    X(Workers, held)                                                                               \
    X(Workers, listed)                                                                             \
    X(Workers, max_workers)                                                                        \
    X(Workers, notifying)                                                                          \
    X(Workers, parked)                                                                             \
    X(Workers, reserved)                                                                           \
    X(Workers, threads)                                                                            \
    X(Workers, wakeup_pending)                                                                     \
    X(Waiters, blocked)                                                                            \
    X(Waiters, idle_waiters)                                                                       \
    X(Meters, completed)                                                                           \
    X(Meters, run_time)                                                                            \
    X(Meters, wait_time)                                                                           \
    X(PriorityQueue, _heap)                                                                        \
    X(PriorityQueue, levels)                                                                       \
    X(PriorityQueue, top)                                                                          \
    X(Level, next_lower)                                                                           \
    X(Options, priority)                                                                           \
    X(Options, special)                                                                            \
    X(Options, subscribers)                                                                        \
    X(Subscribers, parkers)                                                                        \
    X(Subscribers, shared)                                                                         \
    X(Subscribers, slow)                                                                           \
    X(Subscribers, token)

/* What else `bind` is given, by name. */
#define OBJECTS(X)                                                                                 \
    X(Failure)                                                                                     \
    X(BOTTOM)                                                                                      \
    X(CANCELLED)                                                                                   \
    X(FINISHED)                                                                                    \
    X(PENDING)                                                                                     \
    X(RUNNING)                                                                                     \
    X(append)                                                                                      \
    X(pop)                                                                                         \
    X(pop_left)                                                                                    \
    X(acquire)                                                                                     \
    X(release)                                                                                     \
    X(is_owned)                                                                                    \
    X(mutex_type)                                                                                  \
    X(name_of)                                                                                     \
    X(next_task)                                                                                   \
    X(patched)                                                                                     \
    X(sync)                                                                                        \
    X(ThreadPoolExecutor)                                                                          \
    X(without_place)

#define CLASSES(X)                                                                                 \
    X(Future) X(WorkerSlot) X(Section) X(Pool) X(Capacity) X(Workers) X(Waiters) X(Meters)         \
        X(PriorityQueue) X(Level) X(Options) X(Subscribers)

/* Names of attributes and methods that are looked up. */
#define NAMES(X)                                                                                   \
    X(_announce)                                                                                   \
    X(_futurepool)                                                                                 \
    X(_futurepool_options)                                                                         \
    X(_rebuild)                                                                                    \
    X(acquire)                                                                                     \
    X(advance)                                                                                     \
    X(clock)                                                                                       \
    X(come_back)                                                                                   \
    X(count_times)                                                                                 \
    X(enlist)                                                                                      \
    X(leave)                                                                                       \
    X(original)                                                                                    \
    X(place_freed)                                                                                 \
    X(post)                                                                                        \
    X(push)                                                                                        \
    X(release)                                                                                     \
    X(repair)                                                                                      \
    X(run_deferred)                                                                                \
    X(start_worker)                                                                                \
    X(submit)                                                                                      \
    X(take)

typedef struct {
    int bound;
    int long_way; /* each submission goes through somebody's patch, see futurepool._foreign.patched */
    long batch;
    long keep;
    PyObject *empty;
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

static inline void
put(PyObject *object, Py_ssize_t offset, PyObject *value)
{
    PyObject *old;
#ifdef Py_GIL_DISABLED
    Py_BEGIN_CRITICAL_SECTION(object);
    old = *AT(object, offset);
    __atomic_store_n(AT(object, offset), value, __ATOMIC_RELEASE);
    Py_END_CRITICAL_SECTION();
#else
    old = *AT(object, offset);
    *AT(object, offset) = value;
#endif
    Py_XDECREF(old);
}

static inline PyObject *
look(PyObject *object, Py_ssize_t offset)
{
#ifdef Py_GIL_DISABLED
    return __atomic_load_n(AT(object, offset), __ATOMIC_ACQUIRE);
#else
    return *AT(object, offset);
#endif
}

/* A field that counts; -1 with an exception if it is none, or too large. */
static inline long long
number(PyObject *value)
{
#if PY_VERSION_HEX >= 0x030C0000
    if (PyLong_CheckExact(value) && PyUnstable_Long_IsCompact((PyLongObject *)value)) {
        return PyUnstable_Long_CompactValue((PyLongObject *)value);
    }
#endif
    return PyLong_AsLongLong(value);
}

/* A field that is a time. */
static inline double
seconds(PyObject *value)
{
    return PyFloat_CheckExact(value) ? PyFloat_AS_DOUBLE(value) : PyFloat_AsDouble(value);
}

/* How many a deque holds; of a class that is one. */
static inline Py_ssize_t
count_of(PyObject *queue)
{
    return Py_TYPE(queue)->tp_as_sequence->sq_length(queue);
}

static inline int
add(PyObject *object, Py_ssize_t offset, long more)
{
    long long value = number(*AT(object, offset));
    if (value == -1 && PyErr_Occurred()) {
        return -1;
    }
    PyObject *sum = PyLong_FromLongLong(value + more);
    if (sum == NULL) {
        return -1;
    }
    put(object, offset, sum);
    return 0;
}

static inline int
add_time(PyObject *object, Py_ssize_t offset, double more)
{
    PyObject *sum = PyFloat_FromDouble(seconds(*AT(object, offset)) + more);
    if (sum == NULL) {
        return -1;
    }
    put(object, offset, sum);
    return 0;
}

#define ADD(object, kind, name, more) add(object, st->at.kind##_##name, more)
#define ADD_TIME(object, kind, name, more) add_time(object, st->at.kind##_##name, more)

/* -- calls ------------------------------------------------------------------------------------ */

static inline PyObject *
call_one(PyObject *function, PyObject *argument)
{
    PyObject *stack[2] = {NULL, argument};
    return PyObject_Vectorcall(function, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

static inline PyObject *
call_two(PyObject *function, PyObject *first, PyObject *second)
{
    PyObject *stack[3] = {NULL, first, second};
    return PyObject_Vectorcall(function, stack + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

static inline int
done(PyObject *result)
{
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

#define CALL(object, name) done(PyObject_CallMethodNoArgs(object, st->s.name))
#define CALL_ONE(object, name, argument) done(PyObject_CallMethodOneArg(object, st->s.name, argument))

/* An attribute of a module, as of now: tests put others in their place. */
static PyObject *
of_module(PyObject *module, PyObject *name)
{
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

static PyObject *
now_is(State *st)
{
    PyObject *clock = of_module(st->o.sync, st->s.clock);
    if (clock == NULL) {
        return NULL;
    }
    PyObject *now = PyObject_CallNoArgs(clock);
    Py_DECREF(clock);
    if (now != NULL && !PyFloat_Check(now)) {
        Py_SETREF(now, PyNumber_Float(now));
    }
    return now;
}

/* -- the mutex -------------------------------------------------------------------------------- */

static inline int
take_mutex(State *st, PyObject *mutex)
{
#ifdef Py_GIL_DISABLED
    PyObject *taken = call_two(st->o.acquire, mutex, Py_False);
    if (taken == NULL) {
        return -1;
    }
    Py_DECREF(taken);
    if (taken == Py_True) {
        return 0;
    }
    return CALL(mutex, acquire); /* which tries for a while before it sleeps */
#else
    return done(call_one(st->o.acquire, mutex));
#endif
}

static inline int
free_mutex(State *st, PyObject *mutex)
{
    return done(call_one(st->o.release, mutex));
}

/* Whether this thread holds it; 1 also if that cannot be found out. */
static inline int
holds(State *st, PyObject *mutex)
{
    PyObject *owned = call_one(st->o.is_owned, mutex);
    if (owned == NULL) {
        PyErr_Clear();
        return 1;
    }
    Py_DECREF(owned);
    return owned != Py_False;
}

/* twin of section.unpark */
static int
unpark(State *st, PyObject *parker)
{
    if (CALL(parker, release) == 0) {
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_RuntimeError) && !PyErr_ExceptionMatches(PyExc_RecursionError)) {
        PyErr_Clear(); /* released already */
        return 0;
    }
    return -1;
}

static inline int
run_deferred(State *st, PyObject *pool)
{
    PyObject *deferred = GET(pool, Section, deferred); /* set once */
    Py_ssize_t count = count_of(deferred);
    if (count == 0) {
        return 0;
    }
    return count < 0 ? -1 : CALL(pool, run_deferred);
}

/* -- submit ----------------------------------------------------------------------------------- */

/* twin of Section.repair, as at the end of `fast.submit`: first by C calls only. The exception stays set. */
static void
interrupted(State *st, PyObject *pool, PyObject *mutex, PyObject *future)
{
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    int failed = 0;
    PyObject *deferred = GET(pool, Section, deferred);
    failed |= take_mutex(st, mutex);
    PyObject *act = PyObject_GetAttr(pool, st->s._rebuild);
    failed |= act == NULL ? -1 : done(call_two(st->o.append, deferred, act));
    Py_XDECREF(act);
    if (GET(future, Future, _state) == st->o.PENDING) {
        act = PyObject_GetAttr(future, st->s._announce);
        failed |= act == NULL ? -1 : done(call_two(st->o.append, deferred, act));
        Py_XDECREF(act);
        PUT(future, Future, _state, Py_NewRef(st->o.CANCELLED));
    }
    if (failed) {
        PyErr_Clear();
    }
    while (holds(st, mutex)) {
        if (free_mutex(st, mutex) < 0) {
            PyErr_Clear();
            break;
        }
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
static inline int
enqueue(State *st, PyObject *pool, PyObject *future, PyObject *priority)
{
    PyObject *queue = GET(pool, Pool, queue);
    if (Py_TYPE(queue) == (PyTypeObject *)st->o.PriorityQueue) {
        PyObject *level = PyDict_GetItemWithError(GET(queue, PriorityQueue, levels), priority);
        if (level != NULL && Py_TYPE(level) == (PyTypeObject *)st->o.Level) {
            if (done(call_two(st->o.append, level, future)) < 0) {
                return -1;
            }
            if (GET(level, Level, next_lower) == Py_None) {
                return CALL_ONE(queue, enlist, level);
            }
            return 0;
        }
        if (PyErr_Occurred()) {
            return -1;
        }
    }
    return CALL_ONE(queue, push, future);
}

/* `unfinished + notifying - caller_runs - threads`, see Workers.missing */
static inline long long
missing(State *st, PyObject *capacity, PyObject *workers)
{
    return number(GET(capacity, Capacity, submitted)) + number(GET(capacity, Capacity, limit))
           - number(GET(capacity, Capacity, max_id)) + number(GET(workers, Workers, notifying))
           - number(GET(workers, Workers, caller_runs)) - number(GET(workers, Workers, threads));
}

/* A context for a task of this submitter, None for an empty one; NULL without an exception: the long way. */
static PyObject *
capture(State *st, PyObject *pool)
{
    PyObject *context = PyContext_CopyCurrent();
    if (context == NULL) {
        return NULL;
    }
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

/* twin of fast.Submitting.submit; `args` are the executor, the function, its arguments. NULL without an
 * exception: not the plain case, nothing was changed. */
static PyObject *
submit(State *st, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *pool = NULL, *options = NULL, *mutex = NULL, *context = NULL, *future = NULL;
    PyObject *value, *parker = NULL, *answer = NULL;
    int starts = 0;

    if (count < 2 || !PyCallable_Check(args[1]) || READ_FLAG(st->long_way)) {
        return NULL;
    }
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
    if (Py_TYPE(mutex) != (PyTypeObject *)st->o.mutex_type || holds(st, mutex)) {
        goto end;
    }
    context = capture(st, pool);
    if (context == NULL) {
        goto end;
    }
    /* twin of submission.make_future */
    future = PyBaseObject_Type.tp_new((PyTypeObject *)st->o.Future, st->empty, NULL);
    if (future == NULL) {
        goto end;
    }
    value = PyTuple_New(count - 2);
    if (value == NULL) {
        goto end;
    }
    for (Py_ssize_t i = 2; i < count; i++) {
        PyTuple_SET_ITEM(value, i - 2, Py_NewRef(args[i]));
    }
    *AT(future, st->at.Future__args) = value;
    if (names != NULL && PyTuple_GET_SIZE(names)) {
        value = PyDict_New();
        if (value == NULL) {
            goto end;
        }
        *AT(future, st->at.Future__kwargs) = value;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
            if (PyDict_SetItem(value, PyTuple_GET_ITEM(names, i), args[count + i]) < 0) {
                goto end;
            }
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
    value = now_is(st);
    if (value == NULL) {
        goto repair;
    }
    *AT(future, st->at.Future__queued_at) = value;

    if (take_mutex(st, mutex) < 0) {
        goto repair;
    }
    PyObject *capacity = GET(pool, Pool, capacity), *workers = GET(pool, Pool, workers);
    long long submitted = number(GET(capacity, Capacity, submitted));
    if (submitted >= number(GET(capacity, Capacity, max_id)) || number(GET(pool, Pool, state)) != 0) {
        if (PyErr_Occurred() || free_mutex(st, mutex) < 0) {
            goto repair;
        }
        PyObject *stack[4] = {NULL, pool, options, future};
        answer = PyObject_Vectorcall(
            st->o.without_place, stack + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        goto end;
    }
    /* twin of Pool.admit and Capacity.take */
    value = PyLong_FromLongLong(submitted + 1);
    if (value == NULL) {
        goto repair;
    }
    PUT(future, Future, task_id, Py_NewRef(value));
    PUT(capacity, Capacity, submitted, value);
    if (enqueue(st, pool, future, priority) < 0) {
        goto repair;
    }
    /* twin of Pool.signal_work; see fast.submit why this thread does at once what is to be done */
    PyObject *parked = GET(workers, Workers, parked);
    Py_ssize_t sleepers = count_of(parked);
    if (sleepers > 0 && GET(workers, Workers, wakeup_pending) == Py_False) {
        PUT(workers, Workers, wakeup_pending, Py_NewRef(Py_True));
        PyObject *slot = call_one(st->o.pop, parked);
        if (slot == NULL) {
            goto repair;
        }
        parker = Py_NewRef(GET(slot, WorkerSlot, parker));
        Py_DECREF(slot);
    }
    else if (number(GET(workers, Workers, threads)) < number(GET(workers, Workers, max_workers))
             && missing(st, capacity, workers) > 0) {
        if (ADD(workers, Workers, reserved, 1) < 0 || ADD(workers, Workers, threads, 1) < 0) {
            goto repair;
        }
        starts = 1;
    }
    if (PyErr_Occurred() || free_mutex(st, mutex) < 0) {
        goto repair;
    }
    if (parker != NULL && unpark(st, parker) < 0) {
        goto repair;
    }
    if (starts && CALL(GET(pool, Pool, engine), start_worker) < 0) {
        goto repair;
    }
    if (run_deferred(st, pool) < 0) {
        goto repair;
    }
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
static inline int
empty_queue(State *st, PyObject *queue, PyObject *level)
{
    return GET(level, Level, next_lower) == st->o.BOTTOM
           && PyList_GET_SIZE(GET(queue, PriorityQueue, _heap)) == 0
           && PyDict_Size(GET(queue, PriorityQueue, levels)) <= st->keep;
}

/* What is to be told once the section has ended. */
static inline int
announce(State *st, PyObject *task)
{
    return CALL(task, _announce);
}

/* twin of fast.next_task, whose numbers these are. A task, or None; NULL with an exception, and then the
 * mutex may be held, and the loop of the worker repairs. `pool.mutex` is known to be plain. */
static PyObject *
next_task(State *st, PyObject *pool, PyObject *slot)
{
    PyObject *following = NULL, *subscribers = NULL, *parker = NULL, *fresh = NULL;
    PyObject *task = GET(slot, WorkerSlot, task);
    task = task == Py_None ? NULL : Py_NewRef(task);
    PyObject *mutex = Py_NewRef(GET(pool, Section, mutex));
    PyObject *now = now_is(st);
    if (now == NULL || take_mutex(st, mutex) < 0) {
        goto failed;
    }
    PyObject *meters = GET(pool, Pool, meters), *workers = GET(pool, Pool, workers);
    double at = PyFloat_AS_DOUBLE(now);
    if (task != NULL) {
        /* 1. twin of Pool.commit */
        subscribers = GET(task, Future, _subscribers);
        subscribers = subscribers == Py_None ? NULL : Py_NewRef(subscribers);
        if (subscribers != NULL && GET(subscribers, Subscribers, slow) != Py_False) {
            if (free_mutex(st, mutex) < 0) {
                goto failed;
            }
            following = call_two(st->o.next_task, pool, slot);
            goto end;
        }
        PUT(task, Future, _state, Py_NewRef(st->o.FINISHED));
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
            if (ADD_TIME(meters, Meters, wait_time, waited) < 0) {
                goto failed;
            }
        }
        else {
            PyObject *ran = PyFloat_FromDouble(at - started);
            PyObject *rest = PyFloat_FromDouble(waited);
            int lost = ran == NULL || rest == NULL || PyList_Append(fresh, ran) < 0
                       || PyList_Append(fresh, rest) < 0;
            Py_XDECREF(ran);
            Py_XDECREF(rest);
            if (lost) {
                goto failed;
            }
        }
        PyObject *waiters = GET(pool, Pool, waiters);
        if (count_of(GET(waiters, Waiters, blocked))
            || PyList_GET_SIZE(GET(waiters, Waiters, idle_waiters))) {
            if (CALL(pool, place_freed) < 0) {
                goto failed;
            }
        }
        int much = fresh != NULL && PyList_GET_SIZE(fresh) >= st->batch;
        PyObject *parkers = subscribers == NULL ? NULL : GET(subscribers, Subscribers, parkers);
        if (much || (parkers != NULL && parkers != Py_None && PyObject_Size(parkers))) {
            /* 2. */
            double since = seconds(GET(slot, WorkerSlot, since));
            if (ADD_TIME(meters, Meters, run_time, at - since) < 0 || free_mutex(st, mutex) < 0
                || announce(st, task) < 0 || run_deferred(st, pool) < 0
                || (much && CALL_ONE(pool, count_times, slot) < 0)) {
                goto failed;
            }
            following = Py_NewRef(Py_None);
            goto end;
        }
    }
    /* 3. */
    long status = PyLong_AsLong(GET(slot, WorkerSlot, status));
    if (status) {
        if (CALL_ONE(pool, come_back, slot) < 0) {
            goto failed;
        }
        if (GET(slot, WorkerSlot, leave) != Py_False) {
            double since = seconds(GET(slot, WorkerSlot, since));
            if ((task != NULL && ADD_TIME(meters, Meters, run_time, at - since) < 0)
                || free_mutex(st, mutex) < 0
                || (subscribers != NULL && announce(st, task) < 0) || CALL(pool, run_deferred) < 0) {
                goto failed;
            }
            following = Py_NewRef(Py_None);
            goto end;
        }
    }
    PUT(slot, WorkerSlot, started, Py_NewRef(now));
    if (task == NULL) {
        PUT(slot, WorkerSlot, since, Py_NewRef(now));
    }
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
            if (level == NULL) {
                goto failed;
            }
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
                if (done(call_one(st->o.pop_left, level)) < 0) {
                    Py_DECREF(level);
                    goto failed;
                }
                taken = 1;
                if (task != NULL) {
                    Py_DECREF(level);
                    if (free_mutex(st, mutex) < 0) {
                        goto failed;
                    }
                    if (subscribers != NULL) {
                        if (GET(subscribers, Subscribers, shared) != Py_False
                                ? CALL_ONE(subscribers, post, task) < 0
                                : announce(st, task) < 0) {
                            goto failed;
                        }
                    }
                    if (run_deferred(st, pool) < 0) {
                        goto failed;
                    }
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
        if (following == NULL) {
            goto failed;
        }
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
            PyObject *other = call_one(st->o.pop, parked);
            if (other == NULL) {
                goto failed;
            }
            parker = Py_NewRef(GET(other, WorkerSlot, parker));
            Py_DECREF(other);
        }
    }
    else {
        double since = seconds(GET(slot, WorkerSlot, since));
        if (task != NULL && ADD_TIME(meters, Meters, run_time, at - since) < 0) {
            goto failed;
        }
        int listed = PyDict_Contains(GET(workers, Workers, listed), slot);
        if (listed < 0) {
            goto failed;
        }
        int over = number(GET(pool, Pool, state)) != 0 && number(GET(workers, Workers, held)) == 0;
        if (over || !listed) {
            if (CALL_ONE(pool, leave, slot) < 0) {
                goto failed;
            }
        }
        else {
            PUT(slot, WorkerSlot, status, PyLong_FromLong(1));
            if (done(call_two(st->o.append, GET(workers, Workers, parked), slot)) < 0) {
                goto failed;
            }
        }
    }
    if (PyErr_Occurred() || free_mutex(st, mutex) < 0) {
        goto failed;
    }
    if ((subscribers != NULL && announce(st, task) < 0) || (parker != NULL && unpark(st, parker) < 0)
        || run_deferred(st, pool) < 0) {
        goto failed;
    }
    if (following == NULL) {
        following = Py_NewRef(Py_None);
    }
    goto end;

failed:
    Py_CLEAR(following);
end:
    Py_XDECREF(parker);
    Py_XDECREF(fresh);
    Py_XDECREF(subscribers);
    Py_XDECREF(now);
    Py_DECREF(mutex);
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
    PyObject *spare; /* a context for tasks that were submitted without variables */
    PyObject *known; /* the latest function, and what it is called */
    PyObject *name;
    PyObject *task; /* the latest, until the next one is claimed: for who repairs */
    char failed;
} Row;

/* What a task's function is called; new. See worker_loop.work. */
static PyObject *
name_of(Row *row, PyObject *fn, PyObject *args)
{
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
static int
run_task(Row *row, PyObject *task)
{
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
    if (row->failed) {
        PyErr_Restore(kind, value, trace);
        kind = value = trace = NULL;
    }
    /* An exception stays set over these. */
    if (code < 0) {
        PyObject *a, *b, *c;
        PyErr_Fetch(&a, &b, &c);
        Py_DECREF(fn);
        Py_DECREF(args);
        Py_DECREF(kwargs);
        Py_DECREF(context);
        Py_XDECREF(kind);
        Py_XDECREF(value);
        Py_XDECREF(trace);
        PyErr_Restore(a, b, c);
    }
    else {
        Py_DECREF(fn);
        Py_DECREF(args);
        Py_DECREF(kwargs);
        Py_DECREF(context);
    }
    return code;
}

static PyObject *
row_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    Row *row = (Row *)self;
    row->failed = 0;
    for (int count = 0; count < MANY; count++) {
        PyObject *task = next_task(row->st, row->pool, row->slot);
        if (task == NULL) {
            return NULL; /* of which task: `task`, the one before */
        }
        if (task == Py_None) {
            Py_CLEAR(row->task);
            Py_CLEAR(row->known); /* a sleeping worker keeps no function of a user's alive */
            return task;
        }
        Py_XSETREF(row->task, task);
        if (run_task(row, task) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

static PyObject *
row_forget(PyObject *self, PyObject *unused)
{
    State *st = ((Row *)self)->st;
    (void)st;
    Py_CLEAR(((Row *)self)->task);
    Py_CLEAR(((Row *)self)->known);
    PyObject *another = PyContext_New();
    if (another == NULL) {
        return NULL;
    }
    Py_XSETREF(((Row *)self)->spare, another);
    Py_RETURN_NONE;
}

static int
row_traverse(PyObject *self, visitproc visit, void *arg)
{
    Row *row = (Row *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(row->module);
    Py_VISIT(row->pool);
    Py_VISIT(row->slot);
    Py_VISIT(row->spare);
    Py_VISIT(row->known);
    Py_VISIT(row->task);
    return 0;
}

static int
row_clear(PyObject *self)
{
    Row *row = (Row *)self;
    Py_CLEAR(row->pool);
    Py_CLEAR(row->slot);
    Py_CLEAR(row->spare);
    Py_CLEAR(row->known);
    Py_CLEAR(row->name);
    Py_CLEAR(row->task);
    Py_CLEAR(row->module);
    return 0;
}

static void
row_dealloc(PyObject *self)
{
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

/* -- twins ------------------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    State *st;
    PyObject *module;
    PyObject *wrapped; /* the function in Python */
} Twin;

static PyObject *
call_submit(PyObject *self, PyObject *const *args, size_t flags, PyObject *names)
{
    Twin *twin = (Twin *)self;
    PyObject *future = submit(twin->st, args, PyVectorcall_NARGS(flags), names);
    if (future != NULL || PyErr_Occurred()) {
        return future;
    }
    return PyObject_Vectorcall(twin->wrapped, args, flags, names);
}

static PyObject *
call_next_task(PyObject *self, PyObject *const *args, size_t flags, PyObject *names)
{
    Twin *twin = (Twin *)self;
    State *st = twin->st;
    if (PyVectorcall_NARGS(flags) == 2 && (names == NULL || !PyTuple_GET_SIZE(names))
        && Py_TYPE(args[0]) == (PyTypeObject *)st->o.Pool
        && Py_TYPE(args[1]) == (PyTypeObject *)st->o.WorkerSlot
        && Py_TYPE(GET(args[0], Section, mutex)) == (PyTypeObject *)st->o.mutex_type) {
        return next_task(st, args[0], args[1]);
    }
    return PyObject_Vectorcall(twin->wrapped, args, flags, names);
}

/* twin of Future.result */
static PyObject *
call_result(PyObject *self, PyObject *const *args, size_t flags, PyObject *names)
{
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

static PyObject *
twin_get(PyObject *self, PyObject *object, PyObject *type)
{
    if (object == NULL || object == Py_None) {
        return Py_NewRef(self);
    }
    return PyMethod_New(self, object);
}

/* What it does not have itself, the function in Python has: name, module, code, annotations; and gets. */
static PyObject *
twin_getattro(PyObject *self, PyObject *name)
{
    PyObject *found = PyObject_GenericGetAttr(self, name);
    if (found == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        found = PyObject_GetAttr(((Twin *)self)->wrapped, name);
    }
    return found;
}

static int
twin_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    return PyObject_SetAttr(((Twin *)self)->wrapped, name, value);
}

static PyObject *
twin_repr(PyObject *self)
{
    return PyObject_Repr(((Twin *)self)->wrapped);
}

static PyObject *
twin_doc(PyObject *self, void *unused)
{
    return PyObject_GetAttrString(((Twin *)self)->wrapped, "__doc__");
}

static PyObject *
twin_module(PyObject *self, void *unused)
{
    return PyObject_GetAttrString(((Twin *)self)->wrapped, "__module__");
}

/* For `isinstance`: mocks and tools that look at classes treat it as the function that it stands for. */
static PyObject *
twin_class(PyObject *self, void *unused)
{
    return Py_NewRef(Py_TYPE(((Twin *)self)->wrapped));
}

static PyObject *
twin_reduce(PyObject *self, PyObject *unused)
{
    return PyObject_GetAttrString(((Twin *)self)->wrapped, "__qualname__");
}

static int
twin_traverse(PyObject *self, visitproc visit, void *arg)
{
    Twin *twin = (Twin *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(twin->module);
    Py_VISIT(twin->wrapped);
    return 0;
}

static void
twin_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(((Twin *)self)->wrapped);
    Py_CLEAR(((Twin *)self)->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef twin_methods[] = {
    {"__reduce__", twin_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef twin_members[] = {
    {"__wrapped__", Py_T_OBJECT_EX, offsetof(Twin, wrapped), Py_READONLY, "the function in Python"},
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Twin, call), Py_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef twin_getset[] = {
    {"__class__", twin_class, NULL, NULL, NULL},
    {"__doc__", twin_doc, NULL, NULL, NULL},
    {"__module__", twin_module, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot twin_slots[] = {
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, twin_get},
    {Py_tp_getattro, twin_getattro},
    {Py_tp_setattro, twin_setattro},
    {Py_tp_repr, twin_repr},
    {Py_tp_traverse, twin_traverse},
    {Py_tp_dealloc, twin_dealloc},
    {Py_tp_methods, twin_methods},
    {Py_tp_members, twin_members},
    {Py_tp_getset, twin_getset},
    {0, NULL},
};

static PyType_Spec twin_spec = {
    "futurepool._pool._fast.Twin",
    sizeof(Twin),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR
        | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    twin_slots,
};

/* -- the module ------------------------------------------------------------------------------- */

static int
offset_of(PyObject *kind, const char *name, Py_ssize_t *offset)
{
    PyObject *found = PyObject_GetAttrString(kind, name);
    if (found == NULL) {
        return -1;
    }
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

static PyObject *
bind(PyObject *module, PyObject *names)
{
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
    if (PyErr_Occurred()) {
        return NULL;
    }
    st->bound = 1;
    Py_RETURN_NONE;
}

static PyObject *
twin_of(PyObject *module, PyObject *args)
{
    State *st = PyModule_GetState(module);
    const char *name;
    PyObject *wrapped;
    if (!PyArg_ParseTuple(args, "sO", &name, &wrapped)) {
        return NULL;
    }
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

static PyObject *
row_of(PyObject *module, PyObject *args)
{
    State *st = PyModule_GetState(module);
    PyObject *pool, *slot;
    if (!PyArg_ParseTuple(args, "OO", &pool, &slot)) {
        return NULL;
    }
    if (!st->bound || Py_TYPE(pool) != (PyTypeObject *)st->o.Pool
        || Py_TYPE(slot) != (PyTypeObject *)st->o.WorkerSlot
        || Py_TYPE(GET(pool, Section, mutex)) != (PyTypeObject *)st->o.mutex_type) {
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
    row->spare = spare;
    row->known = row->name = row->task = NULL;
    row->failed = 0;
    PyObject_GC_Track(row);
    return (PyObject *)row;
}

static PyObject *
reroute(PyObject *module, PyObject *long_way)
{
    State *st = PyModule_GetState(module);
    int whether = PyObject_IsTrue(long_way);
    if (whether < 0) {
        return NULL;
    }
    WRITE_FLAG(st->long_way, whether);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"bind", bind, METH_O, "Say which classes and functions to work with, by name. Once."},
    {"twin_of", twin_of, METH_VARARGS, "A function of this module by its name, over its twin in Python."},
    {"row_of", row_of, METH_VARARGS, "The row of a worker's slot; None if this pool is one for Python."},
    {"reroute", reroute, METH_O, "Whether submissions take the long way from now on."},
    {NULL, NULL, 0, NULL},
};

static int
prepare(PyObject *module)
{
    State *st = PyModule_GetState(module);
    st->empty = PyTuple_New(0);
    st->twin_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &twin_spec, NULL);
    st->row_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &row_spec, NULL);
    if (st->empty == NULL || st->twin_type == NULL || st->row_type == NULL) {
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

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *st = PyModule_GetState(module);
    Py_VISIT(st->twin_type);
    Py_VISIT(st->row_type);
#define X(name) Py_VISIT(st->o.name);
    OBJECTS(X) CLASSES(X)
#undef X
    return 0;
}

static int
module_clear(PyObject *module)
{
    State *st = PyModule_GetState(module);
    Py_CLEAR(st->empty);
    Py_CLEAR(st->twin_type);
    Py_CLEAR(st->row_type);
#define X(name) Py_CLEAR(st->o.name);
    OBJECTS(X) CLASSES(X)
#undef X
#define X(name) Py_CLEAR(st->s.name);
    NAMES(X)
#undef X
    return 0;
}

static void
module_free(void *module)
{
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
