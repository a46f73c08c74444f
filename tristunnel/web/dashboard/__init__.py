"""
The dashboard: what happens at a server, in a browser.
"""
