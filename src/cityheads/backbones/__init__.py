"""Encoders: how they are found, built and given their weights."""
