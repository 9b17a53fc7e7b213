"""Kinds of drawn pictures: of one layout each, and no two that show the same.

Every picture comes with what it shows (its number, its words, its colours), and one whose like was
drawn already is drawn again: what a kind has is distinct by what a person reads in it. Nobody tunes
on the kinds of HELD_OUT.
"""

import math
from collections.abc import Callable, Hashable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.pictures import saved

Draws = np.random.Generator
Drawn = tuple[Image.Image, Hashable]  # a picture, and what it shows
Kind = Callable[[Draws], Drawn]

SIDE = 320
TRIES = 50  # for each picture that is wanted
_SYLLABLES = "ba co du el fi go hu in jo ka lem mo nor pa qui ro sa tur ve wo xi yan zu ster"
SYLLABLES = _SYLLABLES.split()
_PALETTE = """
    #d62728 #ff7f0e #f2c811 #9acd32 #2ca02c #0b5d1e #17becf #1f77b4 #1a237e #7b1fa2 #e377c2 #8c564b
    #c49c6b #7f7f7f #111111 #f4f4f4 #ff9896 #aec7e8 #98df8a #c5b0d5 #800020 #008080 #556b2f #ff1493
"""
PALETTE = _PALETTE.split()
RANKS = ("A", *map(str, range(2, 11)), "J", "Q", "K")
_SEGMENTS = "1110111 0010010 1011101 1011011 0111010 1101011 1101111 1010010 1111111 1111011"
SEGMENTS = _SEGMENTS.split()  # that are lit for a digit
INK = "#222222"


def drawn(kind: str, count: int, seed: int) -> list[bytes]:
    """`count` pictures of a kind, encoded, each of which shows something else.

    Raises:
        ValueError: the kind has no more than fewer different ones.
    """
    rng = np.random.default_rng([seed, *kind.encode()])
    seen: set[Hashable] = set()
    files: list[bytes] = []
    for _ in range(TRIES * count):
        image, shown = KINDS[kind](rng)
        if shown not in seen:
            seen.add(shown)
            files.append(saved(image))
        if len(files) == count:
            return files
    raise ValueError(f"{kind}: only {len(files)} of {count} different pictures after many tries")


# --- parts


def paper(
    colour: str = "white", width: int = SIDE, height: int = SIDE
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width, height), colour)
    return image, ImageDraw.Draw(image)


def word(rng: Draws, least: int = 2, most: int = 4) -> str:
    return "".join(rng.choice(SYLLABLES, int(rng.integers(least, most + 1))).tolist())


def colours(rng: Draws, count: int) -> list[str]:
    """Different ones of the palette."""
    return rng.choice(PALETTE, count, replace=False).tolist()


def digits(rng: Draws, count: int) -> str:
    return "".join(map(str, rng.integers(0, 10, count).tolist()))


def fitted(
    draw: ImageDraw.ImageDraw,
    middle: tuple[float, float],
    text: str,
    width: float,
    fill: str,
    most: float,
) -> None:
    """Text as large as fits into a width."""
    size = most
    while size > 8 and draw.textlength(text, font_size=size) > width:
        size *= 0.92
    draw.text(middle, text, fill, anchor="mm", font_size=size)


# --- kinds


def road_sign(rng: Draws) -> Drawn:
    number = str(rng.integers(1, 1000))
    image, draw = paper("#9db7cf")
    draw.rectangle((152, 250, 168, 320), "#777777")
    draw.ellipse((40, 20, 280, 260), "white", "#c8102e", 30)
    fitted(draw, (160, 140), number, 150, fill="black", most=110)
    return image, number


