"""
The life of a process: where it keeps things, what it shows, how it stops.
"""
