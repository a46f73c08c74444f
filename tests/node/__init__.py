"""
Tunnels between servers.
"""
