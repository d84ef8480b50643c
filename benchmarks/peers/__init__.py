"""What others run for the same job. They are installed by `make bench`, each into a place of its own."""
