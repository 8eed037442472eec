"""What a pool is doing, for whoever asks. Nothing here is imported before somebody does, or makes a pool.

- `stats`: snapshots, and what is in them
- `observers`: what an observer of an executor is told
- `trace`: a recording, made by an observer
"""
