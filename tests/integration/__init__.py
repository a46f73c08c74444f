"""
Whole programs at work.
"""
