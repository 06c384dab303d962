"""Jobs: kept, ordered, run, watched, and cleaned away."""
