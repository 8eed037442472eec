/* What `_fast.c` does in place of methods of the parts that tasks go through in their pool: the queue, the workers, the
 * meters. Only that file includes this one. All with the section held. */

/* -- the queue -------------------------------------------------------------------------------- */

/* Whether the key of one level comes before that of another: nothing foreign is called, as they are integers, but for
 * that of BOTTOM, a float. -1 with an exception, of which there is none between integers. */
static inline int before(PyObject *one, PyObject *other) {
    Py_ssize_t first, second;
    if (is_small(one, &first) && is_small(other, &second)) {
        return first < second;
    }
    return PyObject_RichCompareBool(one, other, Py_LT);
}

/* twin of heapq.heappush, which looks for a comparison's method each time */
static int heap_push(PyObject *heap, PyObject *key) {
    RETURN_IF(PyList_Append(heap, key) < 0, -1);
    PyObject **items = ((PyListObject *)heap)->ob_item;
    Py_ssize_t at = PyList_GET_SIZE(heap) - 1, above;
    for (; at > 0 && before(key, items[above = (at - 1) / 2]); at = above) {
        items[at] = items[above];
    }
    items[at] = key;
    return 0;
}

/* twin of heapq.heappop, of what is not empty */
static int heap_pop(PyObject *heap) {
    Py_ssize_t end = PyList_GET_SIZE(heap) - 1, at = 0, below;
    PyObject *last = Py_NewRef(PyList_GET_ITEM(heap, end));
    if (PyList_SetSlice(heap, end, end + 1, NULL) < 0 || end == 0) {
        Py_DECREF(last);
        return PyList_GET_SIZE(heap) == end ? 0 : -1;
    }
    PyObject **items = ((PyListObject *)heap)->ob_item, *first = items[0];
    while ((below = 2 * at + 1) < end) {
        below += below + 1 < end && before(items[below + 1], items[below]);
        if (!before(items[below], last)) {
            break;
        }
        items[at] = items[below];
        at = below;
    }
    items[at] = last;
    Py_DECREF(first);
    return 0;
}

/* twin of PriorityQueue.enlist */
static int enlist(State *st, PyObject *queue, PyObject *level) {
    PyObject *top = GET(queue, PriorityQueue, top), *key = GET(level, Level, key);
    int higher = before(key, GET(top, Level, key));
    RETURN_IF(higher < 0, -1);
    if (higher) {
        PUT(level, Level, next_lower, Py_NewRef(top));
        PUT(queue, PriorityQueue, top, Py_NewRef(level));
        return 0;
    }
    RETURN_IF(heap_push(GET(queue, PriorityQueue, _heap), key) < 0, -1);
    PUT(level, Level, next_lower, Py_NewRef(st->o.BOTTOM));
    return 0;
}

/* twin of PriorityQueue.push: 0 if queued. A new level, and any other queue, is left to `push`. */
static inline int enqueue(State *st, PyObject *queue, PyObject *future, PyObject *priority) {
    if (Py_TYPE(queue) == (PyTypeObject *)st->o.PriorityQueue) {
        PyObject *level = GET(queue, PriorityQueue, top); /* most often it is this one, and always in use */
        if (Py_TYPE(level) == (PyTypeObject *)st->o.Level && opposite(GET(level, Level, key), priority)) {
            return done(of_deque(&st->m.append, level, future));
        }
        level = PyDict_GetItemWithError(GET(queue, PriorityQueue, levels), priority);
        if (level != NULL && Py_TYPE(level) == (PyTypeObject *)st->o.Level) {
            RETURN_IF(done(of_deque(&st->m.append, level, future)) < 0, -1);
            return GET(level, Level, next_lower) == Py_None ? enlist(st, queue, level) : 0;
        }
        RETURN_IF(PyErr_Occurred(), -1);
    }
    return CALL_ONE(queue, push, future);
}

