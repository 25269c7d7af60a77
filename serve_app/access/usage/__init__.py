"""Totals of use, by day, key, group and model.

totals   one total, the rows of it, and how they are grouped
memory   a ledger in this process
redis    a ledger that all replicas share
command  `python -m serve_app usage`
"""
