/* The mutex of `_fast.c`: what `_sync.RLock` is with the compiled form. Only that file includes this one. */

#include <Python.h>

#ifdef Py_GIL_DISABLED /* how long a thread looks at a mutex before it sleeps: a few microseconds */
#define TRIES 100
#define YIELDS 3
#define LOOKS 200 /* likewise, for the next task */
#ifdef _WIN32
#include <windows.h>
#define RELAX() YieldProcessor()
#define GIVE_WAY() SwitchToThread()
#else
#include <sched.h>
#define GIVE_WAY() sched_yield()
#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX()
#endif
#endif
#else
#define LOOKS 0
#endif

/* What `_sync.RLock` is with this form: a task takes and releases it twice, and asks for its owner once.
 *
 * With a GIL the fields are guarded by that; `gate` is there for threads to sleep at, which are woken one by
 * one: a wake-up is on its way while `woken`, and who comes first has it. Without one, threads do meet here, and
 * look for a while before they sleep, as those of `_sync.SpinLock`. */
typedef struct {
    PyObject_HEAD
    uintptr_t owner; /* a thread; 0 if it is free */
    long depth;
#ifdef Py_GIL_DISABLED
    PyMutex lock;
#else
    PyThread_type_lock gate; /* held, but while a wake-up is on its way */
    long sleepers;
    long rows; /* of its pool's workers */
    char woken;
#endif
} Mutex;

#ifdef Py_GIL_DISABLED

static inline int owns(Mutex *mutex) {
    return _Py_atomic_load_uintptr_relaxed(&mutex->owner) == PyThread_get_thread_ident();
}

static inline int try_mutex(Mutex *mutex) {
    uint8_t free = 0;
    return _Py_atomic_load_uint8_relaxed(&mutex->lock._bits) == 0
           && _Py_atomic_compare_exchange_uint8(&mutex->lock._bits, &free, 1);
}

static void wait_for_mutex(Mutex *mutex) {
    for (int tries = 0; tries < TRIES; tries++) {
        RELAX();
        if (try_mutex(mutex)) {
            return;
        }
    }
    for (int tries = 0; tries < YIELDS; tries++) {
        GIVE_WAY();
        if (try_mutex(mutex)) {
            return;
        }
    }
    PyMutex_Lock(&mutex->lock);
}

static inline int take_mutex(PyObject *self) {
    Mutex *mutex = (Mutex *)self;
    if (owns(mutex)) {
        mutex->depth++;
        return 0;
    }
    if (!try_mutex(mutex)) {
        wait_for_mutex(mutex);
    }
    _Py_atomic_store_uintptr_relaxed(&mutex->owner, PyThread_get_thread_ident());
    mutex->depth = 1;
    return 0;
}

static inline void open_mutex(Mutex *mutex) {
    _Py_atomic_store_uintptr_relaxed(&mutex->owner, 0);
    PyMutex_Unlock(&mutex->lock);
}

#else

static inline int owns(Mutex *mutex) {
    return mutex->owner == PyThread_get_thread_ident();
}

static int wait_for_mutex(Mutex *mutex) {
    PyLockStatus got;
    int failed = 0;
    mutex->sleepers++;
    while (mutex->owner != 0 && !failed) {
        Py_BEGIN_ALLOW_THREADS
        got = PyThread_acquire_lock_timed(mutex->gate, -1, 1);
        Py_END_ALLOW_THREADS
        if (got == PY_LOCK_ACQUIRED) {
            mutex->woken = 0;
        }
        else {
            failed = Py_MakePendingCalls() < 0; /* a signal's handler */
        }
    }
    mutex->sleepers--;
    return failed ? -1 : 0;
}

static inline int take_mutex(PyObject *self) {
    Mutex *mutex = (Mutex *)self;
    uintptr_t me = PyThread_get_thread_ident();
    if (mutex->owner == me) {
        mutex->depth++;
        return 0;
    }
    if (mutex->owner != 0 && wait_for_mutex(mutex) < 0) {
        return -1;
    }
    mutex->owner = me;
    mutex->depth = 1;
    return 0;
}

static inline void open_mutex(Mutex *mutex) {
    mutex->owner = 0;
    if (mutex->sleepers > 0 && !mutex->woken) {
        mutex->woken = 1;
        PyThread_release_lock(mutex->gate);
    }
}

#endif

static inline int free_mutex(PyObject *self) {
    Mutex *mutex = (Mutex *)self;
    if (!owns(mutex)) {
        PyErr_SetString(PyExc_RuntimeError, "cannot release un-acquired lock");
        return -1;
    }
    if (--mutex->depth == 0) {
        open_mutex(mutex);
    }
    return 0;
}

static PyObject *mutex_acquire(PyObject *self, PyObject *unused) {
    return take_mutex(self) < 0 ? NULL : Py_NewRef(Py_True);
}

static PyObject *mutex_release(PyObject *self, PyObject *unused) {
    return free_mutex(self) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *mutex_exit(PyObject *self, PyObject *const *unused, Py_ssize_t count) {
    return mutex_release(self, NULL);
}

static PyObject *mutex_is_owned(PyObject *self, PyObject *unused) {
    return PyBool_FromLong(owns((Mutex *)self));
}

static PyObject *mutex_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    Mutex *mutex = (Mutex *)type->tp_alloc(type, 0); /* all fields 0 */
#ifndef Py_GIL_DISABLED
    if (mutex != NULL) {
        mutex->gate = PyThread_allocate_lock();
        if (mutex->gate == NULL) {
            Py_DECREF(mutex);
            return PyErr_NoMemory();
        }
        PyThread_acquire_lock(mutex->gate, NOWAIT_LOCK);
    }
#endif
    return (PyObject *)mutex;
}

static void mutex_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
#ifndef Py_GIL_DISABLED
    if (((Mutex *)self)->gate != NULL) {
        PyThread_free_lock(((Mutex *)self)->gate);
    }
#endif
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef mutex_methods[] = {
    {"acquire", mutex_acquire, METH_NOARGS, "Take it, however long that takes."},
    {"release", mutex_release, METH_NOARGS, "Give it back."},
    {"__enter__", mutex_acquire, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))mutex_exit, METH_FASTCALL, NULL},
    {"_is_owned", mutex_is_owned, METH_NOARGS, "Whether this thread has it."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot mutex_slots[] = {
    {Py_tp_doc, "A re-entrant lock, in as few steps as there can be."},
    {Py_tp_new, mutex_new},
    {Py_tp_dealloc, mutex_dealloc},
    {Py_tp_methods, mutex_methods},
    {0, NULL},
};

static PyType_Spec mutex_spec = {
    "futurepool._pool._fast.Mutex",
    sizeof(Mutex),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    mutex_slots,
};
