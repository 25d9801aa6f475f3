"""The processes of a worker: parent, slots, and the fleet of a host."""
