"""Words: exceptions, outcomes and progress, which every room above uses."""
