"""gunicorn as it comes, with its own thread worker: the configuration of B's limits. So many threads as the product."""

worker_class = "gthread"
threads = 32
# The load keeps its connections.
keepalive = 95  # seconds
# It would open a socket in the home directory that nobody asked for.
control_socket_disable = True
