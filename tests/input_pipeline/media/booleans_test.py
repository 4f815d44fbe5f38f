"""Yes and no as people and spreadsheets write them; what may be either is refused."""

import pytest

from input_pipeline.media import booleans


@pytest.mark.parametrize(
    "cell",
    ["", " ", "\xa0", "no", "No", "NO.", "(no)", "n", "0", "0.0", "0,0", "0%", "-1", "false",
     "None", "nan", "NaN", "N/A", "n.a.", "#N/A", "#NV", "<NA>", "NULL", "-", "--", "—", ".",
     "off", "absent", "nein", "Non", "não", "NÃO", "NAO", "нет", "НЕТ", "hayır", "HAYIR", "nej",
     "nie", "không", "いいえ", "なし", "无", "沒有", "아니요", "لا", "לא", "όχι", "FALSCH",
     "FAUX", "FAŁSZ", "ONWAAR", "ЛОЖЬ", "FALSO", "✗", "✖\ufe0f", "❌", "☐", "nope",
     "false;", "=FALSE()", "disabled", "yox", "väär", "laž", "sai", "เท็จ", "שקר", "خطأ"],
)  # fmt: skip
def test_no(cell):
    assert booleans.parse(cell) is False


@pytest.mark.parametrize(
    "cell",
    ["yes", "Y", "1", "1.0", "1,0", "100%", "2", "TRUE", "x", "X", "✓", "✔\ufe0f", "ja", "WAHR",
     "oui", "sí", "да", "はい", "VRAI", "evet"],
)  # fmt: skip
def test_yes(cell):
    assert booleans.parse(cell) is True


@pytest.mark.parametrize("cell", ["balding", "tied back", "noble", "offset", "nose ring", "lockig"])
def test_descriptions_say_neither(cell):
    assert booleans.parse(cell) is None


@pytest.mark.parametrize(
    "cell",
    ["?", "yes?", "0.5", "50%", "-2", "inf", "unknown", "no glasses", "not-visible",
     "kein Bart", "sans lunettes", "没有眼镜", "眼鏡なし", "#REF!", "#DIV/0!", "q",
     "N/A (cut off)", "bald", "clean-shaven"],
)  # fmt: skip
def test_what_may_mean_either_is_refused(cell):
    with pytest.raises(ValueError):
        booleans.parse(cell)
