"""encircle: how far can poisoned training data bend a model's explanations, how would you notice, and what stops it?"""
