"""The parts of the Space: limits, models, questions, answers, views, and the page that joins them."""
