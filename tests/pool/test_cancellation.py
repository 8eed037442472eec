"""CancelToken and the timer behind its deadlines, without an executor."""

from __future__ import annotations

import concurrent.futures
import functools
import gc
import itertools
import os
import signal
import sys
import threading
import weakref

import pytest

import futurepool
from futurepool import _cancellation, _sync
from futurepool import _deadlines as timer_module
from futurepool._cancellation import CancelToken
from futurepool._deadlines import BATCH, Timer
from futurepool._foreign import aside

PATIENCE = 30.0  # how long a test waits for what must happen


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Listener:
    def __init__(self):
        self.heard = []

    def _token_cancelled(self, token):
        self.heard.append(token)


def stop(timer):
    """End a timer's thread and wait until it has."""
    owned, timer._owned = timer._owned, _sync.Lock()
    timer._wake()
    assert owned.acquire(timeout=PATIENCE)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(_sync, "clock", clock)
    return clock


@pytest.fixture
def timer(monkeypatch):
    """A timer of the test's own, in place of the process's."""
    timer = Timer()
    monkeypatch.setattr(_cancellation, "timer", timer)
    yield timer
    stop(timer)


@pytest.fixture
def idle(timer, monkeypatch):
    """The same, but no thread can be started for it."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_sync, "start", refuse)
    # Other tests' tokens with a deadline are not this one's.
    monkeypatch.setattr(_cancellation, "_timed", {})
    return timer


def run_threads(*bodies):
    errors = []
    barrier = threading.Barrier(len(bodies))

    def run(body):
        try:
            barrier.wait(PATIENCE)
            body()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert errors == []


# -- one token -----------------------------------------------------------------------------------


def test_a_token_is_cancelled_once_with_the_first_reason():
    token = CancelToken()
    assert (token.cancelled, token.reason, token.remaining) == (False, None, None)
    assert token.cancel("first") is True
    assert token.cancel("second") is False
    assert (token.cancelled, token.reason, token.remaining) == (True, "first", None)


def test_raise_if_cancelled_gives_the_reason():
    token = CancelToken()
    token.raise_if_cancelled()
    token.cancel("enough")
    with pytest.raises(concurrent.futures.CancelledError, match=r"^enough$"):
        token.raise_if_cancelled()


def test_raise_if_cancelled_without_a_reason():
    token = CancelToken()
    token.cancel()
    with pytest.raises(concurrent.futures.CancelledError, match=r"^cancelled$"):
        token.raise_if_cancelled()


def test_a_reason_that_is_an_exception_becomes_the_cause():
    token = CancelToken()
    error = OSError("disk full")
    token.cancel(error)
    with pytest.raises(concurrent.futures.CancelledError, match="disk full") as info:
        token.raise_if_cancelled()
    assert info.value.__cause__ is error


def test_a_reason_that_cannot_be_shown_does_no_harm():
    class Bad:
        def __repr__(self):
            raise SystemExit

    token = CancelToken()
    token.cancel(Bad())
    with pytest.raises(concurrent.futures.CancelledError, match="unprintable Bad"):
        token.raise_if_cancelled()
    assert "unprintable Bad" in repr(token)


def test_repr(clock):
    token = CancelToken()
    assert repr(token).endswith(": active>")
    assert repr(CancelToken(2)).endswith(": active, 2.000 s remaining>")
    token.cancel("x")
    assert repr(token).endswith(": cancelled, reason='x'>")


def test_leaving_the_with_block_cancels():
    with pytest.raises(ZeroDivisionError), CancelToken() as token:
        assert not token.cancelled
        raise ZeroDivisionError
    assert token.reason == "its with block was left"


@pytest.mark.parametrize("call", [CancelToken, CancelToken().child, CancelToken().wait])
@pytest.mark.parametrize(
    ("value", "kind"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)]
)
def test_bad_timeouts(call, value, kind):
    with pytest.raises(kind, match=r"timeout.*" + str(value)):
        call(value)


def test_bad_parent_and_callback():
    with pytest.raises(TypeError, match="parent must be a CancelToken or None, not 'mum'"):
        CancelToken(parent="mum")
    with pytest.raises(TypeError, match="fn must be callable, not 3"):
        CancelToken().add_callback(3)


def test_very_long_timeouts():
    for seconds in (float("inf"), 1e300, 10**400):
        token = CancelToken(seconds)
        assert not token.cancelled
        assert token.remaining > 1e6


# -- trees ---------------------------------------------------------------------------------------


def test_cancelling_reaches_all_below_and_nothing_else():
    root = CancelToken()
    left, right = root.child(), root.child()
    leaves = [left.child() for _ in range(3)]
    left.cancel("left")
    assert [t.reason for t in leaves] == ["left"] * 3
    assert not root.cancelled
    assert not right.cancelled
    root.cancel("root")
    assert (left.reason, right.reason, leaves[0].reason) == ("left", "root", "left")


def test_a_child_of_a_cancelled_token_is_cancelled():
    root = CancelToken()
    root.cancel("late")
    assert root.child().reason == "late"
    assert not root._once["children"]


def test_all_below_are_marked_before_any_callback_is_called():
    root = CancelToken()
    leaf = root.child().child()
    seen = []
    root.add_callback(lambda _: seen.append(leaf.cancelled))
    root.cancel()
    assert seen == [True]


def test_dropped_children_leave_nothing_behind():
    root = CancelToken()
    gc.disable()
    try:
        for _ in range(10_000):
            root.child().child()
            child = root.child()
            child.remove_callback(child.add_callback(print) or print)
        ref = weakref.ref(child)
        del child
        assert ref() is None  # no gc was needed
    finally:
        gc.enable()
    assert root._once["children"] == set()
    assert root._once["kept"] == {}


def test_a_dropped_child_with_a_callback_is_still_told():
    root = CancelToken()
    told = []
    root.child().child().add_callback(lambda token: told.append(token.reason))
    gc.collect()
    root.cancel("now")
    assert told == ["now"]
    assert root._once["kept"] == {}


def test_a_whole_dropped_tree_is_collected():
    root = CancelToken()
    child = root.child()
    child.add_callback(print)
    refs = [weakref.ref(root), weakref.ref(child)]
    del root, child
    gc.collect()
    assert [r() for r in refs] == [None, None]


@pytest.mark.slow
def test_a_chain_of_100000():
    root = token = CancelToken()
    for _ in range(100_000):
        token = token.child()
    told = []
    token.add_callback(told.append)
    root.cancel("deep")
    assert told == [token]
    assert token.reason == "deep"
    ref = weakref.ref(root)
    del root, token
    told.clear()
    gc.collect()
    assert ref() is None


# -- callbacks and listeners -----------------------------------------------------------------------


def test_callbacks_are_called_in_order_with_the_token():
    token = CancelToken()
    told = []
    for n in range(5):
        token.add_callback(lambda t, n=n: told.append((t, n)))
    token.cancel()
    token.cancel()
    assert told == [(token, n) for n in range(5)]


def test_a_late_callback_is_called_at_once(caplog):
    token = CancelToken()
    token.cancel()
    told = []
    token.add_callback(told.append)
    assert told == [token]
    token.add_callback(lambda _: 1 / 0)
    assert "division by zero" in caplog.text


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, StopIteration])
def test_what_callbacks_raise_is_logged_and_stops_nothing(kind, caplog):
    def fail(_):
        raise kind

    token = CancelToken()
    told = []
    for fn in (fail, told.append, fail, fail, told.append, fail):
        token.add_callback(fn)
    assert token.cancel() is True
    assert told == [token, token]
    assert [r.name for r in caplog.records] == ["futurepool"] * 4
    assert all(r.exc_info[0] is kind and "fail" in r.getMessage() for r in caplog.records)


def test_a_logging_handler_that_fails_stops_nothing(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError

    monkeypatch.setattr(_cancellation._log, "error", fail)
    token = CancelToken()
    told = []
    token.add_callback(lambda _: 1 / 0)
    token.add_callback(told.append)
    token.cancel()
    assert told == [token]


def test_a_listener_that_fails_is_named(caplog):
    class Bad:
        def _token_cancelled(self, token):
            raise LookupError

    token = CancelToken()
    token._add_listener(Bad())
    token.cancel()
    assert "Bad object" in caplog.text


def test_remove_callback():
    token = CancelToken()
    told = []
    token.add_callback(told.append)
    token.add_callback(told.append)
    token.add_callback(told.extend)
    token._add_listener(Listener())
    assert token.remove_callback(told.append) == 2
    assert token.remove_callback(told.append) == 0
    assert token.remove_callback(told.extend) == 1
    token.cancel()
    assert told == []


def test_listeners_are_called_discarded_or_refused():
    token = CancelToken()
    one, two, three = Listener(), Listener(), Listener()
    assert token._add_listener(one) is True
    assert token._add_listener(two) is True
    assert token._discard_listener(two) is True
    assert token._discard_listener(two) is False
    token.cancel()
    assert token._add_listener(three) is False
    assert token._discard_listener(one) is False
    assert (one.heard, two.heard, three.heard) == ([token], [], [])


def test_many_callbacks_that_all_cancel_again_do_not_recurse():
    token = CancelToken()
    depth = []

    def again(t):
        frame, n = sys._getframe(), 0
        while frame is not None:
            frame, n = frame.f_back, n + 1
        depth.append(n)
        assert t.cancel() is False

    for _ in range(5_000):
        token.add_callback(again)
    token.cancel()
    assert len(depth) == 5_000
    assert len(set(depth)) == 1


def test_a_stale_note_of_a_drain_does_not_stop_the_next():
    token = CancelToken()
    told = []
    token.add_callback(told.append)
    place = (_sync.get_ident(), id(token))

    def finished():
        return sys._getframe()

    _cancellation._draining[place] = finished()
    token.cancel()
    assert told == [token]
    assert place not in _cancellation._draining


def test_a_listener_added_while_it_is_being_cancelled(monkeypatch):
    """Between storing the listener and looking at the flag, the token is cancelled."""
    for taken in (False, True):
        token = CancelToken()
        listener = Listener()
        settle = CancelToken._update_kept

        def cancel_now(self, settle=settle, taken=taken):
            monkeypatch.setattr(CancelToken, "_update_kept", settle)
            if taken:
                self.cancel()
            else:
                self._once.setdefault("reason", ("half-way",))

        monkeypatch.setattr(CancelToken, "_update_kept", cancel_now)
        assert token._add_listener(listener) is taken
        assert listener.heard == [token] * taken


# -- waiting -------------------------------------------------------------------------------------


def test_wait_returns_when_cancelled():
    token = CancelToken()
    answers = []

    def cancel():
        while not token._listeners:
            pass
        token.cancel()

    run_threads(lambda: answers.append(token.wait()), cancel)
    assert answers == [True]
    assert token.wait() is True
    assert not token._listeners


def test_wait_runs_out_of_time():
    token = CancelToken()
    assert token.wait(0) is False
    assert token.wait(0.001) is False
    assert not token._listeners


def test_wait_ends_at_the_deadline_without_the_timer(idle):
    token = CancelToken(0.01)
    assert token.wait(PATIENCE) is True
    assert token.reason == "deadline of 0.01 s passed"
    assert CancelToken(0.01).wait() is True
    assert idle._inbox == type(idle._inbox)()


def test_wait_at_the_very_deadline(clock, monkeypatch):
    """The deadline passes between two looks at the clock."""
    token = CancelToken(1)
    looks = itertools.chain([999.0] * 4, itertools.repeat(5000.0))
    monkeypatch.setattr(_sync, "clock", lambda: next(looks))
    assert token.wait(PATIENCE) is True


def test_wait_does_not_sleep_if_cancelled_just_before(monkeypatch):
    token = CancelToken()
    monkeypatch.setattr(token.__class__, "_listen", lambda self, waiter: not self.cancel())
    assert token.wait() is True


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs pthread_kill")
def test_ctrl_c_interrupts_wait():
    token = CancelToken()
    main = threading.get_ident()

    def interrupt():
        while not token._listeners:
            pass
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            thread.start()
            token.wait()
    finally:
        thread.join()
        signal.signal(signal.SIGINT, old)
    assert not token._listeners


def test_wait_never_sleeps_for_long(monkeypatch):
    """Of a signal that comes just before a lock's sleep Python hears after it."""
    token = CancelToken()
    slept = []

    class Gate:
        def acquire(self, blocking=True, timeout=-1):
            slept.append(timeout)
            if len(slept) == 4:  # the first takes the gate
                token.cancel()
            return len(slept) == 4

        def __exit__(self, *args):
            pass

    monkeypatch.setattr(_sync, "Lock", Gate)
    assert token.wait() is True
    assert slept == [-1, 1, 1, 1]


