"""Can a run's numbers be trusted, and what are they?"""
