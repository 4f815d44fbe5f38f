"""The words by which people and programs write yes and no into tables."""

import math
import re
import unicodedata


def _plain(cell: str) -> str:
    """Lower case, without accents, invisible characters, brackets and quotes; N/A as "na"."""
    text = unicodedata.normalize("NFKD", cell.replace("ł", "l").replace("Ł", "l").replace("ı", "i"))
    text = "".join(c for c in text if not unicodedata.combining(c) and not _is_invisible(c))
    text = unicodedata.normalize("NFC", text.casefold()).strip()
    text = text.strip("()[]{}<>\"'`#!.;=").strip()
    short = re.sub(r"[/.\s]", "", text)
    return short if short in ("na", "nd", "nv") else text


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in ("Cf", "Cc") or character == "\ufe0f"


def _words(text: str) -> frozenset[str]:
    return frozenset(map(_plain, text.split()))


# What a phrase may begin with, too: "kein Bart".
_NEGATIONS = _words(
    "no not none without nothing nein nicht nichts kein keine keiner keinen keins ohne non pas "
    "sans aucun aucune não nao nunca sin sem ningún ninguno ninguna nenhum nenhuma nada senza "
    "nessun nessuno nessuna niente nee niet geen zonder nej inte ingen inget inga ikke ikkje nei "
    "uden utan uten ei ilman nie bez brak ne není žádný žádná žádné nema nem nincs nincsen nu fără "
    "nici hayır yok değil tidak bukan tanpa không nuk nē όχι δεν χωρίς нет не без ні нема нету "
    "немає няма отсутствует لا ليس بدون לא אין בלי नहीं नही ไม่ ไม่มี 아니요 아니오 아니 없음 없다 "
    "nope nah nahi nahin yox yoxdur xeyr ez nav nėra pole níl ingin hapana wala жоқ үгүй ոչ არა نه "
    "ללא خیر ندارد نہیں না இல்லை"
)
_NO = _NEGATIONS | _words(
    "n f false off absent missing null nil void negative unchecked nan na nat nd nv "
    "disabled inactive undefined pd.na leer vide vacío vazio vuoto leeg tomt boş üres пусто 空白 "
    "absente ausente assente fehlt いいえ なし 無し ない 無 无 否 不 不是 没 沒 没有 沒有 "
    # FALSE, as spreadsheets write it
    "falsch faux falso onwaar falskt falsk usann fałsz falszywe nepravda hamis yanlış epätosi fals "
    "netiesa ψευδής ложь неправда лъжа хибність хиба 假 偽 거짓 aplams väär laž neistina netočno "
    "netačno нетачно ósatt sai salah palsu gezurra เท็จ ผิด असत्य गलत שקר خطأ ✗ ✘ ✖ ✕ ❌ ☐ ⬜ ∅ 👎"
)
_YES = _words(
    "yes y true t on present x ja j oui si sí s sim da tak ano igen evet iya ya kyllä joo áno "
    "wahr vrai vero verdadero verdadeiro waar sant sand prawda pravda igaz doğru tosi adevărat "
    "tiesa да так ναι αληθής истина правда істина نعم כן हाँ हां ใช่ 是 有 "
    "对 對 真 はい あり 예 네 있음 참 yep yeah yup jah taip bəli có đúng benar õige "
    "visible enabled тачно אמת صحيح จริง सत्य ✓ ✔ ✅ ☑ 👍 +"
)
_UNSURE = _words(
    "maybe jo nai vale unknown unclear unsure perhaps partly tbd todo unsicher unklar unbekannt "
    "vielleicht bald hairless beardless hatless shaved shaven clean kahl glatze rasiert "
    "chauve rasé inconnu desconocido sconosciuto desconhecido onbekend неизвестно 不明 未知"
)
# Chinese and Japanese have no spaces: a phrase that says no begins or ends with these.
_NEGATED = re.compile(r"^(没|沒|无|無|不)|(なし|無し|ない|ません)$")
# Signs that stand for nothing: dashes, dots, slashes.
_BLANK = frozenset("-‐‑‒–—―−_.·…/\\|,;:'\"`~*()[]{}<> ")


def parse(cell: str) -> bool | None:
    """True and False for what says yes and no, None for what says neither, such as "balding".

    An empty cell and marks of missing values (nan, N/A, null, a dash) say no; so do 0, 0.0 and -1,
    other whole numbers say yes. Upper case, accents and brackets do not matter.

    Raises:
      ValueError: it may mean either: a question mark, a share such as 0.5, an error of the
        spreadsheet, "unknown", "bald", a single letter, or a phrase that begins so ("not visible").
    """
    text = _plain(cell)
    if text in _NO or (set(text) <= _BLANK and "#" not in cell):
        return False
    if text in _YES:
        return True
    number = _number(text)
    if number is not None:
        if not math.isfinite(number) or not number.is_integer() or number < -1:
            raise ValueError("may mean either")
        return number > 0
    first = re.split(r"[\W_]+", text)[0]
    if (
        text in _UNSURE
        or cell.lstrip().startswith("#")
        or "?" in text
        or len(text) == 1
        or not any(map(str.isalnum, text))
        or first in _NEGATIONS | _UNSURE
        or text.startswith("n/a")
        or _NEGATED.search(text)
    ):
        raise ValueError("may mean either")
    return None


def _number(text: str) -> float | None:
    percent = text.endswith("%")
    try:
        number = float(text.removesuffix("%").strip().replace(",", "."))
    except ValueError:
        return None
    return number / 100 if percent else number