# -- deadlines -----------------------------------------------------------------------------------


def test_a_deadline_takes_effect_when_looked_at(clock):
    token = CancelToken(0.5)
    assert token.remaining == 0.5
    clock.now += 0.25
    assert token.remaining == 0.25
    assert not token.cancelled
    clock.now += 0.25
    assert token.cancelled
    assert token.reason == "deadline of 0.5 s passed"
    clock.now += 1
    assert token.remaining == 0.0
    assert CancelToken(0).cancelled


@pytest.mark.parametrize("look", ["cancelled", "reason"])
def test_looking_after_the_deadline_calls_the_callbacks(look, clock, idle, monkeypatch):
    """Not here, though: who looks may hold a lock that they want."""
    jobs = []
    monkeypatch.setattr(aside, "run", jobs.append)
    token = CancelToken(1)
    told = []
    token.add_callback(told.append)
    clock.now += 1
    assert getattr(token, look)
    assert told == []
    for job in jobs:
        job()
    assert told == [token]
    assert _cancellation._timed == {}


def test_the_sooner_deadline_counts(clock):
    root = CancelToken(10)
    assert root.child().remaining == 10
    assert root.child(5).remaining == 5
    assert root.child(20).remaining == 10
    assert root.child(5).child().child(7).remaining == 5
    assert CancelToken().child(3).child().remaining == 3


