"""What a tunnel is: its streams, who may visit it, what is asked of visitors."""
