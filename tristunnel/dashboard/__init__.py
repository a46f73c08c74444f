"""
What operators look at: the dashboard and the metrics.
"""
