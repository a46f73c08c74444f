"""
Certificates from an authority, by ACME (RFC 8555): who asks for them, how it is proved
that a name is ours, and where they are kept.

What talks to the authority is certbot's own library. It blocks, and so runs in threads.
"""
