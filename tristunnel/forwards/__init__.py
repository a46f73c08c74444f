"""What a client offers: forwards and their services, and connections to these."""
