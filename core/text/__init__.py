"""Text from outside made sense of: an address pasted for a dataset, a name of an encoding, a library's error."""
