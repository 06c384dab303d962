"""What callers hand in as files: where it comes from, how it is fetched and checked."""
