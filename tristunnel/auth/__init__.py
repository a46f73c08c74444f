"""Who may connect: C{twisted.cred} credentials, checkers and the realm."""