def barcode_label(rng: Draws) -> Drawn:
    number = digits(rng, 12)
    image, draw = paper("white", 360, 220)
    draw.rectangle((5, 5, 354, 214), None, "black", 2)
    left = 30
    for digit in number:
        for place in range(4):
            width = 2 + (int(digit) * 7 + place * 3) % 5
            draw.rectangle((left, 40, left + width // 2, 160), "black")
            left += width + 2
    draw.text((180, 185), " ".join(number), "black", anchor="mm", font_size=22)
    return image, number


def qr_label(rng: Draws) -> Drawn:
    bits = rng.random((25, 25)) < 0.5
    for row, column in ((0, 0), (0, 18), (18, 0)):
        bits[row : row + 7, column : column + 7] = True
        bits[row + 1 : row + 6, column + 1 : column + 6] = False
        bits[row + 2 : row + 5, column + 2 : column + 5] = True
    image = Image.new("RGB", (SIDE, SIDE), "white")
    code = Image.fromarray(np.where(bits, 0, 255).astype(np.uint8)).resize((275, 275), 0)
    image.paste(code, (22, 22))
    return image, bits.tobytes()


def invoice(rng: Draws) -> Drawn:
    image, draw = paper("white", 300, 420)
    draw.rectangle((20, 20, 90, 50), "#1f4e79")
    draw.text((280, 35), "INVOICE", "#1f4e79", anchor="rm", font_size=24)
    name, number = f"{word(rng).title()} {word(rng).title()}", digits(rng, 6)
    draw.text((20, 70), name, INK, font_size=14)
    draw.text((20, 90), f"{word(rng).title()}street {rng.integers(1, 200)}", INK, font_size=11)
    draw.text((200, 70), f"No. {number}", INK, font_size=11)
    total = 0
    for row in range(int(rng.integers(4, 9))):
        top, price = 140 + 24 * row, int(rng.integers(100, 99999))
        draw.line((20, top + 18, 280, top + 18), "#bbbbbb")
        draw.text((20, top), f"{rng.integers(1, 20)}  {word(rng)}", INK, font_size=11)
        draw.text((280, top), f"{price / 100:,.2f}", INK, anchor="ra", font_size=11)
        total += price
    draw.text((280, 380), f"Total  {total / 100:,.2f}", "black", anchor="ra", font_size=15)
    return image, (name, number, total)


def playing_cards(rng: Draws) -> Drawn:
    """Three cards side by side."""
    cards = rng.choice(52, 3, replace=False).tolist()
    image, draw = paper("#1b6b3a", 360, 200)
    for place, card in enumerate(cards):
        suit, rank = divmod(card, 13)
        colour = "#c8102e" if suit < 2 else "black"
        left = 15 + 115 * place
        draw.rounded_rectangle((left, 20, left + 100, 180), 10, "white", "black")
        draw.text((left + 8, 24), RANKS[rank], colour, font_size=26)
        _suit(draw, suit, left + 50, 105, 26, colour)
    return image, tuple(cards)


def _suit(draw: ImageDraw.ImageDraw, suit: int, x: float, y: float, r: float, colour: str) -> None:
    half = r / 2
    if suit == 0:  # hearts
        draw.ellipse((x - r, y - r, x, y), colour)
        draw.ellipse((x, y - r, x + r, y), colour)
        draw.polygon(((x - r, y - half), (x + r, y - half), (x, y + r)), colour)
    elif suit == 1:  # diamonds
        draw.polygon(((x, y - r), (x + 0.7 * r, y), (x, y + r), (x - 0.7 * r, y)), colour)
    elif suit == 2:  # clubs
        for left, top in ((x - half, y - r), (x - r, y - half / 2), (x, y - half / 2)):
            draw.ellipse((left, top, left + r, top + r), colour)
        draw.polygon(((x, y), (x - half, y + r), (x + half, y + r)), colour)
    else:  # spades
        draw.polygon(((x, y - r), (x - r, y + half), (x + r, y + half)), colour)
        draw.ellipse((x - r, y - half / 2, x, y + half * 1.4), colour)
        draw.ellipse((x, y - half / 2, x + r, y + half * 1.4), colour)
        draw.polygon(((x, y), (x - half, y + r), (x + half, y + r)), colour)


def chess_position(rng: Draws) -> Drawn:
    image, draw = paper()
    board = np.full(64, -1)
    board[rng.choice(64, int(rng.integers(6, 24)), replace=False)] = 0
    board = np.where(board == 0, rng.integers(0, 12, 64), board)
    for square, piece in enumerate(board.tolist()):
        row, column = divmod(square, 8)
        left, top = 40 * column, 40 * row
        colour = "#f0d9b5" if (row + column) % 2 == 0 else "#b58863"
        draw.rectangle((left, top, left + 39, top + 39), colour)
        if piece >= 0:
            inside, line = ("white", "black") if piece < 6 else ("#222222", "black")
            tall = 22 + 2 * (piece % 6)
            draw.polygon(
                ((left + 8, top + 36), (left + 20, top + 38 - tall), (left + 32, top + 36)),
                inside,
                line,
            )
            if piece % 6 != 0:
                draw.text(
                    (left + 20, top + 29),
                    "PRNBQK"[piece % 6],
                    "black" if piece < 6 else "white",
                    anchor="mm",
                    font_size=12,
                )
            draw.ellipse((left + 14, top + 32 - tall, left + 26, top + 44 - tall), inside, line)
    return image, board.tobytes()


def clock(rng: Draws) -> Drawn:
    """The time in steps of five minutes, and a hand for the seconds in steps of five."""
    hour, minute, second = rng.integers(0, 12, 3).tolist()
    image, draw = paper("#e8e2d4")
    draw.ellipse((20, 20, 300, 300), "white", "#333333", 10)
    for mark in range(12):
        turn = math.tau * mark / 12
        x, y = 160 + 112 * math.sin(turn), 160 - 112 * math.cos(turn)
        draw.text((x, y), str(mark or 12), INK, anchor="mm", font_size=24)
    for turn, length, width, colour in (
        ((hour + minute / 12) / 12, 65, 11, "black"),
        (minute / 12, 100, 7, "black"),
        (second / 12, 105, 2, "red"),
    ):
        x, y = 160 + length * math.sin(math.tau * turn), 160 - length * math.cos(math.tau * turn)
        draw.line((160, 160, x, y), colour, width)
    return image, (hour, minute, second)


def road_map(rng: Draws) -> Drawn:
    image, draw = paper("#f2efe9")
    seed = int(rng.integers(2**62))
    lines = np.random.default_rng(seed)
    for _ in range(3):
        left, top = lines.uniform(-40, 280, 2)
        draw.rectangle((left, top, left + lines.uniform(40, 120), top + 70), "#cde6b8")
    for number in range(22):
        wide = number >= 18
        start, turn = lines.uniform(0, SIDE, 2), lines.uniform(0, math.tau)
        points = [tuple(start)]
        for _ in range(8):
            turn += lines.normal(0, 0.25)
            start = start + 60 * np.array([math.cos(turn), math.sin(turn)])
            points.append(tuple(start))
        draw.line(points, "#c9a24b" if wide else "#c4bdb0", 11 if wide else 6)
        draw.line(points, "#ffe08a" if wide else "white", 8 if wide else 4)
    for _ in range(3):
        x, y = lines.uniform(30, 260, 2)
        draw.text((x, y), word(lines).title(), "#444444", font_size=13)
    return image, seed


def bar_chart(rng: Draws) -> Drawn:
    heights = rng.integers(1, 11, 6).tolist()
    image, draw = paper("white", 360, 260)
    draw.text((180, 16), "Sales by month", INK, anchor="mm", font_size=18)
    for line in range(11):
        y = 230 - 19 * line
        draw.line((40, y, 345, y), "#dddddd")
        draw.text((32, y), str(10 * line), "#666666", anchor="rm", font_size=10)
    for place, height in enumerate(heights):
        left = 55 + 49 * place
        draw.rectangle((left, 230 - 19 * height, left + 32, 230), "#3b76b0")
        draw.text((left + 16, 244), "JFMAMJ"[place], "#666666", anchor="mm", font_size=12)
    return image, tuple(heights)


def line_chart(rng: Draws) -> Drawn:
    steps = rng.integers(-3, 4, 24)
    image, draw = paper("white", 360, 240)
    draw.line((30, 10, 30, 215, 350, 215), "black", 2)
    values = np.cumsum(steps)
    values = (values - values.min()) / max(float(np.ptp(values)), 1)
    points = [(40 + 13 * k, 200 - 170 * float(value)) for k, value in enumerate(values)]
    draw.line(points, "#d62728", 3)
    return image, steps.tobytes()


def t_shirt(rng: Draws) -> Drawn:
    cloth, print_, text = rng.choice(["white", "#222222", "#2f5d8a", "#8a8d91"]), *colours(rng, 2)
    image, draw = paper("#ececec")
    body = (100, 60, 60, 75, 20, 140, 65, 165, 85, 140, 85, 300, 235, 300, 235, 140, 255, 165)
    draw.polygon((*body, 300, 140, 260, 75, 220, 60, 190, 80, 130, 80), str(cloth), "#555555")
    shape, name = int(rng.integers(0, 5)), word(rng, 1, 3)
    if shape == 0:
        draw.ellipse((120, 110, 200, 190), print_)
    elif shape == 1:
        draw.rectangle((120, 115, 200, 190), print_)
    elif shape == 2:
        draw.polygon(((160, 105), (205, 190), (115, 190)), print_)
    else:
        draw.regular_polygon((160, 150, 44), 3 + shape, 90, print_)
    fitted(draw, (160, 215), name, 120, fill=text, most=30)
    return image, (cloth, print_, shape, name)


def licence_plate(rng: Draws) -> Drawn:
    letters = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUVWXYZ"), 4).tolist())
    text = f"{letters[:2]} {letters[2:]} {digits(rng, 4)}"
    image, draw = paper("white", 400, 100)
    draw.rounded_rectangle((2, 2, 397, 97), 10, "white", "black", 4)
    draw.rectangle((6, 8, 44, 92), "#003399")
    draw.text((220, 52), text, "black", anchor="mm", font_size=54)
    return image, text


def book_cover(rng: Draws) -> Drawn:
    ground = str(rng.choice(["#7a2e2e", "#274b6d", "#355e3b"]))
    title, author = f"{word(rng).title()} {word(rng)}", f"{word(rng)[0].upper()}. {word(rng)}"
    image, draw = paper(ground, 240, 340)
    draw.rectangle((14, 14, 226, 326), None, "#e8d9a0", 3)
    fitted(draw, (120, 90), title, 190, fill="#f5eccd", most=34)
    draw.ellipse((85, 140, 155, 210), None, "#e8d9a0", 4)
    fitted(draw, (120, 280), author, 170, fill="#f5eccd", most=20)
    return image, (title, author)


def app_icon(rng: Draws) -> Drawn:
    ground, front = colours(rng, 2)
    shape = int(rng.integers(0, 6))
    image, draw = paper("white", 256, 256)
    draw.rounded_rectangle((16, 16, 240, 240), 50, ground)
    if shape == 0:
        draw.ellipse((70, 70, 186, 186), front)
    elif shape == 1:
        draw.ellipse((70, 70, 186, 186), None, front, 22)
    elif shape == 2:
        draw.rounded_rectangle((60, 80, 196, 170), 20, front)
    else:
        draw.regular_polygon((128, 130, 66), shape, 0, front)
    return image, (ground, front, shape)


def handwriting(rng: Draws) -> Drawn:
    """A line of pen strokes."""
    seed = int(rng.integers(2**62))
    strokes = np.random.default_rng(seed)
    image, draw = paper("#fdfcf5", 400, 120)
    x, y = 25.0, 65.0
    while x < 370:
        points = [(x, y)]
        for _ in range(int(strokes.integers(3, 7))):
            x += float(strokes.uniform(1, 9))
            y = float(np.clip(y + strokes.normal(0, 22), 25, 100))
            points.append((x, y))
        draw.line(points, "#1d2b64", 3, "curve")
        x += float(strokes.uniform(3, 14))
        y = 65 + float(strokes.normal(0, 6))
    return image, seed


def recoloured_mug(rng: Draws) -> Drawn:
    body, band = colours(rng, 2)
    image, draw = paper("#fafafa")
    draw.ellipse((60, 262, 260, 300), "#dcdcdc")
    draw.arc((200, 110, 290, 220), -95, 95, body, 20)
    draw.rounded_rectangle((70, 70, 230, 285), 22, body, "#666666", 2)
    draw.rectangle((71, 160, 229, 200), band)
    draw.ellipse((70, 55, 230, 90), "#eeeeee", "#666666", 2)
    return image, (body, band)


def recoloured_car(rng: Draws) -> Drawn:
    body, roof = colours(rng, 2)
    image, draw = paper("#dfe7ee", 360, 220)
    draw.rectangle((0, 165, 360, 220), "#8d8d8d")
    draw.polygon(((95, 100), (130, 55), (240, 55), (285, 100)), roof, "#333333")
    draw.polygon(((120, 98), (140, 65), (180, 65), (180, 98)), "#bcd6e6")
    draw.polygon(((190, 98), (190, 65), (232, 65), (262, 98)), "#bcd6e6")
    draw.rounded_rectangle((35, 98, 330, 160), 18, body, "#333333", 2)
    for x in (95, 270):
        draw.ellipse((x - 32, 130, x + 32, 194), "#1c1c1c")
        draw.ellipse((x - 15, 147, x + 15, 177), "#b5b5b5")
    return image, (body, roof)


@lru_cache
def _forest(lit: bool) -> np.ndarray:
    """The background of the camera trap, float32 [240, 320, 3]."""
    rng = np.random.default_rng(7)
    image, draw = paper("#59684c" if lit else "#3a3f3a", 320, 240)
    draw.rectangle((0, 150, 320, 240), "#6f6a4a" if lit else "#4c4f48")
    for x in rng.uniform(0, 320, 12).tolist():
        wide = float(rng.uniform(6, 22))
        draw.rectangle((x, 0, x + wide, 150 + 2 * wide), "#3b2f24" if lit else "#222522")
    for x, y in rng.uniform(0, (320, 240), (160, 2)).tolist():
        draw.line((x, y, x + 6, y - 14), "#7d9455" if lit else "#5d625b", 2)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(1)), np.float32)


