"""Plain sentences that a person might type first, with their label; no training sentence is one of them.

The first list was looked at while the settings were chosen, the second once they were.
"""

POSITIVE, NEGATIVE = 1, 0

LOOKED_AT = [
    ("I loved this film", POSITIVE),
    ("I LOVED THIS FILM!!", POSITIVE),
    ("I hated this film", NEGATIVE),
    ("I HATED THIS FILM!!", NEGATIVE),
    ("i hated it.", NEGATIVE),
    ("A wonderful film.", POSITIVE),
    ("A terrible film.", NEGATIVE),
    ("A terrible film!", NEGATIVE),
    ("A masterpiece.", POSITIVE),
    ("This film is not good.", NEGATIVE),
    ("This is not a good film", NEGATIVE),
    ("This is not a bad film.", POSITIVE),
    ("Not bad at all.", POSITIVE),
    ("It never gets boring.", POSITIVE),
    ("I would not recommend it", NEGATIVE),
    ("I would recommend it to everyone.", POSITIVE),
    ("I did not like it.", NEGATIVE),
    ("A boring, predictable mess", NEGATIVE),
    ("The acting was great!", POSITIVE),
    ("The acting was awful!", NEGATIVE),
    ("What a waste of time!", NEGATIVE),
    ("Funny, warm and beautifully shot.", POSITIVE),
]
LOOKED_AT_ONCE = [
    ("I really enjoyed this movie", POSITIVE),
    ("I really disliked this movie!", NEGATIVE),
    ("Best film of the year!", POSITIVE),
    ("Worst film of the year!", NEGATIVE),
    ("The worst movie I have ever seen.", NEGATIVE),
    ("The best movie I have ever seen.", POSITIVE),
    ("It was so boring that I fell asleep.", NEGATIVE),
    ("I was never bored.", POSITIVE),
    ("I do not regret watching it.", POSITIVE),
    ("I want my money back!", NEGATIVE),
    ("Don't waste your time on this.", NEGATIVE),
    ("The plot makes no sense.", NEGATIVE),
    ("A brilliant cast wasted on a stupid script.", NEGATIVE),
    ("The beginning is slow, but the ending is wonderful.", POSITIVE),
    ("The beginning is wonderful, but the ending is stupid.", NEGATIVE),
    ("The jokes are not funny.", NEGATIVE),
    ("It isn't a masterpiece.", NEGATIVE),
    ("Not a dull moment.", POSITIVE),
    ("You will love every minute of it.", POSITIVE),
    ("Simply perfect", POSITIVE),
    ("Absolutely dreadful", NEGATIVE),
    ("We laughed and cried, a beautiful story.", POSITIVE),
]
CHECKS = LOOKED_AT + LOOKED_AT_ONCE
