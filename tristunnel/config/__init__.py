"""Options from a file, from the environment and from the command line, as one."""
