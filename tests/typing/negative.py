"""What must not type-check: each marked line is an error of that kind, no other line is.

`# E: RULE / CODE` names pyright's rule and mypy's code; where its versions differ, `CODE|CODE`.
"""

from __future__ import annotations

import asyncio

import futurepool
from futurepool import BoundedExecutor, CancelToken, OnFull, TaskError


def scale(image: str, factor: float, *, sharp: bool = False) -> bytes:
    return image.encode()


def is_late(token: CancelToken, error: TaskError) -> bool:
    return token.cancelled


pool = BoundedExecutor()
view = pool.options()
token = CancelToken()

# The task's arguments.
pool.submit(scale, 3, 2.0)  # E: reportArgumentType / arg-type
pool.submit(scale, "a")  # E: reportCallIssue / call-arg
pool.submit(scale, "a", 2.0, True)  # E: reportCallIssue / call-arg|misc
pool.submit(scale, "a", 2.0, blurred=True)  # E: reportCallIssue / call-arg
pool.submit(scale, "a", 2.0, sharp=3)  # E: reportArgumentType / arg-type
pool.submit(scale, "a", 2.0, image="b")  # E: reportCallIssue / misc
pool.submit(lambda: 3, 4)  # E: reportCallIssue / arg-type
pool.submit(3)  # E: reportArgumentType / arg-type
pool.submit(scale("a", 2.0))  # E: reportArgumentType / arg-type
pool.submit()  # E: reportCallIssue / call-arg
pool.submit(fn=scale)  # E: reportCallIssue / call-arg
pool.try_submit(scale, "a", "b")  # E: reportArgumentType / arg-type
pool.try_submit(scale, "a")  # E: reportCallIssue / call-arg
view.submit(scale, 3, 2.0)  # E: reportArgumentType / arg-type
view.try_submit(scale, "a", 2.0, blurred=True)  # E: reportCallIssue / call-arg

# The options of a submission.
pool.submit(scale, "a", 2.0, priority=1)  # E: reportCallIssue / call-arg
pool.submit(scale, "a", 2.0, timeout=1)  # E: reportCallIssue / call-arg
pool.submit_with_timeout("1", scale, "a", 2.0)  # E: reportArgumentType / arg-type
pool.submit_with_timeout(1, scale, "a")  # E: reportCallIssue / call-arg
pool.submit_with_timeout(scale, "a", 2.0)  # E: reportArgumentType / arg-type
pool.submit_with_priority("high", scale, "a", 2.0)  # E: reportArgumentType / arg-type
pool.submit_with_priority(1.5, scale, "a", 2.0)  # E: reportArgumentType / arg-type
pool.submit_with_priority(1, scale, "a", sharp=3)  # E: reportCallIssue / arg-type
pool.submit_with_token(None, scale, "a", 2.0)  # E: reportArgumentType / arg-type
pool.submit_with_token(token, scale, 1, 2.0)  # E: reportArgumentType / arg-type
pool.options(priority="high")  # E: reportArgumentType / arg-type
pool.options(limit="2")  # E: reportArgumentType / arg-type
pool.options(key=1.5, key_limit=1)  # E: reportArgumentType / arg-type
pool.options(priority=None)  # E: reportArgumentType / arg-type
pool.options(timeout="1")  # E: reportArgumentType / arg-type
pool.options(token=3)  # E: reportArgumentType / arg-type
pool.options(on_full="block")  # E: reportArgumentType / arg-type
pool.options(on_full=None)  # E: reportArgumentType / arg-type
pool.options(name=3)  # E: reportArgumentType / arg-type
pool.options(max_wait="1")  # E: reportArgumentType / arg-type
pool.options(run_timeout="1")  # E: reportArgumentType / arg-type
pool.options(run_timeout=1, abandon="yes")  # E: reportArgumentType / arg-type
pool.options(queue_size=3)  # E: reportCallIssue / call-arg
pool.options(3)  # E: reportCallIssue / call-arg|misc
print(OnFull.WAIT)  # E: reportAttributeAccessIssue / attr-defined

# Results.
number: int = pool.submit(scale, "a", 2.0).result()  # E: reportAssignmentType / assignment
text: str = pool.submit_with_timeout(1, bytes).result()  # E: reportAssignmentType / assignment
print(pool.submit(scale, "a", 2.0).result().nothing)  # E: reportAttributeAccessIssue / attr-defined
pool.submit(scale, "a", 2.0).result("1")  # E: reportArgumentType / arg-type
pool.submit(scale, "a", 2.0).add_done_callback(len)  # E: reportArgumentType / arg-type
pool.submit(scale, "a", 2.0).set_result("a")  # E: reportArgumentType / arg-type

