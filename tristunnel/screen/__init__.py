"""The display of a running client or server in a terminal."""
