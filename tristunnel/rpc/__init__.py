"""C{python -m tristunnel.rpc}: the command in L{tristunnel.cli.call}."""
