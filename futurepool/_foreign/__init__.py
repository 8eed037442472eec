"""What meets code that is not ours.

- `aside`: threads for callbacks that no thread of their user's asked for
- `contexts`: the context variables that a task finds
- `patched`: `ThreadPoolExecutor.submit`, where a tool has put another in its place
"""
