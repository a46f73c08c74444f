"""
Bytes of unauthenticated peers.
"""
