"""For operators: the dashboard and the metrics."""
