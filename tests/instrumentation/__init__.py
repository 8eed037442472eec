"""Metrics and traces: what is seen of a pool from outside."""
