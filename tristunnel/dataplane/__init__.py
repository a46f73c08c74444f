"""
How bytes move: sockets, joins, limits, memory.
"""
