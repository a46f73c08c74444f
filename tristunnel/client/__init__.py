"""The process beside the service: connect out, come back, reach the service."""
