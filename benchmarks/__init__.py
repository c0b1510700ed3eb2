"""Benchmarks: what the product costs beside a bare loop, a plain application and nginx, on this machine, in one run."""
