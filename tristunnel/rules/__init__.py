"""
Who may do what, how much of it, and for how long.
"""
