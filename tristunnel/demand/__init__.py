"""
Services that are started for their visitors, and stopped when nobody has come for a
while.
"""
