"""
The wire protocols that clients speak, one folder each.
"""
