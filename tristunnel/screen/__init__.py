"""What a terminal shows of a running client or server."""
