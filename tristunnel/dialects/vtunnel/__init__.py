"""
vtunnel's JSON messages over a WebSocket.
"""
