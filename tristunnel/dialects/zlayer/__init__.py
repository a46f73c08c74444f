"""
zlayer's binary messages over WebSockets.
"""
