"""
What any program needs: text that people write, and the life of a process.
"""
