"""
Tests of L{tristunnel.websocket}.
"""
