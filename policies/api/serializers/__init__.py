"""What the addresses of keys and policy take, and what they answer."""
