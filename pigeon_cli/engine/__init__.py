"""Which device works, what is resident on it, and what that costs."""