def test_looking_at_a_child_cancels_whose_deadline_it_is(clock):
    root = CancelToken()
    middle = root.child(1)
    leaf, other = middle.child().child(), middle.child()
    clock.now += 1
    assert leaf.reason == "deadline of 1 s passed"
    assert (middle._settled(), other._settled(), root.cancelled) == (True, True, False)


def test_a_child_that_is_not_told_cancels_itself(clock):
    """As if another thread's cancel() of the parent had not got further yet."""
    root = CancelToken(1)
    leaf = root.child()
    root._once["children"].clear()
    clock.now += 1
    assert leaf.cancelled
    assert leaf._settled()


def test_a_listener_is_refused_after_the_deadline(clock):
    token = CancelToken(1)
    clock.now += 1
    assert token._add_listener(Listener()) is False


def test_the_timer_calls_callbacks_of_tokens_nobody_holds(timer):
    done = threading.Event()
    seen = []
    CancelToken(0.01).child().add_callback(lambda t: (seen.append(t.reason), done.set()))
    gc.collect()
    assert done.wait(PATIENCE)
    assert seen == ["deadline of 0.01 s passed"]


def test_many_deadlines_share_one_thread_and_one_entry_per_deadline(timer, monkeypatch):
    before = threading.active_count()
    done = threading.Semaphore(0)
    root = CancelToken(600)
    tokens = [root.child() for _ in range(500)] + [CancelToken(600) for _ in range(500)]
    for token in tokens:
        token.add_callback(lambda _: done.release())
    assert threading.active_count() <= before + 1
    assert len(timer._inbox) + len(timer._heap) <= 501
    clock = _sync.clock
    monkeypatch.setattr(_sync, "clock", lambda: clock() + 600)
    timer._wake()
    for _ in tokens:
        assert done.acquire(timeout=PATIENCE)


