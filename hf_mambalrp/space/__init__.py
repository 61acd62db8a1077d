"""The app: limits, models, questions, answers, views, the page that joins them, and Spaces that run it."""
