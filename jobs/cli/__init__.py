"""The command line: `main` starts everything; each other module holds one group of commands."""
