"""
The framed protocol: W3P's, and its extension.
"""
