"""
Requests whose signature is checked beside the service, before it sees any of them.
"""
