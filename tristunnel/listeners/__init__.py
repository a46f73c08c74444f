"""
The public side of a tunnel: where visitors come in.
"""
