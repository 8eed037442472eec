"""Other executors behind the queue, and what runs in their workers."""
