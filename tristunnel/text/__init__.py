"""
What people write: endpoint strings, durations, rates and sizes.
"""
