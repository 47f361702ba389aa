"""EMR, CoSim, distances, discovery scores, the judge; ceilings and floors beside them."""
