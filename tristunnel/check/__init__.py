"""C{--check}: what would keep a server or a client from working."""
