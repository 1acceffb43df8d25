"""What the user trains with, read and copied at the call: one file for each kind of object."""
