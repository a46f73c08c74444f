"""
Certificates from an authority, by ACME (RFC 8555): ordering them, proving that a name
is ours, and storing them.

certbot's own library talks to the authority. It blocks, and so runs in threads.
"""
