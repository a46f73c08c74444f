"""
The server's pages: what HTTP reaches on the port that clients use too.
"""
