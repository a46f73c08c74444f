"""
Tunnels in a program: a reactor in a thread of its own, and the tunnels that it keeps
open.
"""