def test_a_sooner_deadline_wakes_the_timer(timer):
    done = threading.Event()
    late = CancelToken(3600)
    late.add_callback(print)
    CancelToken(0.01).add_callback(lambda _: done.set())
    assert done.wait(PATIENCE)
    assert not late.cancelled
    late.remove_callback(print)


def test_without_a_thread_deadlines_still_work_and_the_next_one_tries_again(
    timer, monkeypatch, caplog
):
    real = _sync.start
    told = []

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_sync, "start", refuse)
    token = CancelToken(0)
    other = CancelToken(0.01)
    assert token.cancelled
    done = threading.Event()
    other.add_callback(lambda t: (told.append(t), done.set()))
    CancelToken(60).add_callback(print)
    assert caplog.text.count("no thread for deadlines") == 1
    assert not timer._owned.locked()
    monkeypatch.setattr(_sync, "start", real)
    other.add_callback(print)  # this deadline is scheduled already, but there is no thread
    assert done.wait(PATIENCE)
    assert told == [other]
    _cancellation._timed.clear()


# -- the timer, single-stepped ---------------------------------------------------------------------


class Target:
    def __init__(self, log=None, settled=False):
        self.log = [] if log is None else log
        self.settled = settled

    def _expire(self):
        self.log.append(self)

    def _settled(self):
        return self.settled


def test_targets_expire_in_order_of_their_deadlines(clock, idle):
    log = []
    targets = [Target(log) for _ in range(20)]
    for n, target in enumerate(targets):
        idle.schedule(clock.now + (n * 7) % 20, target)
    clock.now += 9
    idle._tidy()
    idle._fire()
    assert log == sorted(targets, key=lambda t: (targets.index(t) * 7) % 20)[:10]
    assert len(idle._heap) == 10


def test_equal_deadlines_are_never_compared_further(clock, idle):
    targets = [Target() for _ in range(50)]
    for target in targets:
        idle.schedule(clock.now, target)
    idle._tidy()
    idle._fire()
    assert all(t.log == [t] for t in targets)


def test_dead_and_cancelled_targets_do_not_enter_the_heap(clock, idle):
    idle.schedule(clock.now, Target())
    kept = Target(settled=True)
    idle.schedule(clock.now, kept)
    idle._tidy()
    assert idle._heap == []


def test_a_target_that_died_meanwhile_is_skipped(clock, idle):
    target = Target()
    idle.schedule(clock.now, target)
    idle._tidy()
    del target
    idle._fire()
    assert idle._heap == []


def test_the_dead_are_purged_when_they_outnumber_the_living(clock, idle):
    targets = [Target() for _ in range(10 * BATCH)]
    for target in targets:
        idle.schedule(clock.now + 3600, target)
    idle._tidy()
    assert len(idle._heap) == 10 * BATCH
    idle._gate.acquire(False)
    targets[0].settled = True
    del targets[4 * BATCH :], target
    gc.collect()
    assert not idle._gate.locked()  # the timer was woken
    idle._tidy()
    assert len(idle._heap) == 4 * BATCH - 1
    assert len(idle._dead) == 0
    assert all(a[0] >= idle._heap[0][0] for a in idle._heap)


