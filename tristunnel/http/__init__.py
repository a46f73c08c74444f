"""
The web site on the clients' port: limits, callers, RPC.
"""
