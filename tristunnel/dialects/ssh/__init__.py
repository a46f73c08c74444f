"""
SSH as OpenSSH's own client speaks it: C{ssh -R}.
"""
