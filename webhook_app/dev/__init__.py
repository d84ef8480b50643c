"""What a developer runs: all at once, a tunnel, a sandbox, made-up webhooks. Nothing of it is loaded in production."""
