/* What `_fast.c` stands on: the slots it works on, its state, how a field is read and changed, how others are called.
 * Only that file includes this one. Its rules are at the head of the other. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>

#if PY_VERSION_HEX < 0x030C0000
#define Py_T_BOOL T_BOOL
#define Py_T_DOUBLE T_DOUBLE
#define Py_T_LONGLONG T_LONGLONG
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
    X(Future, _result) X(Future, _state) X(Future, _subscribers) X(Future, priority) \
    X(WorkerSlot, leave) X(WorkerSlot, parker) X(WorkerSlot, status) X(WorkerSlot, task) \
    X(Section, deferred) X(Section, mutex) \
    X(Pool, adopt) X(Pool, capacity) X(Pool, engine) X(Pool, meters) X(Pool, queue) X(Pool, state) \
    X(Pool, waiters) X(Pool, workers) \
    X(Capacity, limit) \
    X(Workers, caller_runs) X(Workers, held) X(Workers, listed) X(Workers, max_workers) \
    X(Workers, notifying) X(Workers, parked) X(Workers, reserved) X(Workers, threads) \
    X(Workers, wakeup_pending) \
    X(Waiters, anyone) \
    X(Meters, latency) X(Meters, wait) \
    X(PriorityQueue, _heap) X(PriorityQueue, levels) X(PriorityQueue, top) \
    X(Level, key) X(Level, next_lower) \
    X(Options, priority) X(Options, special) X(Options, subscribers) \
    X(Subscribers, parkers) X(Subscribers, shared) X(Subscribers, slow) X(Subscribers, token)

/* Slots that hold a number itself, and no reference to one, see `offset_of`: CLASS, ATTRIBUTE, TYPE. */
#define NUMBERS(X) \
    X(Future, _queued_at, Py_T_DOUBLE) X(Future, task_id, Py_T_LONGLONG) \
    X(WorkerSlot, since, Py_T_DOUBLE) X(WorkerSlot, started, Py_T_DOUBLE) \
    X(Capacity, max_id, Py_T_LONGLONG) X(Capacity, submitted, Py_T_LONGLONG) \
    X(Meters, completed, Py_T_LONGLONG) X(Meters, run_time, Py_T_DOUBLE) X(Meters, wait_time, Py_T_DOUBLE)

/* What else `bind` is given, by name. */
#define OBJECTS(X) \
    X(Failure) X(BOTTOM) X(CANCELLED) X(FINISHED) X(PENDING) X(RUNNING) X(clock) \
    X(name_of) X(next_task) \
    X(patched) X(sync) X(ThreadPoolExecutor) X(without_place)

#define CLASSES(X) \
    X(Future) X(WorkerSlot) X(Section) X(Pool) X(Capacity) X(Workers) X(Waiters) X(Meters) \
    X(PriorityQueue) X(Level) X(Options) X(Subscribers)

/* Methods of `deque`, by the number of their arguments. */
#define METHODS(X) X(append, METH_O) X(pop, METH_NOARGS) X(popleft, METH_NOARGS)

/* Names of attributes and methods that are looked up. */
#define NAMES(X) \
    X(_announce) X(_forget) X(_futurepool) X(_futurepool_options) X(_rebuild) X(clock) X(come_back) \
    X(leave) X(look) X(original) X(place_freed) X(post) X(push) X(release) X(repair) \
    X(run_deferred) X(signal_work) X(start_reserved) X(start_worker) X(submit) X(take)

typedef struct {
    PyObject *descriptor;
    PyCFunction direct; /* what it calls; NULL if that is called in another way in this version */
} Method;

