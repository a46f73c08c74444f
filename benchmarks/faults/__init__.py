"""
Faults on purpose: each module is a program that does harm, and prints a table
of what came of it.
"""
