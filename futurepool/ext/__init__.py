"""Bridges to other packages. Each module here needs one of them, and only here are they imported."""