typedef struct {
    int bound;
    int long_way; /* each submission goes through somebody's patch, see futurepool._foreign.patched */
    int counts_at, max_at; /* slots of HistogramRecorder; 0 until the first is seen */
    long keep;
    PyObject *empty;
    PyGetSetDef state;
    PyTypeObject *mutex_type;
    PyTypeObject *twin_type;
    PyTypeObject *row_type;
    struct {
#define X(kind, name, ...) Py_ssize_t kind##_##name;
        SLOTS(X) NUMBERS(X)
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

/* Whether a field is an integer of one digit, and which. */
static inline int is_small(PyObject *value, Py_ssize_t *small) {
    RETURN_IF(!PyLong_CheckExact(value), 0);
#if PY_VERSION_HEX >= 0x030C0000
    RETURN_IF(!PyUnstable_Long_IsCompact((PyLongObject *)value), 0);
    *small = PyUnstable_Long_CompactValue((PyLongObject *)value);
#else
    Py_ssize_t size = Py_SIZE(value);
    RETURN_IF(size < -1 || size > 1, 0);
    *small = size == 0 ? 0 : size * (Py_ssize_t)((PyLongObject *)value)->ob_digit[0];
#endif
    return 1;
}

/* Whether one field is an integer, and another one the same with its sign turned; 0 if that takes long to tell. */
static inline int opposite(PyObject *one, PyObject *other) {
    Py_ssize_t first, second;
    return is_small(one, &first) && is_small(other, &second) && first == -second;
}

/* A time, as an object. */
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

#define ADD(object, kind, name, more) add(object, st->at.kind##_##name, more)

#define NUMBER(type, object, kind, name) ((type *)((char *)(object) + st->at.kind##_##name))
/* Fields of `NUMBERS`. Without a GIL others may read them meanwhile: so they are read and written whole. */
#ifdef Py_GIL_DISABLED
static inline double time_at(double *at) {
    uint64_t bits = _Py_atomic_load_uint64_relaxed((uint64_t *)at);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline void set_time_at(double *at, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    _Py_atomic_store_uint64_relaxed((uint64_t *)at, bits);
}
#define INT(object, kind, name)                                                                    \
    ((long long)_Py_atomic_load_int64_relaxed(NUMBER(int64_t, object, kind, name)))
#define SET_INT(object, kind, name, value)                                                         \
    _Py_atomic_store_int64_relaxed(NUMBER(int64_t, object, kind, name), value)
#define TIME(object, kind, name) time_at(NUMBER(double, object, kind, name))
#define SET_TIME(object, kind, name, value) set_time_at(NUMBER(double, object, kind, name), value)
#else
#define INT(object, kind, name) (*NUMBER(long long, object, kind, name))
#define SET_INT(object, kind, name, value) (INT(object, kind, name) = (value))
#define TIME(object, kind, name) (*NUMBER(double, object, kind, name))
#define SET_TIME(object, kind, name, value) (TIME(object, kind, name) = (value))
#endif
#define ADD_TIME(object, kind, name, more) SET_TIME(object, kind, name, TIME(object, kind, name) + (more))

#if SIZEOF_VOID_P < 8
#error "A slot has no room for a number: the extension needs a 64-bit platform."
#endif

/* Where the slot of a class is, of objects or, for `NUMBERS`, of numbers of this type.
 *
 * The latter are made such: the slot holds the number itself, as an attribute of a class in C does. A queued task is
 * smaller by an integer and a float then, and no task makes any. The slot's definition, which belongs to the class,
 * says what it holds, to the descriptor as well as to who clears or visits an object; so this is before the first
 * object is made. Code that was compiled for the slot is let go of with the class's version. */
static int offset_of(PyObject *kind, const char *name, int type, Py_ssize_t *offset) {
    PyObject *found = PyObject_GetAttrString(kind, name);
    RETURN_IF(found == NULL, -1);
    PyMemberDef *slot =
        Py_TYPE(found) == &PyMemberDescr_Type ? ((PyMemberDescrObject *)found)->d_member : NULL;
    int fits = slot != NULL && (slot->type == Py_T_OBJECT_EX || slot->type == type);
    if (fits) {
        *offset = slot->offset;
        if (slot->type != type) {
            slot->type = type;
            PyType_Modified((PyTypeObject *)kind);
        }
    }
    else {
        PyErr_Format(PyExc_TypeError, "%s of %R is no slot", name, kind);
    }
    Py_DECREF(found);
    return fits ? 0 : -1;
}

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

/* What the clock says now; -1 with an exception. `own_clock`: as of `has_own_clock`, just now. */
static int now_is(State *st, int own_clock, double *now) {
    if (own_clock > 0) {
#if PY_VERSION_HEX >= 0x030D0000
        PyTime_t ticks;
        RETURN_IF(PyTime_PerfCounterRaw(&ticks) < 0, -1);
        *now = PyTime_AsSecondsDouble(ticks);
#else
        *now = _PyTime_AsSecondsDouble(_PyTime_GetPerfCounter());
#endif
        return 0;
    }
    PyObject *clock = own_clock < 0 ? NULL : of_module(st->o.sync, st->s.clock);
    PyObject *told = clock == NULL ? NULL : PyObject_CallNoArgs(clock);
    Py_XDECREF(clock);
    RETURN_IF(told == NULL, -1);
    *now = PyFloat_AsDouble(told);
    Py_DECREF(told);
    return *now == -1.0 && PyErr_Occurred() ? -1 : 0;
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
