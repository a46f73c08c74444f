"""
What the dialects over SSH share: packets, authentication and channels, by
twisted.conch.
"""
