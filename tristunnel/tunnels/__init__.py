"""
A tunnel, who serves it, and the service that opens it.
"""
