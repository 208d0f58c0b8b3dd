"""What an operator runs beside the weights job: export, inventory, prune and serve. They work on what is published;
none of them fetches anything. `__main__` calls the `run` of each with the parsed arguments."""
