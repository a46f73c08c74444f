"""
One server in several processes of a machine: a parent, and members that serve.
"""
