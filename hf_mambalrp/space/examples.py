"""Texts to begin with."""

EXAMPLES = {
    "Praise": "The plot is thin, but the cast is warm and the ending is simply wonderful.",
    "A pan": "A coarse and stupid gross out.",
    "Negation": "Not a bad film.",
    "Torn": "Bright, intelligent and beautifully shot, yet in the end a hollow, tedious mess.",
}
PROMPTS = {"A capital": "The capital of France is", "A list": "One, two, three, four,"}
DOCUMENT = (
    "We arrived late and the hall was already dark. The first act is slow and rather dull, and nobody seems to know "
    "what to do with the enormous set. Then the second act begins.\n\nThe young lead is wonderful: funny, warm and "
    "completely honest. Her scene at the window is the best thing I have seen this year. The music helps. "
    "It is never loud.\n\n"
    "The ending is a mess. Three subplots are dropped, and the last speech is boring and far too long. Still, I left "
    "the theatre happy, and I would go again tomorrow."
)
