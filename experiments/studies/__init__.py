"""Experiments worth repeating: one question, one command each."""
