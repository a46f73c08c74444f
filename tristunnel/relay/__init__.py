"""
The two ends of a stream, and how bytes get from one to the other.
"""
