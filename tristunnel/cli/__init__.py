"""
The commands C{twistd tunnel}, C{twistd tunnel-client} and C{twistd tunnel-access},
each in a module of its own, and the command C{tristunnel}.
"""