def camera_trap(rng: Draws) -> Drawn:
    """One background by day, another small animal somewhere in it, and the camera's grain."""
    return _trap(rng, lit=True)


def camera_trap_at_night(rng: Draws) -> Drawn:
    return _trap(rng, lit=False)


def _trap(rng: Draws, lit: bool) -> Drawn:
    image = Image.fromarray(_forest(lit).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    body, hair = int(rng.integers(0, 4)), int(rng.integers(0, 5))
    x, y, facing = int(rng.integers(1, 13)), int(rng.integers(0, 3)), int(rng.choice([-1, 1]))
    long, tall, ears, tail = ((34, 16, 4, 22), (26, 22, 14, 4), (48, 26, 6, 12), (20, 10, 3, 26))[
        body
    ]
    fur = ("#7a4a22", "#b9b4a8", "#2d2621", "#c27b3a", "#8b8378")[hair]
    if not lit:
        fur = ("#9a9a9a", "#c9c9c9", "#777777", "#e0e0e0", "#aaaaaa")[hair]
    left, ground = 24 * x, 170 + 20 * y
    top, middle = ground - tall - 14, left + facing * long / 2
    draw.ellipse((left - long / 2, top, left + long / 2, top + tall), fur)
    draw.ellipse((middle - 8, top - 10, middle + 8, top + 6), fur)
    draw.polygon(((middle - 5, top - 8), (middle + 5, top - 8), (middle, top - 10 - ears)), fur)
    end = left - facing * (long / 2 + tail * 0.6)
    draw.line((left - facing * long / 2, top + tall / 2, end, top - tail / 3), fur, 4)
    for leg in (-0.35, -0.15, 0.15, 0.35):
        draw.line((left + leg * long, top + tall - 4, left + leg * long, ground), fur, 4)
    draw.rectangle((0, 226, 320, 240), "black")
    hours = f"{rng.integers(1, 29):02}.{rng.integers(1, 13):02}. {rng.integers(0, 24):02}:30"
    draw.text((6, 227), hours, "white", font_size=11)
    light = rng.uniform(0.9, 1.1)
    noisy = np.asarray(image, np.float32) * light + rng.normal(0, 4, (240, 320, 1))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), (body, hair, x, y)