/* twin of PriorityQueue.advance: the top level, new. */
static PyObject *advance(State *st, PyObject *queue) {
    PyObject *level = Py_NewRef(GET(queue, PriorityQueue, top)), *heap = GET(queue, PriorityQueue, _heap);
    PyObject *risen = NULL, *rank;
    while (count_of(level) == 0) {
        PyObject *following = GET(level, Level, next_lower);
        int rises = PyList_GET_SIZE(heap) == 0
                        ? 0
                        : before(PyList_GET_ITEM(heap, 0), GET(following, Level, key));
        GOTO_IF(rises < 0, failed);
        if (!rises && following == st->o.BOTTOM) {
            GOTO_IF(PyDict_Size(GET(queue, PriorityQueue, levels)) > st->keep && CALL(queue, _forget) < 0, failed);
            return level; /* the only one: it will soon be used again */
        }
        if (rises) {
            rank = PyNumber_Negative(PyList_GET_ITEM(heap, 0));
            risen = rank == NULL ? NULL : PyDict_GetItemWithError(GET(queue, PriorityQueue, levels), rank);
            Py_XDECREF(rank);
            if (risen == NULL) {
                GOTO_IF(PyErr_Occurred(), failed);
                PyErr_SetObject(PyExc_KeyError, PyList_GET_ITEM(heap, 0));
                goto failed;
            }
            PUT(risen, Level, next_lower, Py_NewRef(following));
        }
        else {
            risen = following;
        }
        Py_INCREF(risen);
        PUT(queue, PriorityQueue, top, Py_NewRef(risen));
        if (level != risen) {
            PUT(level, Level, next_lower, Py_NewRef(Py_None));
        }
        Py_SETREF(level, risen);
        GOTO_IF(rises && heap_pop(heap) < 0, failed);
    }
    return level;
failed:
    Py_DECREF(level);
    return NULL;
}

/* -- the workers ------------------------------------------------------------------------------ */

/* `unfinished + notifying - caller_runs - threads`, see Workers.missing */
static inline long long missing(State *st, PyObject *capacity, PyObject *workers) {
    return INT(capacity, Capacity, submitted) + number(GET(capacity, Capacity, limit))
           - INT(capacity, Capacity, max_id) + number(GET(workers, Workers, notifying))
           - number(GET(workers, Workers, caller_runs)) - number(GET(workers, Workers, threads));
}

/* -- the meters ------------------------------------------------------------------------------- */

#define BUCKET_ZERO ((1023 - 20) * 16 - 1) /* `_ZERO` in histogram.py */

/* What a task adds to one histogram. */
typedef struct {
    PyObject *counts;
    Py_ssize_t bucket;
    PyObject *number; /* that is to be there */
    PyObject *most; /* a new largest value, or NULL */
} Count;

/* twin of HistogramRecorder.record, but for the change. That class is imported late, so it is looked at here. */
static int prepare_count(State *st, PyObject *recorder, double value, Count *count) {
    if (!READ_FLAG(st->counts_at) || !READ_FLAG(st->max_at)) {
        Py_ssize_t counts_at, max_at;
        PyObject *type = (PyObject *)Py_TYPE(recorder);
        RETURN_IF(offset_of(type, "counts", Py_T_OBJECT_EX, &counts_at) < 0
                      || offset_of(type, "max", Py_T_OBJECT_EX, &max_at) < 0, -1);
        WRITE_FLAG(st->counts_at, (int)counts_at);
        WRITE_FLAG(st->max_at, (int)max_at);
    }
    count->counts = *AT(recorder, READ_FLAG(st->counts_at));
    long long bits;
    memcpy(&bits, &value, sizeof bits);
    Py_ssize_t last = PyList_GET_SIZE(count->counts) - 1, bucket = (Py_ssize_t)(bits >> 48) - BUCKET_ZERO;
    count->bucket = bucket < 0 ? 0 : bucket > last ? last : bucket;
    count->number = PyLong_FromLongLong(number(PyList_GET_ITEM(count->counts, count->bucket)) + 1);
    if (count->number != NULL && value > seconds(*AT(recorder, READ_FLAG(st->max_at)))) {
        count->most = PyFloat_FromDouble(value);
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* twin of Meters.count_run, of what only a pool with histograms has. Counts in both, or in none. */
static int count_times(State *st, PyObject *meters, double ran, double waited) {
    PyObject *recorders[] = {GET(meters, Meters, latency), GET(meters, Meters, wait)};
    Count counts[2] = {{NULL}, {NULL}};
    int failed = prepare_count(st, recorders[0], ran, &counts[0]) < 0
                 || prepare_count(st, recorders[1], waited, &counts[1]) < 0;
    for (int i = 0; i < 2; i++) {
        if (failed) {
            Py_XDECREF(counts[i].number);
            Py_XDECREF(counts[i].most);
            continue;
        }
        PyList_SetItem(counts[i].counts, counts[i].bucket, counts[i].number);
        if (counts[i].most != NULL) {
            put(recorders[i], READ_FLAG(st->max_at), counts[i].most);
        }
    }
    return failed ? -1 : 0;
}
