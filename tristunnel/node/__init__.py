"""Tunnels between servers: a service at one, a port at another."""
