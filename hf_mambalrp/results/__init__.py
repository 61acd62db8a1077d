"""What calls return: relevance, attention, and how they are shown, stored and read."""