def test_the_running_timer_purges_by_itself(timer):
    targets = [Target() for _ in range(8 * BATCH)]
    for target in targets:
        timer.schedule(_sync.clock() + 3600, target)
    del target
    targets.clear()
    gc.collect()
    probe = Target()
    fired = threading.Event()
    probe._expire = fired.set
    timer.schedule(_sync.clock(), probe)
    assert fired.wait(PATIENCE)
    # The thread has seen all deaths, for they came before the probe.
    assert len(timer._heap) <= BATCH + 1


def test_short_lived_deadlines_do_not_pile_up(timer):
    for _ in range(20 * BATCH):
        timer.schedule(_sync.clock() + 3600, Target())
        if len(timer._inbox) > 2 * BATCH:  # the thread has been woken; let it come
            stopped = threading.Event()
            probe = Target()
            probe._expire = stopped.set
            timer.schedule(_sync.clock(), probe)
            assert stopped.wait(PATIENCE)
    assert len(timer._inbox) + len(timer._heap) <= 4 * BATCH


def test_short_lived_deadlines_do_not_pile_up_without_a_thread(idle):
    for _ in range(5 * BATCH):
        idle.schedule(_sync.clock() + 3600, Target())
    assert len(idle._inbox) + len(idle._heap) <= 2 * BATCH
    with idle._owned:
        for _ in range(3 * BATCH):
            idle.schedule(_sync.clock() + 3600, Target())


def test_another_may_open_the_gate_first(idle):
    class Gate:
        def locked(self):
            return True

        def release(self):
            raise RuntimeError("release unlocked lock")

    idle._gate = Gate()
    idle._wake()
    idle._gate = _sync.Lock()


def test_the_timer_survives_whatever_is_raised_in_it(timer, caplog):
    class Bad(Target):
        def _expire(self):
            super()._expire()
            if len(self.log) == 1:
                raise SystemExit
            done.set()

    done = threading.Event()
    target = Bad()
    timer.schedule(_sync.clock(), target)
    assert done.wait(PATIENCE)
    assert target.log == [target, target]
    assert "exception in the timer" in caplog.text


def test_a_second_timer_thread_ends_at_once(timer):
    owned = _sync.Lock()
    with owned:
        timer._run(owned)
    timer._run(owned)  # no longer the timer's: ends as well


def test_a_timer_that_lost_its_office_while_firing_ends(timer):
    """What happens in the child if a callback in the timer's thread forks."""
    owned = timer._owned

    class Fork(Target):
        def _expire(self):
            timer._after_fork()

    target = Fork()
    timer._inbox.append((0.0, 1, weakref.ref(target)))
    timer._run(owned)
    assert not owned.locked()
    assert timer._owned is not owned


