/* What stands in the place of a function in Python, for `_fast.c`: it calls one in C, and looks like the other, which
 * gets what is not the plain case. Only that file includes this one. */

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    State *st;
    PyObject *module;
    PyObject *wrapped; /* the function in Python */
} Twin;

static PyObject *twin_get(PyObject *self, PyObject *object, PyObject *type) {
    if (object == NULL || object == Py_None) {
        return Py_NewRef(self);
    }
    return PyMethod_New(self, object);
}

/* What it does not have itself, the function in Python has: name, module, code, annotations; and gets. */
static PyObject *twin_getattro(PyObject *self, PyObject *name) {
    PyObject *found = PyObject_GenericGetAttr(self, name);
    if (found == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        found = PyObject_GetAttr(((Twin *)self)->wrapped, name);
    }
    return found;
}

static int twin_setattro(PyObject *self, PyObject *name, PyObject *value) {
    return PyObject_SetAttr(((Twin *)self)->wrapped, name, value);
}

static PyObject *twin_repr(PyObject *self) {
    return PyObject_Repr(((Twin *)self)->wrapped);
}

static PyObject *twin_doc(PyObject *self, void *unused) {
    return PyObject_GetAttrString(((Twin *)self)->wrapped, "__doc__");
}

static PyObject *twin_module(PyObject *self, void *unused) {
    return PyObject_GetAttrString(((Twin *)self)->wrapped, "__module__");
}

/* For `isinstance`: mocks and tools that look at classes treat it as the function that it stands for. */
static PyObject *twin_class(PyObject *self, void *unused) {
    return Py_NewRef(Py_TYPE(((Twin *)self)->wrapped));
}

static PyObject *twin_reduce(PyObject *self, PyObject *unused) {
    return PyObject_GetAttrString(((Twin *)self)->wrapped, "__qualname__");
}

static int twin_traverse(PyObject *self, visitproc visit, void *arg) {
    Twin *twin = (Twin *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(twin->module);
    Py_VISIT(twin->wrapped);
    return 0;
}

static void twin_dealloc(PyObject *self) {
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
