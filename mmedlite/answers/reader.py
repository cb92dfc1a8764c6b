"""The lenient reader: explicit marks, letters in prose, option texts. Its patterns lie in ``patterns.toml``."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Parsed:
    """``option`` is an index into the options; when it is None, ``reason`` says why there is no answer."""

    option: int | None
    reason: str | None = None


def _compiled() -> SimpleNamespace:
    """The patterns by name, lines joined and parts filled in."""
    tables = tomllib.loads(Path(__file__).with_name("patterns.toml").read_text(encoding="utf-8"))
    parts: dict[str, str] = {}
    for table in tables.values():
        for name, text in table.items():
            parts[name] = re.sub("%([A-Z]+)%", lambda m: parts[m[1]], text.replace("\n    ", ""))
    flags = dict.fromkeys(tables["cased"], 0) | dict.fromkeys(tables["uncased"], re.IGNORECASE)
    return SimpleNamespace(**{name: re.compile(parts[name], flag) for name, flag in flags.items()})


P = _compiled()
FINAL = {"empty", "refused", "ambiguous", "out_of_range", "no_option"}  # a mark that says so ends the search
SAID, LEADS, MENTIONED, JOINED = 3, 2, 1, 0  # how far a letter in prose can be trusted
ALPHABET = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
# A to E in other alphabets. Gaps leave out letters whose look and place disagree (Cyrillic Ve: third, or a Latin B?).
_ROWS = ["АБ ГД", "  С Е", "ΑΒΓΔΕ", "אבגדה", "أبجده", "ا", "कखगघ", "अबसद", "কখগঘ", "กขคง", "甲乙丙丁戊", "가나다라마", "アイウエオ"]
LOCAL = {char: "ABCDE"[i] for row in _ROWS for i, char in enumerate(row) if char != " "}
FOLD: dict[int, Any] = {start + i: chr(65 + i) for start in (0x1F150, 0x1F170, 0x1F1E6) for i in range(26)}
FOLD |= dict.fromkeys((0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0xFE0E, 0xFE0F))  # invisible
FOLD |= str.maketrans("’‘“”−،؟、", "''\"\"-,?,") | str.maketrans(dict.fromkeys("。।", ". "))


def fold(text: str) -> str:
    """Full-width, circled and styled letters to plain ones; typographic marks to ASCII; invisible characters away."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text).translate(FOLD)


def _norm(text: str) -> str:
    """Words and numbers of ``text`` in lower case between single blanks; thousands separators dropped."""
    plain = P.thousands.sub("", text) if "," in text else text
    return f" {' '.join(P.token.findall(plain.casefold()))} "


def _after_reasoning(text: str) -> str | None:
    """What follows the last closing reasoning tag; None when a reasoning tag was never closed."""
    text = P.close_channel.sub("</think>", P.open_channel.sub("<think>", text))
    if "<" not in text:
        return text
    closed = {m[1].lower(): m for m in P.close.finditer(text)}
    for m in P.open.finditer(text):
        if m[1].lower() not in closed or closed[m[1].lower()].start() < m.start():
            return None
    return text[max((m.end() for m in closed.values()), default=0) :]