def test_the_timer_looks_again_before_it_sleeps(clock, idle):
    target = Target()
    idle._inbox.append((0.0, 1, weakref.ref(target)))
    idle._sleep()  # returns: the entry came after the timer had taken over the others


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_deadlines_work_after_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a token it inherits passes in the child as in the parent.

    One whose hour comes while the parent forks is the parent's: so it comes later, by another clock.
    """
    warm = CancelToken(7200)
    warm.add_callback(print)  # there is a thread now
    warm.remove_callback(print)
    inherited = CancelToken(1800)
    told = threading.Event()
    inherited.add_callback(lambda _: told.set())
    now = _sync.clock
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            done = threading.Event()
            CancelToken(1800).add_callback(lambda _: done.set())  # needs a thread
            monkeypatch.setattr(_sync, "clock", lambda: now() + 1800)
            timer_module.timer._wake()
            if done.wait(PATIENCE) and told.wait(PATIENCE) and inherited.cancelled:
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    monkeypatch.setattr(_sync, "clock", lambda: now() + 1800)
    timer_module.timer._wake()
    assert told.wait(PATIENCE)


def test_after_fork_in_process(idle):
    target = Target()
    idle.schedule(_sync.clock(), target)
    idle._tidy()
    idle.schedule(_sync.clock(), target)
    owned = idle._owned
    idle._after_fork()
    assert (len(idle._inbox), idle._heap) == (2, [])
    assert idle._owned is not owned


def test_the_process_ends_while_deadlines_are_pending():
    import subprocess

    script = (
        "from futurepool._cancellation import CancelToken\n"
        "tokens = [CancelToken(3600) for _ in range(10)]\n"
        "for token in tokens: token.add_callback(print)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- races, interrupts, finalizers -------------------------------------------------------------------


@pytest.fixture
def fast_switches():
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(old)


@pytest.mark.slow
@pytest.mark.parametrize("timeout", [None, 3600])
def test_race_of_adding_discarding_and_cancelling(timeout, fast_switches):
    """Each listener is called once, discarded or refused; a ledger counts."""
    for _ in range(60):
        root = CancelToken()
        token = root.child(timeout)
        called, refused, discarded = bytearray(200), bytearray(200), bytearray(200)

        class Entry:
            def __init__(self, n, called=called):
                self.n = n
                self.called = called

            def _token_cancelled(self, token):
                self.called[self.n] += 1

        entries = [Entry(n) for n in range(200)]

        def add(part, token=token, refused=refused, discarded=discarded, entries=entries):
            for n in part:
                if not token._add_listener(entries[n]):
                    refused[n] += 1
                elif n % 3 == 0 and token._discard_listener(entries[n]):
                    discarded[n] += 1

        run_threads(
            lambda: add(range(0, 200, 2)),
            lambda: add(range(1, 200, 2)),
            token.cancel,
            root.cancel,
        )
        for n in range(200):
            assert called[n] + refused[n] + discarded[n] == 1
        assert not token._listeners
        assert not root._once.get("kept")
        assert id(token) not in _cancellation._timed


@pytest.mark.slow
def test_race_of_keeping_and_letting_go(fast_switches):
    root = CancelToken()
    child = root.child()

    def work():
        mine = Listener()
        for _ in range(300):
            assert child._add_listener(mine)
            assert child._discard_listener(mine)

    run_threads(work, work, work, work)
    assert root._once["kept"] == {}


def test_letting_go_while_another_listens(monkeypatch):
    """A listener is added between the look at the others and the letting go."""
    root = CancelToken()
    child = root.child()
    late = Listener()

    class Kept(dict):
        def pop(self, *args):
            child._kept = dict.__class__ and self  # itself, once more
            if not child._listeners and late is not None and not self.done:
                self.done = True
                child._listeners[late] = late
            return super().pop(*args)

    child._kept = kept = Kept()
    kept.done = False
    child._update_kept()
    assert kept == {id(child): child}


@pytest.mark.slow
def test_race_of_children_and_cancel(fast_switches):
    for _ in range(100):
        root = CancelToken()
        made = []

        def make(root=root, made=made):
            for _ in range(20):
                made.append(root.child().child())

        run_threads(make, make, root.cancel)
        assert all(token._settled() for token in made)


def in_a_thread(function):
    """Run it in a thread of its own.

    An interrupt at some instructions leaves the error then handled in the thread's state for ever.
    """

    @functools.wraps(function)
    def call(*args):
        answers = []
        thread = threading.Thread(target=lambda: answers.append(function(*args)))
        thread.start()
        thread.join(PATIENCE)
        return answers[0]

    return call


@in_a_thread
def interrupt_at(points, fn):
    """Run `fn`, raising KeyboardInterrupt at the given opcodes of the modules; False if all ran."""
    files = {_cancellation.__file__, timer_module.__file__}
    count = 0
    rehearsing = False
    left = sorted(points, reverse=True)

    def local(frame, event, arg):
        nonlocal count
        if event == "opcode" and not rehearsing:
            count += 1
            if left and count == left[-1]:
                left.pop()
                raise KeyboardInterrupt
        return local

    def trace(frame, event, arg):
        # Not in `_gone`: weakref callbacks are where interrupts get lost.
        if frame.f_code.co_filename in files and frame.f_code.co_name != "_gone":
            frame.f_trace_opcodes = True
            return local
        return None

    old = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # or Python 3.12 has no such events
    sys.settrace(trace)
    try:
        rehearsing = True
        if sys.version_info >= (3, 13):  # it has them in code that has been traced before
            rehearse()
        rehearsing = False
        fn()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(old)
    return not left


def rehearse():
    """Run everything once."""
    with CancelToken(3600) as token:
        listener = Listener()
        token._add_listener(listener)
        token._discard_listener(listener)
        token.child().add_callback(id)


def test_an_interrupted_cancel_finishes_first(monkeypatch):
    fire = CancelToken._fire
    token = CancelToken()
    told = []

    def interrupted(self, tell):
        monkeypatch.setattr(CancelToken, "_fire", fire)
        raise KeyboardInterrupt

    monkeypatch.setattr(CancelToken, "_fire", interrupted)
    token.add_callback(told.append)
    with pytest.raises(KeyboardInterrupt):
        token.cancel()
    assert told == [token]


def test_a_cancel_interrupted_before_it_began_has_done_nothing():
    class Once(dict):
        def setdefault(self, *args):
            raise KeyboardInterrupt

    token = CancelToken()
    token._once = Once()
    with pytest.raises(KeyboardInterrupt):
        token.cancel()
    assert not token.cancelled


def test_running_out_of_memory_between_callbacks(monkeypatch, caplog):
    """It is raised, for it is nobody's callback's, and the next call goes on."""

    def fail(*args, **kwargs):
        raise MemoryError

    token = CancelToken()
    told = []
    token.add_callback(told.append)
    monkeypatch.setattr(_cancellation, "deque", fail)
    with pytest.raises(MemoryError):
        token.cancel()
    monkeypatch.undo()
    assert (token.cancelled, told, caplog.text) == (True, [], "")
    assert token.cancel() is False
    assert told == [token]


def test_an_interrupt_while_scheduling_takes_the_listener_back(idle, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Timer, "schedule", fail)
    token = CancelToken(3600)
    with pytest.raises(KeyboardInterrupt):
        token.add_callback(print)
    assert not token._listeners
    assert id(token) not in _cancellation._timed


def test_a_link_whose_child_is_just_dying():
    """Its weak reference is dead already, its weakref callback has not run yet."""
    root = CancelToken()
    link = _cancellation._Link(CancelToken())
    root._once["children"] = {link}
    root.cancel()
    assert root.cancelled


def tree():
    root = CancelToken()
    told = []
    tokens = [root, root.child(3600), root.child()]
    tokens += [tokens[1].child(), tokens[2].child(), tokens[2].child()]
    for token in tokens:
        for n in range(2):
            token.add_callback(lambda _, n=n, token=token: told.append((id(token), n)))
    expected = [(id(token), n) for token in tokens for n in range(2)]
    return root, tokens, told, sorted(expected)


def check_tree(root, tokens, told, expected):
    assert all(token.cancelled for token in tokens)
    assert sorted(told) == expected
    assert root._once["kept"] == {}
    assert all(id(token) not in _cancellation._timed for token in tokens)
    assert not any(token._listeners or token._once.get("children") for token in tokens)


@pytest.mark.slow
@pytest.mark.thorough
def test_an_interrupt_at_any_point_of_cancel(idle):
    """The callbacks are all called, once; if not by the interrupted call, then by the next."""
    completed = 0
    for k in itertools.count(1):
        root, tokens, told, expected = tree()
        if not interrupt_at([k], root.cancel):
            break
        if root.cancelled:  # what was announced is complete, even without another call
            completed += len(told) == len(expected)
        root.cancel()
        check_tree(root, tokens, told, expected)
    assert k > 300
    assert completed > 0.9 * k


@pytest.mark.slow
@pytest.mark.thorough
def test_an_interrupt_of_the_interrupted(idle):
    for k in range(10, 400, 13):
        for j in range(1, 300, 29):
            root, tokens, told, expected = tree()
            interrupt_at([k, k + j], root.cancel)
            root.cancel()
            check_tree(root, tokens, told, expected)


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("timeout", [None, 3600])
def test_an_interrupt_at_any_point_of_adding_and_discarding(timeout, idle):
    for k in itertools.count(1):
        root = CancelToken()
        token = root.child(timeout)
        one, two = Listener(), Listener()
        token._add_listener(one)
        if not interrupt_at([k], lambda: token._add_listener(two)):  # noqa: B023
            break
        token._discard_listener(two)
        if not interrupt_at([k], lambda: token._discard_listener(one)):  # noqa: B023
            token.cancel()
        token._discard_listener(one)
        assert (one.heard, two.heard) == ([], [])
        assert id(token) not in token._kept
    assert k > 20


@pytest.mark.slow
@pytest.mark.thorough
def test_an_interrupt_at_any_point_of_making_a_child(idle):
    root = CancelToken()
    for k in itertools.count(1):
        if not interrupt_at([k], root.child):
            break
    gc.collect()
    assert root._once["children"] == set()
    assert k > 50


@pytest.mark.slow
@pytest.mark.thorough
def test_finalizers_may_use_the_token_at_any_point(idle):
    """Garbage whose finalizer uses the very token is collected at nearly every allocation."""
    counts = [0, 0]
    inside = []

    class Garbage:
        def __init__(self, token):
            self.me = self
            self.token = token

        def __del__(self):
            if inside:
                return
            inside.append(1)
            counts[0] += 1
            token = self.token
            token.add_callback(bump)
            listener = Listener()
            if token._add_listener(listener):
                token._discard_listener(listener)
            token.child().add_callback(bump)
            if counts[0] % 5 == 0:
                token.cancel()
            inside.pop()

    def bump(_):
        counts[1] += 1

    old = gc.get_threshold()
    gc.collect()
    gc.freeze()  # or else all that other tests have left is looked at each time, which takes a minute
    for n in range(150):
        root = CancelToken(3600 if n % 2 else None)
        gc.set_threshold(1)
        try:
            for _ in range(5):
                Garbage(root)
                root.add_callback(bump)
                root.child().add_callback(bump)
            root.cancel()
        finally:
            gc.set_threshold(*old)
        gc.collect()
        assert root.cancelled
        assert not root._listeners
        assert id(root) not in _cancellation._timed
    assert counts[0] == 750
    assert counts[1] == 750 * 2 + 150 * 10


def test_a_finalizer_inside_the_drain_may_cancel_again():
    token = CancelToken()
    told = []

    class Last:
        def __del__(self):
            told.append("del")
            token.cancel()
            token.add_callback(lambda _: told.append("late"))

    last = [Last()]

    def first(_):
        last.clear()

    token.add_callback(first)
    token.add_callback(lambda _: told.append("second"))
    token.cancel()
    assert told == ["del", "late", "second"]


def test_signal_handlers_may_use_the_token():
    """Each time the handler comes, it interrupts some operation on the same token."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("needs setitimer")
    token = CancelToken()
    hits = []

    def handler(signum, frame):
        listener = Listener()
        assert token._add_listener(listener)
        assert token._discard_listener(listener)
        hits.append(1)

    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while len(hits) < 20:
            listener = Listener()
            assert token._add_listener(listener)
            assert token._discard_listener(listener)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert not token._listeners


