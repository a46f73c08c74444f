"""
The public process: its ports, its certificates and its life.
"""
