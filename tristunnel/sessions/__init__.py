"""
A dialect on a transport: the authenticated connection of a client.
"""
