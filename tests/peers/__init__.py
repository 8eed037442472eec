"""Other people's code: their suites, libraries and tools, and pools beside this one."""