# -- every interleaving ------------------------------------------------------------------------------


def scenarios():
    loom = pytest.importorskip("tests.protocols.loom")

    def listen():
        root = CancelToken()
        token = root.child()
        one, two = Listener(), Listener()
        token._add_listener(one)
        answers = []

        def add():
            answers.append(token._add_listener(two))

        def check():
            assert len(one.heard) == 1
            assert len(two.heard) == answers[0]
            assert not token._listeners
            assert not root._once.get("kept")

        return [add, lambda: root.cancel("x")], check

    def discard():
        root = CancelToken()
        token = root.child()
        one = Listener()
        token._add_listener(one)
        answers = []

        def check():
            assert len(one.heard) + answers[0] == 1
            assert not root._once.get("kept")

        return [lambda: answers.append(token._discard_listener(one)), token.cancel], check

    def keep():
        root = CancelToken()
        token = root.child()
        one, two = Listener(), Listener()
        token._add_listener(one)

        def check():
            assert list(root._once["kept"].values()) == [token]
            token._discard_listener(two)
            assert not root._once.get("kept")

        return [lambda: token._discard_listener(one), lambda: token._add_listener(two)], check

    def birth():
        root = CancelToken()
        made = []

        def check():
            assert made[0]._settled()

        return [lambda: made.append(root.child()), root.cancel], check

    def wait():
        token = CancelToken()
        answers = []

        def check():
            assert answers == [True]
            assert not token._listeners

        return [lambda: answers.append(token.wait()), token.cancel], check

    def deadline():
        done = _sync.Lock()
        done.acquire()
        late, soon = CancelToken(5000), CancelToken(1)

        def release(_):
            done.release()

        def watch():
            soon.add_callback(release)
            done.acquire()
            CancelToken(1).add_callback(release)
            done.acquire()
            assert late.remaining > 1000

        def check():
            stop(_cancellation.timer)

        return [watch, lambda: late.add_callback(id)], check

    return loom, {f.__name__: f for f in (listen, discard, keep, birth, wait, deadline)}


