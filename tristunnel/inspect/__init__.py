"""
What visitors ask of the client's web services and what those answer, to be looked at
and sent again: C{--inspect}.
"""
