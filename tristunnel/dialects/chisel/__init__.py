"""
chisel's dialect: SSH in a WebSocket.
"""
