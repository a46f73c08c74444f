"""The tunnel service: who may open what, whose it is, and for how long."""
