"""Files of experiments, and what runs them."""
