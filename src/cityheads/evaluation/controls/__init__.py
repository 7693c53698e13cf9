"""Controls without training: what anyone gets without a network, evaluated as a run is.

A score means something only beside these. ``trivial`` holds the predictors that look at no pixel of the imagery,
``pixels`` the features of one pixel and its surroundings, ``boosting`` the trees on them, ``truth`` the planted upper
bound of a simulated archive, and ``verb`` the rule that makes one of them.
"""