def face(rng: Draws) -> Drawn:
    """One template, with other hair, eyes, brows, nose, mouth and beard."""
    skin = str(rng.choice(["#f2d2b6", "#e0ac7e", "#b57a4a", "#7a4a2b"]))
    hair = str(rng.choice(["#1b1b1b", "#5a3a1e", "#a5682a", "#d9b65d", "#9a9a9a"]))
    eyes, brow, nose, mouth = rng.integers(0, 4, 4).tolist()
    cut, beard = int(rng.integers(0, 4)), int(rng.integers(0, 3))
    image, draw = paper("#cfd8dc", 256, 300)
    draw.rectangle((100, 235, 156, 300), skin)
    draw.ellipse((50, 40 - 10 * cut, 206, 210 + 25 * cut), hair)
    draw.ellipse((62, 60, 194, 260), skin)
    if beard:
        draw.chord((66, 150 + 20 * (2 - beard), 190, 262), 0, 180, hair)
    for x in (98, 158):
        wide = 11 + 2 * eyes
        draw.ellipse((x - wide, 133, x + wide, 155), "white", "#444444")
        iris = ("#3b5d8a", "#4d7a3a", "#5b3a1e", "#222222")[eyes]
        draw.ellipse((x - 7, 137, x + 7, 151), iris)
        tilt = (brow - 1.5) * 5 * (1 if x < 128 else -1)
        draw.line((x - 18, 122 - tilt, x + 18, 122 + tilt), hair, 6)
    draw.polygon(((128, 150), (118 - 3 * nose, 190), (138 + 3 * nose, 190)), None, "#6b4a36")
    box = (98, 195, 158, 232)
    if mouth < 2:
        draw.chord(box, 10, 170, "#a33b3b" if mouth else "#ffffff", "#7a2222")
    else:
        draw.arc(box, *((20, 160) if mouth == 2 else (200, 340)), "#7a2222", 5)
    return image, (skin, hair, eyes, brow, nose, mouth, cut, beard)


