"""The known ways in which Python thread pools die, one probe each.

    python -m tests.faults                              a sample of each, on BoundedExecutor
    python -m tests.faults --full                       the exhaustive ones exhaustively
    python -m tests.faults --executor both --markdown   beside ThreadPoolExecutor, for a page
    python -m tests.faults --page docs/guarantees.md    that table, into its place in the page
    python -m tests.faults --full NAME ...              only these

Each probe runs in a process of its own under a watchdog, so a hang is an outcome like any other.
One module for each family of probes; `probes` lists them all, `tools` is what they share,
`__main__` runs one or all. `ledger` is a stress test with a soak mode.
"""
