"""
zlayer's dialect: both sessions, and the real programs.
"""