def scenario(name):
    loom, builds = scenarios()
    return loom, loom.Scenario(
        builds[name],
        code=[CancelToken, Timer],
        rebind=[(_cancellation, "timer", Timer), (_cancellation, "_timed", dict)],
    )


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("name", ["listen", "discard", "keep", "birth", "wait", "deadline"])
def test_every_interleaving(name):
    pytest.importorskip("greenlet")
    loom, model = scenario(name)
    model.explore(loom.DFS(2), limit=1500, seconds=3)


#: (scenario, place that is marked in the code, what is done to it): each of these must be caught.
MUTANTS = [
    ("listen", "too-late-to-listen-is-seen", "return True"),
    ("keep", "kept-is-looked-at-again", "ALWAYS"),
    ("birth", "born-too-late-is-cancelled", "NEVER"),
    ("wait", "waiter-is-a-release", "waiter = Opener(id)"),
    ("deadline", "sooner-deadline-wakes-the-timer", "WITHOUT_FIRST"),
    ("deadline", "inbox-is-looked-at-before-sleep", "NEVER"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "place", "how"), MUTANTS)
def test_the_models_can_fail(name, place, how):
    pytest.importorskip("greenlet")
    loom, model = scenario(name)
    kinds = {kind: getattr(loom, kind) for kind in ("ALWAYS", "NEVER", "WITHOUT_FIRST")}
    with loom.planted(futurepool, place, kinds.get(how) or loom.instead(how)):
        model.expect_failure(loom.DFS(2))


def test_logger_is_the_documented_one(caplog):
    """What a callback raises goes to `futurepool`."""
    token = CancelToken()
    token.add_callback(lambda _: 1 // 0)
    token.cancel()
    assert [record.name for record in caplog.records] == ["futurepool"]
