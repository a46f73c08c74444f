"""Tunnels in a program: a reactor in a thread of its own, and what it holds open."""
