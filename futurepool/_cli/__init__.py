"""The command line: `python -m futurepool`, and the script `futurepool`.

It sees what a user of the package sees. What its modules need from elsewhere is imported here only,
and late where that keeps the start fast.
"""