# The constructor.
BoundedExecutor("4")  # E: reportArgumentType / arg-type
BoundedExecutor(4, 5)  # E: reportArgumentType / arg-type
BoundedExecutor(queue_size="x")  # E: reportArgumentType / arg-type
BoundedExecutor(queue_size=1.5)  # E: reportArgumentType / arg-type
BoundedExecutor(4, "name", None, (), 10)  # E: reportCallIssue / call-arg|misc
BoundedExecutor(4, order="newest")  # E: reportArgumentType / arg-type
BoundedExecutor(4, on_full="block")  # E: reportArgumentType / arg-type
BoundedExecutor(shutdown_timeout=None)  # E: reportArgumentType / arg-type
BoundedExecutor(enable_metrics=1)  # E: reportArgumentType / arg-type
BoundedExecutor(error_handler=lambda: None)  # E: reportArgumentType / arg-type
BoundedExecutor(error_handler=is_late)  # E: reportArgumentType / arg-type
BoundedExecutor(initializer=3)  # E: reportArgumentType / arg-type
BoundedExecutor(initializer=print, initargs=["x"])  # E: reportArgumentType / arg-type
BoundedExecutor(aging="1")  # E: reportArgumentType / arg-type
BoundedExecutor(engine=3)  # E: reportArgumentType / arg-type
BoundedExecutor(close_engine=0)  # E: reportArgumentType / arg-type
BoundedExecutor(workers=3)  # E: reportCallIssue / call-arg

# size.
BoundedExecutor(idle_timeout="1")  # E: reportArgumentType / arg-type
pool.resize("2")  # E: reportArgumentType / arg-type
pool.resize(queue_size="2")  # E: reportArgumentType / arg-type
pool.prestart("2")  # E: reportArgumentType / arg-type

# map.
pool.map(len, ["a"], chunksize="x")  # E: reportArgumentType / arg-type|call-overload
pool.map(len, ["a"], timeout="1")  # E: reportArgumentType / arg-type|call-overload
pool.map(len, ["a"], ordered=False)  # E: reportCallIssue / call-arg|call-overload
pool.map(len, [1, 2])  # E: reportArgumentType / arg-type|call-overload
pool.map(scale, ["a"], ["b"])  # E: reportArgumentType / arg-type|call-overload
pool.map(scale, ["a"])  # E: reportArgumentType / arg-type|call-overload
pool.map(scale, ["a"], [1.0], [True])  # E: reportArgumentType / arg-type|call-overload
view.map(len, [1])  # E: reportArgumentType / arg-type|call-overload
pool.map_unordered(len, [1])  # E: reportArgumentType / arg-type|call-overload
pool.map(len, 3)  # E: reportArgumentType / arg-type|call-overload
pool.map(3, ["a"])  # E: reportArgumentType / arg-type|call-overload
pool.map_unordered(len, ["a"], buffersize="x")  # E: reportArgumentType / arg-type|call-overload
view.map_unordered(len, 3)  # E: reportArgumentType / arg-type|call-overload
for size in pool.map(len, ["a"]):
    size.upper()  # E: reportAttributeAccessIssue / attr-defined

# The rest.
pool.stop("1")  # E: reportArgumentType / arg-type
pool.stop(token=3)  # E: reportArgumentType / arg-type
pool.wait("1")  # E: reportArgumentType / arg-type
pool.closed = True  # E: reportAttributeAccessIssue / misc
pool.closed()  # E: reportCallIssue / operator
pool.running(True)  # E: reportCallIssue / call-arg|misc
pool.stats().queued_tasks = 3  # E: reportAttributeAccessIssue / misc
print(pool.stats().queue_size + 1)  # E: reportOptionalOperand / operator
print(pool.stats().latency.p50)  # E: reportOptionalMemberAccess / union-attr
view.stats()  # E: reportAttributeAccessIssue / attr-defined
CancelToken("1")  # E: reportArgumentType / arg-type
CancelToken(1, token)  # E: reportCallIssue / call-arg|misc
CancelToken(parent=3)  # E: reportArgumentType / arg-type
token.cancelled = True  # E: reportAttributeAccessIssue / misc
token.add_callback(is_late)  # E: reportArgumentType / arg-type
print(token.remaining + 1)  # E: reportOptionalOperand / operator
TaskError("1", "name", ValueError())  # E: reportArgumentType / arg-type
print(TaskError(1, "name", OSError()).errno)  # E: reportAttributeAccessIssue / attr-defined


async def main() -> None:
    loop = asyncio.get_running_loop()
    awaited = await pool.submit(scale, "a", 2.0)
    print(awaited.nothing)  # E: reportAttributeAccessIssue / attr-defined
    looped = await loop.run_in_executor(view, scale, "a", 2.0)
    print(looped.nothing)  # E: reportAttributeAccessIssue / attr-defined
    await loop.run_in_executor(view, scale, "a")  # E: reportArgumentType / arg-type
    await pool.arun(scale, 3, 2.0)  # E: reportArgumentType / arg-type
    await view.arun(scale, "a")  # E: reportCallIssue / call-arg
    ran = await pool.arun(scale, "a", 2.0)
    print(ran.nothing)  # E: reportAttributeAccessIssue / attr-defined
    pool.amap(len, [1])  # E: reportArgumentType / arg-type|call-overload
    pool.amap(len, 3)  # E: reportArgumentType / arg-type|call-overload
    pool.amap(scale, ["a"])  # E: reportArgumentType / arg-type|call-overload
    pool.amap(len, ["a"], ordered="no")  # E: reportArgumentType / arg-type|call-overload


print(futurepool.Statz)  # E: reportAttributeAccessIssue / attr-defined
