"""The jobs, one package each, and the command line that starts them."""
