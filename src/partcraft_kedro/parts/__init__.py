"""Three tiers of k-means: centroids, masks, codes, and the predictor that gives them for new pictures."""
