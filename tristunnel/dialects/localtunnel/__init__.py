"""
localtunnel's dialect: a request for a page, and plain connections to a port.
"""
