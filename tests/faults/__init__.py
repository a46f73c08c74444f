"""
A way that can be broken on purpose, and streams that notice when it is.
"""
