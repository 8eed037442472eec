"""The known ways in which Python thread pools die, one probe each.

    python -m tests.faults                     all probes against BoundedExecutor, a sample of each
    python -m tests.faults --full              the exhaustive ones exhaustively
    python -m tests.faults --both --markdown   beside ThreadPoolExecutor, as a table

Each probe runs in a process of its own under a watchdog, so a hang is an outcome like any other.
`probes` holds the probes, `tools` what they share, `__main__` runs one or all.
"""
