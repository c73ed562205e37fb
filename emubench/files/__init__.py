"""Files that a stranger may have written: the doors through which they are read, and one model for each."""
