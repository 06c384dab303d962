"""`wan models`: what weights there are, and how they come, are checked and go."""
