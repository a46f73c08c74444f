"""Checking the signatures of requests before the service sees them."""
