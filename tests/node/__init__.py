"""Tunnels between servers."""
