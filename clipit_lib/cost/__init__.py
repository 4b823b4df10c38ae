"""What a classifier costs once it is deployed: operations, parameters and time."""
