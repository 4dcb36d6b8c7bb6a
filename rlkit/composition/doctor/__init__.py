"""`rlkit doctor`: the checks that find most misconfigured runs, before one is started."""
