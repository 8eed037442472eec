"""Protocols between threads under every schedule in reach, and the explorer that makes them."""
