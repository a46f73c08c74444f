"""
Who may visit an HTTP name: the PIN, login, account or link that its owner asks for,
before the service sees anything.
"""
