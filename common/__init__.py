"""What the commands share; the head of each file says what it is for."""
