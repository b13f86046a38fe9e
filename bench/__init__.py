"""Measurements that anyone can run again; each is `python -m bench.NAME`."""
