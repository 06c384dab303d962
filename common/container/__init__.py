"""One container: looks at the machine, starts what serves, and keeps it up."""
