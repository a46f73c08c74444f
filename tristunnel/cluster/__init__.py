"""
One server on several machines: the book that they share in Redis.
"""