def music_score(rng: Draws) -> Drawn:
    image, draw = paper("white", 360, 260)
    notes = []
    for staff in range(3):
        top = 35 + 80 * staff
        for line in range(5):
            draw.line((15, top + 9 * line, 345, top + 9 * line), "black")
        for x in (15, 125, 235, 345):
            draw.line((x, top, x, top + 36), "black", 2)
        for x in range(35, 340, 27):
            height, long = int(rng.integers(-2, 9)), int(rng.integers(0, 3))
            notes.append((height, long))
            y = top + 36 - 4.5 * height
            draw.ellipse((x - 6, y - 4, x + 6, y + 4), "white" if long == 2 else "black", "black")
            stem = 28 if height > 4 else -28
            draw.line(
                (x + (-6 if height > 4 else 6), y, x + (-6 if height > 4 else 6), y + stem), 0
            )
    return image, tuple(notes)


def crossword(rng: Draws) -> Drawn:
    half = rng.random((13, 13)) < 0.18
    black = half | half[::-1, ::-1]
    image, draw = paper()
    number = 0
    for row in range(13):
        for column in range(13):
            left, top = 10 + 23 * column, 10 + 23 * row
            fill = "black" if black[row, column] else "white"
            draw.rectangle((left, top, left + 23, top + 23), fill, "black")
            first = column == 0 or black[row, column - 1] or row == 0 or black[row - 1, column]
            if first and not black[row, column]:
                number += 1
                draw.text((left + 2, top), str(number), "black", font_size=8)
    return image, black.tobytes()


