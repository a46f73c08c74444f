"""
tcp-ws-tunnel's relay: a host and a visitor, joined.
"""
