"""Tests of certificates by ACME."""