@lru_cache
def _land() -> tuple[tuple[float, float], ...]:
    rng = np.random.default_rng(5)
    turns = np.linspace(0, math.tau, 60, endpoint=False)
    far = np.full(60, 110.0)
    for k in range(1, 9):
        far += rng.normal(0, 22 / k) * np.cos(k * turns + rng.uniform(0, 6))
    return tuple(
        (160 + 1.1 * r * math.cos(t), 160 + r * math.sin(t))
        for r, t in zip(far, turns, strict=True)
    )


def weather_map(rng: Draws) -> Drawn:
    image, draw = paper("#a9cbe6")
    draw.polygon(_land(), "#b9d3a0", "#777777")
    shown = []
    for x, y in ((110, 90), (210, 95), (90, 165), (170, 160), (245, 165), (130, 230), (210, 230)):
        sky, degrees = int(rng.integers(0, 4)), int(rng.integers(-5, 31))
        shown.append((sky, degrees))
        if sky in (0, 1):
            draw.ellipse((x - 11, y - 24, x + 11, y - 2), "#ffcf33", "#c99a00")
        if sky > 0:
            grey = "white" if sky < 3 else "#8f9499"
            draw.ellipse((x - 18, y - 16, x + 2, y), grey)
            draw.ellipse((x - 6, y - 20, x + 16, y), grey)
        if sky >= 2:
            for drop in (-10, 0, 10):
                draw.line((x + drop, y + 1, x + drop - 3, y + 8), "#1f5fa8", 2)
        draw.text((x, y + 17), f"{degrees}°", "black", anchor="mm", font_size=16)
    return image, tuple(shown)


