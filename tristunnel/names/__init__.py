"""
Names as the public sides of tunnels: which request is for which of them, and how
its visitors are served.
"""
