"""
Measures tristunnel beside other tunnels, on this machine alone.

Run it with C{python -m benchmarks}; C{docs/performance.rst} explains it.
"""
