"""
Bytes of strangers.
"""
