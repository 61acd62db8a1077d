"""Words for the synthetic stories: who, where, what. Each name is one word."""

WOMEN = (
    "Alice Amy Anna Ava Bella Beth Carla Clara Daisy Diana Elena Ella Emily Emma Erin Eva Fiona Flora Gina Grace "
    "Hannah Hazel Helen Holly Ida Irene Iris Ivy Jane Jenny Julia Kate Kim Laura Leah Lena Lily Lisa Lola Lucy Maria "
    "Mary Maya Mia Mona Nancy Nina Nora Olga Olivia Paula Pearl Polly Rita Rosa Rose Ruby Ruth Sally Sara Sofia Sue "
    "Tara Tina Vera Violet Wendy Yuki Zara Zoe Amina Priya Mei Ines Freya Greta Heidi Naomi Petra"
).split()
MEN = (
    "Adam Alan Alex Andy Arthur Ben Bill Bob Carl Charlie Chris Daniel David Dylan Eric Ethan Felix Finn Frank Fred "
    "George Harry Henry Hugo Ian Ivan Jack Jacob James Jim Joe John Kevin Leo Liam Louis Luke Marco Mark Martin Max "
    "Michael Mike Nick Noah Oliver Omar Oscar Otto Paul Pedro Peter Philip Ralph Ray Robert Roger Sam Simon Steve Ted "
    "Theo Thomas Tim Toby Tom Victor Walter Will Hassan Ali Raj Kenji Diego Mateo Lars Sven Emil Bruno"
).split()
HELD_OUT_WOMEN = ("Martha", "Sonia", "Molly", "Cora", "Nadia", "Judy")
HELD_OUT_MEN = ("Edgar", "Colin", "Hector", "Stan", "Dennis", "Milo")
"""Names of the copy test that no synthetic text uses otherwise."""

PETS = (
    "Rex Buddy Coco Fluffy Ginger Lucky Misty Pepper Rusty Shadow Snowy Spot Sunny Tiger Toffee "
    "Whiskers Biscuit Patch Smoky Bingo"
).split()
ANIMALS = "dog cat rabbit pony parrot duck goat hen lamb mouse turtle goose".split()
CITIES = (
    "Paris London Berlin Rome Madrid Vienna Lisbon Dublin Oslo Prague Athens Cairo Tokyo Delhi Boston Chicago Sydney "
    "Moscow Warsaw Geneva Toronto Lima Nairobi Seoul Venice Munich Milan Oxford"
).split()
JOBS = (
    "baker teacher doctor farmer nurse driver sailor painter singer writer cook gardener carpenter tailor pilot "
    "dentist judge butcher fisherman librarian musician policeman plumber soldier"
).split()
PLACES = (
    "park|market|river|forest|beach|school|library|garden|farm|lake|station|museum|castle|church|bridge|hill|harbour|"
    "bakery|village|zoo|shop|field"
).split("|")
ROOMS = "kitchen|bedroom|bathroom|cellar|attic|garage|hall|office|living room".split("|")
CONTAINERS = "box|drawer|basket|bag|cupboard|jar|pocket|chest|bucket|case".split("|")
THINGS = (
    "ball|book|key|hat|kite|lamp|map|ring|bell|cup|coat|clock|drum|doll|pencil|letter|coin|watch|shell|stone|"
    "spoon|knife|candle|camera|scarf|bottle|ticket|necklace|whistle"
).split("|")
COLOURS = "red|blue|green|yellow|white|black|brown|pink|purple|orange|golden|grey".split("|")
FOODS = "bread|soup|cheese|rice|cake|apples|honey|fish|pancakes|eggs|salad|cherries|noodles|pie|potatoes".split("|")
DRINKS = "tea|coffee|milk|water|juice|lemonade|cocoa".split("|")
RELATIVES = {
    "her": "sister mother aunt cousin friend grandmother neighbour daughter".split(),
    "his": "brother father uncle cousin friend grandfather neighbour son".split(),
}
SOUNDS = {
    "dog": "barks",
    "cat": "meows",
    "cow": "moos",
    "duck": "quacks",
    "sheep": "bleats",
    "lion": "roars",
    "bird": "sings",
    "wolf": "howls",
    "pig": "grunts",
    "bee": "buzzes",
    "snake": "hisses",
    "mouse": "squeaks",
    "frog": "croaks",
    "horse": "neighs",
}
OPPOSITES = (
    "hot cold|big small|tall short|fast slow|happy sad|rich poor|old young|hard soft|wet dry|light dark|early late|"
    "full empty|open closed|strong weak|high low|near far|good bad|clean dirty|loud quiet|thick thin|first last|"
    "up down|left right|day night|begin end|buy sell|push pull|win lose|love hate|true false"
).split("|")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
COLOUR_OF = {
    "grass": "green",
    "the sky": "blue",
    "snow": "white",
    "blood": "red",
    "coal": "black",
    "the sun": "yellow",
    "milk": "white",
    "a banana": "yellow",
    "a cherry": "red",
    "a frog": "green",
    "a polar bear": "white",
    "chocolate": "brown",
}
MADE_BY = {
    "baker": "bakes bread",
    "teacher": "teaches children",
    "doctor": "helps sick people",
    "farmer": "grows food",
    "cook": "makes dinner",
    "writer": "writes books",
    "painter": "paints pictures",
    "singer": "sings songs",
    "sailor": "sails ships",
    "pilot": "flies planes",
    "gardener": "plants flowers",
    "carpenter": "builds tables",
    "tailor": "makes clothes",
    "fisherman": "catches fish",
    "driver": "drives a bus",
    "plumber": "mends pipes",
}
