"""
bore's dialect: JSON at a port of its own, and a connection for each visitor.
"""
