"""Synchronisation: opt-outs from before the webhook was there, and those that it missed."""
