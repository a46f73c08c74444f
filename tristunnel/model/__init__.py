"""The model: tunnels, their streams, who may visit them, and the limits on visitors."""
