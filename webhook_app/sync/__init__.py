"""What the webhook does not tell: opt-outs from before it was there, and those that it missed."""
