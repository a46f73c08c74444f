"""
Keeping the requests to the client's web services and their responses, to look at them
and to send them again: C{--inspect}.
"""
