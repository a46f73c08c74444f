"""How a client reaches its server: addresses, proxies, trust, credentials."""
