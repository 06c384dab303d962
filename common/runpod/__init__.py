"""RunPod Serverless: the queue worker, and what a person needs around it."""