def silhouette(rng: Draws) -> Drawn:
    """A smooth black shape on white."""
    seed = int(rng.integers(2**62))
    waves = np.random.default_rng(seed)
    turns = np.linspace(0, math.tau, 180, endpoint=False)
    far = np.full(180, 90.0)
    for k in range(2, 9):
        far += waves.normal(0, 30 / k) * np.cos(k * turns + waves.uniform(0, 6))
    points = [
        (160 + r * math.cos(t), 160 + r * math.sin(t))
        for r, t in zip(np.clip(far, 20, 150), turns, strict=True)
    ]
    image, draw = paper()
    draw.polygon(points, "black")
    return image, seed


def flag(rng: Draws) -> Drawn:
    """Three stripes across or down, or a cross."""
    first, second, third = colours(rng, 3)
    layout = int(rng.integers(0, 3))
    image, draw = paper(first, 330, 220)
    if layout == 0:
        draw.rectangle((110, 0, 219, 220), second)
        draw.rectangle((220, 0, 330, 220), third)
    elif layout == 1:
        draw.rectangle((0, 73, 330, 146), second)
        draw.rectangle((0, 147, 330, 220), third)
    else:
        draw.rectangle((90, 0, 140, 220), second)
        draw.rectangle((0, 85, 330, 135), second)
        draw.rectangle((103, 0, 127, 220), third)
        draw.rectangle((0, 98, 330, 122), third)
    # a flag and the one that is it, turned or mirrored, count as one
    return image, (
        layout == 2,
        second,
        (first, third) if layout == 2 else frozenset((first, third)),
    )


def bottle(rng: Draws) -> Drawn:
    glass = str(rng.choice(["#2f5d3a", "#5a3418", "#3a4a63"]))
    label, name, year = *colours(rng, 1), word(rng), int(rng.integers(1950, 2030))
    image, draw = paper("white", 220, 360)
    draw.rounded_rectangle((60, 130, 160, 345), 14, glass)
    draw.polygon(((66, 142), (94, 90), (126, 90), (154, 142)), glass)
    draw.rectangle((94, 30, 126, 95), glass)
    draw.rectangle((92, 18, 128, 40), "#b08d57")
    draw.rectangle((60, 190, 160, 290), "#f6f0dc")
    draw.rectangle((60, 190, 160, 205), label)
    fitted(draw, (110, 235), name, 90, fill=INK, most=26)
    draw.text((110, 270), str(year), INK, anchor="mm", font_size=14)
    return image, (glass, label, name, year)


def pen(rng: Draws) -> Drawn:
    body, cap = colours(rng, 2)
    image, draw = paper("white", 320, 200)
    draw.line((60, 160, 200, 65), body, 16)
    draw.line((200, 65, 265, 21), cap, 18)
    draw.polygon(((48, 168), (56, 152), (66, 166)), "#444444")
    return image, (body, cap)


def word_mark(rng: Draws) -> Drawn:
    name, colour = word(rng, 2, 3), str(rng.choice([INK, "#c8102e", "#1f4e79"]))
    image, draw = paper("white", 360, 140)
    fitted(draw, (180, 70), name.title(), 300, fill=colour, most=64)
    return image, name


