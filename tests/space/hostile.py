"""200 texts that try to break something: markup, control characters, sizes, numbers of wrong types."""

import random

MARKUP = [
    "<script>hacked=1</script>",
    "<img src=x onerror=hacked=1>",
    "<svg/onload=hacked=1>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'>",
    "<a href='javascript:hacked=1'>good</a>",
    "<style>*{display:none}</style>",
    "</div></main></body></html>",
    '"><b onmouseover=hacked=1>x</b>',
    "' onfocus=hacked=1 autofocus='",
    "<!-- open comment",
    "]]><![CDATA[",
    "&lt;b&gt; &amp;amp; &#60;i&#62;",
    "{{constructor.constructor('hacked=1')()}}",
    "${hacked=1}",
    "{% raw %}",
    "%3Cscript%3Ehacked=1%3C/script%3E",
    "`hacked=1`",
    "</textarea><script>hacked=1</script>",
    "<math><mtext><table><mglyph><style><img src=x onerror=hacked=1>",
    "<object data=data:text/html,<script>hacked=1</script>>",
]
CODE = ["'; DROP TABLE words; --", "__import__('os').system('id')", "../../../../etc/passwd", "file:///etc/passwd"]
CODE += ["{0.__class__}", "%s%s%s%n", "$(reboot)", "\\x00\\u0000", '"""', "'''", "\\", "NaN", "null", "-1e999", "0x7f"]
UNICODE = [
    *(f"good{chr(code)}film" for code in range(32)),
    *(
        f"good{chr(code)}film"
        for code in (0x7F, 0x80, 0x85, 0xA0, 0xAD, 0x200B, 0x200D, 0x200E, 0x200F, 0x2028, 0x2029)
    ),
    *(
        f"good{chr(code)}film"
        for code in (0x202A, 0x202B, 0x202D, 0x202E, 0x2066, 0x2067, 0x2069, 0xFEFF, 0xFFFE, 0xFFFF)
    ),
    *(f"good{chr(code)}film" for code in (0xD800, 0xDBFF, 0xDC00, 0xDFFF, 0xE000, 0x1D173, 0xE0001, 0xE0020, 0x10FFFF)),
    "\ud83d\ude00 as two surrogates",
    "\ude00\ud83d the wrong way round",
    "👩‍👩‍👧‍👦" * 20,
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿 " * 20,
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞",
    "مرحبا بالعالم " * 10,
    "שלום " * 10,
    "电影很好看，但是结尾很糟糕。" * 5,
    "İıſŉǰΐΰẖẗẘẙẚ",
    "﷽" * 50,
    "a" + "\u0301" * 500,
]
SIZES = ["", " ", "\n", "\t\r\n", "\u3000", "a", ".", "a" * 2000, "a" * 2001, "a " * 1000, "a " * 1001, "x" * 1_000_000]
SIZES += ["\x00" * 2000, "\U0010ffff" * 2000, "\ud800" * 2000, "<" * 2000, "&" * 2000, "\n" * 1999 + "a", "🙂" * 2000]
TYPES = [None, True, 0, 1.5, -1, [], ["a"], {}, {"text": "a"}, [[["a"]]], 10**400]


def inputs():
    """All of them, filled up to 200 with seeded random strings of characters from everywhere."""
    found = [*MARKUP, *CODE, *UNICODE, *SIZES, *TYPES]
    generator = random.Random(0)
    while len(found) < 200:
        size = generator.choice((3, 30, 300))
        found.append("".join(chr(generator.randrange(0x110000)) for _ in range(size)))
    return found
