"""The installed command in processes of its own, against the simulator in another."""