class Reader:
    """The options of one question, prepared for reading answers."""

    def __init__(self, options: tuple[str, ...], labels: tuple[str, ...] = ()) -> None:
        self.texts = [_norm(fold(o)) for o in options]
        self.shown = [fold(o).strip() for o in options]
        self.known = sorted((i for i, t in enumerate(self.texts) if t.strip()), key=lambda i: -len(self.texts[i]))
        numbered = bool(labels) and all(label.isdecimal() for label in labels)
        self.letters = {} if numbered else {c: i for i, c in enumerate(labels or ALPHABET[: len(options)])}
        self.digits = {int(label): i for i, label in enumerate(labels)} if numbered else {}
        if not numbered and len(options) > 2 and not any(c.isdigit() for o in options for c in o):
            self.digits = {i + 1: i for i in range(len(options))}
        kinds = ["yes" if P.yes.fullmatch(o) else "no" if P.no.fullmatch(o) else "" for o in self.shown]
        self.polar = (kinds.index("yes"), kinds.index("no")) if sorted(kinds) == ["no", "yes"] else None

    def letter(self, char: str) -> int | None:
        """Index of a letter, of another alphabet too where its order and its look agree."""
        if char in "Ее" and len(self.texts) > 5:  # Cyrillic Ie: sixth letter, or a Latin E?
            return None
        return self.letters.get(LOCAL.get(char.upper(), char.upper()))

    def exact(self, content: str) -> set[int]:
        """Options whose text is the whole content; by their signs where they hold no word."""
        norm, shown = _norm(content), content.strip()
        return {i for i, t in enumerate(self.texts) if (norm == t if t.strip() else shown == self.shown[i] != "")}

    def named(self, after: str) -> list[int]:
        """Options whose text opens ``after``."""
        rest = _norm(after)
        return [i for i in self.known if rest.startswith(self.texts[i])]

    def stands(self, char: str, after: str) -> bool:
        """Whether a letter before ``after`` can be an option's letter: no article, no pronoun, no part of a name."""
        if self.letter(char) in self.named(after):
            return True
        if P.trap_after.match(after) or re.match(r"\s*\?", after):
            return False
        if char.islower() or char == "I":
            return bool(P.ends.match(after))
        return char != "A" or bool(P.goes_on.match(after) or (not self.known and re.match(r"(?:\s+[A-Z][a-z]+)+\s*(?:$|[\n.,])", after)))

    def read(self, content: str) -> Parsed:
        """The content of one explicit mark."""
        content = P.asked.sub("", content.strip())
        exact, norm = self.exact(content), _norm(content)
        if exact:
            bare = P.bare.fullmatch(content)
            exact |= {self.letter(bare[1])} - {None} if bare else set()  # type: ignore[arg-type]
            return Parsed(exact.pop()) if len(exact) == 1 else Parsed(None, "ambiguous")
        if not norm.strip():
            return Parsed(None, "empty")
        if self.polar and (said := P.polar.match(content)):
            return self.yes_no(said, content)
        for i in self.named(content)[:1]:
            if len(self.texts[i]) > 4 and not P.bad_words.match(norm[len(self.texts[i]) - 1 :]):  # longer than two characters
                return self.text_leads(i, content, norm)
        if (m := P.immediate.match(content)) and (m[2] or self.stands(m[1], content[m.end() :])):
            return self.letter_leads(m[1] or m[2], content[m.end() :])
        if number := P.digit.match(content):
            found, counted = self.digits.get(int(number[1])), bool(self.letters) and content.endswith("}")  # JSON may count from nought
            if (number.end() == len(content) and not counted) or found in self.named(content[number.end() :]):
                return Parsed(found, None if found is not None else "out_of_range" if self.digits else "no_option")
        if P.refusal.search(content[:60]):
            return Parsed(None, "refused")
        clause = P.sentence.split(content)[0]
        by_letter, by_text = self.prose(clause, in_mark=True), self.by_text(clause)
        by_text = self.by_text(content) if by_text.reason == "negated" else by_text  # "not this one. It is that one."
        if by_letter.option is None and by_letter.reason != "ambiguous":
            return by_text if by_text.reason != "no_mark" else by_letter
        return by_letter if by_text.option in (None, by_letter.option) else Parsed(None, "ambiguous")

    def text_leads(self, index: int, content: str, norm: str) -> Parsed:
        """A mark that opens with an option's text: no other text joined to it, no other letter in brackets behind it."""
        rest = norm[len(self.texts[index]) - 1 :]
        others = [self.texts[j] for j in self.known if j != index]
        joined = bool(re.match(r" (?:or|and|oder|ou|y|et|und) ", rest)) and any(text in rest for text in others)
        joined = joined or any(rest.startswith(text) for text in others)
        letters = {self.letter(c) for c in re.findall(r"\(([A-Z])\)", content)} - {None, index}
        return Parsed(None, "ambiguous") if joined or letters else Parsed(index)

    def letter_leads(self, char: str, after: str) -> Parsed:
        """A letter right behind the cue: in range, joined to no other, not contradicted by the text behind it."""
        index, sentence = self.letter(char), P.sentence.split(after)[0]
        if index is None:
            return Parsed(None, "ambiguous" if char in "Вв" else "out_of_range")
        pair, named = P.join.match(after), self.named(after)
        if P.not_after.match(after) and index not in named and not P.comma.match(after):
            return Parsed(None, "negated")
        rival = (m for m in P.or_letter.finditer(sentence) if not P.not_before.search(sentence[max(0, m.start() - 60) : m.start()] + " or "))
        if any(self.letter(m[1]) not in (None, index) for m in rival) or (named and index not in named):
            return Parsed(None, "ambiguous")
        joined = pair and not named and char not in pair.groups() and not P.not_after.match(after[pair.end() :])
        return Parsed(None, "ambiguous") if joined else Parsed(index)

    def yes_no(self, said: re.Match[str], content: str) -> Parsed:
        """A leading yes or no, unless the opposite is joined to it or it is taken back."""
        assert self.polar is not None
        rest = content[said.end(said.lastindex or 0) :]
        other = re.search(r"\bno\b" if said[1] else r"\byes\b", rest, re.I)
        gap = rest[: other.start()] if other else "."
        if re.fullmatch(r"[ ,/|&?-]*|\W*(?:or|and)\W*", gap, re.I) or (other and P.turn.search(gap)) or P.bad_words.match(_norm(rest)):
            return Parsed(None, "ambiguous")
        return Parsed(self.polar[0 if said[1] else 1])

    def letters_in(self, text: str, in_mark: bool = False) -> Iterator[tuple[int, int, int]]:
        """(position, option, trust) of each letter in prose that is not negated and not part of a name."""
        labels = [(m.start(1), m[1]) for m in P.label.finditer(text)]
        listing = len({c for _, c in labels}) > 1
        leads = not listing or labels[1][1] <= labels[0][1]  # "B. So. A. Wrong" leads; "A. So. B. Or so" lists
        paired = -1
        for m in P.letter.finditer(text):
            index, after = self.letter(m[1]), text[m.end() : m.end() + 60]
            before = text[max(0, m.start() - 60) : m.start()]
            clause = before[cut.end() :] if (cut := P.cut.match(before)) else before
            start, pair, said = not re.search(r"\w", text[: m.start()]), P.join.match(after), P.says_after.match(after)
            name = P.trap_before.search(before) or P.trap_after.match(after) or re.match(r"\W{0,2}\?", after)
            denied = P.not_before.search(clause) or P.not_after.match(after) or P.others.search(clause)
            if index is None or name or denied or (not said and P.listed.match("\n" + text[m.start() : m.start() + 200])):
                continue
            named = self.named(after)
            owner = next((i for i in self.known if before.endswith("(") and _norm(before).endswith(self.texts[i])), index)
            if (pair and m[1] not in pair.groups() and index not in named) or m.start() < paired or owner != index:  # "Line (C)"
                paired = m.end() + pair.end() if pair else paired
                yield m.start(), index, JOINED
                continue
            stands = self.stands(m[1], after)
            word = m[1] == "I" or (m[1] == "A" and re.match(r"\s+\w", after) and not said)
            if P.hedged.search(before) or (word and not P.called.search(before) and not (start and stands)):
                continue
            if said or (stands and P.says_before.search(before)):
                yield m.start(), index, SAID
            elif listing and (m.start(), m[1]) in labels and not (start and leads):
                continue
            elif start and leads and stands and (P.goes_on.match(after) or re.match(r"\s+[A-Z][a-z]", after)):
                yield m.start(), index, JOINED if named and index not in named else LEADS
            elif P.mention.search(before) or P.progress.search(before[-8:] + "|" + after[:8]) or in_mark and P.ends.match(after):
                yield m.start(), index, MENTIONED

    def prose(self, text: str, in_mark: bool = False) -> Parsed:
        """A letter in free text. Of two different ones the last counts only after a word that turns to it."""
        found = list(self.letters_in(text, in_mark))
        for trust in (SAID, LEADS, MENTIONED):
            level = [f for f in found if f[2] == trust]
            if trust < SAID and any(f[2] == JOINED for f in found):
                return Parsed(None, "ambiguous")
            if not level:
                continue
            place, option, _ = level[-1]
            others = [f[0] for f in level if f[1] != option]
            if others and not (P.progress.search(text[others[-1] + 1 : place]) and (trust == SAID or len(text) < 80)):
                return Parsed(None, "ambiguous")
            return Parsed(None, "taken_back") if P.taken_back.match(text[place:]) else Parsed(option)
        return Parsed(None, "negated" if P.not_before.search(text[:60]) else "no_mark")

    def by_text(self, text: str) -> Parsed:
        """The one option whose text stands in ``text`` as whole words, not negated, in no question."""
        if self.polar:
            end = P.polar_end.search(text)
            return Parsed(self.polar[0 if end[1] else 1]) if end else Parsed(None, "no_mark")
        hits: set[int] = set()
        denied = joined = False
        for sentence in P.sentence.split(text):
            norm = _norm(sentence)
            for i in self.known:
                option, shown = self.texts[i], self.shown[i]  # texts as short as "no" or "12" have other uses; "CT" and "II" have not
                if len(option) < 5 and norm != option and not (shown.isupper() and len(shown) > 1 and shown in sentence):
                    continue
                while (at := norm.find(option)) >= 0:
                    before, after = P.but.split(norm[: at + 1])[-1], norm[at + len(option) - 1 :]
                    told = P.not_words.search(f" {before.strip()} ") or P.others.search(before)
                    no = sentence.endswith("?") or told or P.bad_words.match(after)
                    joined |= not no and (norm[: at + 1].endswith((" or ", " and ")) or after.startswith((" or ", " and ")))
                    denied, hits = denied or bool(no), hits if no else hits | {i}
                    norm = norm[:at] + " #" + after
        if len(hits) == 1 and not joined and not P.taken_back.search(text):
            return Parsed(hits.pop())
        return Parsed(None, "ambiguous" if hits else "negated" if denied else "no_mark")

    def marks(self, text: str) -> list[tuple[int, str, float]]:
        """(start of the content, content, trust) of every explicit mark in order; trust 2 firm, 1 soft, 0 only if it names."""
        found: list[tuple[int, str, float]] = []
        for pattern in (P.tag, P.boxed, P.bare, P.closing):
            found += [(m.start(m.lastindex), m[m.lastindex], 2.0) for m in pattern.finditer(text)]
        for pattern, trust in ((P.colon, 2.0), (P.is_, 1.0), (P.foreign, 0.5)):
            for m in pattern.finditer(text):
                line = P.line.match(text, m.end())[0]
                before = text[max(0, m.start() - 60) : m.start()]
                if not (P.conditional.search(before[-30:]) or P.others.search(before) or P.listed.match(text, m.end())):
                    weak = "diagnos" in m[0].lower() or (trust < 2 and not line.strip())
                    found.append((m.end(), line, 0.0 if weak else trust))
        last = text.rsplit("\n", 1)[-1]
        if self.exact(last) or (self.polar and re.fullmatch(r"[\W_]*(?:yes|no)[\W_]*", last, re.I)):
            found.append((len(text) - len(last), last, 2.0))
        return sorted(found)

    def lenient(self, response: str) -> Parsed:
        """The answer in a free text, by the order of trust that the package names."""
        text = _after_reasoning(fold(response))
        if text is None:
            return Parsed(None, "unclosed_think")
        text = P.alone.sub(r"\1 is correct", P.dress.sub(" ", P.latex.sub(r"\1", text)))
        text = P.letters_only.sub(lambda m: m[0] if len(set(re.findall(r"\b(?:[a-z]|yes|no)\b", m[0].casefold()))) == 1 else "\n", text).strip()
        short = len(text) < 12 and ((self.digits and P.digit.match(text)) or ((m := P.immediate.match(text)) and m[2]))
        if short or not text or self.exact(text):
            return self.read(text)
        marks = self.marks(text)
        for begin, content, trust in reversed(marks[-20:]):
            parsed = self.read(content)
            if parsed.option is not None:
                return self.unless_revised(parsed.option, text[begin:])
            brief = len(content.split()) <= 3 * trust and not P.hollow.search(content)
            other = trust >= 1 and brief and parsed.reason == "no_mark"
            if trust and (parsed.reason in FINAL or other):
                return Parsed(None, "no_option" if other else parsed.reason)
        firm = [begin for begin, _, trust in marks if trust >= 1]
        tail = text[max(firm, default=0) :]
        if self.polar and (said := P.polar.match(answer := P.asked.sub("", tail))):
            return self.yes_no(said, answer)
        parsed = self.prose(tail)
        if parsed.option is None and (no := P.refusal.search(tail)) and not any(_norm(no[0]) in t for t in self.texts):
            return Parsed(None, "refused")
        return parsed if parsed.option is not None or parsed.reason == "ambiguous" or firm else self.by_text(text)

    def unless_revised(self, option: int, rest: str) -> Parsed:
        """A later assertion of another letter takes the mark back ("Answer: A. Wait, it is B"), or makes it doubtful."""
        later = [f for f in self.letters_in(rest) if f[2] == SAID]
        back = P.taken_back.match(rest)
        if not later or later[-1][1] == option:
            return Parsed(None, "taken_back") if back else Parsed(option)
        return Parsed(later[-1][1]) if back or P.turn.search(rest[: later[-1][0]]) else Parsed(None, "ambiguous")