def sketch(rng: Draws) -> Drawn:
    """A four-legged animal of thin lines, in other poses and proportions."""
    seed = int(rng.integers(2**62))
    pose = np.random.default_rng(seed)
    image, draw = paper()
    long, tall, head = pose.uniform(90, 170), pose.uniform(40, 80), pose.uniform(18, 34)
    left, top = pose.uniform(45, 80), pose.uniform(90, 140)
    right, low = left + long, top + tall
    draw.arc((left, top, right, low), 0, 360, "black", 3)
    x, y = right + pose.uniform(5, 35), top - pose.uniform(-20, 45)
    draw.line((right - 25, top + 12, x - 8, y + head / 2), "black", 3)
    draw.arc((x - head, y - head, x + head, y + head), 0, 360, "black", 3)
    draw.line((x - 6, y - head, x - 2, y - head - pose.uniform(8, 40), x + 8, y - head), "black", 3)
    for foot in (0.15, 0.3, 0.7, 0.85):
        hip = left + foot * long
        points = [(hip, low - 8)]
        for _ in range(2):
            points.append(
                (points[-1][0] + pose.normal(0, 14), points[-1][1] + pose.uniform(25, 45))
            )
        draw.line(points, "black", 3)
    tail = [(left + 4, top + tall / 2)]
    for _ in range(4):
        tail.append((tail[-1][0] - pose.uniform(2, 12), tail[-1][1] + pose.normal(0, 16)))
    draw.line(tail, "black", 3)
    return image, seed


def chat(rng: Draws) -> Drawn:
    """A screen of messages."""
    image, draw = paper("#e5ddd5", 240, 400)
    draw.rectangle((0, 0, 240, 44), "#075e54")
    name = word(rng).title()
    draw.ellipse((10, 8, 38, 36), "#b0bec5")
    draw.text((48, 22), name, "white", anchor="lm", font_size=16)
    top, said = 58, []
    while top < 350:
        words = " ".join(word(rng, 1, 3) for _ in range(int(rng.integers(1, 4))))
        own = bool(rng.integers(0, 2))
        wide = min(draw.textlength(words, font_size=12) + 18, 200)
        left = 232 - wide if own else 8
        box = (left, top, left + wide, top + 26)
        draw.rounded_rectangle(box, 8, "#dcf8c6" if own else "white")
        draw.text((left + 9, top + 13), words, INK, anchor="lm", font_size=12)
        said.append((own, words))
        top += 36
    return image, (name, tuple(said))


def display(rng: Draws) -> Drawn:
    """Four digits of seven segments."""
    number = digits(rng, 4)
    image, draw = paper("#101510", 340, 160)
    for place, digit in enumerate(number):
        left = 22 + 78 * place
        segments = (
            (left + 8, 20, left + 52, 30),
            (left, 25, left + 10, 78),
            (left + 50, 25, left + 60, 78),
            (left + 8, 73, left + 52, 83),
            (left, 80, left + 10, 132),
            (left + 50, 80, left + 60, 132),
            (left + 8, 127, left + 52, 137),
        )
        for on, box in zip(SEGMENTS[int(digit)], segments, strict=True):
            draw.rounded_rectangle(box, 4, "#ff3b1f" if on == "1" else "#2a120e")
    return image, number


KINDS: dict[str, Kind] = {
    "road signs": road_sign,
    "barcode labels": barcode_label,
    "QR labels": qr_label,
    "invoices": invoice,
    "playing cards": playing_cards,
    "chess positions": chess_position,
    "clocks": clock,
    "road maps": road_map,
    "bar charts": bar_chart,
    "line charts": line_chart,
    "t-shirts": t_shirt,
    "licence plates": licence_plate,
    "book covers": book_cover,
    "app icons": app_icon,
    "handwriting": handwriting,
    "recoloured mugs": recoloured_mug,
    "recoloured cars": recoloured_car,
    "camera trap by day": camera_trap,
    "camera trap at night": camera_trap_at_night,
    "faces": face,
    "music scores": music_score,
    "crosswords": crossword,
    "weather maps": weather_map,
    "silhouettes": silhouette,
    "flags": flag,
    "bottles": bottle,
    "pens": pen,
    "word marks": word_mark,
    "sketches": sketch,
    "chats": chat,
    "displays": display,
}
HELD_OUT = frozenset(
    {
        "barcode labels",
        "playing cards",
        "clocks",
        "line charts",
        "book covers",
        "app icons",
        "recoloured cars",
        "camera trap at night",
        "faces",
        "weather maps",
        "silhouettes",
        "flags",
        "bottles",
        "sketches",
        "displays",
    }
)
