"""
What all dialects share: streams within a session, and a client that comes back.
"""
