"""The same programs for `ThreadPoolExecutor` and for `BoundedExecutor`, and what they answer.

    programs       what is tried: small functions of the pool's class
    newest.json    what the standard class of the newest CPython answers to each
    meant          the differences that are meant, each with its reason
    page           docs/differences.md, made of these

`tests/differential/test_differential.py` compares. On every version of Python our answers are compared with
those of the newest version's standard class: what that does is what this class does everywhere.

    python -m tests.differential            show what differs here, and is not meant
    python -m tests.differential --write    write newest.json (on the newest Python) and the page
"""
