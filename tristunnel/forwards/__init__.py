"""What a client offers: forwards, and the connections to their services."""
