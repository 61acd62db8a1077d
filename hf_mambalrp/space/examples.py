"""Texts to begin with: of the packaged models, and for models of which nothing is known but their task."""

FILMS = {
    "Praise": "The plot is thin, but the cast is warm and the ending is simply wonderful.",
    "A pan": "A coarse and stupid gross out.",
    "Negation": "Not a bad film.",
    "Torn": "Bright, intelligent and beautifully shot, yet in the end a hollow, tedious mess.",
}
STORIES = {
    "A capital": "The capital of France is",
    "A name": "My name is Tom. Nice to meet you,",
    "A story": "Once upon a time, a girl named Anna had a small dog. The dog",
}
FILM = (
    "We arrived late and the hall was already dark. The first act is slow and rather dull, and nobody seems to know "
    "what to do with the enormous set. Then the second act begins.\n\nThe young lead is wonderful: funny, warm and "
    "completely honest. Her scene at the window is the best thing I have seen this year. The music helps. "
    "It is never loud.\n\n"
    "The ending is a mess. Three subplots are dropped, and the last speech is boring and far too long. Still, I left "
    "the theatre happy, and I would go again tomorrow."
)
OF_TASK = {
    "text-classification": {
        "Thanks": "Thank you, the parcel came a day early and everything in it is as I had hoped.",
        "A complaint": "I have called three times this week, and nobody could tell me where my order is.",
        "News": "The council voted on Tuesday to close the old bridge until the repairs are finished.",
        "Short": "Not bad at all.",
    },
    "text-generation": {"A capital": "The capital of France is", "A list": "One, two, three, four,"},
    "image-classification": {},
}
LETTER = (
    "We moved into the house in March. The first weeks were quiet, and the heating worked without a fault. Then the "
    "rain came.\n\nWater ran down the wall of the kitchen for two days. I called the office on Monday morning, and a "
    "friendly man promised to send somebody the same day. Nobody came. On Wednesday I called again.\n\n"
    "The repair itself was quick and clean, and the bill was lower than I had feared. I would rent from them again, "
    "but I would not believe a date that they give on the telephone."
)
"""A document for classifiers of which nothing is known."""
