"""
Bytes to messages and back, with no input or output of their own.

Nothing here imports Twisted: feed bytes, get messages.
"""
