"""
WebSockets: the framed protocol, vtunnel's dialect and raw bytes, over HTTP.
"""
